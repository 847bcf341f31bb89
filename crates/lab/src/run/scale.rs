//! Autoscalers: how busy a service's instances are, and how many of them there are to be (`autoscale`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Autoscale, Service};
use plimsoll_policy::autoscale::{Decision, Seen};
use plimsoll_policy::{Autoscaler, Time};
use tokio::task::AbortHandle;

use super::{Claim, Lab};
use crate::emulated::service::SERVING;
use crate::stack::Part;
use crate::tally::Of;

/// What instances did so far, value times ns: serving, busy cores, held workers.
type Areas = [f64; 3];

/// One service's autoscaler.
struct Scaler {
    lab: Rc<Lab>,
    service: u32,
    scale: Autoscale,
    policy: RefCell<Autoscaler>,
    /// By instance: what it had done at the last decision.
    taken: RefCell<BTreeMap<u32, Areas>>,
    /// Instances that have been asked for and whose processes do not start yet.
    asked: RefCell<BTreeMap<u32, AbortHandle>>,
}

impl Lab {
    /// Autoscalers decide from now on, until the load is over.
    pub(super) fn start_autoscalers(self: &Rc<Self>) {
        for (service, of) in (0..).zip(&self.stack.system.services) {
            let Some(scale) = of.autoscale else { continue };
            let policy = match Autoscaler::new(scale.policy(), Time::ZERO) {
                Ok(policy) => RefCell::new(policy),
                Err(why) => {
                    self.warn(format!("{} is not scaled: {why}", of.name));
                    continue;
                }
            };
            let (taken, asked) = Default::default();
            let scaler = Rc::new(Scaler { lab: self.clone(), service, scale, policy, taken, asked });
            tokio::task::spawn_local(async move { scaler.steer().await });
        }
    }
}

impl Scaler {
    fn spec(&self) -> &Service {
        &self.lab.stack.system.services[self.service as usize]
    }

    async fn steer(self: Rc<Self>) {
        let end = self.lab.parts.borrow().cuts.ends.last().copied().unwrap_or(0);
        let mut next = self.scale.every;
        while next < end {
            self.lab.until(next).await;
            if self.lab.is_over() {
                return;
            }
            self.decide().await;
            while next <= self.lab.now() {
                next += self.scale.every;
            }
        }
    }

    async fn decide(self: &Rc<Self>) {
        let (serving, utilization) = self.utilization().await;
        let lab = &self.lab;
        if lab.is_over() {
            return;
        }
        let wanted = lab.wanted(self.service);
        let before = wanted.len() as u32;
        let seen = Seen { serving, wanted: before, utilization, deploying: lab.is_deploying(self.service) };
        let now = Time::from_nanos(lab.now());
        let decision = self.policy.borrow().decide(now, &seen);
        let (kind, after) = match decision {
            Decision::Keep => return,
            Decision::Grow(more) => (EventKind::ScaleUp, before + self.grow(more)),
            Decision::Shrink(fewer) => {
                // Those with the highest numbers.
                wanted.iter().rev().take(fewer as usize).for_each(|instance| self.retire(*instance));
                (EventKind::ScaleDown, before - fewer)
            }
        };
        if after != before {
            self.policy.borrow_mut().changed(now);
            let text = format!("{before} to {after} instances, at {:.0}% utilization", utilization * 100.0);
            lab.happened(kind, &*self.spec().name, text);
        }
    }

