//! Rate limit: each key's requests in a stretch of time.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use plimsoll_policy::rate_limit::{Config, RateLimit};
use plimsoll_policy::{Counts, InvalidConfig, Rejected, Time};
use tower_layer::Layer;

use crate::clock::Clock;
use crate::error::{Error, refuse, seconds};
use crate::guard::{Guard, Guarded};
use crate::held::Permit;
use crate::lock;
use crate::secret::Secret;

type Key = Arc<dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync>;

/// Holds callers to a quota. What is over it is answered with 429, `Retry-After`, `RateLimit-Policy` and `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone)]
pub struct RateLimitLayer {
    shared: Arc<Shared>,
    key: Option<Key>,
}

#[derive(Debug)]
struct Shared {
    policy: Mutex<RateLimit>,
    secret: Secret,
    clock: Clock,
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl RateLimitLayer {
    /// Refuses a limit, `per`, burst or number of keys of zero. Without [`key`](Self::key) all requests have one key.
    pub fn new(config: Config) -> Result<RateLimitLayer, InvalidConfig> {
        let clock = Clock::start();
        let policy = Mutex::new(RateLimit::new(config, clock.now())?);
        Ok(RateLimitLayer { shared: Arc::new(Shared { policy, secret: Secret::new(), clock }), key: None })
    }

    /// Whose quota a request counts against; `None` exempts it. It matters where the scope is per key.
    pub fn key(mut self, key: impl Fn(&Parts) -> Option<Vec<u8>> + Send + Sync + 'static) -> RateLimitLayer {
        self.key = Some(Arc::new(key));
        self
    }

    /// Changes the configuration and reads counts while the layer runs.
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle(self.shared.clone())
    }
}

/// A running [`RateLimitLayer`].
#[derive(Clone, Debug)]
pub struct RateLimitHandle(Arc<Shared>);

impl RateLimitHandle {
    /// Replaces the configuration; what each key has used stays, where the algorithm and the scope do.
    pub fn set_config(&self, config: Config) -> Result<(), InvalidConfig> {
        lock(&self.0.policy).set_config(config, self.0.clock.now())
    }

    /// What was decided so far, exempt requests in neither.
    pub fn counts(&self) -> Counts {
        lock(&self.0.policy).counts()
    }

    /// Keys remembered.
    pub fn keys(&self) -> usize {
        lock(&self.0.policy).keys()
    }
}

/// The service of a [`RateLimitLayer`].
pub type RateLimitService<S> = Guarded<S, RateLimitLayer>;

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> RateLimitService<S> {
        Guarded::new(inner, self.clone())
    }
}

impl Guard for RateLimitLayer {
    /// The key's hash; `None` if it is exempt.
    type Visit = Option<u64>;

    fn arrive(&self, parts: &mut Parts) -> Option<u64> {
        match &self.key {
            None => Some(0),
            Some(key) => key(parts).map(|key| self.shared.secret.hash(key)),
        }
    }

    async fn admit(&self, key: &mut Option<u64>) -> Result<(), Response<Bytes>> {
        let Some(key) = *key else { return Ok(()) };
        let now = self.shared.clock.now();
        let mut policy = lock(&self.shared.policy);
        policy.admit(now, key, 1).map_err(|rejected| over(rejected, *policy.config(), now))
    }

    fn answered(&self, _key: Option<u64>, _status: Option<StatusCode>) -> Permit {
        Permit::none()
    }
}

/// The name of the one policy, in both fields.
const POLICY: &str = "\"default\"";

fn over(rejected: Rejected, config: Config, now: Time) -> Response<Bytes> {
    let mut response = refuse(Error::rejected(rejected, now));
    let mut put = |name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    let (quota, window) = in_seconds(config);
    put("ratelimit-policy", format!("{POLICY};q={quota};w={window}"));
    let reset = rejected.retry_at.map_or(String::new(), |at| format!(";t={}", seconds(at.since(now))));
    put("ratelimit", format!("{POLICY};r=0{reset}"));
    response
}

/// The quota in a window of whole seconds: the field has no others.
fn in_seconds(config: Config) -> (u64, u64) {
    let window = seconds(config.per);
    let nanos = config.per.as_nanos().max(1);
    let quota = u128::from(config.limit) * u128::from(window) * 1_000_000_000 / nanos;
    // The largest integer of RFC 9651.
    (u64::try_from(quota).unwrap_or(u64::MAX).min(999_999_999_999_999), window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn windows_are_whole_seconds() {
        for (limit, millis, expected) in
            [(10, 1_000, (10, 1)), (10, 500, (20, 1)), (10, 1_500, (13, 2)), (100, 60_000, (100, 60))]
        {
            assert_eq!(in_seconds(Config::new(limit, Duration::from_millis(millis))), expected);
        }
    }
}
