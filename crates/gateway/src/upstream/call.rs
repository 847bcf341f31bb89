//! One call through a target's policies, hedges and retries included.
//!
//! Whatever becomes of the task that makes it, a call that is dropped gives back what it holds.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_policy::bulkhead::Granted;
use plimsoll_policy::pipeline::{self, Admission, Flight, Next, Reply};
use plimsoll_policy::{Deadline, Outcome, Reason, Rejected, Time};
use tokio::sync::oneshot;

use super::{Instance, State, Upstream};
use crate::clock::Clock;

/// Attempts of one call that may be out at once: one and its hedge.
pub const SLOTS: usize = 2;
/// Instances that a call remembers to have tried.
const TRIED: usize = 3;

/// A call.
#[derive(Debug)]
pub struct Call {
    upstream: Arc<Upstream>,
    clock: Clock,
    flight: Flight,
    /// Sticks the call to an instance, for balancers that mind.
    key: u64,
    attempts: [Option<Out>; SLOTS],
    waiting: Option<(pipeline::Waiting, oneshot::Receiver<Granted>)>,
    /// The wait for a connection.
    pending: Option<(u64, oneshot::Receiver<()>)>,
    tried: [usize; TRIED],
    launched: usize,
    /// Whether an attempt has failed.
    failed: bool,
}

/// An attempt that is out.
#[derive(Debug)]
struct Out {
    permit: pipeline::Attempt,
    /// None if there was nobody to ask.
    target: Option<usize>,
    started: Time,
}

/// What an attempt may do.
#[derive(Debug)]
pub enum Begun {
    /// Ask this instance, until the deadline.
    Ask(Arc<Instance>, Deadline),
    /// Nobody can be asked: settle it as a failed connection.
    Nobody,
    /// All instances are full: wait with [`Call::freed`], at most until the deadline.
    Pending(Deadline),
    /// Wait for the bulkhead with [`Call::granted`], at most until then.
    Wait(Time),
    /// A policy of our own says no. The call is over.
    Refused(Rejected),
}

/// How an attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No connection could be made: nothing was sent.
    ConnectError,
    /// The connection broke, or what came was no answer.
    Reset,
    /// There was no answer in time.
    Timeout,
    /// An answer with this status, and what it says about coming back.
    Answered(u16, Option<Duration>),
}

impl Ended {
    /// What it says about the target.
    pub fn outcome(self) -> Outcome {
        match self {
            Ended::Answered(408 | 429 | 500.., _) => Outcome::Failure,
            Ended::Answered(400.., _) => Outcome::Ignored,
            Ended::Answered(..) => Outcome::Success,
            _ => Outcome::Failure,
        }
    }
}

impl Call {
    /// A call starts.
    pub fn start(
        upstream: &Arc<Upstream>,
        clock: Clock,
        now: Time,
        caller_deadline: Option<Time>,
        repeatable: bool,
        key: u64,
    ) -> Call {
        let flight = upstream.lock().pipeline.start(now, caller_deadline, repeatable);
        Call {
            upstream: upstream.clone(),
            clock,
            flight,
            key,
            attempts: [None, None],
            waiting: None,
            pending: None,
            tried: [usize::MAX; TRIED],
            launched: 0,
            failed: false,
        }
    }

    /// Starts a call and asks for its first attempt, under one lock.
    pub fn begin(
        upstream: &Arc<Upstream>,
        clock: Clock,
        now: Time,
        caller_deadline: Option<Time>,
        repeatable: bool,
        key: u64,
        random: u64,
    ) -> (Call, Begun) {
        let mut state = upstream.lock();
        let mut call = Call {
            upstream: upstream.clone(),
            clock,
            flight: state.pipeline.start(now, caller_deadline, repeatable),
            key,
            attempts: [None, None],
            waiting: None,
            pending: None,
            tried: [usize::MAX; TRIED],
            launched: 0,
            failed: false,
        };
        let begun = call.attempt_in(&mut state, now, random);
        drop(state);
        (call, begun)
    }

    /// Asks for an attempt: the first, or one after [`Next::Retry`]'s time has come.
    pub fn attempt(&mut self, now: Time, random: u64) -> Begun {
        let upstream = self.upstream.clone();
        self.attempt_in(&mut upstream.lock(), now, random)
    }

    fn attempt_in(&mut self, state: &mut State, now: Time, random: u64) -> Begun {
        match state.pipeline.attempt(now, &mut self.flight, 0) {
            Ok(Admission::Now(permit)) => self.launch(state, 0, permit, now, random),
            Ok(Admission::Queued(waiting)) => {
                let (sender, receiver) = oneshot::channel();
                state.waiters.push((waiting.ticket(), sender));
                let until = waiting.until();
                self.waiting = Some((waiting, receiver));
                Begun::Wait(until)
            }
            Err(rejected) => Begun::Refused(rejected),
        }
    }

    /// The permit that the call waits for. Cancelled waits lose nothing.
    pub async fn granted(&mut self) -> Option<Granted> {
        match &mut self.waiting {
            Some((_, receiver)) => receiver.await.ok(),
            None => None,
        }
    }

