//! The driver of a pipeline: its state behind a lock, and one call's way through it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use plimsoll_policy::bulkhead::{Granted, Ticket};
use plimsoll_policy::circuit_breaker;
use plimsoll_policy::deadline::Deadline;
use plimsoll_policy::pipeline::{self, Admission, Attempt, Config, Flight, Next, Pipeline, Reply, Waiting};
use plimsoll_policy::{Counts, InvalidConfig, Outcome, Reason, Rejected, Time};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::lock;
use crate::secret::Random;

/// A pipeline that several services share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) clock: Clock,
}

#[derive(Debug)]
struct State {
    pipeline: Pipeline,
    waiters: BTreeMap<Ticket, oneshot::Sender<Granted>>,
    random: Random,
}

/// What a pipeline's policies have decided so far, and how they stand. `None` where there is no such policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// Calls and attempts.
    pub totals: pipeline::Totals,
    /// Attempts in time and too late.
    pub timeouts: Counts,
    /// Retries.
    pub retry: Option<Counts>,
    /// What the retry budget paid and refused.
    pub budget: Option<Counts>,
    /// The circuit breaker.
    pub breaker: Option<Counts>,
    /// Its state.
    pub breaker_state: Option<circuit_breaker::State>,
    /// The rate limit.
    pub rate_limit: Option<Counts>,
    /// The adaptive limit.
    pub adaptive_limit: Option<Counts>,
    /// The limit that it has found, not rounded.
    pub limit: Option<f64>,
    /// Calls that hold one of its permits.
    pub limit_in_flight: Option<u32>,
    /// The bulkhead.
    pub bulkhead: Option<Counts>,
    /// Calls that hold one of its permits.
    pub bulkhead_in_flight: Option<u32>,
    /// Calls that wait for one.
    pub waiting: Option<u32>,
    /// Hedges.
    pub hedge: Option<Counts>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Result<Arc<Shared>, InvalidConfig> {
        let clock = Clock::start();
        let pipeline = Pipeline::new(config, clock.now())?;
        let state = State { pipeline, waiters: BTreeMap::new(), random: Random::new() };
        Ok(Arc::new(Shared { state: Mutex::new(state), clock }))
    }

    pub(crate) fn set_config(&self, config: Config) -> Result<(), InvalidConfig> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.pipeline.set_config(config, now)?;
        while let Some(granted) = state.pipeline.grant(now) {
            state.grant(now, Some(granted));
        }
        Ok(())
    }

    pub(crate) fn config(&self) -> Config {
        *lock(&self.state).pipeline.config()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut state = lock(&self.state);
        // An open breaker becomes half-open because time passes: readers see it in time.
        state.pipeline.on_wake(self.clock.now());
        let pipeline = &state.pipeline;
        Snapshot {
            totals: pipeline.totals(),
            timeouts: pipeline.timeouts().counts(),
            retry: pipeline.retry().map(|policy| policy.counts()),
            budget: pipeline.budget().map(|policy| policy.counts()),
            breaker: pipeline.breaker().map(|policy| policy.counts()),
            breaker_state: pipeline.breaker().map(|policy| policy.state()),
            rate_limit: pipeline.rate_limit().map(|policy| policy.counts()),
            adaptive_limit: pipeline.adaptive_limit().map(|policy| policy.counts()),
            limit: pipeline.adaptive_limit().map(|policy| policy.limit()),
            limit_in_flight: pipeline.adaptive_limit().map(|policy| policy.in_flight()),
            bulkhead: pipeline.bulkhead().map(|policy| policy.counts()),
            bulkhead_in_flight: pipeline.bulkhead().map(|policy| policy.in_flight()),
            waiting: pipeline.bulkhead().map(|policy| policy.waiting()),
            hedge: pipeline.hedging().map(|policy| policy.counts()),
        }
    }
}

impl State {
    /// Hands a permit to the waiter whose turn it is.
    fn grant(&mut self, now: Time, granted: Option<Granted>) {
        let mut granted = granted;
        while let Some(next) = granted.take() {
            // A waiter leaves this map and the policy's queue under one lock: who is granted is there.
            let sent = match self.waiters.remove(&next.ticket) {
                Some(waiter) => waiter.send(next),
                None => Err(next),
            };
            debug_assert!(sent.is_ok(), "a permit for nobody at {now:?}");
        }
    }
}

/// One call's way through a pipeline. Dropped at any point it gives back what it holds, as cancelled.
#[derive(Debug)]
pub(crate) struct Call {
    shared: Arc<Shared>,
    flight: Flight,
    key: u64,
    caller: Deadline,
    /// Attempts that are out, by slot: 0 is the try, the others its hedges.
    out: Vec<Option<Attempt>>,
    waiting: Option<(Waiting, oneshot::Receiver<Granted>)>,
}

impl Call {
    pub(crate) fn start(shared: &Arc<Shared>, caller: Deadline, repeatable: bool, key: u64) -> Call {
        let deadline = (caller != Deadline::NEVER).then_some(caller.time());
        let flight = lock(&shared.state).pipeline.start(shared.clock.now(), deadline, repeatable);
        Call { shared: shared.clone(), flight, key, caller, out: Vec::new(), waiting: None }
    }

