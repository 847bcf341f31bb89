//! A timer for waits that nearly never last.
//!
//! A request has a handful of deadlines, and meets nearly all of them. To set and cancel a timer for each
//! would cost more than parsing the request. So a connection has one timer, which stays set for an
//! earlier time; when it fires and the deadline is a later one, it is set again. That is once in a while,
//! not once a request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use plimsoll_policy::Time;
use tokio::time::Sleep;

use crate::clock::Clock;

/// One connection's timer.
#[derive(Debug)]
pub struct Alarm {
    clock: Clock,
    sleep: Pin<Box<Sleep>>,
    armed: Time,
    /// For who waits for two things at once, and gives it back.
    spare: Option<Box<Alarm>>,
}

/// A deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

impl Alarm {
    /// A timer, set for `at`.
    pub fn new(clock: Clock, at: Time) -> Alarm {
        Alarm { clock, sleep: Box::pin(tokio::time::sleep_until(clock.instant(at))), armed: at, spare: None }
    }

    /// Another timer, set for `at` at the latest: the one that was given back with [`keep`](Self::keep), or a new one.
    pub fn another(&mut self, at: Time) -> Box<Alarm> {
        self.spare.take().unwrap_or_else(|| Box::new(Alarm::new(self.clock, at)))
    }

    /// The other timer is needed no more.
    pub fn keep(&mut self, other: Box<Alarm>) {
        self.spare = Some(other);
    }

    /// Ready once `deadline` has passed; else the task is woken then.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Time) -> Poll<()> {
        if deadline == Time::MAX {
            return Poll::Pending;
        }
        if deadline < self.armed {
            self.set(deadline);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if self.clock.now() >= deadline {
                return Poll::Ready(());
            }
            self.set(deadline);
        }
        Poll::Pending
    }

    /// A future's result, unless the deadline passes first.
    pub async fn within<F: Future>(&mut self, deadline: Time, future: F) -> Result<F::Output, Late> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx, deadline).map(|()| Err(Late)),
        })
        .await
    }

    fn set(&mut self, at: Time) {
        self.sleep.as_mut().reset(self.clock.instant(at));
        self.armed = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn late_is_late_and_early_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let clock = Clock::start();
            let in_ms = |ms| clock.now() + Duration::from_millis(ms);
            let mut alarm = Alarm::new(clock, in_ms(5_000));
            let never = std::future::pending::<()>;
            assert_eq!(alarm.within(in_ms(10), never()).await, Err(Late));
            assert_eq!(alarm.within(in_ms(5_000), async { 7 }).await, Ok(7));
            // Fires early for the deadline before, and goes on to this one.
            let deadline = in_ms(30);
            assert_eq!(alarm.within(deadline, never()).await, Err(Late));
            assert!(clock.now() >= deadline);
            assert_eq!(alarm.within(Time::MAX, async { 8 }).await, Ok(8));
        });
    }
}
