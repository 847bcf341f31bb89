//! Idempotency: a request that is sent twice with one `Idempotency-Key` takes effect once
//! (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! Responses are kept in the memory of this process, as [`policy::idempotency`](plimsoll_policy::idempotency) says: a
//! service with several instances needs all of a key's requests at the same one, or a store of its own.

mod body;
mod key;
mod refusal;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, response};
use http_body::Body;
use plimsoll_policy::InvalidConfig;
use plimsoll_policy::idempotency::{Begin, Config, Counts, Idempotency, Ticket};
use tower_layer::Layer;
use tower_service::Service;

pub use body::KeptBody;

use crate::clock::Clock;
use crate::error::{Error, NotRun};
use crate::secret::Secret;
use crate::{BoxFuture, lock, take_ready};
use body::{Read, read};
use key::key_of;
use refusal::{Page, refusal};

/// On a request whose key's first request died at work: whether that took effect is unknown. A handler that can look,
/// looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unresolved;

/// On responses that were kept: `true`. The name is Stripe's.
pub const REPLAYED_FIELD: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How large bodies may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request's body; a larger one gets a 413. Default: 1 MiB, as the gateway keeps for a retry at most.
    pub request_bytes_max: usize,
    /// A response's body; a larger one is passed on and not kept. Default: 1 MiB, as the gateway's cache takes.
    pub response_bytes_max: usize,
    /// All kept responses together; what comes on top is not kept. Default: 64 MiB.
    pub kept_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { request_bytes_max: 1 << 20, response_bytes_max: 1 << 20, kept_bytes_max: 64 << 20 }
    }
}

type Scope = Arc<dyn Fn(&Parts) -> Vec<u8> + Send + Sync>;
type Keep = Arc<dyn Fn(&response::Parts) -> bool + Send + Sync>;

/// Answers repeated requests with the first one's response.
///
/// A key is required or not ([`required`](Self::required)): 400. While the first is at work: 409. The key of another
/// request: 422. Requests with other methods than POST and PATCH pass.
///
/// A request whose future is dropped, since its client went away, or whose handler ends in an error of the service
/// leaves its key in progress until the lease is over: nobody knows what it did. The next one then runs, with
/// [`Unresolved`] among its extensions.
#[derive(Clone)]
pub struct IdempotencyLayer {
    shared: Arc<Shared>,
    limits: Limits,
    required: bool,
    documentation: Option<Arc<Page>>,
    scope: Scope,
    keep: Keep,
}

struct Shared {
    policy: Mutex<Idempotency<Kept>>,
    kept_bytes: Arc<AtomicUsize>,
    /// Two hashes, so that two keys that collide in one are told apart by the other.
    key: Secret,
    fingerprint: Secret,
    clock: Clock,
}

/// A response.
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    /// `None` if it was too large.
    body: Option<Bytes>,
    bytes: usize,
    kept_bytes: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kept_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("limits", &self.limits)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

impl IdempotencyLayer {
    /// Refuses durations and numbers of zero.
    pub fn new(config: Config) -> Result<IdempotencyLayer, InvalidConfig> {
        let shared = Shared {
            policy: Mutex::new(Idempotency::new(config)?),
            kept_bytes: Arc::default(),
            key: Secret::new(),
            fingerprint: Secret::new(),
            clock: Clock::start(),
        };
        let scope =
            |parts: &Parts| parts.headers.get(header::AUTHORIZATION).map_or(Vec::new(), |v| v.as_bytes().to_vec());
        Ok(IdempotencyLayer {
            shared: Arc::new(shared),
            limits: Limits::default(),
            required: false,
            documentation: None,
            scope: Arc::new(scope),
            keep: Arc::new(|_| true),
        })
    }

    /// POST and PATCH without a key get a 400. By default they pass.
    pub fn required(mut self) -> IdempotencyLayer {
        self.required = true;
        self
    }

    /// Where the service says how its keys are to be used, and for how long they are kept: refusals link to it, as the
    /// draft asks for. Refuses what is no URI.
    pub fn documentation(mut self, url: &str) -> Result<IdempotencyLayer, InvalidConfig> {
        self.documentation = Some(Arc::new(Page::new(url)?));
        Ok(self)
    }

    /// How large bodies may be.
    pub fn limits(mut self, limits: Limits) -> IdempotencyLayer {
        self.limits = limits;
        self
    }

    /// Whose key it is: two callers' equal keys are two keys. By default told apart by `Authorization`.
    pub fn scope(mut self, scope: impl Fn(&Parts) -> Vec<u8> + Send + Sync + 'static) -> IdempotencyLayer {
        self.scope = Arc::new(scope);
        self
    }

    /// Which responses are kept; what is not kept must have had no effect, since the next request runs. By default
    /// all are, failures too (Stripe's API), but for refusals by layers of this crate further in.
    pub fn keep(mut self, keep: impl Fn(&response::Parts) -> bool + Send + Sync + 'static) -> IdempotencyLayer {
        self.keep = Arc::new(keep);
        self
    }

    /// Changes the configuration and reads counts while the layer runs.
    pub fn handle(&self) -> IdempotencyHandle {
        IdempotencyHandle(self.shared.clone())
    }
}

/// A running [`IdempotencyLayer`].
#[derive(Clone)]
pub struct IdempotencyHandle(Arc<Shared>);

impl fmt::Debug for IdempotencyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdempotencyHandle").field(&self.counts()).finish()
    }
}

