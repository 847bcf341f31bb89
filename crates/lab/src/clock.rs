//! The only place that reads a clock.

#![allow(clippy::disallowed_methods, reason = "this is where real time enters")]

use std::time::{Duration, Instant};

use plimsoll_policy::Time;

/// Nothing is ever waited for longer than a year, and instants cannot be as far away as [`Time::MAX`].
const FAR_NS: u64 = 365 * 86_400 * 1_000_000_000;

/// A process's clock, from when it was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { epoch: Instant::now() }
    }

    /// The time since the start.
    #[inline]
    pub fn now(self) -> Time {
        Time::from_nanos(self.nanos())
    }

    /// The same in ns.
    #[inline]
    pub fn nanos(self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// When a timer is to fire.
    pub fn instant(self, nanos: u64) -> tokio::time::Instant {
        let nanos = nanos.min(self.nanos().saturating_add(FAR_NS));
        tokio::time::Instant::from_std(self.epoch + Duration::from_nanos(nanos))
    }

    /// Waits until then without holding up others.
    pub async fn sleep_until(self, nanos: u64) {
        tokio::time::sleep_until(self.instant(nanos)).await;
    }

    /// Stops this thread until then.
    pub fn block_until(self, nanos: u64) {
        if let Some(left) = nanos.checked_sub(self.nanos()).filter(|left| *left > 0) {
            std::thread::sleep(Duration::from_nanos(left));
        }
    }
}

/// Stops this thread.
pub fn block(time: Duration) {
    std::thread::sleep(time);
}
