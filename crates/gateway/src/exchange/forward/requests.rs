//! Requests' heads, from a client to an instance.

use std::io::Write;

use super::{Peer, framing, put, put_address};
use crate::http1::Request;
use crate::http1::body::decimal;
use crate::http1::name::{Field, field};
use crate::random::Random;

/// What a gateway says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Gateway<'a> {
    /// Its name.
    pub name: &'a str,
    /// The field in which it says how much time remains.
    pub deadline: &'a str,
    /// `HTTP/1.1`: what the client spoke.
    pub version: &'a str,
}

/// Writes a request's head as an upstream gets it, all but the remaining time and the empty line.
pub fn request(out: &mut Vec<u8>, request: &Request<'_, '_>, peer: &Peer, gateway: &Gateway<'_>, random: &Random) {
    let counts = counts_hops(request.method);
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(request.host);
    out.extend_from_slice(b"\r\n");
    let (mut id, mut trace) = (None, None);
    let (mut forwarded_for, mut forwarded, mut host, mut proto) = (None, None, None, None);
    for header in request.fields {
        match field(header.name) {
            Field::Other if request.lists && request.is_listed(header.name) => {}
            Field::Other if header.name.eq_ignore_ascii_case(gateway.deadline) => {}
            Field::Other if counts && header.name.eq_ignore_ascii_case("max-forwards") => {
                if let Some(left) = decimal(header.value) {
                    let _ = write!(out, "max-forwards: {}\r\n", left.saturating_sub(1));
                }
            }
            Field::Connection
            | Field::ContentLength
            | Field::TransferEncoding
            | Field::Host
            | Field::Expect
            | Field::Upgrade
            | Field::Te
            | Field::Alike
            | Field::Hop => {}
            Field::ForwardedFor => forwarded_for = Some(header.value),
            Field::Forwarded => forwarded = Some(header.value),
            Field::ForwardedHost => host = Some(header.value),
            Field::ForwardedProto => proto = Some(header.value),
            Field::RequestId => id = Some(header.value).filter(|id| is_plain(id)),
            Field::TraceParent => trace = Some(header.value).filter(|trace| is_trace(trace)),
            _ => put(out, header.name, header.value),
        }
    }
    // After those of proxies before (RFC 9110, section 7.6.3).
    let _ = write!(out, "via: {} {}\r\n", gateway.version.trim_start_matches("HTTP/"), gateway.name);
    forward(out, peer, request.host, (forwarded_for, forwarded, host, proto));
    match id {
        Some(id) => put(out, "x-request-id", id),
        None => {
            out.extend_from_slice(b"x-request-id: ");
            hex(out, random.bits());
            hex(out, random.bits());
            out.extend_from_slice(b"\r\n");
        }
    }
    match trace {
        Some(trace) => put(out, "traceparent", trace),
        None => {
            out.extend_from_slice(b"traceparent: 00-");
            hex(out, random.bits());
            // The identifiers must not be zero.
            hex(out, random.bits() | 1);
            out.push(b'-');
            hex(out, random.bits() | 1);
            out.extend_from_slice(b"-01\r\n");
        }
    }
    framing(out, request.framing);
    if request.te_trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    if let Some(protocol) = request.upgrade {
        put(out, "upgrade", protocol);
        out.extend_from_slice(b"connection: upgrade\r\n");
    }
}

/// Whether `Max-Forwards` bounds how often such a request is passed on (RFC 9110, section 7.6.2).
fn counts_hops(method: &str) -> bool {
    matches!(method, "OPTIONS" | "TRACE")
}

/// Whether a request has come as far as it may.
pub fn is_at_its_end(request: &Request<'_, '_>) -> bool {
    counts_hops(request.method) && request.value("max-forwards").and_then(decimal) == Some(0)
}

type Said<'b> = (Option<&'b [u8]>, Option<&'b [u8]>, Option<&'b [u8]>, Option<&'b [u8]>);

/// Says whom a request is from. What a stranger said of that is left out.
fn forward(out: &mut Vec<u8>, peer: &Peer, host: &[u8], said: Said<'_>) {
    let (forwarded_for, forwarded, forwarded_host, forwarded_proto) =
        if peer.trusted { said } else { (None, None, None, None) };
    let address = peer.address;
    let proto: &[u8] = if peer.tls { b"https" } else { b"http" };
    out.extend_from_slice(b"x-forwarded-for: ");
    if let Some(before) = forwarded_for {
        out.extend_from_slice(before);
        out.extend_from_slice(b", ");
    }
    put_address(out, address);
    out.extend_from_slice(b"\r\n");
    put(out, "x-forwarded-host", forwarded_host.unwrap_or(host));
    put(out, "x-forwarded-proto", forwarded_proto.unwrap_or(proto));
    out.extend_from_slice(b"forwarded: ");
    if let Some(before) = forwarded {
        out.extend_from_slice(before);
        out.extend_from_slice(b", ");
    }
    let (before, after): (&[u8], &[u8]) = if address.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    out.extend_from_slice(before);
    put_address(out, address);
    out.extend_from_slice(after);
    out.extend_from_slice(b";host=\"");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\";proto=");
    out.extend_from_slice(proto);
    out.extend_from_slice(b"\r\n");
}

/// Sixteen digits.
fn hex(out: &mut Vec<u8>, bits: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend((0..16).rev().map(|at| DIGITS[(bits >> (at * 4) & 15) as usize]));
}

/// Whether somebody's request id is one that may be passed on and logged.
fn is_plain(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
}

