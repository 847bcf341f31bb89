//! How something ended, as the one who asked sees it: the same in both worlds.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use plimsoll_gateway::upstream::call::Ended;

use crate::wire::client::Answer as Wire;

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Well.
    Ok,
    /// Well, but by a fallback or a stale copy.
    Degraded,
    /// 500
    Error,
    /// 503: a dependency is gone, or turned it away.
    Unavailable,
    /// 503 with `Retry-After`: a queue is full or a limit is reached.
    Busy,
    /// 429
    TooMany,
    /// 409: the same idempotency key is in progress.
    Conflict,
    /// No answer in time.
    Timeout,
    /// Nothing was sent: no connection.
    Refused,
    /// The connection broke.
    Reset,
    /// One of the caller's own policies said no.
    Rejected,
}

/// On good answers that a fallback or a stale copy gave.
pub const DEGRADED: &str = "x-plimsoll-degraded";

/// On answers: how long they took, of which logical request.
pub const TOOK: &str = "x-plimsoll-took";

/// How long an answer took where it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// So long, ns.
    pub nanos: u64,
    /// Of which logical request; 0 where nobody else could have been meant.
    pub logical: u64,
}

impl Took {
    /// As it goes over the wire.
    pub fn field(self) -> String {
        format!("{}.{:x}", self.nanos, self.logical)
    }

    /// From the wire.
    pub fn read(text: &str) -> Option<Took> {
        let (nanos, logical) = text.split_once('.')?;
        Some(Took { nanos: nanos.parse().ok()?, logical: u64::from_str_radix(logical, 16).ok()? })
    }

    /// Puts it on an answer.
    pub fn put(self, response: &mut Response<Bytes>) {
        if let Ok(value) = HeaderValue::from_str(&self.field()) {
            response.headers_mut().insert(TOOK, value);
        }
    }
}

impl Answer {
    /// Whether it is a good one.
    pub fn is_ok(self) -> bool {
        matches!(self, Answer::Ok | Answer::Degraded)
    }

    /// Whether a policy or a full queue turned it away, here or at the one that was asked.
    pub fn is_rejection(self) -> bool {
        matches!(self, Answer::Busy | Answer::TooMany | Answer::Rejected)
    }

    /// What an answer on the wire says.
    pub fn of_wire(answer: &Wire) -> Answer {
        match answer.status {
            200..=399 if answer.field("degraded").is_some() => Answer::Degraded,
            200..=399 => Answer::Ok,
            429 => Answer::TooMany,
            409 => Answer::Conflict,
            503 if answer.retry_after.is_some() => Answer::Busy,
            502..=504 => Answer::Unavailable,
            _ => Answer::Error,
        }
    }

    /// How an attempt without an answer has ended, or one with this status.
    pub fn of_ended(ended: Ended) -> Answer {
        match ended {
            Ended::ConnectError => Answer::Refused,
            Ended::Reset => Answer::Reset,
            Ended::Timeout => Answer::Timeout,
            Ended::Answered(status, retry_after) => {
                let mut wire = Wire::default();
                (wire.status, wire.retry_after) = (status, retry_after);
                Answer::of_wire(&wire)
            }
        }
    }

    /// What a service makes of a dependency's failure when it passes it on: one that is gone or turns it away makes it
    /// unavailable.
    pub fn passed_on(self) -> Answer {
        match self {
            Answer::Timeout | Answer::Refused | Answer::Reset | Answer::Rejected | Answer::TooMany => {
                Answer::Unavailable
            }
            other => other,
        }
    }

    /// As HTTP, with a body of so many bytes.
    pub fn response(self, bytes: u64) -> Response<Bytes> {
        let status = match self {
            Answer::Ok | Answer::Degraded => StatusCode::OK,
            Answer::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Answer::Conflict => StatusCode::CONFLICT,
            Answer::Error => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let bytes = if self.is_ok() { usize::try_from(bytes.min(BODY_MAX)).unwrap_or_default() } else { 0 };
        let body = match FILLER.get(..bytes) {
            Some(body) => Bytes::from_static(body),
            None => Bytes::from(vec![b'.'; bytes]),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if self == Answer::Degraded {
            response.headers_mut().insert(DEGRADED, HeaderValue::from_static("1"));
        }
        if self == Answer::Busy {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What most bodies are made of.
static FILLER: [u8; 16 << 10] = [b'.'; 16 << 10];
/// Larger bodies are cut to this.
const BODY_MAX: u64 = 64 << 20;
