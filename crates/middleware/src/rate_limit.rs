//! Rate limit: each key's requests in a stretch of time.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use plimsoll_policy::rate_limit::{Config, RateLimit};
use plimsoll_policy::{Counts, InvalidConfig, Rejected, Time};
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::Clock;
use crate::error::{Error, refuse, seconds};
use crate::secret::Secret;
use crate::{BoxFuture, lock, take_ready};

type Key = Arc<dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync>;

/// Holds callers to a quota. What is over it is answered with 429, `Retry-After`, `RateLimit-Policy` and `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers).
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

    fn admit(&self, now: Time, parts: &Parts) -> Result<(), (Rejected, Config)> {
        let (key, cost) = match &self.key {
            None => (0, 1),
            Some(key) => key(parts).map_or((0, 0), |key| (self.shared.secret.hash(key), 1)),
        };
        let mut policy = lock(&self.shared.policy);
        policy.admit(now, key, cost).map_err(|rejected| (rejected, *policy.config()))
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

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> RateLimitService<S> {
        RateLimitService { inner, layer: self.clone() }
    }
}

/// The service of a [`RateLimitLayer`].
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S, B, R> Service<Request<B>> for RateLimitService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<Bytes> + Send + 'static,
    S::Error: Send,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let now = self.layer.shared.clock.now();
        let (parts, body) = request.into_parts();
        match self.layer.admit(now, &parts) {
            Ok(()) => Box::pin(take_ready(&mut self.inner).call(Request::from_parts(parts, body))),
            Err((rejected, config)) => {
                let response = over(rejected, config, now);
                Box::pin(async move { Ok(response) })
            }
        }
    }
}

fn over<R: From<Bytes>>(rejected: Rejected, config: Config, now: Time) -> Response<R> {
    let mut response = refuse(Error::rejected(rejected, now));
    let mut put = |name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    put("ratelimit-policy", format!("\"default\";q={};w={}", config.limit, seconds(config.per)));
    if let Some(at) = rejected.retry_at {
        put("ratelimit", format!("\"default\";r=0;t={}", seconds(at.since(now))));
    }
    response
}
