//! Answers of the gateway's own.

use std::io::Write;

use plimsoll_policy::{Outcome, Reason, Rejected, Time};

use crate::clock::DateText;
use crate::figures::Own;
use crate::http1::Refused;

/// An answer that no upstream gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAnswer {
    /// The status.
    pub status: u16,
    /// When to come back, s.
    pub retry_after: Option<u64>,
    /// Why.
    pub why: Own,
}

impl OwnAnswer {
    /// An answer without advice on when to come back.
    pub const fn new(status: u16, why: Own) -> OwnAnswer {
        OwnAnswer { status, retry_after: None, why }
    }

    /// An answer to come back in a second, as a busy server's has in the simulation.
    pub const fn busy(why: Own) -> OwnAnswer {
        OwnAnswer { status: 503, retry_after: Some(1), why }
    }

    /// A policy's refusal.
    pub fn refused(rejected: Rejected, now: Time) -> OwnAnswer {
        let seconds = rejected.retry_at.map(|at| at.nanos_since(now).div_ceil(1_000_000_000).max(1));
        let (status, why) = match rejected.reason {
            Reason::RateLimited => (429, Own::RateLimited),
            Reason::DeadlineExceeded => (504, Own::Deadline),
            Reason::BreakerOpen => (503, Own::Breaker),
            Reason::BulkheadFull | Reason::BulkheadTimeout => (503, Own::Bulkhead),
            Reason::LimitReached => (503, Own::Limit),
            Reason::Degraded => (503, Own::Degraded),
            Reason::NoTarget => (503, Own::NoTarget),
            Reason::InProgress => (409, Own::InProgress),
            Reason::KeyReused => (422, Own::KeyReused),
            _ => (503, Own::Shed),
        };
        OwnAnswer { status, retry_after: seconds.or((status == 503).then_some(1)), why }
    }

    /// What it says about the gateway's own work on the request: nothing, where a policy towards the upstream said no
    /// and nobody was asked.
    pub fn outcome(&self) -> Outcome {
        match self.why {
            Own::Breaker | Own::Bulkhead | Own::Limit => Outcome::Ignored,
            _ => Outcome::Failure,
        }
    }

    /// A head that was not taken.
    pub fn bad_head(refused: Refused) -> OwnAnswer {
        let status = match refused {
            Refused::Malformed(crate::http1::Malformed::Version) => 505,
            Refused::Malformed(crate::http1::Malformed::Expect) => 417,
            Refused::Malformed(_) => 400,
            Refused::HeadTooLarge | Refused::TooManyFields => 431,
        };
        OwnAnswer::new(status, Own::BadRequest)
    }

    /// Its body: one line.
    pub fn text(&self) -> &'static str {
        match self.status {
            204 => "",
            400 => "bad request\n",
            404 => "not found\n",
            405 => "method not allowed\n",
            408 => "request timeout\n",
            409 => "conflict\n",
            413 => "content too large\n",
            417 => "expectation failed\n",
            422 => "unprocessable content\n",
            429 => "too many requests\n",
            431 => "request header fields too large\n",
            501 => "not implemented\n",
            502 => "bad gateway\n",
            504 => "gateway timeout\n",
            505 => "version not supported\n",
            _ => "service unavailable\n",
        }
    }

    /// The whole answer as HTTP/1.1. `head_only` is for `HEAD`.
    pub fn write(&self, out: &mut Vec<u8>, close: bool, head_only: bool, date: &DateText) {
        let (text, reason) = (self.text(), reason(self.status));
        let length = text.len();
        let status = self.status;
        let _ = write!(out, "HTTP/1.1 {status} {reason}\r\ndate: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
        if length > 0 {
            let _ = write!(out, "content-type: text/plain\r\ncontent-length: {length}\r\n");
        }
        if let Some(seconds) = self.retry_after {
            let _ = write!(out, "retry-after: {seconds}\r\n");
        }
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !head_only {
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// The words that go with a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_when_to_come_back() {
        let now = Time::from_nanos(1_000_000_000);
        let at = |ms: u64| now.plus_nanos(ms * 1_000_000);
        for (rejected, status, seconds) in [
            (Rejected::until(Reason::RateLimited, at(1)), 429, Some(1)),
            (Rejected::until(Reason::RateLimited, at(2_001)), 429, Some(3)),
            (Rejected::new(Reason::RateLimited), 429, None),
            (Rejected::new(Reason::BulkheadFull), 503, Some(1)),
            (Rejected::until(Reason::BreakerOpen, at(5_000)), 503, Some(5)),
            (Rejected::new(Reason::DeadlineExceeded), 504, None),
            (Rejected::until(Reason::InProgress, at(60_000)), 409, Some(60)),
            (Rejected::new(Reason::KeyReused), 422, None),
        ] {
            let answer = OwnAnswer::refused(rejected, now);
            assert_eq!((answer.status, answer.retry_after), (status, seconds), "{rejected:?}");
        }
    }

    #[test]
    fn an_answer_is_whole() {
        let mut out = Vec::new();
        let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
        OwnAnswer::busy(Own::InFlight).write(&mut out, true, false, date);
        let expected = "HTTP/1.1 503 Service Unavailable\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                        content-type: text/plain\r\ncontent-length: 20\r\nretry-after: 1\r\n\
                        connection: close\r\n\r\nservice unavailable\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        // Without a body there is no length (RFC 9110, section 8.6).
        let mut out = Vec::new();
        OwnAnswer::new(204, Own::MaxForwards).write(&mut out, false, false, date);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 204 No Content\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
        );
    }
}
