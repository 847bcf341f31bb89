//! How an attempt has ended, as the policies count it.

use std::time::Duration;

use http::{Response, StatusCode, header};
use plimsoll_policy::Outcome;
use plimsoll_policy::pipeline::Reply;
use plimsoll_policy::retry::Hint;

/// Says what a result means for breaker, limits and retries.
pub trait Classify<T, E> {
    /// What it means.
    fn classify(&self, result: &Result<T, E>) -> Reply;
}

/// Any error is a failure, and worth another attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

impl<T, E> Classify<T, E> for ByResult {
    fn classify(&self, result: &Result<T, E>) -> Reply {
        Reply::new(if result.is_ok() { Outcome::Success } else { Outcome::Failure })
    }
}

/// By the status of an HTTP response, as the gateway does. Errors, 5xx, 408 and 429 are failures, other 4xx say nothing
/// about the target. Worth another attempt are errors, 429, 502, 503 and 504.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByStatus;

impl<B, E> Classify<Response<B>, E> for ByStatus {
    fn classify(&self, result: &Result<Response<B>, E>) -> Reply {
        let Ok(response) = result else { return Reply::new(Outcome::Failure) };
        let status = response.status();
        let outcome = match status.as_u16() {
            408 | 429 | 500.. => Outcome::Failure,
            400.. => Outcome::Ignored,
            _ => Outcome::Success,
        };
        // A date is not heeded: its clock may be another's.
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = after.map(Duration::from_secs);
        let throttled = status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some();
        let retryable = matches!(status.as_u16(), 429 | 502..=504);
        Reply { outcome, retryable, hint: Hint { throttled, retry_after } }
    }
}
