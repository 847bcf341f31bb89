//! Waits that end some microseconds after they should, on the thread that has the connections: the runtime's own are
//! good to a millisecond, and a wait on another thread costs two wake-ups more.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::Clock;

/// A timer of the kernel's that the runtime waits for as it waits for connections.
#[derive(Debug)]
pub(super) struct Alarm {
    clock: Clock,
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm on the runtime that this is called in.
    #[allow(
        deprecated,
        reason = "its successor is `unsafe` for types whose descriptor may change; an OwnedFd's does not"
    )]
    pub(super) fn new(clock: Clock) -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Alarm { clock, timer: AsyncFd::with_interest(timer, Interest::READABLE)? })
    }

    /// Waits until a time on the clock, ns.
    pub(super) async fn until(&self, at: u64) -> io::Result<()> {
        let left = at.saturating_sub(self.clock.now().as_nanos());
        if left == 0 {
            return Ok(());
        }
        let nanos =
            |nanos: u64| Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as _ };
        let once = Itimerspec { it_interval: nanos(0), it_value: nanos(left) };
        // The runtime hears of changes alone, and setting the timer forgets that it rang: nothing has to be read.
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.timer.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_again_and_not_early() {
        let clock = Clock::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new(clock).unwrap();
            let start = clock.now().as_nanos();
            for wait in [20_000_000, 20_000_001, 20_300_000, 21_000_000, 0, 40_000_000] {
                alarm.until(start + wait).await.unwrap();
                assert!(clock.now().as_nanos() >= start + wait, "{wait}");
            }
        });
    }
}
