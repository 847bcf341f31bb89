//! What goes wrong in a layer, and what to answer then.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use plimsoll_policy::{Reason, Rejected, Time};

/// Why there is no answer of the service's own. `E` is the inner service's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E = Infallible> {
    /// A policy refused; the inner service was not called, or not again.
    Rejected {
        /// The policy's reason.
        reason: Reason,
        /// When asking again makes sense, where the policy knows it.
        retry_after: Option<Duration>,
    },
    /// The deadline passed while the inner service was at work. Whether it took effect is unknown.
    TimedOut,
    /// There is no `Idempotency-Key`, and one is required.
    KeyMissing,
    /// The `Idempotency-Key` is empty, too long, or there are two.
    KeyInvalid,
    /// The body is larger than the layer takes.
    BodyTooLarge,
    /// The body ended in an error.
    BodyFailed,
    /// The request with this `Idempotency-Key` has run, but its response was too large to keep.
    NotKept,
    /// The inner service's own error.
    Inner(E),
}

impl<E> Error<E> {
    pub(crate) fn rejected(rejected: Rejected, now: Time) -> Error<E> {
        Error::Rejected { reason: rejected.reason, retry_after: rejected.retry_at.map(|at| at.since(now)) }
    }

    pub(crate) const fn reason(reason: Reason) -> Error<E> {
        Error::Rejected { reason, retry_after: None }
    }

    /// The status to answer with: 429, 503 or 504 where a policy refused, as the gateway has it; 409 and 422 for
    /// idempotency keys; 502 for the inner service's error.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::Rejected { reason, .. } => match reason {
                Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                Reason::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
                Reason::InProgress => StatusCode::CONFLICT,
                Reason::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            Error::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Error::KeyMissing | Error::KeyInvalid | Error::BodyFailed => StatusCode::BAD_REQUEST,
            Error::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Error::NotKept => StatusCode::CONFLICT,
            Error::Inner(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// When asking again makes sense: what the policy says, and a second where a busy service cannot say it.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Rejected { retry_after: Some(after), .. } => Some(*after),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1)),
        }
    }

    /// The answer as HTTP: the status, `Retry-After` in whole seconds, rounded up, and a problem in JSON (RFC 9457).
    pub fn to_response<B: From<Bytes>>(&self) -> Response<B> {
        self.to_problem(None)
    }

    /// The same, where `documentation` is a page about the problem.
    pub(crate) fn to_problem<B: From<Bytes>>(&self, documentation: Option<&str>) -> Response<B> {
        let status = self.status();
        let (kind, more) = match self {
            // draft-ietf-httpapi-ratelimit-headers-10, section 5.1
            Error::Rejected { reason: Reason::RateLimited, .. } => (
                "https://iana.org/assignments/http-problem-types#quota-exceeded",
                r#","violated-policies":["default"]"#,
            ),
            _ => (documentation.unwrap_or("about:blank"), ""),
        };
        let title = self.text();
        let body = format!(r#"{{"type":"{kind}","title":"{title}","status":{}{more}}}"#, status.as_u16());
        let mut response = Response::new(B::from(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(after)));
        }
        response
    }

    fn text(&self) -> &'static str {
        match self {
            Error::Rejected { reason, .. } => reason.as_str(),
            Error::TimedOut => "deadline exceeded",
            Error::KeyMissing => "Idempotency-Key is required",
            Error::KeyInvalid => "Idempotency-Key is not one value of 1 to 255 bytes",
            Error::BodyTooLarge => "body too large",
            Error::BodyFailed => "body could not be read",
            Error::NotKept => "done before, but the response was too large to keep",
            Error::Inner(_) => "bad gateway",
        }
    }
}

/// Whole seconds, rounded up, at least one: sooner there is nothing to come back for.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// On an answer of a layer that refused before the handler had run: [`crate::IdempotencyLayer`] then forgets the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotRun;

/// A server layer's refusal.
pub(crate) fn refuse<B: From<Bytes>>(error: Error) -> Response<B> {
    not_run(error.to_response())
}

/// An answer before the handler has run.
pub(crate) fn not_run<B>(mut response: Response<B>) -> Response<B> {
    response.extensions_mut().insert(NotRun);
    response
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Inner(error) => error.fmt(f),
            other => f.write_str(other.text()),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Displayed in full above: its cause is what comes next.
            Error::Inner(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_status_and_advice() {
        let later = Some(Duration::from_millis(1_001));
        for (error, status, after) in [
            (Error::Rejected { reason: Reason::RateLimited, retry_after: later }, 429, Some("2")),
            (Error::reason(Reason::RateLimited), 429, None),
            (Error::reason(Reason::Shed), 503, Some("1")),
            (Error::Rejected { reason: Reason::BreakerOpen, retry_after: Some(Duration::ZERO) }, 503, Some("1")),
            (Error::reason(Reason::DeadlineExceeded), 504, None),
            (Error::TimedOut, 504, None),
            (Error::reason(Reason::InProgress), 409, None),
            (Error::reason(Reason::KeyReused), 422, None),
            (Error::KeyMissing, 400, None),
            (Error::Inner(()), 502, None),
        ] {
            let response: Response<Bytes> = error.to_response();
            assert_eq!(response.status(), status, "{error:?}");
            let problem = std::str::from_utf8(response.body()).unwrap();
            let title = format!(r#""title":"{}","status":{status}"#, error.text());
            assert!(problem.starts_with(r#"{"type":""#) && problem.contains(&title), "{problem}");
            let found = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(found, after, "{error:?}");
        }
    }
}
