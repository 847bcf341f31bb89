//! Policies on what the gateway gets, in the order in which the simulation has them: degradation level,
//! quota, adaptive limit, bulkhead, and at last a seat: how many requests it holds, and how many more wait
//! by priority class.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use plimsoll_policy::bulkhead::{self, Admission, Bulkhead, Granted, Ticket};
use plimsoll_policy::rate_limit::{Config as Quota, RateLimit, Scope};
use plimsoll_policy::shed::{self, Push};
use plimsoll_policy::{
    AdaptiveLimit, Counts, Degradation, InvalidConfig, Outcome, Reason, Rejected, ShedQueue, Time, adaptive_limit,
};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::core::Core;
use crate::exchange::Incoming;
use crate::exchange::answer::OwnAnswer;
use crate::figures::Own;
use crate::plan::Plan;
use crate::redis::Limiter;

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

/// What a request holds while the gateway works on it.
#[derive(Debug)]
pub struct Held {
    inbound: Arc<Inbound>,
    limit: Option<adaptive_limit::Permit>,
    bulkhead: Option<(usize, bulkhead::Permit)>,
    outcome: Outcome,
    at: Time,
    /// Whether it counts among those held.
    seated: bool,
}

/// What is asked for a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The route.
    pub route: u32,
    /// Whose quota it counts against.
    pub quota_key: u64,
    /// The same by name, where several gateways share it.
    pub quota_name: &'a [u8],
    /// The bulkhead of its group.
    pub bulkhead: Option<usize>,
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
    pub fn new(plan: &Plan, clock: Clock) -> Result<Inbound, InvalidConfig> {
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
        inbound.reconfigure(plan, clock.now())?;
        Ok(inbound)
    }

    /// New settings; what each policy knows is kept.
    pub fn reconfigure(&self, plan: &Plan, now: Time) -> Result<(), InvalidConfig> {
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
        if shared.as_ref().map(|limiter| &limiter.quota) != plan.shared_quota.as_ref() {
            let limiter = plan.shared_quota.clone().map(|quota| Limiter::new(quota, now)).transpose()?;
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

    /// Admits a request, perhaps after a wait, or says what to answer: nothing, if the client has gone.
    pub async fn admit<I: Incoming>(
        self: &Arc<Self>,
        now: Time,
        asked: Asked<'_>,
        core: &Core,
        incoming: &mut I,
    ) -> Result<Held, Option<OwnAnswer>> {
        self.held.fetch_add(1, Ordering::SeqCst);
        let mut held = Held {
            inbound: self.clone(),
            limit: None,
            bulkhead: None,
            outcome: Outcome::Ignored,
            at: now,
            seated: true,
        };
        let refuse = |rejected: Rejected| Some(OwnAnswer::refused(rejected, now));
        if asked.guarded
            && let Some(ladder) = &mut self.lock().ladder
        {
            ladder.admit(asked.route).map_err(refuse)?;
        }
        if asked.shared_quota {
            self.take_shared(now, asked, core).await.map_err(refuse)?;
        } else {
            self.take_quota(now, asked.quota_key).map_err(refuse)?;
        }
        if asked.guarded {
            held.take(now, asked, core.clock, incoming).await.map_err(|rejected| rejected.and_then(refuse))?;
        }
        if self.held.load(Ordering::SeqCst) > self.max_in_flight.load(Ordering::Relaxed) {
            self.seat(&mut held, asked, core, incoming).await?;
        }
        Ok(held)
    }

    /// Waits for a seat, as the queue says.
    #[cold]
    async fn seat<I: Incoming>(
        self: &Arc<Self>,
        held: &mut Held,
        asked: Asked<'_>,
        core: &Core,
        incoming: &mut I,
    ) -> Result<(), Option<OwnAnswer>> {
        let full = Some(OwnAnswer::busy(Own::InFlight));
        if !self.queues.load(Ordering::SeqCst) {
            return Err(full);
        }
        let mut place = {
            let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            if self.held.load(Ordering::SeqCst) <= self.max_in_flight.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (sender, receiver) = oneshot::channel();
            let handle = match seats.push(core.clock.now(), sender, asked.class, asked.deadline) {
                Push::Queued(handle) => handle,
                Push::Displaced { handle, item, reason } => {
                    let _ = item.send(Err(reason));
                    handle
                }
                Push::Rejected(_) => return Err(full),
            };
            // It holds nothing while it waits. Nobody looks into the queue before the lock is free.
            self.held.fetch_sub(1, Ordering::SeqCst);
            held.seated = false;
            Waiting { inbound: self.clone(), handle, receiver }
        };
        let mut timer = std::pin::pin!(tokio::time::sleep_until(core.clock.instant(asked.deadline)));
        let verdict = std::future::poll_fn(|cx| {
            if let Poll::Ready(verdict) = Pin::new(&mut place.receiver).poll(cx) {
                return Poll::Ready(Some(verdict.unwrap_or(Err(Reason::Shed))));
            }
            if incoming.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            timer.as_mut().poll(cx).map(|()| Some(Err(Reason::DeadlineExceeded)))
        })
        .await;
        match verdict {
            Some(Ok(())) => {
                held.seated = true;
                Ok(())
            }
            Some(Err(Reason::DeadlineExceeded)) => Err(Some(OwnAnswer::new(504, Own::Deadline))),
            Some(Err(_)) => Err(Some(OwnAnswer::busy(Own::Shed))),
            None => Err(None),
        }
    }

    /// A seat is free: the next one in the queue takes it.
    fn leave(&self) {
        self.held.fetch_sub(1, Ordering::SeqCst);
        if !self.queues.load(Ordering::SeqCst) {
            return;
        }
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        while !seats.is_empty() && self.held.load(Ordering::SeqCst) < self.max_in_flight.load(Ordering::Relaxed) {
            let next = seats.pop(self.clock.now(), |sender, reason| {
                let _ = sender.send(Err(reason));
            });
            let Some(next) = next else { return };
            self.held.fetch_add(1, Ordering::SeqCst);
            if next.send(Ok(())).is_err() {
                self.held.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// What the queue for seats has done, and how many wait.
    pub fn queue(&self) -> (shed::Counts, usize) {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        (*seats.counts(), seats.len())
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
    async fn take_shared(&self, now: Time, asked: Asked<'_>, core: &Core) -> Result<(), Rejected> {
        let limiter = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(limiter) = limiter else { return Ok(()) };
        let answer = limiter.take(core, asked.quota_name, now).await;
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

impl Held {
    /// The adaptive limit's permit and the bulkhead's. No reason if the client has gone.
    async fn take<I: Incoming>(
        &mut self,
        now: Time,
        asked: Asked<'_>,
        clock: Clock,
        incoming: &mut I,
    ) -> Result<(), Option<Rejected>> {
        let inbound = self.inbound.clone();
        let (mut place, until) = {
            let mut state = inbound.lock();
            if let Some(limit) = &mut state.limit {
                self.limit = Some(limit.admit(now)?);
            }
            let Some(at) = asked.bulkhead else { return Ok(()) };
            let Some((_, bulkhead)) = state.bulkheads.get_mut(at) else { return Ok(()) };
            match bulkhead.admit_or_queue(now, asked.deadline)? {
                Admission::Now(permit) => {
                    self.bulkhead = Some((at, permit));
                    return Ok(());
                }
                Admission::Queued { ticket, until } => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiters.push((at, ticket, sender));
                    (Place { inbound: inbound.clone(), at, ticket, clock, receiver: Some(receiver) }, until)
                }
            }
        };
        let mut timer = std::pin::pin!(tokio::time::sleep_until(clock.instant(until)));
        let late = std::future::poll_fn(|cx| {
            if let Some(receiver) = &mut place.receiver
                && let Poll::Ready(granted) = Pin::new(receiver).poll(cx)
            {
                return Poll::Ready(Some(granted.ok()));
            }
            if incoming.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            timer.as_mut().poll(cx).map(|()| Some(None))
        })
        .await;
        let granted = match late {
            None => return Err(None),
            Some(Some(granted)) => {
                place.receiver = None;
                Some(granted)
            }
            Some(None) => place.leave(true),
        };
        match granted {
            Some(granted) => {
                self.bulkhead = Some((place.at, granted.permit));
                Ok(())
            }
            None => Err(Some(Rejected::new(Reason::BulkheadTimeout))),
        }
    }

    /// How it ended. `answered` is when the head of the answer was there.
    pub fn finish(&mut self, now: Time, answered: Time, outcome: Outcome) {
        if let Some(permit) = &mut self.limit {
            permit.exclude(now.nanos_since(answered));
        }
        self.outcome = outcome;
        self.at = now;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.seated {
            self.inbound.leave();
        }
        if self.limit.is_none() && self.bulkhead.is_none() {
            return;
        }
        let inbound = self.inbound.clone();
        let mut state = inbound.lock();
        if let (Some(permit), Some(limit)) = (self.limit.take(), &mut state.limit) {
            limit.settle(self.at, permit, self.outcome);
        }
        if let Some((at, permit)) = self.bulkhead.take() {
            state.settle(self.at, at, permit, self.outcome);
        }
    }
}

/// A place in the queue for seats, which is given up with it.
struct Waiting {
    inbound: Arc<Inbound>,
    handle: shed::Handle,
    receiver: oneshot::Receiver<Result<(), Reason>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut seats = self.inbound.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.remove(self.handle).is_none()
            && let Ok(Ok(())) = self.receiver.try_recv()
        {
            // A seat was given just now, and nobody takes it.
            drop(seats);
            self.inbound.leave();
        }
    }
}

/// A place in a bulkhead's queue, which is given up with it.
struct Place {
    inbound: Arc<Inbound>,
    at: usize,
    ticket: Ticket,
    clock: Clock,
    receiver: Option<oneshot::Receiver<Granted>>,
}

impl Place {
    fn leave(&mut self, timed_out: bool) -> Option<Granted> {
        let mut receiver = self.receiver.take()?;
        let mut state = self.inbound.lock();
        state.waiters.retain(|(at, ticket, _)| (*at, *ticket) != (self.at, self.ticket));
        match receiver.try_recv() {
            Ok(granted) => Some(granted),
            Err(_) => {
                if let Some((_, bulkhead)) = state.bulkheads.get_mut(self.at) {
                    bulkhead.leave(self.ticket, timed_out);
                }
                None
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(granted) = self.leave(false) {
            let now = self.clock.now();
            self.inbound.lock().settle(now, self.at, granted.permit, Outcome::Cancelled);
        }
    }
}
