//! Answers' heads, from an instance to a client.

use std::time::Duration;

use super::{put, put_number};
use crate::clock::DateText;
use crate::http1::Response;
use crate::http1::body::decimal;
use crate::http1::name::{Field, field, members};

/// Writes an answer's head as a client gets it, all but `Connection`, `Transfer-Encoding` and the empty
/// line. `Content-Length` is kept, also where a `HEAD` or a 304 has no body to go with it. `date` is when it came,
/// for those who do not say when they gave it (RFC 9110, section 6.6.1).
pub fn response(out: &mut Vec<u8>, response: &Response<'_, '_>, date: &DateText) {
    if !head(out, response) {
        put(out, "date", date);
    }
}

/// Writes an interim answer's head as a client gets it, the empty line included.
pub fn interim(out: &mut Vec<u8>, response: &Response<'_, '_>) {
    head(out, response);
    out.extend_from_slice(b"\r\n");
}

/// What of a head is passed on. Whether there was a date.
fn head(out: &mut Vec<u8>, response: &Response<'_, '_>) -> bool {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_number(out, u64::from(response.status));
    out.push(b' ');
    out.extend_from_slice(response.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut dated = false;
    for header in response.fields {
        match field(header.name) {
            Field::Date => {
                dated = true;
                put(out, header.name, header.value);
            }
            Field::Other if response.is_listed(header.name) => {}
            Field::Connection | Field::TransferEncoding | Field::Hop => {}
            // A 204 has none (RFC 9110, section 8.6).
            Field::ContentLength if response.status == 204 || response.status < 200 => {}
            Field::Upgrade if response.status != 101 && response.status != 426 => {}
            _ => put(out, header.name, header.value),
        }
    }
    dated
}

/// The seconds of a `Retry-After`; one that names a date is not heeded.
pub fn retry_after(response: &Response<'_, '_>) -> Option<Duration> {
    let value = response.value("retry-after")?;
    decimal(value).map(Duration::from_secs)
}

/// Whether a `Cache-Control` has one of these directives.
pub fn has_directive(value: &[u8], directives: &[&str]) -> bool {
    members(value).any(|member| {
        let name = member.split(|byte| *byte == b'=').next().unwrap_or_default();
        directives.iter().any(|directive| name.eq_ignore_ascii_case(directive.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::room;

    #[test]
    fn answers_without_a_date_get_one() {
        let written = |head: &str| {
            let mut room = room();
            let parsed = Response::parse(head.as_bytes(), &mut room, "GET").unwrap();
            let mut out = Vec::new();
            response(&mut out, &parsed, b"Sun, 06 Nov 1994 08:49:37 GMT");
            String::from_utf8(out).unwrap()
        };
        let out = written("HTTP/1.1 200 OK\r\nX: 1\r\n\r\n");
        assert_eq!(out, "HTTP/1.1 200 OK\r\nX: 1\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        let out = written("HTTP/1.1 200 OK\r\nDate: Mon, 07 Nov 1994 08:49:37 GMT\r\n\r\n");
        assert_eq!(out.to_ascii_lowercase().matches("date:").count(), 1);
    }
}
