//! One request's way through the policies on what comes in, step by step.
//!
//! Whatever becomes of the task that serves it, a request that is dropped gives back what it holds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use plimsoll_policy::bulkhead::{self, Admission, Granted, Ticket};
use plimsoll_policy::rate_limit::StoreAnswer;
use plimsoll_policy::{Outcome, Reason, Rejected, Time, adaptive_limit, shed};
use tokio::sync::oneshot;

use super::{Asked, Inbound};
use crate::answers::OwnAnswer;
use crate::figures::Own;
use crate::redis::Limiter;

/// What a request holds while the gateway works on it.
#[derive(Debug)]
pub struct Held {
    pub(super) inbound: Arc<Inbound>,
    limit: Option<adaptive_limit::Permit>,
    bulkhead: Option<(usize, bulkhead::Permit)>,
    pub(super) wait: Wait,
    ended: Option<(Time, Outcome)>,
    /// Whether it counts among those held.
    pub(super) seated: bool,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Wait {
    Nothing,
    Permit { at: usize, ticket: Ticket, receiver: oneshot::Receiver<Granted> },
    Seat { handle: shed::Handle, receiver: oneshot::Receiver<Result<(), Reason>> },
}

/// What a request does next.
#[derive(Debug)]
pub enum Next {
    /// It is in.
    In,
    /// Its idempotency key is to be looked up: [`Held::recalled`] goes on, if it is new.
    Recall,
    /// Its quota is counted in a store: [`Held::counted`] takes what that answers.
    Count(Arc<Limiter>),
    /// It waits with [`Held::poll_woken`], at most until then: then [`Held::late`].
    Wait(Time),
    /// It is answered with this.
    Refused(OwnAnswer),
}

/// What came for a request that waits.
#[derive(Debug)]
pub enum Woken {
    /// A bulkhead's permit.
    Permit(Granted),
    /// A seat, or why there is none.
    Seat(Result<(), Reason>),
}

impl Inbound {
    /// A request arrives.
    pub fn arrive(self: &Arc<Self>, now: Time, asked: &Asked) -> (Held, Next) {
        self.held.fetch_add(1, Ordering::SeqCst);
        let mut held =
            Held { inbound: self.clone(), limit: None, bulkhead: None, wait: Wait::Nothing, ended: None, seated: true };
        let next = held.arrives(now, asked);
        (held, next)
    }
}

impl Held {
    fn arrives(&mut self, now: Time, asked: &Asked) -> Next {
        if asked.guarded
            && let Some(ladder) = &mut self.inbound.lock().ladder
            && let Err(rejected) = ladder.admit(asked.route)
        {
            return refuse(rejected, now);
        }
        if asked.remembered { Next::Recall } else { self.take_quota(now, asked) }
    }

    /// Its idempotency key is new, and it is to be made.
    pub fn recalled(&mut self, now: Time, asked: &Asked) -> Next {
        self.take_quota(now, asked)
    }

    fn take_quota(&mut self, now: Time, asked: &Asked) -> Next {
        if asked.shared_quota
            && let Some(limiter) = self.inbound.limiter()
        {
            return Next::Count(limiter);
        }
        match self.inbound.take_quota(now, asked.quota_key) {
            Ok(()) => self.take_permits(now, asked),
            Err(rejected) => refuse(rejected, now),
        }
    }

    /// The store that has the quota has answered.
    pub fn counted(&mut self, now: Time, asked: &Asked, answer: StoreAnswer) -> Next {
        match self.inbound.take_shared(answer) {
            Ok(()) => self.take_permits(now, asked),
            Err(rejected) => refuse(rejected, now),
        }
    }

    /// The adaptive limit's permit and the bulkhead's.
    fn take_permits(&mut self, now: Time, asked: &Asked) -> Next {
        if !asked.guarded {
            return self.sit(now, asked);
        }
        let inbound = self.inbound.clone();
        let mut state = inbound.lock();
        if let Some(limit) = &mut state.limit {
            match limit.admit(now) {
                Ok(permit) => self.limit = Some(permit),
                Err(rejected) => return refuse(rejected, now),
            }
        }
        if let Some(at) = asked.bulkhead
            && let Some((_, bulkhead)) = state.bulkheads.get_mut(at)
        {
            match bulkhead.admit_or_queue(now, asked.deadline) {
                Ok(Admission::Now(permit)) => self.bulkhead = Some((at, permit)),
                Ok(Admission::Queued { ticket, until }) => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiters.push((at, ticket, sender));
                    self.wait = Wait::Permit { at, ticket, receiver };
                    return Next::Wait(until);
                }
                Err(rejected) => return refuse(rejected, now),
            }
        }
        drop(state);
        self.sit(now, asked)
    }

