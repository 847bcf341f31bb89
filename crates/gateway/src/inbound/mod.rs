//! Policies on what the gateway gets, in the order in which the simulation has them: degradation level,
//! idempotency key, quota, adaptive limit, bulkhead, and at last a seat: how many requests it holds, and how many more wait
//! by priority class.
//!
//! Nothing here waits or reads a clock on a request's way: [`Inbound::arrive`] and the steps of [`Held`] take
//! the time and say what is next. `exchange::admission` does the waiting.

mod held;
mod seats;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_policy::bulkhead::{self, Bulkhead, Granted, Ticket};
use plimsoll_policy::rate_limit::{Config as Quota, RateLimit, Scope, StoreAnswer};
use plimsoll_policy::{AdaptiveLimit, Counts, Degradation, InvalidConfig, Outcome, Reason, Rejected, ShedQueue, Time};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::plan::Plan;
use crate::redis::{Limiter, SharedQuota};
pub use held::{Held, Next, Woken};

/// Parts of a quota's table, so that cores rarely wait for each other.
const STRIPES: usize = 16;

/// Policies on what the gateway gets.
#[derive(Debug)]
pub struct Inbound {
    /// Requests that are held, those that wait for a seat aside.
    held: AtomicU32,
    /// Whether there is a queue for seats, so that whoever leaves must look into it.
    queues: AtomicBool,
    seats: Mutex<ShedQueue<oneshot::Sender<Result<(), Reason>>>>,
    clock: Clock,
    max_in_flight: AtomicU32,
    quota: Mutex<Option<Quota>>,
    /// By a key's hash; the first alone if all share one quota.
    stripes: [Mutex<Option<RateLimit>>; STRIPES],
    state: Mutex<State>,
    /// The quota's counts, where they are in a store.
    shared: Mutex<Option<Arc<Limiter>>>,
}

#[derive(Debug, Default)]
struct State {
    limit: Option<AdaptiveLimit>,
    bulkheads: Vec<(String, Bulkhead)>,
    ladder: Option<Degradation>,
    waiters: Vec<(usize, Ticket, oneshot::Sender<Granted>)>,
}

/// What is asked for a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The route.
    pub route: u32,
    /// Whose quota it counts against.
    pub quota_key: u64,
    /// The bulkhead of its group.
    pub bulkhead: Option<usize>,
    /// Whether it has an idempotency key that is to be looked up.
    pub remembered: bool,
    /// Whether the quota is in a store.
    pub shared_quota: bool,
    /// Whether limit, bulkheads or ladder have a say.
    pub guarded: bool,
    /// Its priority class; 0 is the most important.
    pub class: u8,
    /// Until when it may wait.
    pub deadline: Time,
}

impl Inbound {
    /// The policies of a plan, with no history.
    pub fn new(plan: &Plan, shared: Option<SharedQuota>, clock: Clock, now: Time) -> Result<Inbound, InvalidConfig> {
        let inbound = Inbound {
            held: AtomicU32::new(0),
            queues: AtomicBool::new(false),
            seats: Mutex::new(ShedQueue::new(plan.queue)?),
            clock,
            max_in_flight: AtomicU32::new(plan.max_in_flight),
            quota: Mutex::new(None),
            stripes: [const { Mutex::new(None) }; STRIPES],
            state: Mutex::default(),
            shared: Mutex::new(None),
        };
        inbound.reconfigure(plan, shared, now)?;
        Ok(inbound)
    }

