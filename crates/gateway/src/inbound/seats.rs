//! Seats: how many requests the gateway holds, and who waits for one.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::Poll;

use plimsoll_policy::Reason;
use plimsoll_policy::shed::{self, Push};
use tokio::sync::oneshot;

use super::{Asked, Held, Inbound};
use crate::core::Core;
use crate::exchange::Incoming;
use crate::exchange::answer::OwnAnswer;
use crate::figures::Own;

impl Inbound {
    /// Waits for a seat, as the queue says.
    #[cold]
    pub(super) async fn seat<I: Incoming>(
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
    pub(super) fn leave(&self) {
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