    /// Ready once what the request waits for is there: [`woken`](Self::woken) takes it.
    pub fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        match &mut self.wait {
            Wait::Nothing => Poll::Pending,
            // Nobody drops a sender before it has sent: its waiter takes it off the list itself.
            Wait::Permit { receiver, .. } => match Pin::new(receiver).poll(cx) {
                Poll::Ready(Ok(granted)) => Poll::Ready(Woken::Permit(granted)),
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
            },
            Wait::Seat { receiver, .. } => {
                Pin::new(receiver).poll(cx).map(|seat| Woken::Seat(seat.unwrap_or(Err(Reason::Shed))))
            }
        }
    }

    /// What the request waited for is there.
    pub fn woken(&mut self, now: Time, asked: &Asked, woken: Woken) -> Next {
        let wait = std::mem::replace(&mut self.wait, Wait::Nothing);
        match (woken, wait) {
            (Woken::Permit(granted), Wait::Permit { at, .. }) => {
                self.bulkhead = Some((at, granted.permit));
                self.sit(now, asked)
            }
            (Woken::Seat(Ok(())), _) => {
                self.seated = true;
                Next::In
            }
            (Woken::Seat(Err(Reason::DeadlineExceeded)), _) => Next::Refused(OwnAnswer::new(504, Own::Deadline)),
            _ => Next::Refused(OwnAnswer::busy(Own::Shed)),
        }
    }

    /// The request has waited as long as it may; at the last moment there may have been something after all.
    pub fn late(&mut self, now: Time, asked: &Asked) -> Next {
        match std::mem::replace(&mut self.wait, Wait::Nothing) {
            Wait::Permit { at, ticket, receiver } => match self.leave_bulkhead(at, ticket, receiver, true) {
                Some(granted) => {
                    self.bulkhead = Some((at, granted.permit));
                    self.sit(now, asked)
                }
                None if now >= asked.deadline => Next::Refused(OwnAnswer::new(504, Own::Deadline)),
                None => refuse(Rejected::new(Reason::BulkheadTimeout), now),
            },
            Wait::Seat { handle, receiver } => {
                self.leave_queue(now, handle, receiver);
                Next::Refused(OwnAnswer::new(504, Own::Deadline))
            }
            Wait::Nothing => Next::In,
        }
    }

    /// Takes the request off a bulkhead's queue; what it was just given is its own.
    fn leave_bulkhead(
        &self,
        at: usize,
        ticket: Ticket,
        mut receiver: oneshot::Receiver<Granted>,
        timed_out: bool,
    ) -> Option<Granted> {
        let mut state = self.inbound.lock();
        state.waiters.retain(|(bulkhead, waiter, _)| (*bulkhead, *waiter) != (at, ticket));
        let granted = receiver.try_recv().ok();
        if granted.is_none()
            && let Some((_, bulkhead)) = state.bulkheads.get_mut(at)
        {
            bulkhead.leave(ticket, timed_out);
        }
        granted
    }

    /// How it ended. `answered` is when the head of the answer was there: what came later was the client's time.
    pub fn finish(&mut self, now: Time, answered: Time, outcome: Outcome) {
        if let Some(permit) = &mut self.limit {
            permit.exclude(now.nanos_since(answered));
        }
        self.ended = Some((now, outcome));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let quiet = matches!(self.wait, Wait::Nothing) && self.limit.is_none() && self.bulkhead.is_none();
        if quiet && !self.inbound.queues.load(Ordering::SeqCst) {
            if self.seated {
                self.inbound.held.fetch_sub(1, Ordering::SeqCst);
            }
            return;
        }
        let inbound = self.inbound.clone();
        // Of what is refused, or broken off, nothing can be said.
        let (now, outcome) = self.ended.unwrap_or_else(|| (inbound.clock.now(), Outcome::Ignored));
        match std::mem::replace(&mut self.wait, Wait::Nothing) {
            Wait::Permit { at, ticket, receiver } => {
                if let Some(granted) = self.leave_bulkhead(at, ticket, receiver, false) {
                    inbound.lock().settle(now, at, granted.permit, Outcome::Cancelled);
                }
            }
            Wait::Seat { handle, receiver } => self.leave_queue(now, handle, receiver),
            Wait::Nothing => {}
        }
        if self.seated {
            inbound.leave(now);
        }
        if self.limit.is_none() && self.bulkhead.is_none() {
            return;
        }
        let mut state = inbound.lock();
        if let (Some(permit), Some(limit)) = (self.limit.take(), &mut state.limit) {
            limit.settle(now, permit, outcome);
        }
        if let Some((at, permit)) = self.bulkhead.take() {
            state.settle(now, at, permit, outcome);
        }
    }
}

fn refuse(rejected: Rejected, now: Time) -> Next {
    Next::Refused(OwnAnswer::refused(rejected, now))
}
