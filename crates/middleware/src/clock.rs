//! The only place that reads a clock: tokio's, which tests can pause.

use plimsoll_policy::{Deadline, Time};
use tokio::time::Instant;

/// A century after the clock's start: beyond it nothing is ever waited for, and an instant cannot be as far away as
/// [`Time::MAX`].
const FAR: Time = Time::from_nanos(100 * 365 * 86_400 * 1_000_000_000);

/// A layer's clock. Policies count nanoseconds from the layer's making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { epoch: Instant::now() }
    }

    #[inline]
    pub(crate) fn now(self) -> Time {
        self.time(Instant::now())
    }

    #[inline]
    pub(crate) fn time(self, instant: Instant) -> Time {
        Time::ZERO + instant.saturating_duration_since(self.epoch)
    }

    /// When a timer is to fire; `None` for what never comes.
    pub(crate) fn instant(self, time: Time) -> Option<Instant> {
        (time < FAR).then(|| self.epoch + time.since(Time::ZERO))
    }

    /// A deadline that another layer set, on this clock.
    pub(crate) fn deadline(self, instant: Option<Instant>) -> Deadline {
        instant.map_or(Deadline::NEVER, |instant| Deadline::at(self.time(instant)))
    }

    /// Waits until then, or for ever.
    pub(crate) async fn sleep_until(self, time: Time) {
        match self.instant(time) {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
    }
}

/// The time left until an instant.
pub(crate) fn remaining(until: Instant) -> std::time::Duration {
    until.saturating_duration_since(Instant::now())
}
