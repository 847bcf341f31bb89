//! What a pipeline has to know about requests.

use http::{HeaderValue, Method, Request, header::HeaderName};

use crate::deadline::{DEADLINE_FIELD, RequestDeadline};

/// What a pipeline asks about a request. Requests are repeated only if this says so.
pub trait Requests<R> {
    /// The request once more, for a retry or a hedge; `None` if making it twice may do harm, or it cannot be copied.
    fn repeat(&self, request: &R) -> Option<R>;

    /// Whose quota it counts against, where the rate limit has keys.
    fn key(&self, _request: &R) -> u64 {
        0
    }

    /// Until when its caller waits.
    fn deadline(&self, _request: &R) -> RequestDeadline {
        RequestDeadline::NEVER
    }

    /// Tells the target how long an attempt is waited for.
    fn announce(&self, _request: &mut R, _deadline: RequestDeadline) {}
}

/// No request is repeated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Once;

impl<R> Requests<R> for Once {
    fn repeat(&self, _request: &R) -> Option<R> {
        None
    }
}

/// Every request is repeated: for clients that only read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cloned;

impl<R: Clone> Requests<R> for Cloned {
    fn repeat(&self, request: &R) -> Option<R> {
        Some(request.clone())
    }
}

/// Requests with an idempotent method (RFC 9110, section 9.2.2) or an `Idempotency-Key` are repeated. The caller's
/// deadline is the extension [`RequestDeadline`], where there is one, and the time left goes along in
/// [`DEADLINE_FIELD`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

/// The field of draft-ietf-httpapi-idempotency-key-header.
pub(crate) const KEY_FIELD: HeaderName = HeaderName::from_static("idempotency-key");

impl<B: Clone> Requests<Request<B>> for Http {
    fn repeat(&self, request: &Request<B>) -> Option<Request<B>> {
        let method = request.method();
        let idempotent = method.is_safe() || method == Method::PUT || method == Method::DELETE;
        (idempotent || request.headers().contains_key(KEY_FIELD)).then(|| request.clone())
    }

    fn deadline(&self, request: &Request<B>) -> RequestDeadline {
        RequestDeadline::of(request.extensions())
    }

    fn announce(&self, request: &mut Request<B>, deadline: RequestDeadline) {
        if let Some(remaining) = deadline.remaining() {
            let millis = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
            request.headers_mut().insert(DEADLINE_FIELD, HeaderValue::from(millis));
        }
    }
}
