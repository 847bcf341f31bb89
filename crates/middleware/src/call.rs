//! One call's way through a pipeline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::bulkhead::Granted;
use plimsoll_policy::deadline::Deadline;
use plimsoll_policy::pipeline::{Admission, Attempt, Flight, Next, Pipeline, Reply, Waiting};
use plimsoll_policy::{Outcome, Reason, Rejected, Time};
use tokio::sync::oneshot;

use crate::lock;
use crate::shared::{Shared, State};

/// One call's way through a pipeline. Dropped at any point it gives back what it holds, as cancelled.
///
/// It takes the lock twice for an attempt, once before and once after, since little else costs as much.
#[derive(Debug)]
pub struct Call {
    shared: Arc<Shared>,
    /// None until the first attempt is asked for.
    flight: Option<Flight>,
    key: u64,
    caller: Deadline,
    repeatable: bool,
    /// The attempt that is out.
    first: Option<Attempt>,
    /// Its hedges, each in its place.
    hedges: Vec<Option<Attempt>>,
    hedge_at: Option<Time>,
    waiting: Option<(Waiting, oneshot::Receiver<Granted>)>,
}

impl Call {
    pub(crate) fn new(shared: Arc<Shared>, caller: Deadline, repeatable: bool, key: u64) -> Call {
        Call {
            shared,
            flight: None,
            key,
            caller,
            repeatable,
            first: None,
            hedges: Vec::new(),
            hedge_at: None,
            waiting: None,
        }
    }

    /// When a timer is to fire; `None` for what never comes.
    pub(crate) fn instant(&self, time: Time) -> Option<tokio::time::Instant> {
        self.shared.clock.instant(time)
    }

    /// When the call must have ended.
    pub(crate) fn deadline(&self) -> Deadline {
        self.flight.as_ref().map_or(Deadline::NEVER, Flight::deadline)
    }

    /// A permit for a try, perhaps after a wait. It is in slot 0 from then on.
    pub(crate) async fn attempt(&mut self) -> Result<(), Rejected> {
        match self.ask()? {
            None => Ok(()),
            Some(until) => self.wait(until).await,
        }
    }

    /// Asks for a try: there is a permit, or a wait until then at most.
    fn ask(&mut self) -> Result<Option<Time>, Rejected> {
        let now = self.shared.clock.now();
        let mut state = lock(&self.shared.state);
        let State { pipeline, waiters, .. } = &mut *state;
        let flight = self.flight.get_or_insert_with(|| {
            let deadline = (self.caller != Deadline::NEVER).then_some(self.caller.time());
            pipeline.start(now, deadline, self.repeatable)
        });
        match pipeline.attempt(now, flight, self.key)? {
            Admission::Now(attempt) => {
                self.hedge_at = hedge_at(pipeline, flight, &attempt);
                self.first = Some(attempt);
                Ok(None)
            }
            Admission::Queued(waiting) => {
                let (sender, receiver) = oneshot::channel();
                waiters.insert(waiting.ticket(), sender);
                let until = waiting.until();
                self.waiting = Some((waiting, receiver));
                Ok(Some(until))
            }
        }
    }

    async fn wait(&mut self, until: Time) -> Result<(), Rejected> {
        let clock = self.shared.clock;
        let mut timer = std::pin::pin!(clock.sleep_until(until));
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
        self.leave_queue(granted)
    }

    /// The wait is over, with a permit or without; at the last moment there may have been one after all.
    fn leave_queue(&mut self, granted: Option<Granted>) -> Result<(), Rejected> {
        let (Some((waiting, mut receiver)), Some(flight)) = (self.waiting.take(), &mut self.flight) else {
            return Err(Rejected::new(Reason::BulkheadTimeout));
        };
        let now = self.shared.clock.now();
        let mut state = lock(&self.shared.state);
        state.waiters.remove(&waiting.ticket());
        match granted.or_else(|| receiver.try_recv().ok()) {
            Some(granted) => {
                let attempt = state.pipeline.resume(now, flight, waiting, granted);
                self.hedge_at = hedge_at(&state.pipeline, flight, &attempt);
                self.first = Some(attempt);
                Ok(())
            }
            None => Err(state.pipeline.give_up(now, flight, waiting)),
        }
    }