    /// The wait is over, with a permit.
    pub fn resume(&mut self, now: Time, granted: Granted, random: u64) -> Begun {
        let Some((waiting, _)) = self.waiting.take() else {
            return Begun::Refused(Rejected::new(Reason::BulkheadTimeout));
        };
        let upstream = self.upstream.clone();
        let mut state = upstream.lock();
        let permit = state.pipeline.resume(now, &mut self.flight, waiting, granted);
        self.launch(&mut state, 0, permit, now, random)
    }

    /// The wait is over without one; at the last moment there may have been one after all.
    pub fn give_up(&mut self, now: Time, random: u64) -> Begun {
        let upstream = self.upstream.clone();
        let mut state = upstream.lock();
        match self.leave_queue(&mut state, now) {
            Left::Granted(permit) => self.launch(&mut state, 0, permit, now, random),
            Left::Refused(rejected) => Begun::Refused(rejected),
        }
    }

    fn leave_queue(&mut self, state: &mut State, now: Time) -> Left {
        let Some((waiting, mut receiver)) = self.waiting.take() else {
            return Left::Refused(Rejected::new(Reason::BulkheadTimeout));
        };
        state.waiters.retain(|(ticket, _)| *ticket != waiting.ticket());
        match receiver.try_recv() {
            Ok(granted) => Left::Granted(state.pipeline.resume(now, &mut self.flight, waiting, granted)),
            Err(_) => Left::Refused(state.pipeline.give_up(now, &self.flight, waiting)),
        }
    }

    /// How long after an attempt's start to ask for an extra one.
    pub fn hedge_after(&self) -> Option<Duration> {
        self.upstream.lock().pipeline.hedge_after(&self.flight)
    }

    /// Asks for an extra attempt beside the one that is out.
    pub fn hedge(&mut self, now: Time, random: u64) -> Option<(Arc<Instance>, Deadline)> {
        let upstream = self.upstream.clone();
        let mut state = upstream.lock();
        let permit = state.pipeline.hedge(now, &mut self.flight, 0).ok()?;
        match self.launch(&mut state, 1, permit, now, random) {
            Begun::Ask(instance, deadline) => Some((instance, deadline)),
            _ => {
                self.cancel_in(&mut state, 1, now);
                None
            }
        }
    }

    /// Puts an attempt out, to an instance if there is one.
    fn launch(&mut self, state: &mut State, slot: usize, permit: pipeline::Attempt, now: Time, random: u64) -> Begun {
        let deadline = permit.deadline();
        self.attempts[slot] = Some(Out { permit, target: None, started: now });
        // Who comes later does not overtake those who wait already.
        if !state.pending.is_empty() {
            return self.wait_for_connection(state, slot, deadline, false);
        }
        self.send_to(state, slot, deadline, now, random, false)
    }

    /// Chooses an instance: one that this call has not tried, where there is one; full ones are passed over,
    /// and if all are full, the attempt waits.
    fn send_to(
        &mut self,
        state: &mut State,
        slot: usize,
        deadline: Deadline,
        now: Time,
        random: u64,
        again: bool,
    ) -> Begun {
        let eligible = state.members.eligible();
        let mut full = false;
        let target = if self.launched == 0 && state.max_connections.is_none() {
            state.balancer.pick(now, self.key, random, eligible)
        } else {
            let mut left = eligible.clone();
            if let Some(limit) = state.max_connections {
                for i in 0..state.balancer.len() {
                    if state.balancer.in_flight(i) >= limit {
                        full |= left.remove(i);
                    }
                }
            }
            let mut fresh = left.clone();
            for &tried in self.tried.iter().filter(|tried| **tried != usize::MAX) {
                fresh.remove(tried);
            }
            let fresh = if fresh.is_empty() { left } else { fresh };
            state.balancer.pick(now, self.key, random, &fresh)
        };
        let instance = target.and_then(|i| state.instances.get(i)?.as_ref().map(|member| member.instance.clone()));
        let (Some(i), Some(instance)) = (target, instance) else {
            return if full { self.wait_for_connection(state, slot, deadline, again) } else { Begun::Nobody };
        };
        state.balancer.on_start(i, now);
        self.tried[self.launched % TRIED] = i;
        self.launched += 1;
        if let Some(out) = &mut self.attempts[slot] {
            out.target = Some(i);
        }
        Begun::Ask(instance, deadline)
    }

    /// A place in the queue for connections: at its head for one that has waited `again`.
    fn wait_for_connection(&mut self, state: &mut State, slot: usize, deadline: Deadline, again: bool) -> Begun {
        // An extra attempt does not wait: the first one is there already.
        if slot != 0 || !again && state.pending.len() >= state.max_pending as usize {
            return Begun::Nobody;
        }
        let (sender, receiver) = oneshot::channel();
        let number = state.next_pending;
        state.next_pending += 1;
        if again {
            state.pending.push_front((number, sender));
        } else {
            state.pending.push_back((number, sender));
        }
        self.pending = Some((number, receiver));
        Begun::Pending(deadline)
    }

