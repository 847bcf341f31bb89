//! Processes that come and go while a run goes on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use plimsoll_model::draw::duration;
use plimsoll_model::run::EventKind;
use plimsoll_model::system::Version;

use super::Lab;
use crate::control::Order;
use crate::emulated::Role;
use crate::stack::{Part, is_elsewhere};
use crate::tally::Of;

/// Places of instances that are taken for a process that is not there yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Rc<RefCell<BTreeSet<(u32, u32)>>>);

/// An instance's place that nobody else may take, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Claim {
    places: Places,
    service: u32,
    /// The instance, from 0.
    pub(crate) instance: u32,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.places.0.borrow_mut().remove(&(self.service, self.instance));
    }
}

impl Lab {
    /// Takes places of a service in which there is no instance, at most so many.
    pub(crate) fn claim(&self, service: u32, most: usize) -> Vec<Claim> {
        let slots = self.stack.layout.services[service as usize].len() as u32;
        let members = self.stack.members(service);
        let free = |instance: &u32| {
            let part = Part::Instance(service, *instance);
            let away = self.stack.has_left(part) && self.stack.is_gone(part) && !members.contains(instance);
            away && !self.is_claimed(service, *instance)
        };
        let free: Vec<u32> = (0..slots).filter(free).take(most).collect();
        free.into_iter().map(|instance| self.hold(service, instance)).collect()
    }

    /// Keeps an instance's place for the process that follows it there.
    pub(crate) fn hold(&self, service: u32, instance: u32) -> Claim {
        self.places.0.borrow_mut().insert((service, instance));
        Claim { places: self.places.clone(), service, instance }
    }

    /// Whether a place is taken for a process that is not there yet.
    pub(super) fn is_claimed(&self, service: u32, instance: u32) -> bool {
        self.places.0.borrow().contains(&(service, instance))
    }

    /// The instances of a service that run or are about to.
    pub(crate) fn wanted(&self, service: u32) -> Vec<u32> {
        let slots = self.stack.layout.services[service as usize].len() as u32;
        let wanted = |instance: &u32| {
            let part = Part::Instance(service, *instance);
            !self.stack.has_left(part) || self.is_claimed(service, *instance) && self.stack.is_gone(part)
        };
        (0..slots).filter(wanted).collect()
    }

    /// How many instances of a service there are.
    pub(super) fn instances_of(&self, service: u32) -> u32 {
        match is_elsewhere(&self.stack.system.services[service as usize]) {
            true => self.stack.members(service).len() as u32,
            false => self.wanted(service).len() as u32,
        }
    }

    /// Starts a process in an instance's place, of a version other than the file's if there is one.
    pub(crate) async fn start_version(
        self: &Rc<Self>,
        service: u32,
        instance: u32,
        version: Option<&Version>,
    ) -> Result<(), String> {
        let of = &self.stack.system.services[service as usize];
        let startup = version.and_then(|version| version.startup.as_ref()).unwrap_or(&of.startup);
        let takes = duration(startup, self.draw(u64::from(service) << 32 | u64::from(instance)));
        self.start_instance(service, instance, takes, version.map(|version| (version.slow, version.errors))).await
    }

