//! Instances of a service, and which of them there are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_policy::{InvalidConfig, Time};

use super::{State, Upstream};
use crate::random::agreed_hash;

/// One instance.
#[derive(Debug)]
pub struct Instance {
    /// Its address.
    pub address: SocketAddr,
    /// The same as text.
    pub name: String,
    /// Where each core keeps its connections to it, and its figures.
    pub slot: usize,
}

/// An instance with what operators have said of it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Its weight as last configured.
    configured: f64,
    /// Its weight now.
    pub weight: f64,
    /// Whether it gets no new requests.
    pub draining: bool,
}

/// An address that was found, with its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The address.
    pub address: SocketAddr,
    /// Its weight beside the others.
    pub weight: f64,
}

/// Numbers for addresses, the same for all targets: they share connections and figures.
#[derive(Debug, Default)]
pub struct Slots(Mutex<Vec<SocketAddr>>);

impl Slots {
    /// Most addresses that have figures of their own; those found later share the last slot's, and keep no
    /// connections.
    pub const MOST: usize = 4096;

    /// The number of an address. Numbers are not given up: an instance that comes back has its old one.
    pub fn of(&self, address: SocketAddr) -> usize {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().position(|other| *other == address);
        found.unwrap_or_else(|| {
            known.push(address);
            known.len() - 1
        })
    }

    /// All addresses that have a number, in order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Upstream {
    /// The instances are these from now on. Those that stay keep their state, also if `first` is not set
    /// and they are listed in another order. How many came and went.
    pub fn set_instances(
        &self,
        found: &[Found],
        slots: &Slots,
        now: Time,
        first: bool,
    ) -> Result<(usize, usize), InvalidConfig> {
        let mut state = self.lock();
        let state = &mut *state;
        let mut gone = 0;
        for i in 0..state.instances.len() {
            let Some(member) = &state.instances[i] else { continue };
            if !found.iter().any(|found| found.address == member.instance.address) {
                state.instances[i] = None;
                state.balancer.remove(i);
                let transitions = state.members.remove(now, i).to_vec();
                state.apply(&transitions);
                gone += 1;
            }
        }
        let mut came = 0;
        for (position, found) in found.iter().enumerate() {
            let weight =
                found.weight * state.weights.get(position % state.weights.len().max(1)).copied().unwrap_or(1.0);
            let known = state.position(found.address);
            let i = match known {
                Some(i) => i,
                None => {
                    came += 1;
                    state.add(found, slots, now, first)?
                }
            };
            let Some(member) = &mut state.instances[i] else { continue };
            if known.is_none() || member.configured != weight {
                member.configured = weight;
                member.weight = weight;
                state.balancer.set_weight(i, weight)?;
            }
        }
        if came > 0 {
            state.all_look_again();
        }
        Ok((came, gone))
    }
}

impl State {
    /// The index of an address.
    pub fn position(&self, address: SocketAddr) -> Option<usize> {
        self.instances.iter().position(|member| member.as_ref().is_some_and(|m| m.instance.address == address))
    }

    fn add(&mut self, found: &Found, slots: &Slots, now: Time, first: bool) -> Result<usize, InvalidConfig> {
        let name = found.address.to_string();
        let i = self.balancer.add_with_id(now, agreed_hash(name.as_bytes()));
        let transitions = self.members.add(now, i, true)?.to_vec();
        self.apply(&transitions);
        if first {
            // Those that are there at the start have been at work already: they need no slow start.
            self.balancer.set_slow_start(i, 1.0);
            self.members.skip_slow_start(i);
        }
        let instance = Instance { address: found.address, name, slot: slots.of(found.address) };
        let member = Member { instance: Arc::new(instance), configured: 1.0, weight: 1.0, draining: false };
        if self.instances.len() <= i {
            self.instances.resize_with(i + 1, || None);
        }
        self.instances[i] = Some(member);
        Ok(i)
    }

    /// Gives an instance another weight, until the configuration gives it one.
    pub fn set_weight(&mut self, i: usize, weight: f64) -> Result<(), InvalidConfig> {
        self.balancer.set_weight(i, weight)?;
        if let Some(Some(member)) = self.instances.get_mut(i) {
            member.weight = weight;
        }
        Ok(())
    }

    /// Keeps new requests away from an instance, or lets them come again.
    pub fn set_draining(&mut self, i: usize, draining: bool) {
        if let Some(Some(member)) = self.instances.get_mut(i) {
            member.draining = draining;
            let transitions = self.members.set_draining(i, draining).to_vec();
            self.apply(&transitions);
        }
    }
}
