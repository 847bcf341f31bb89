//! The only place that reads a clock.

#![allow(clippy::disallowed_methods, reason = "this is where real time enters")]

use std::time::Duration;

pub use plimsoll_gateway::clock::Clock;

/// Stops this thread.
pub fn block(time: Duration) {
    std::thread::sleep(time);
}

/// Milliseconds since 1970, which every process of this machine agrees on.
pub fn wall_ms(clock: Clock) -> u64 {
    clock.wall(clock.now()).as_millis() as u64
}