    /// Stops an instance the graceful way: callers stop calling, what it has ends. What does not serve yet just ends.
    pub(crate) async fn drain_instance(&self, service: u32, instance: u32) -> Result<(), String> {
        let part = Part::Instance(service, instance);
        let of = &self.stack.system.services[service as usize];
        self.stack.leaves(part);
        self.register(service, instance, false).await?;
        if self.stack.is_up(part) && self.stack.state(part).await.is_none_or(|state| state.ready) {
            // Gateways look into their file a few times a second. Who does not wait for requests does not wait for them.
            tokio::time::sleep(Duration::from_nanos(of.drain.min(100_000_000))).await;
            self.stack.order(part, &Order::Drain).await?;
            let until = self.now() + of.drain + 1_000_000_000;
            while !self.stack.is_gone(part) && self.now() < until && !self.is_over() {
                self.collect(part).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        self.stack.end(part).await;
        Ok(())
    }

    /// Starts an instance's process.
    pub(crate) async fn start_instance(
        self: &Rc<Self>,
        service: u32,
        instance: u32,
        startup: u64,
        version: Option<(f64, f64)>,
    ) -> Result<(), String> {
        let of = Of::Instance(service, instance);
        let so_far = self.parts.borrow().so_far(of);
        self.before.borrow_mut().insert(of, so_far);
        let part = Part::Instance(service, instance);
        self.stack.begin(part, self.stack.role(part, startup, version)).await.map_err(|error| error.to_string())?;
        self.look_after(part);
        self.follow(part);
        Ok(())
    }

    /// A part's process starts anew.
    pub(crate) async fn boot(self: &Rc<Self>, part: Part, version: Option<(f64, f64)>) -> Result<(), String> {
        match part {
            Part::Instance(service, instance) => {
                let of = &self.stack.system.services[service as usize];
                let startup = duration(&of.startup, self.draw(u64::from(service) << 32 | u64::from(instance)));
                self.start_instance(service, instance, startup, version).await
            }
            Part::Node(..) if self.stack.real(part).is_some() => {
                self.boot_store(part);
                Ok(())
            }
            _ => {
                self.stack.begin(part, self.stack.role(part, 0, None)).await.map_err(|error| error.to_string())?;
                self.follow(part);
                Ok(())
            }
        }
    }

    /// A real store's server starts, which may take a second or more: nothing waits for it.
    pub(crate) fn boot_store(self: &Rc<Self>, part: Part) {
        let Some(stores) = self.stack.real(part) else { return };
        let lab = self.clone();
        tokio::task::spawn_local(async move {
            let started = stores.boot(part).await.and_then(|()| lab.stack.answers_at_proxies(part, true));
            match started {
                Ok(()) => lab.happened(EventKind::InstanceUp, lab.stack.name(part), "ready"),
                Err(_) if lab.is_over() => {}
                Err(why) => lab.warn(format!("{} does not start again: {why}", lab.stack.name(part))),
            }
        });
    }

    /// Tells a new process, once it is there, what others know already.
    fn follow(self: &Rc<Self>, part: Part) {
        let lab = self.clone();
        tokio::task::spawn_local(async move {
            let mut told = false;
            while !lab.is_over() && !lab.stack.is_gone(part) {
                let Some(state) = lab.stack.state(part).await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                if !told {
                    lab.tell(part).await;
                    told = true;
                }
                if state.ready {
                    if let Err(why) = lab.stack.answers_at_proxies(part, true) {
                        lab.warn(why);
                    }
                    return lab.happened(EventKind::InstanceUp, lab.stack.name(part), "ready");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    async fn tell(&self, part: Part) {
        let slow = self.slowness(part);
        if self.stack.is_own(part) {
            return;
        }
        if slow != (1.0, 0) && !self.stack.is_gateway(part) {
            let _ = self.stack.order(part, &Order::Slow(slow.0, slow.1)).await;
        }
        match part {
            Part::Instance(..) if !self.stack.is_gateway(part) => {
                let promoted: Vec<u32> = self.kept.borrow().keys().map(|(store, _)| *store).collect();
                for store in promoted {
                    let _ = self.stack.order(part, &self.primaries_order(store)).await;
                }
                self.tell_slow_stores(part).await;
                self.stack.tell_members(part).await;
                self.tell_skew(part).await;
            }
            Part::Node(store, _) => {
                if self.lag(store) > 0 {
                    let _ = self.stack.order(part, &Order::Lag(self.lag(store))).await;
                }
                self.tell_exhausted(part).await;
            }
            _ => {}
        }
    }

    /// Tells callers that an instance is there, or is not.
    pub(crate) async fn register(&self, service: u32, instance: u32, there: bool) -> Result<(), String> {
        let mut members = self.stack.members(service);
        members.retain(|other| *other != instance);
        if there {
            // First of all: who hears of it calls at once.
            self.stack.answers_at_proxies(Part::Instance(service, instance), true)?;
            members.push(instance);
        }
        self.stack.set_members(service, members).await.map_err(|error| error.to_string())?;
        let members = self.stack.members(service);
        self.load.borrow().set_members(&self.stack.system, &self.stack.layout, service, &members);
        Ok(())
    }

    /// Processes that ended by themselves start again.
    pub(super) async fn restart_lost(self: &Rc<Self>) {
        for (part, role, how) in self.stack.lost() {
            let name = self.stack.name(part);
            self.happened(EventKind::InstanceDown, &*name, format!("the process ended by itself: {how}"));
            self.warn(format!("{name} ended by itself: {how}"));
            let _ = self.stack.answers_at_proxies(part, false);
            let version = match role {
                Role::Service { version, .. } => version,
                _ => None,
            };
            if let Err(why) = self.boot(part, version).await {
                self.warn(format!("{name} does not start again: {why}"));
                self.stack.leaves(part);
            }
        }
    }
}
