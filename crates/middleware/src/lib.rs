//! Tower layers that drive the policies of `plimsoll-policy` in people's own services and clients.
//!
//! Each layer is a thin driver: it tells its policy the time and what happened, and does what the
//! policy decides, so that a service behaves as its simulation did.
//!
//! On the server's side, from the outside in:
//! [`DeadlineLayer`], [`RateLimitLayer`], [`ShedLayer`], [`ConcurrencyLayer`], [`IdempotencyLayer`].
//! They answer what they refuse, so that they fit axum's routers. On the client's side,
//! [`PipelineLayer`] goes around any tower service, and its errors are [`Error`]s.
//!
//! Every layer gives a handle, which changes its configuration while it runs and reads its counts. Clones of a layer,
//! and all services made by them, share one policy.
//!
//! ```
//! use std::time::Duration;
//! use plimsoll_middleware::{DeadlineLayer, RateLimitLayer};
//! use plimsoll_policy::{deadline, rate_limit};
//!
//! # fn main() -> Result<(), plimsoll_policy::InvalidConfig> {
//! let timeout = Some(Duration::from_secs(5));
//! let deadline = DeadlineLayer::new(deadline::Config { timeout, ..Default::default() })?;
//! let quota = RateLimitLayer::new(rate_limit::Config::new(100, Duration::from_secs(1)))?;
//! let handle = quota.handle();
//! let app: axum::Router = axum::Router::new().layer(quota).layer(deadline);
//! assert_eq!(handle.counts().admitted, 0);
//! # Ok(())
//! # }
//! ```

mod call;
mod classify;
mod clock;
mod concurrency;
mod deadline;
mod error;
mod guard;
mod held;
pub mod idempotency;
mod pipeline;
mod rate_limit;
mod requests;
mod secret;
mod shared;
mod shed;

pub use classify::{ByResult, ByStatus, Classify};
pub use concurrency::{Concurrency, ConcurrencyConfig, ConcurrencyHandle, ConcurrencyLayer};
pub use deadline::{DEADLINE_FIELD, DeadlineCounts, DeadlineHandle, DeadlineLayer, DeadlineService, RequestDeadline};
pub use error::Error;
pub use guard::Guarded;
pub use held::{HeldBody, Permit};
pub use idempotency::{IdempotencyHandle, IdempotencyLayer, IdempotencyService};
pub use pipeline::{PipelineHandle, PipelineLayer, PipelineService};
pub use rate_limit::{RateLimitHandle, RateLimitLayer, RateLimitService};
pub use requests::{Cloned, Http, Once, Requests};
pub use shared::Snapshot;
pub use shed::{ShedConfig, ShedHandle, ShedLayer, ShedService, ShedSnapshot};

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A future that may move between threads.
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is behind a lock is whole whenever the lock is free: a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service that was polled ready, with a clone in its place for the next request.
fn take_ready<S: Clone>(inner: &mut S) -> S {
    let next = inner.clone();
    std::mem::replace(inner, next)
}
