//! Field names that mean something to a proxy.

/// What a field is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `Connection`: which fields are for this hop alone.
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Host`
    Host,
    /// `Expect`
    Expect,
    /// `Upgrade`
    Upgrade,
    /// `TE`
    Te,
    /// `Trailer`: forwarded, since trailers are.
    Trailer,
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`: for this hop alone.
    Hop,
    /// `Forwarded`
    Forwarded,
    /// `X-Forwarded-For`
    ForwardedFor,
    /// `X-Forwarded-Host`
    ForwardedHost,
    /// `X-Forwarded-Proto`
    ForwardedProto,
    /// `X-Request-Id`
    RequestId,
    /// `traceparent`
    TraceParent,
    /// `Cache-Control`
    CacheControl,
    /// `Authorization`
    Authorization,
    /// `Cookie`
    Cookie,
    /// `Set-Cookie`
    SetCookie,
    /// `Vary`
    Vary,
    /// `Retry-After`
    RetryAfter,
    /// `Range`
    Range,
    /// `Date`
    Date,
    /// A name like one of these, with `_` for `-`: left out. Programs behind CGI's interface, or one like it, do not
    /// tell the two apart, and would take a stranger's `X_Forwarded_For` for ours.
    Alike,
    /// Any other: forwarded as it is.
    Other,
}

/// What a name means. The length decides first, so that most names cost one comparison.
pub fn field(name: &str) -> Field {
    match known(name) {
        Field::Other if memchr::memchr(b'_', name.as_bytes()).is_some() => underscored(name),
        field => field,
    }
}

#[cold]
fn underscored(name: &str) -> Field {
    match known(&name.replace('_', "-")) {
        Field::Other => Field::Other,
        _ => Field::Alike,
    }
}

fn known(name: &str) -> Field {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Field::Te,
        4 if is("host") => Field::Host,
        4 if is("date") => Field::Date,
        4 if is("vary") => Field::Vary,
        5 if is("range") => Field::Range,
        6 if is("expect") => Field::Expect,
        6 if is("cookie") => Field::Cookie,
        7 if is("upgrade") => Field::Upgrade,
        7 if is("trailer") => Field::Trailer,
        9 if is("forwarded") => Field::Forwarded,
        10 if is("connection") => Field::Connection,
        10 if is("keep-alive") => Field::Hop,
        10 if is("set-cookie") => Field::SetCookie,
        11 if is("traceparent") => Field::TraceParent,
        11 if is("retry-after") => Field::RetryAfter,
        12 if is("x-request-id") => Field::RequestId,
        13 if is("cache-control") => Field::CacheControl,
        13 if is("authorization") => Field::Authorization,
        14 if is("content-length") => Field::ContentLength,
        15 if is("x-forwarded-for") => Field::ForwardedFor,
        16 if is("x-forwarded-host") => Field::ForwardedHost,
        16 if is("proxy-connection") => Field::Hop,
        17 if is("transfer-encoding") => Field::TransferEncoding,
        17 if is("x-forwarded-proto") => Field::ForwardedProto,
        18 if is("proxy-authenticate") => Field::Hop,
        19 if is("proxy-authorization") => Field::Hop,
        _ => Field::Other,
    }
}

/// The comma-separated members of a field's value, without the spaces around them.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Whether a name may stand among trailers: none that says where a message ends, whom it is for or how
/// it is to be treated (RFC 9110, section 6.5.1).
pub fn may_trail(name: &str) -> bool {
    !matches!(
        field(name),
        Field::ContentLength
            | Field::TransferEncoding
            | Field::Host
            | Field::Connection
            | Field::Te
            | Field::Trailer
            | Field::Expect
            | Field::Upgrade
            | Field::Hop
            | Field::Alike
            | Field::Authorization
            | Field::Cookie
            | Field::SetCookie
            | Field::CacheControl
            | Field::Range
            | Field::Date
            | Field::Vary
            | Field::RetryAfter
            | Field::Forwarded
            | Field::ForwardedFor
            | Field::ForwardedHost
            | Field::ForwardedProto
    ) && !name.eq_ignore_ascii_case("content-encoding")
        && !name.eq_ignore_ascii_case("content-type")
        && !name.eq_ignore_ascii_case("content-range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_whatever_their_case() {
        for (name, expected) in [
            ("HOST", Field::Host),
            ("Content-length", Field::ContentLength),
            ("transfer-Encoding", Field::TransferEncoding),
            ("Proxy-Connection", Field::Hop),
            ("hosts", Field::Other),
            ("content_length", Field::Alike),
            ("X_Forwarded-for", Field::Alike),
            ("x_other", Field::Other),
            ("", Field::Other),
        ] {
            assert_eq!(field(name), expected, "{name}");
        }
    }

    #[test]
    fn lists_are_split() {
        assert!(members(b" a, b,, c ,").eq([&b"a"[..], b"b", b"c"]));
        assert_eq!(members(b"").count(), 0);
    }
}