/// Whether it is of the form that W3C's Trace Context gives.
fn is_trace(trace: &[u8]) -> bool {
    let digits = |from: usize, to: usize| {
        trace.get(from..to).is_some_and(|part| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)))
    };
    let some = |from: usize, to: usize| trace[from..to].iter().any(|byte| *byte != b'0');
    trace.len() >= 55
        && digits(0, 2)
        && digits(3, 35)
        && digits(36, 52)
        && digits(53, 55)
        && [2, 35, 52].iter().all(|at| trace[*at] == b'-')
        && some(3, 35)
        && some(36, 52)
        && (trace.len() == 55 && trace[..2] != *b"ff" || trace[..2] != *b"00" && trace.get(55) == Some(&b'-'))
}

/// The milliseconds that a caller says it still waits.
pub fn caller_timeout(value: &[u8]) -> Option<std::time::Duration> {
    decimal(value).map(std::time::Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::super::put_number;
    use super::*;
    use crate::http1::request::room;

    fn forwarded(head: &str, trusted: bool) -> String {
        let peer = Peer { address: "10.0.0.9".parse().unwrap(), trusted, tls: false };
        let mut room = room();
        let parsed = Request::parse(head.as_bytes(), &mut room, 100).unwrap();
        let mut out = Vec::new();
        let gateway = Gateway { name: "edge", deadline: "X-Request-Timeout-Ms", version: "HTTP/1.1" };
        request(&mut out, &parsed, &peer, &gateway, &Random::new(1));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_for_one_hop_stay_here() {
        let out = forwarded(
            "POST /a?b HTTP/1.1\r\nHost: a:80\r\nConnection: close, X-Secret, Authorization\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n\
             Proxy-Authorization: x\r\nAuthorization: y\r\nTE: trailers, gzip\r\nTransfer-Encoding: chunked\r\n\
             X-Request-Timeout-Ms: 5\r\nX-Kept: 1\r\n\r\n",
            false,
        );
        assert!(out.starts_with("POST /a?b HTTP/1.1\r\nhost: a:80\r\nAuthorization: y\r\nX-Kept: 1\r\n"), "{out}");
        for gone in ["X-Secret", "Keep-Alive", "Proxy-", "Timeout", "connection", "gzip"] {
            assert!(!out.contains(gone), "{gone}: {out}");
        }
        assert!(out.ends_with("transfer-encoding: chunked\r\nte: trailers\r\n"), "{out}");
    }

    #[test]
    fn numbers_and_addresses_are_written_as_ever() {
        for address in ["0.0.0.0", "10.200.3.255", "2001:db8::1"] {
            let mut out = Vec::new();
            put_address(&mut out, address.parse().unwrap());
            assert_eq!(out, address.as_bytes());
        }
        for bits in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let mut out = Vec::new();
            hex(&mut out, bits);
            put_number(&mut out, bits);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{bits:016x}{bits}"));
        }
    }

    #[test]
    fn a_strangers_word_is_not_passed_on() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\
                    Forwarded: for=1.1.1.1\r\n\r\n";
        let out = forwarded(head, false);
        assert!(out.contains("x-forwarded-for: 10.0.0.9\r\nx-forwarded-host: a\r\nx-forwarded-proto: http\r\n"));
        assert!(out.contains("\r\nforwarded: for=10.0.0.9;host=\"a\";proto=http\r\n"), "{out}");
        let out = forwarded(head, true);
        assert!(
            out.contains("x-forwarded-for: 1.1.1.1, 10.0.0.9\r\nx-forwarded-host: a\r\nx-forwarded-proto: https\r\n")
        );
        assert!(out.contains("\r\nforwarded: for=1.1.1.1, for=10.0.0.9;"), "{out}");
    }

    #[test]
    fn each_hop_is_named_and_counted() {
        let out = forwarded("OPTIONS / HTTP/1.1\r\nHost: a\r\nVia: 1.0 before\r\nMax-Forwards: 3\r\n\r\n", false);
        assert!(out.contains("Via: 1.0 before\r\nmax-forwards: 2\r\nvia: 1.1 edge\r\n"), "{out}");
        // It means nothing elsewhere.
        let out = forwarded("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", false);
        assert!(out.contains("Max-Forwards: 3\r\nvia: 1.1 edge\r\n"), "{out}");
        for (head, at_its_end) in [
            ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", true),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", true),
            ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n", false),
            ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", false),
        ] {
            let mut room = room();
            let request = Request::parse(head.as_bytes(), &mut room, 100).unwrap();
            assert_eq!(is_at_its_end(&request), at_its_end, "{head}");
        }
    }

    #[test]
    fn names_that_some_take_for_others_stay_here() {
        let out = forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.1.1.1\r\nContent_Length: 5\r\nX_Own: 1\r\n\r\n",
            true,
        );
        assert!(!out.contains("1.1.1.1") && !out.contains("Content") && out.contains("X_Own: 1"), "{out}");
    }

    #[test]
    fn identifiers_are_passed_on_or_made() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let out = forwarded(
            &format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc\r\ntraceparent: {trace}\r\n\r\n"),
            false,
        );
        assert!(out.contains("x-request-id: abc\r\n") && out.contains(&format!("traceparent: {trace}\r\n")), "{out}");
        let out = forwarded("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a b\r\ntraceparent: 00-0-0-0\r\n\r\n", false);
        assert!(!out.contains("a b"));
        let made = out.split("traceparent: ").nth(1).unwrap().split("\r\n").next().unwrap();
        assert!(is_trace(made.as_bytes()), "{made}");
        assert!(!is_trace(b"00-00000000000000000000000000000000-b7ad6b7169203331-01"));
        assert!(!is_trace(format!("{trace}-extra").as_bytes()));
    }
}
