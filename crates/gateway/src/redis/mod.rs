//! A quota that several gateways share in a Redis.
//!
//! The arithmetic is that of `plimsoll_policy::rate_limit::gcra`, in one script, on the server's clock: so
//! clocks of gateways may differ, and two requests at once cannot both take the last unit. A key is one
//! number, which the server forgets by itself once the quota is full again.
//!
//! Each core has one connection, on which its commands follow one another without waiting. While the
//! server does not answer, `store_down` decides, and the policies of the edge to it (`calls`) say how long
//! that is waited for; without a timeout there, 100 ms.

mod link;
mod protocol;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll_model::system::RateLimit as Settings;
use plimsoll_policy::pipeline::{Admission, Reply};
use plimsoll_policy::rate_limit::gcra::Gcra;
use plimsoll_policy::rate_limit::{Algorithm, StoreAnswer};
use plimsoll_policy::{InvalidConfig, Outcome, Pipeline, PipelineConfig, Time};

use crate::clock::Clock;
pub use link::Link;

/// How long the server is waited for where the file gives no timeout.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a plan says of a shared quota.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedQuota {
    /// The Redis.
    pub address: String,
    /// What keys start with.
    pub prefix: String,
    /// Policies on calls to it.
    pub calls: PipelineConfig,
    /// Between two units, ns.
    pub interval: u64,
    /// Units at once.
    pub burst: u32,
}

impl SharedQuota {
    /// A quota's settings for the script; none for other algorithms than `gcra`.
    pub fn new(gateway: &str, address: String, settings: &Settings, calls: PipelineConfig) -> Option<SharedQuota> {
        let Algorithm::Gcra { burst } = settings.config.algorithm else { return None };
        let burst = burst.unwrap_or((settings.config.limit / 10).max(1));
        let gcra = Gcra::new(settings.config.limit, settings.config.per, burst);
        let prefix = format!("plimsoll:{gateway}:");
        let calls = PipelineConfig { timeout: calls.timeout.or(Some(PATIENCE)), ..calls };
        Some(SharedQuota { address, prefix, calls, interval: gcra.interval_ns(), burst: gcra.burst() })
    }
}

/// A shared quota with the state of the policies on calls to its store.
#[derive(Debug)]
pub struct Limiter {
    /// What the plan says.
    pub quota: SharedQuota,
    pipeline: Mutex<Pipeline>,
}

impl Limiter {
    /// A limiter with no history.
    pub fn new(quota: SharedQuota, now: Time) -> Result<Limiter, InvalidConfig> {
        let pipeline = Mutex::new(Pipeline::new(quota.calls, now)?);
        Ok(Limiter { quota, pipeline })
    }

    /// Asks the store, over a core's connection to it, for one unit of `key`'s quota.
    pub async fn take(&self, link: &Link, clock: Clock, key: &[u8], now: Time, random: u64) -> StoreAnswer {
        let lock = || self.pipeline.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut flight, attempt) = {
            let mut pipeline = lock();
            let mut flight = pipeline.start(now, None, false);
            match pipeline.attempt(now, &mut flight, 0) {
                Ok(Admission::Now(attempt)) => (flight, attempt),
                // Nobody waits for a limiter: it is there to be quick.
                Ok(Admission::Queued(waiting)) => {
                    let _ = pipeline.give_up(now, &flight, waiting);
                    return StoreAnswer::Down;
                }
                Err(_) => return StoreAnswer::Down,
            }
        };
        let deadline = clock.instant(attempt.deadline().time());
        let answered = tokio::time::timeout_at(deadline, link.ask(&self.quota, key)).await;
        let end = clock.now();
        let (answer, outcome) = match answered {
            Ok(Some(wait)) if wait < 0 => (StoreAnswer::Allowed, Outcome::Success),
            Ok(Some(wait)) => {
                let retry_at = Some(end.plus_nanos(wait as u64 * 1_000));
                (StoreAnswer::Denied { retry_at }, Outcome::Success)
            }
            Ok(None) | Err(_) => (StoreAnswer::Down, Outcome::Failure),
        };
        let _ = lock().settle(end, &mut flight, attempt, Reply::new(outcome), random);
        answer
    }
}