    pub(crate) fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// When a timer is to fire; `None` for what never comes.
    pub(crate) fn instant(&self, time: Time) -> Option<tokio::time::Instant> {
        self.shared.clock.instant(time)
    }

    /// When the call must have ended.
    pub(crate) fn deadline(&self) -> Deadline {
        self.flight.deadline()
    }

    /// A permit for a try, perhaps after a wait. It is in slot 0 from then on.
    pub(crate) async fn attempt(&mut self) -> Result<(), Rejected> {
        let shared = self.shared.clone();
        let until = {
            let mut state = lock(&shared.state);
            match state.pipeline.attempt(shared.clock.now(), &mut self.flight, self.key)? {
                Admission::Now(attempt) => {
                    self.put(0, attempt);
                    return Ok(());
                }
                Admission::Queued(waiting) => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiters.insert(waiting.ticket(), sender);
                    let until = waiting.until();
                    self.waiting = Some((waiting, receiver));
                    until
                }
            }
        };
        let mut timer = std::pin::pin!(shared.clock.sleep_until(until));
        let mut receiver = self.waiting.as_mut().map(|(_, receiver)| receiver);
        let granted = std::future::poll_fn(|cx| {
            if let Some(receiver) = receiver.as_deref_mut()
                && let Poll::Ready(granted) = Pin::new(receiver).poll(cx)
            {
                return Poll::Ready(granted.ok());
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        let granted = granted.await;
        let now = shared.clock.now();
        let mut state = lock(&shared.state);
        self.leave_queue(&mut state, now, granted)
    }

    /// The wait is over, with a permit or without; at the last moment there may have been one after all.
    fn leave_queue(&mut self, state: &mut State, now: Time, granted: Option<Granted>) -> Result<(), Rejected> {
        let Some((waiting, mut receiver)) = self.waiting.take() else {
            return Err(Rejected::new(Reason::BulkheadTimeout));
        };
        state.waiters.remove(&waiting.ticket());
        match granted.or_else(|| receiver.try_recv().ok()) {
            Some(granted) => {
                let attempt = state.pipeline.resume(now, &mut self.flight, waiting, granted);
                self.put(0, attempt);
                Ok(())
            }
            None => Err(state.pipeline.give_up(now, &self.flight, waiting)),
        }
    }

    fn put(&mut self, slot: usize, attempt: Attempt) {
        if self.out.len() <= slot {
            self.out.resize_with(slot + 1, || None);
        }
        self.out[slot] = Some(attempt);
    }

    /// When to ask for an extra attempt: so long after the last one's start.
    pub(crate) fn hedge_at(&self) -> Option<Time> {
        let last = self.out.iter().flatten().map(Attempt::started).max()?;
        let after = lock(&self.shared.state).pipeline.hedge_after(&self.flight)?;
        Some(last + after)
    }

    /// Asks for an extra attempt, and its slot.
    pub(crate) fn hedge(&mut self) -> Option<usize> {
        let shared = self.shared.clone();
        let attempt = lock(&shared.state).pipeline.hedge(shared.clock.now(), &mut self.flight, self.key).ok()?;
        let slot = self.out.len();
        self.put(slot, attempt);
        Some(slot)
    }

    /// When an attempt is to be aborted.
    pub(crate) fn abort_at(&self, slot: usize) -> Deadline {
        self.out.get(slot).and_then(Option::as_ref).map_or(Deadline::NEVER, Attempt::deadline)
    }

    /// An attempt has ended.
    pub(crate) fn settle(&mut self, slot: usize, reply: Reply) -> Next {
        let Some(attempt) = self.out.get_mut(slot).and_then(Option::take) else { return Next::Done };
        let now = self.now();
        let shared = self.shared.clone();
        let mut state = lock(&shared.state);
        let random = state.random.bits();
        let settled = state.pipeline.settle(now, &mut self.flight, attempt, reply, random);
        state.grant(now, settled.granted);
        if self.out.iter().all(Option::is_none) {
            self.out.clear();
        }
        settled.next
    }

    /// An attempt was aborted at its deadline. That its caller would not wait for longer says nothing about the
    /// target: a stranger's short deadlines must not trip the breaker.
    pub(crate) fn time_out(&mut self, slot: usize) -> Next {
        let callers = self.caller != Deadline::NEVER && self.abort_at(slot) == self.caller;
        let outcome = if callers { Outcome::Ignored } else { Outcome::Failure };
        self.settle(slot, outcome.into())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.waiting.is_none() && self.out.iter().all(Option::is_none) {
            return;
        }
        let now = self.now();
        let shared = self.shared.clone();
        let mut state = lock(&shared.state);
        if self.waiting.is_some() {
            // A permit that came just now is among those that are out, or there was none.
            let _ = self.leave_queue(&mut state, now, None);
        }
        for attempt in std::mem::take(&mut self.out).into_iter().flatten() {
            let granted = state.pipeline.cancel(now, &mut self.flight, attempt);
            state.grant(now, granted);
        }
    }
}
