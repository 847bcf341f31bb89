//! A quota that several gateways share in a Redis.
//!
//! The arithmetic is that of `plimsoll_policy::rate_limit`, in one script an algorithm, on the server's clock: so
//! clocks of gateways may differ, and two requests at once cannot both take the last unit. A key's state is one
//! string, which the server forgets by itself once it says nothing any more.
//!
//! Each core has one connection, on which its commands follow one another without waiting. While the
//! server does not answer, `store_down` decides, and the policies of the edge to it (`calls`) say how long
//! that is waited for; without a timeout there, 100 ms.

mod link;
mod protocol;
mod script;
mod server;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_model::system::RedisAt;
use plimsoll_policy::pipeline::{Admission, Reply};
use plimsoll_policy::rate_limit::{Config, StoreAnswer};
use plimsoll_policy::{InvalidConfig, Outcome, Pipeline, PipelineConfig, Time};

use crate::clock::Clock;
pub use link::Link;
pub use script::Script;
pub use server::Server;

/// How long the server is waited for where the file gives no timeout.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a plan says of a shared quota.
#[derive(Clone, Debug)]
pub struct StoredQuota {
    /// The Redis.
    pub at: RedisAt,
    /// How it counts.
    pub script: Script,
    /// Policies on calls to it.
    pub calls: PipelineConfig,
}

impl StoredQuota {
    /// A gateway's quota.
    pub fn new(gateway: &str, at: RedisAt, config: &Config, calls: PipelineConfig) -> StoredQuota {
        let calls = PipelineConfig { timeout: calls.timeout.or(Some(PATIENCE)), ..calls };
        StoredQuota { at, script: Script::new(gateway, config), calls }
    }
}

/// A shared quota, with what is needed to ask for it.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedQuota {
    /// The Redis.
    pub server: Server,
    /// How it counts.
    pub script: Script,
    calls: PipelineConfig,
}

impl SharedQuota {
    /// Reads the files that the settings name, relative to `folder`.
    pub fn load(stored: &StoredQuota, folder: &Path) -> Result<SharedQuota, String> {
        let StoredQuota { at, script, calls } = stored;
        Ok(SharedQuota { server: Server::load(at, folder)?, script: script.clone(), calls: *calls })
    }
}

/// A shared quota with the state of the policies on calls to its store.
#[derive(Debug)]
pub struct Limiter {
    /// What the plan says.
    pub quota: Arc<SharedQuota>,
    pipeline: Mutex<Pipeline>,
}

impl Limiter {
    /// A limiter with no history.
    pub fn new(quota: SharedQuota, now: Time) -> Result<Limiter, InvalidConfig> {
        let pipeline = Mutex::new(Pipeline::new(quota.calls, now)?);
        Ok(Limiter { quota: Arc::new(quota), pipeline })
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
        let answered = tokio::time::timeout_at(deadline, link.ask(key)).await;
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
