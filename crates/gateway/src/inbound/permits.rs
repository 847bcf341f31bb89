//! Permits of the adaptive limit and of the bulkheads that groups of routes share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::bulkhead::{self, Admission, Granted, Ticket};
use plimsoll_policy::{Outcome, Reason, Rejected, Time};
use tokio::sync::oneshot;

use super::{Asked, Held, Inbound, State};
use crate::clock::Clock;
use crate::exchange::Incoming;

impl Held {
    /// The adaptive limit's permit and the bulkhead's. No reason if the client has gone.
    pub(super) async fn take<I: Incoming>(
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
}

impl State {
    pub(super) fn grant(&mut self, bulkhead: usize, granted: Granted) {
        let at = self.waiters.iter().position(|(b, ticket, _)| *b == bulkhead && *ticket == granted.ticket);
        if let Some(at) = at {
            let (_, _, waiter) = self.waiters.remove(at);
            let _ = waiter.send(granted);
        }
    }

    pub(super) fn settle(&mut self, now: Time, bulkhead: usize, permit: bulkhead::Permit, outcome: Outcome) {
        if let Some((_, policy)) = self.bulkheads.get_mut(bulkhead)
            && let Some(granted) = policy.settle(now, permit, outcome)
        {
            self.grant(bulkhead, granted);
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