    /// The instances that serve, and the busy share of what limits them since the last decision: cores, or workers where
    /// a worker is held. Not a number where none of them says.
    async fn utilization(&self) -> (u32, f64) {
        let (lab, service) = (&self.lab, self.service);
        let slots = lab.stack.layout.services[service as usize].len() as u32;
        let asked: Vec<_> = (0..slots)
            .map(|instance| {
                let lab = lab.clone();
                tokio::task::spawn_local(async move { lab.serves(service, instance).await })
            })
            .collect();
        let mut up = 0;
        let mut sum: Areas = [0.0; 3];
        for (instance, serves) in (0..).zip(asked) {
            let serves = serves.await.unwrap_or(false);
            let of = Of::Instance(service, instance);
            let now = [SERVING, "cores", "workers"].map(|level| lab.parts.borrow().area(of, level));
            // Taken from all of them, so that no old work counts once an instance serves again.
            let before = self.taken.borrow_mut().insert(instance, now).unwrap_or_default();
            if serves {
                up += 1;
                (0..3).for_each(|at| sum[at] += now[at] - before[at]);
            }
        }
        let [time, cores, workers] = sum;
        let of = self.spec();
        let share = |area: f64, each: u32| if time > 0.0 { area / (time * f64::from(each.max(1))) } else { f64::NAN };
        let cores = share(cores, of.cores);
        (up, if of.asynchronous { cores } else { cores.max(share(workers, of.workers)) })
    }

    /// Asks for so many more instances: their processes start after the delay. As many as there is room for.
    fn grow(self: &Rc<Self>, more: u32) -> u32 {
        let claims = self.lab.claim(self.service, more as usize);
        let (count, at) = (claims.len() as u32, self.lab.now().saturating_add(self.scale.delay));
        for claim in claims {
            let (scaler, instance) = (self.clone(), claim.instance);
            let arrives = tokio::task::spawn_local(async move {
                scaler.lab.until(at).await;
                scaler.asked.borrow_mut().remove(&instance);
                if let Err(why) = scaler.arrive(claim).await {
                    let name = scaler.lab.stack.name(Part::Instance(scaler.service, instance));
                    scaler.lab.warn(format!("{name} did not start: {why}"));
                }
            });
            self.asked.borrow_mut().insert(instance, arrives.abort_handle());
        }
        count
    }

    /// Starts an instance's process; callers hear of it once it is ready.
    async fn arrive(&self, claim: Claim) -> Result<(), String> {
        let (lab, service, instance) = (&self.lab, self.service, claim.instance);
        if lab.is_over() {
            return Ok(());
        }
        let version = lab.current_version(service);
        lab.start_version(service, instance, version.as_ref()).await?;
        drop(claim);
        let part = Part::Instance(service, instance);
        // It may be killed and start again, or be drained, before it is ready.
        while !lab.is_over() && !lab.stack.has_left(part) {
            let ready = lab.stack.state(part).await.is_some_and(|state| state.ready);
            if ready && !lab.stack.has_left(part) {
                return lab.register(service, instance, true).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// One that serves drains, one that does not is gone at once.
    fn retire(self: &Rc<Self>, instance: u32) {
        if let Some(arrives) = self.asked.borrow_mut().remove(&instance) {
            return arrives.abort();
        }
        let (lab, service) = (self.lab.clone(), self.service);
        lab.stack.leaves(Part::Instance(service, instance));
        tokio::task::spawn_local(async move {
            // A process that is being started has no way back.
            while lab.is_claimed(service, instance) && !lab.is_over() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let Err(why) = lab.drain_instance(service, instance).await
                && !lab.is_over()
            {
                lab.warn(format!("{} did not drain: {why}", lab.stack.name(Part::Instance(service, instance))));
                lab.stack.end(Part::Instance(service, instance)).await;
            }
        });
    }
}

impl Lab {
    /// Whether an instance serves. What it has done by now is taken in.
    async fn serves(&self, service: u32, instance: u32) -> bool {
        let part = Part::Instance(service, instance);
        if self.stack.is_gone(part) {
            return false;
        }
        let known = self.stack.members(service).contains(&instance) && !self.stack.has_left(part);
        if !self.stack.is_up(part) {
            // It stands still, and does not say.
            return known;
        }
        self.collect(part).await;
        let ready = self.stack.state(part).await.map_or(known, |state| state.ready);
        ready && !self.stack.has_left(part)
    }
}
