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

pub mod adaptive_limit;
pub mod autoscale;
pub mod balance;
pub mod bulkhead;
pub mod cache;
pub mod circuit_breaker;
pub mod coalesce;
pub mod deadline;
mod decision;
pub mod degradation;
mod hash;
pub mod health;
pub mod hedge;
pub mod idempotency;
mod keyed;
pub mod lease;
mod linked;
pub mod members;
pub mod outlier_ejection;
pub mod pipeline;
pub mod rate_limit;
pub mod read_your_writes;
pub mod retry;
pub mod retry_budget;
pub mod shed;
mod time;
mod window;

pub use adaptive_limit::AdaptiveLimit;
pub use autoscale::Autoscaler;
pub use balance::{Balancer, Eligible};
pub use bulkhead::Bulkhead;
pub use cache::Cache;
pub use circuit_breaker::CircuitBreaker;
pub use coalesce::Coalescer;
pub use deadline::Deadline;
pub use decision::{Counts, InvalidConfig, Mode, Outcome, Reason, Rejected};
pub use degradation::Degradation;
pub use health::HealthCheck;
pub use hedge::Hedge;
pub use idempotency::Idempotency;
pub use lease::{Fence, Lease};
pub use members::Members;
pub use outlier_ejection::OutlierEjection;
pub use pipeline::{Config as PipelineConfig, Pipeline};
pub use rate_limit::RateLimit;
pub use read_your_writes::ReadYourWrites;
pub use retry::Retry;
pub use retry_budget::RetryBudget;
pub use shed::ShedQueue;
pub use time::{Time, nanos, unit};