impl IdempotencyHandle {
    /// Replaces the configuration; what is remembered stays for as long as it was promised.
    pub fn set_config(&self, config: Config) -> Result<(), InvalidConfig> {
        lock(&self.0.policy).set_config(config)
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        lock(&self.0.policy).counts()
    }

    /// Keys remembered.
    pub fn keys(&self) -> usize {
        lock(&self.0.policy).len()
    }

    /// Bytes of the bodies that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.0.kept_bytes.load(Ordering::Relaxed)
    }
}

/// What to do with a request.
enum Plan<B> {
    Run(Ticket, bool),
    Answer(Response<B>),
    Refuse(Error),
}

impl IdempotencyLayer {
    fn refuse<B: From<Bytes>>(&self, error: Error) -> Response<B> {
        refusal(error, self.documentation.as_deref())
    }
}

impl Shared {
    fn begin<B: From<Bytes>>(&self, key: u64, fingerprint: u64) -> Plan<B> {
        let now = self.clock.now();
        match lock(&self.policy).begin(now, key, fingerprint) {
            Begin::Proceed(ticket) => Plan::Run(ticket, false),
            Begin::Unresolved(ticket) => Plan::Run(ticket, true),
            Begin::Replay(kept) => kept.replay().map_or(Plan::Refuse(Error::NotKept), Plan::Answer),
            Begin::Refused(rejected) => Plan::Refuse(Error::rejected(rejected, now)),
        }
    }

    /// Room for a body among the kept ones.
    fn reserve(&self, bytes: usize, max: usize) -> bool {
        let room = |kept: usize| kept.checked_add(bytes).filter(|kept| *kept <= max);
        self.kept_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    fn complete(&self, ticket: Ticket, parts: &response::Parts, body: Option<Bytes>, limits: &Limits) {
        let body = body.filter(|body| self.reserve(body.len(), limits.kept_bytes_max));
        let kept = Kept {
            status: parts.status,
            headers: parts.headers.clone(),
            bytes: body.as_ref().map_or(0, Bytes::len),
            body,
            kept_bytes: self.kept_bytes.clone(),
        };
        lock(&self.policy).complete(self.clock.now(), ticket, kept);
    }
}

impl Kept {
    /// `None` if it was too large to keep.
    fn replay<B: From<Bytes>>(&self) -> Option<Response<B>> {
        let mut response = Response::new(B::from(self.body.clone()?));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response.headers_mut().insert(REPLAYED_FIELD, HeaderValue::from_static("true"));
        Some(response)
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> IdempotencyService<S> {
        IdempotencyService { inner, layer: self.clone() }
    }
}

/// The service of an [`IdempotencyLayer`].
#[derive(Clone, Debug)]
pub struct IdempotencyService<S> {
    inner: S,
    layer: IdempotencyLayer,
}

impl<S, B, R> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    type Response = Response<KeptBody<R>>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response<KeptBody<R>>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let layer = self.layer.clone();
        Box::pin(async move {
            if !matches!(*request.method(), Method::POST | Method::PATCH) {
                return Ok(inner.call(request).await?.map(KeptBody::passed));
            }
            let (mut parts, body) = request.into_parts();
            let key = match key_of(&parts.headers) {
                Ok(Some(key)) => key,
                Ok(None) if layer.required => return Ok(layer.refuse(Error::KeyMissing)),
                Ok(None) => {
                    let response = inner.call(Request::from_parts(parts, body)).await?;
                    return Ok(response.map(KeptBody::passed));
                }
                Err(error) => return Ok(layer.refuse(error)),
            };
            let body = match read(body, layer.limits.request_bytes_max).await {
                Ok(Read::Whole(body, _)) => body,
                Ok(Read::TooLarge { .. }) => return Ok(layer.refuse(Error::BodyTooLarge)),
                Err(_) => return Ok(layer.refuse(Error::BodyFailed)),
            };
            let shared = &layer.shared;
            let identity = (key, (layer.scope)(&parts));
            let whole = (&identity, &parts.method, &parts.uri, &body);
            let (ticket, unresolved) = match shared.begin(shared.key.hash(&identity), shared.fingerprint.hash(whole)) {
                Plan::Run(ticket, unresolved) => (ticket, unresolved),
                Plan::Answer(response) => return Ok(response),
                Plan::Refuse(error) => return Ok(layer.refuse(error)),
            };
            if unresolved {
                parts.extensions.insert(Unresolved);
            }
            // From here on a dropped future leaves its ticket behind: the key stays in progress until its lease is over.
            let response = inner.call(Request::from_parts(parts, B::from(body))).await?;
            let (parts, body) = response.into_parts();
            if parts.extensions.get::<NotRun>().is_some() || !(layer.keep)(&parts) {
                lock(&shared.policy).abandon(ticket);
                return Ok(Response::from_parts(parts, KeptBody::passed(body)));
            }
            let body = match read(body, layer.limits.response_bytes_max).await {
                Ok(Read::Whole(bytes, trailers)) => {
                    // Trailers are passed on and not kept: few clients read them.
                    shared.complete(ticket, &parts, Some(bytes.clone()), &layer.limits);
                    KeptBody::whole(bytes, trailers)
                }
                Ok(Read::TooLarge { start, rest }) => {
                    shared.complete(ticket, &parts, None, &layer.limits);
                    KeptBody::rest(start, rest)
                }
                Err((start, error)) => {
                    // It has run, and what it would have said is lost.
                    shared.complete(ticket, &parts, None, &layer.limits);
                    KeptBody::broken(start, error)
                }
            };
            Ok(Response::from_parts(parts, body))
        })
    }
}