    /// When to ask for an extra attempt: so long after the last one's start.
    pub(crate) fn hedge_at(&self) -> Option<Time> {
        self.hedge_at
    }

    /// Asks for an extra attempt, and its slot.
    pub(crate) fn hedge(&mut self) -> Option<usize> {
        let flight = self.flight.as_mut()?;
        let mut state = lock(&self.shared.state);
        let attempt = state.pipeline.hedge(self.shared.clock.now(), flight, self.key).ok()?;
        self.hedge_at = hedge_at(&state.pipeline, flight, &attempt);
        self.hedges.push(Some(attempt));
        Some(self.hedges.len())
    }

    /// No extra attempt is asked for until the next one has begun.
    pub(crate) fn no_hedge(&mut self) {
        self.hedge_at = None;
    }

    fn slot(&mut self, slot: usize) -> Option<&mut Option<Attempt>> {
        match slot {
            0 => Some(&mut self.first),
            slot => self.hedges.get_mut(slot - 1),
        }
    }

    /// When an attempt is to be aborted.
    pub(crate) fn abort_at(&self, slot: usize) -> Deadline {
        let attempt = match slot {
            0 => self.first.as_ref(),
            slot => self.hedges.get(slot - 1).and_then(Option::as_ref),
        };
        attempt.map_or(Deadline::NEVER, Attempt::deadline)
    }

    /// An attempt has ended.
    pub(crate) fn settle(&mut self, slot: usize, reply: Reply) -> Next {
        let attempt = self.slot(slot).and_then(Option::take);
        match attempt {
            Some(attempt) => self.settle_attempt(attempt, reply, None),
            None => Next::Done,
        }
    }

    /// `answered` is when its head came, where its end came later.
    fn settle_attempt(&mut self, mut attempt: Attempt, reply: Reply, answered: Option<Time>) -> Next {
        let Some(flight) = &mut self.flight else { return Next::Done };
        let now = self.shared.clock.now();
        if let Some(answered) = answered {
            attempt.exclude_since(answered, now);
        }
        let mut state = lock(&self.shared.state);
        let random = state.random.bits();
        let settled = state.pipeline.settle(now, flight, attempt, reply, random);
        state.grant(now, settled.granted);
        if self.first.is_none() && self.hedges.iter().all(Option::is_none) {
            self.hedges.clear();
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

    /// An attempt has the answer that its caller gets, and ends with that. The others are cancelled.
    pub(crate) fn answered(mut self, slot: usize, reply: Reply) -> Answered {
        let attempt = self.slot(slot).and_then(Option::take);
        let at = self.shared.clock.now();
        self.cancel(at);
        Answered { call: self, attempt, reply, at }
    }

    /// Cancels the attempts that are out.
    fn cancel(&mut self, now: Time) {
        if self.first.is_none() && self.hedges.is_empty() {
            return;
        }
        let Some(flight) = &mut self.flight else { return };
        let mut state = lock(&self.shared.state);
        for attempt in self.first.take().into_iter().chain(self.hedges.drain(..).flatten()) {
            let granted = state.pipeline.cancel(now, flight, attempt);
            state.grant(now, granted);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.waiting.is_some() {
            // A permit that came just now is among those that are out, or there was none.
            let _ = self.leave_queue(None);
        }
        if self.first.is_some() || !self.hedges.is_empty() {
            self.cancel(self.shared.clock.now());
        }
    }
}

fn hedge_at(pipeline: &Pipeline, flight: &Flight, attempt: &Attempt) -> Option<Time> {
    Some(attempt.started() + pipeline.hedge_after(flight)?)
}

/// An attempt whose answer is on its way to the caller: it ends when this is dropped, by what the head said of it, and
/// with the latency that the head had.
#[derive(Debug)]
pub(crate) struct Answered {
    call: Call,
    attempt: Option<Attempt>,
    reply: Reply,
    at: Time,
}

impl Answered {
    /// The rest of the answer did not come.
    pub(crate) fn fail(&mut self) {
        self.reply.outcome = Outcome::Failure;
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            let _ = self.call.settle_attempt(attempt, self.reply, Some(self.at));
        }
    }
}