    /// Waits until an instance has room. Cancelled waits lose nothing.
    pub async fn freed(&mut self) {
        if let Some((_, receiver)) = &mut self.pending {
            let _ = receiver.await;
        }
    }

    /// Looks for an instance with room again.
    pub fn look_again(&mut self, deadline: Deadline, now: Time, random: u64) -> Begun {
        self.pending = None;
        let upstream = self.upstream.clone();
        let mut state = upstream.lock();
        let begun = self.send_to(&mut state, 0, deadline, now, random, true);
        if matches!(begun, Begun::Nobody) {
            // The room that it was told of is not for it.
            state.connection_freed();
        }
        begun
    }

    /// Leaves the queue for connections; what it was just given goes to the next one.
    fn leave_pending(&mut self, state: &mut State) {
        let Some((number, mut receiver)) = self.pending.take() else { return };
        state.pending.retain(|(other, _)| *other != number);
        if receiver.try_recv().is_ok() {
            state.connection_freed();
        }
    }

    /// An attempt has ended. `answered` is when the head of its answer came, or now; what came later was
    /// the client's time. Says what follows, and whether a failure was worth another attempt.
    pub fn settle(&mut self, slot: usize, now: Time, answered: Time, ended: Ended, random: u64) -> Next {
        let Some(mut out) = self.attempts[slot].take() else { return Next::Done };
        let outcome = ended.outcome();
        let throttled = matches!(ended, Ended::Answered(429, _));
        self.failed |= outcome == Outcome::Failure;
        let upstream = self.upstream.clone();
        let mut state = upstream.lock();
        let state = &mut *state;
        let retry_after = match ended {
            Ended::Answered(_, retry_after) => retry_after,
            _ => None,
        };
        self.leave_pending(state);
        if let Some(i) = out.target {
            state.balancer.on_done(i, now, answered.nanos_since(out.started), outcome, retry_after);
            state.connection_freed();
            let transitions = state.members.record(now, i, outcome, throttled);
            if !transitions.is_empty() {
                let transitions = transitions.to_vec();
                state.apply(&transitions);
            }
        }
        let when = &state.retry_when;
        let retryable = match ended {
            Ended::ConnectError => when.connect_error,
            Ended::Reset => when.reset,
            Ended::Timeout => when.timeout,
            Ended::Answered(429, _) => when.too_many_requests,
            Ended::Answered(500, _) => when.internal_error,
            // A gateway's own two say the same of who stands behind it.
            Ended::Answered(502..=504, _) => when.unavailable,
            Ended::Answered(..) => false,
        };
        let hint = plimsoll_policy::retry::Hint { throttled, retry_after };
        out.permit.exclude_since(answered, now);
        let settled =
            state.pipeline.settle(now, &mut self.flight, out.permit, Reply { outcome, retryable, hint }, random);
        if let Some(granted) = settled.granted {
            state.grant(granted);
        }
        while let Some(transition) = state.pipeline.poll_transition() {
            state.events.trips += u64::from(transition.to == plimsoll_policy::circuit_breaker::State::Open);
        }
        settled.next
    }

    /// An attempt is abandoned.
    pub fn cancel(&mut self, slot: usize, now: Time) {
        if self.attempts[slot].is_some() {
            let upstream = self.upstream.clone();
            self.cancel_in(&mut upstream.lock(), slot, now);
        }
    }

    fn cancel_in(&mut self, state: &mut State, slot: usize, now: Time) {
        let Some(out) = self.attempts[slot].take() else { return };
        self.leave_pending(state);
        if let Some(i) = out.target {
            state.balancer.on_done(i, now, now.nanos_since(out.started), Outcome::Cancelled, None);
            state.connection_freed();
        }
        if let Some(granted) = state.pipeline.cancel(now, &mut self.flight, out.permit) {
            state.grant(granted);
        }
    }

    /// When the call must have ended.
    pub fn deadline(&self) -> Deadline {
        self.flight.deadline()
    }

    /// Attempts made.
    pub fn attempts(&self) -> u32 {
        self.flight.attempts()
    }

    /// Whether an attempt has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether an attempt of this slot is out.
    pub fn is_out(&self, slot: usize) -> bool {
        self.attempts[slot].is_some()
    }
}

enum Left {
    Granted(pipeline::Attempt),
    Refused(Rejected),
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.attempts.iter().all(Option::is_none) && self.waiting.is_none() {
            return;
        }
        let now = self.clock.now();
        let upstream = self.upstream.clone();
        let mut state = upstream.lock();
        for slot in 0..SLOTS {
            self.cancel_in(&mut state, slot, now);
        }
        if self.waiting.is_some()
            && let Left::Granted(permit) = self.leave_queue(&mut state, now)
            && let Some(granted) = state.pipeline.cancel(now, &mut self.flight, permit)
        {
            state.grant(granted);
        }
    }
}
