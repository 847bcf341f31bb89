//! Seats: how many requests the gateway holds, and who waits for one.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use plimsoll_policy::shed::{self, Push};
use plimsoll_policy::{Reason, Time};
use tokio::sync::oneshot;

use super::held::{Held, Next, Wait};
use super::{Asked, Inbound};
use crate::answers::OwnAnswer;
use crate::figures::Own;

impl Held {
    /// A seat, or a place in the queue for one.
    pub(super) fn sit(&mut self, now: Time, asked: &Asked) -> Next {
        let inbound = &self.inbound;
        if inbound.has_seat() {
            return Next::In;
        }
        if !inbound.queues.load(Ordering::SeqCst) {
            return Next::Refused(OwnAnswer::busy(Own::InFlight));
        }
        let mut seats = inbound.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if inbound.has_seat() {
            return Next::In;
        }
        let (sender, receiver) = oneshot::channel();
        let handle = match seats.push(now, sender, asked.class, asked.deadline) {
            Push::Queued(handle) => handle,
            Push::Displaced { handle, item, reason } => {
                let _ = item.send(Err(reason));
                handle
            }
            Push::Rejected(_) => return Next::Refused(OwnAnswer::busy(Own::InFlight)),
        };
        // It holds nothing while it waits. Nobody looks into the queue before the lock is free.
        inbound.held.fetch_sub(1, Ordering::SeqCst);
        drop(seats);
        self.seated = false;
        self.wait = Wait::Seat { handle, receiver };
        Next::Wait(asked.deadline)
    }

    /// Takes the request off the queue; a seat that it was just given is for the next one.
    pub(super) fn leave_queue(
        &self,
        now: Time,
        handle: shed::Handle,
        mut receiver: oneshot::Receiver<Result<(), Reason>>,
    ) {
        let mut seats = self.inbound.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.remove(handle).is_none()
            && let Ok(Ok(())) = receiver.try_recv()
        {
            drop(seats);
            self.inbound.leave(now);
        }
    }
}

impl Inbound {
    /// Whether those who are held, all of them, may be.
    fn has_seat(&self) -> bool {
        self.held.load(Ordering::SeqCst) <= self.max_in_flight.load(Ordering::Relaxed)
    }

    /// A seat is free: the next one in the queue takes it.
    pub(super) fn leave(&self, now: Time) {
        self.held.fetch_sub(1, Ordering::SeqCst);
        if !self.queues.load(Ordering::SeqCst) {
            return;
        }
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        while !seats.is_empty() && self.held.load(Ordering::SeqCst) < self.max_in_flight.load(Ordering::Relaxed) {
            let next = seats.pop(now, |sender, reason| {
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
}