    /// New settings; what each policy knows is kept.
    pub fn reconfigure(&self, plan: &Plan, quota_kept: Option<SharedQuota>, now: Time) -> Result<(), InvalidConfig> {
        self.max_in_flight.store(plan.max_in_flight, Ordering::SeqCst);
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).set_config(plan.queue)?;
        // Whoever waits when the queue is taken away has to be found all the same.
        self.queues.fetch_or(plan.queue.capacity > 0, Ordering::SeqCst);
        let quota = plan.rate_limit.as_ref().map(|limit| limit.config);
        for (at, stripe) in self.stripes.iter().enumerate() {
            let quota = quota.and_then(|quota| part(quota, at));
            let mut stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *stripe, quota) {
                (Some(limit), Some(quota)) => limit.set_config(quota, now)?,
                (limit, quota) => *limit = quota.map(|quota| RateLimit::new(quota, now)).transpose()?,
            }
        }
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = quota;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.as_ref().map(|limiter| &*limiter.quota) != quota_kept.as_ref() {
            let limiter = quota_kept.map(|quota| Limiter::new(quota, now)).transpose()?;
            *shared = limiter.map(Arc::new);
        }
        drop(shared);
        let mut state = self.lock();
        match (&mut state.limit, plan.limit) {
            (Some(limit), Some(config)) => limit.set_config(config, now)?,
            (limit, config) => *limit = config.map(|config| AdaptiveLimit::new(config, now)).transpose()?,
        }
        for (at, group) in plan.bulkheads.iter().enumerate() {
            // Permits name a position: groups are taken over by it, and by their name.
            match state.bulkheads.get_mut(at) {
                Some((name, bulkhead)) if *name == group.name => bulkhead.set_config(group.config, now)?,
                Some(slot) => *slot = (group.name.clone(), Bulkhead::new(group.config, now)?),
                None => {
                    let bulkhead = Bulkhead::new(group.config, now)?;
                    state.bulkheads.push((group.name.clone(), bulkhead));
                }
            }
            while let Some(granted) = state.bulkheads[at].1.grant(now) {
                state.grant(at, granted);
            }
        }
        match (&mut state.ladder, &plan.degradation) {
            (Some(ladder), Some(degradation)) => {
                ladder.set_config(degradation.ladder.clone())?;
            }
            (ladder, degradation) => {
                *ladder = degradation.as_ref().map(|d| Degradation::new(d.ladder.clone())).transpose()?;
            }
        }
        Ok(())
    }

    /// Whether a plan has policies that need [`Asked::guarded`].
    pub fn guards(plan: &Plan) -> bool {
        plan.limit.is_some() || !plan.bulkheads.is_empty() || plan.degradation.is_some()
    }

    fn limiter(&self) -> Option<Arc<Limiter>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_quota(&self, now: Time, key: u64) -> Result<(), Rejected> {
        let stripe = &self.stripes[(key >> 32) as usize % STRIPES];
        // Which stripes there are is settled by the quota's scope: a shared one has the first alone, and
        // its requests come with the key 0.
        match &mut *stripe.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(limit) => limit.admit(now, key, 1),
            None => Ok(()),
        }
    }

    /// A unit of a quota that is counted in a store. The first stripe has the settings, and counts what was
    /// decided.
    fn take_shared(&self, answer: StoreAnswer) -> Result<(), Rejected> {
        match &mut *self.stripes[0].lock().unwrap_or_else(PoisonError::into_inner) {
            Some(limit) => limit.admit_by_store(answer),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that are held.
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes in how busy the gateway is, from 0 to 1. The level from now on, if it changes.
    pub fn observe(&self, now: Time, pressure: f64) -> Option<usize> {
        let mut state = self.lock();
        let ladder = state.ladder.as_mut()?;
        ladder.on_wake(now);
        ladder.observe(now, pressure).map(|change| change.to)
    }

    /// What was decided so far: quota, limit, ladder and bulkheads by name.
    pub fn counts(&self) -> Vec<(String, Counts)> {
        let mut counts = Vec::new();
        let mut quota: Option<Counts> = None;
        for stripe in &self.stripes {
            if let Some(limit) = &*stripe.lock().unwrap_or_else(PoisonError::into_inner) {
                let sum = quota.get_or_insert_default();
                let more = limit.counts();
                sum.admitted += more.admitted;
                sum.rejected += more.rejected;
                sum.shadowed += more.shadowed;
            }
        }
        counts.extend(quota.map(|counts| ("rate_limit".to_owned(), counts)));
        let state = self.lock();
        counts.extend(state.limit.as_ref().map(|limit| ("limit".to_owned(), limit.counts())));
        counts.extend(state.ladder.as_ref().map(|ladder| ("degradation".to_owned(), ladder.counts())));
        counts.extend(state.bulkheads.iter().map(|(name, bulkhead)| (format!("bulkhead {name}"), bulkhead.counts())));
        counts
    }

    /// The adaptive limit and the degradation level, where there are such.
    pub fn gauges(&self) -> (Option<f64>, Option<usize>) {
        let state = self.lock();
        (state.limit.as_ref().map(AdaptiveLimit::limit), state.ladder.as_ref().map(Degradation::level))
    }
}

/// A stripe's part of a quota: the same quota for each key, and a part of the keys.
fn part(quota: Quota, at: usize) -> Option<Quota> {
    match quota.scope {
        Scope::Shared => (at == 0).then_some(quota),
        Scope::PerKey { max_keys } => {
            let scope = Scope::PerKey { max_keys: max_keys.div_ceil(STRIPES as u32) };
            Some(Quota { scope, ..quota })
        }
    }
}

impl State {
    fn grant(&mut self, bulkhead: usize, granted: Granted) {
        let at = self.waiters.iter().position(|(b, ticket, _)| *b == bulkhead && *ticket == granted.ticket);
        if let Some(at) = at {
            let (_, _, waiter) = self.waiters.remove(at);
            let _ = waiter.send(granted);
        }
    }

    fn settle(&mut self, now: Time, bulkhead: usize, permit: bulkhead::Permit, outcome: Outcome) {
        if let Some((_, policy)) = self.bulkheads.get_mut(bulkhead)
            && let Some(granted) = policy.settle(now, permit, outcome)
        {
            self.grant(bulkhead, granted);
        }
    }
}
