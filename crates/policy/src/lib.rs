//! Resilience policies as pure state machines: `(now, event) -> decision`.
//!
//! Nothing here reads a clock, draws a random number, spawns, waits, logs or does I/O: time and
//! random bits are arguments, transitions are returned values. So the same code runs under the
//! simulator's virtual clock, in the gateway and in tower middleware, and a test is a table of
//! `(time, event, decision)`.
//!
//! Every policy that guards a call has the same shape: `new(config, now)` refuses an invalid
//! configuration, `admit(now)` gives a permit or a [`Rejected`], `settle(now, permit, outcome)`
//! ends it, `set_config(config, now)` changes the rules and keeps the state, `counts()` says what
//! was decided, and [`Mode::Shadow`] decides without acting.
//!
//! Each policy is a public module of its own with a `Config`, so that callers write
//! `circuit_breaker::Config` and `balance::Config`; the main types are re-exported here too.

mod decision;
mod time;

pub use decision::{Counts, InvalidConfig, Mode, Outcome, Reason, Rejected};
pub use time::{Time, nanos, unit};
