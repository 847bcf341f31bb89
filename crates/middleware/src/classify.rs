//! How an attempt has ended, as the policies count it.

use std::time::Duration;

use http::{Response, StatusCode, header};
use plimsoll_policy::Outcome;
use plimsoll_policy::pipeline::Reply;
use plimsoll_policy::retry::Hint;

use crate::held::{HeldBody, Permit};

/// Says what a result means for breaker, limits and retries, and when an answer is over.
pub trait Classify<T, E> {
    /// An answer as its caller gets it.
    type Held;

    /// What it means.
    fn classify(&self, result: &Result<T, E>) -> Reply;

    /// Hands an answer on, with the permit of its attempt. Whoever drops the permit ends the attempt: where an answer is
    /// whole, that is here.
    fn hold(&self, answer: T, permit: Permit) -> Self::Held;
}

/// Any error is a failure, and worth another attempt. An answer is whole when it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

impl<T, E> Classify<T, E> for ByResult {
    type Held = T;

    fn classify(&self, result: &Result<T, E>) -> Reply {
        Reply::new(if result.is_ok() { Outcome::Success } else { Outcome::Failure })
    }

    fn hold(&self, answer: T, _permit: Permit) -> T {
        answer
    }
}

/// By the status of an HTTP response, as the gateway does. Errors, 5xx, 408 and 429 are failures, other 4xx say nothing
/// about the target. Worth another attempt are errors, 429, 502, 503 and 504. The permit is held until the body ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByStatus;

impl<B, E> Classify<Response<B>, E> for ByStatus {
    type Held = Response<HeldBody<B>>;

    fn classify(&self, result: &Result<Response<B>, E>) -> Reply {
        let Ok(response) = result else { return Reply::new(Outcome::Failure) };
        let status = response.status();
        // A date is not heeded: its clock may be another's.
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = after.map(Duration::from_secs);
        let throttled = status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some();
        let retryable = matches!(status.as_u16(), 429 | 502..=504);
        Reply { outcome: outcome(status), retryable, hint: Hint { throttled, retry_after } }
    }

    fn hold(&self, answer: Response<B>, permit: Permit) -> Response<HeldBody<B>> {
        answer.map(|body| HeldBody::new(body, permit))
    }
}

/// What a status says of whoever answered with it.
pub(crate) fn outcome(status: StatusCode) -> Outcome {
    match status.as_u16() {
        408 | 429 | 500.. => Outcome::Failure,
        400.. => Outcome::Ignored,
        _ => Outcome::Success,
    }
}
