//! Heads and trailers, as HTTP/1.1 and as HTTP/2 have them.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::websocket;
use crate::answers::OwnAnswer;
use crate::figures::Own;
use crate::http1::body::decimal;
use crate::http1::request::{is_authority, room};
use crate::http1::{FIELDS_MAX, Framing, Request, Response, name};
use crate::random::Random;

/// An answer's head as HTTP/1.1 has it, as HTTP/2 has it.
pub fn answer_head(bytes: &[u8], status: u16) -> Option<http::Response<()>> {
    let whole = [bytes, b"\r\n"].concat();
    let mut room = room();
    let parsed = Response::parse(&whole, &mut room, "HEAD").ok()?;
    let mut response = http::Response::new(());
    set_status(&mut response, status);
    for field in parsed.fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if name != header::UPGRADE {
            response.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
    }
    Some(response)
}

/// Trailers as HTTP/1.1 has them, as HTTP/2 has them. Their lines were checked as they passed.
pub fn trailers(lines: &[u8]) -> Option<HeaderMap> {
    let whole = [lines, b"\r\n"].concat();
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&whole, &mut fields) else { return None };
    let mut trailers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        trailers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(trailers).filter(|trailers| !trailers.is_empty())
}

/// Trailers as HTTP/2 has them, as lines; those that may not be trailers are left out.
pub fn trailer_lines(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers.iter().filter(|(name, _)| name::may_trail(name.as_str())) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Gives an answer its status.
pub fn set_status(response: &mut http::Response<()>, status: u16) {
    if let Ok(status) = StatusCode::from_u16(status) {
        *response.status_mut() = status;
    }
}

/// What HTTP/1.1 says in other words than a head does, and which has to be kept for it.
pub struct Words {
    /// All cookies in one field: HTTP/2 may have one a field (RFC 9113, section 8.2.3).
    cookies: Vec<u8>,
    /// For the server at the other end of a WebSocket.
    key: Option<String>,
}

impl Words {
    /// What a head needs.
    pub fn new(parts: &Parts, random: &Random) -> Words {
        let cookies: Vec<&[u8]> = parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let key = is_websocket(parts).then(|| websocket::key(random));
        Words { cookies: cookies.join(&b"; "[..]), key }
    }

    /// The field that a server has to answer with, where it agrees to a WebSocket.
    pub fn accept(&self) -> Option<String> {
        self.key.as_deref().map(websocket::accept)
    }
}

fn is_websocket(parts: &Parts) -> bool {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    parts.method == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// A request's head with what HTTP/1.1 says in other words.
pub struct AsHttp1<'p> {
    method: &'p str,
    target: &'p str,
    host: &'p [u8],
    framing: Framing,
    te_trailers: bool,
    expects_continue: bool,
    upgrade: Option<&'p [u8]>,
    fields: Vec<httparse::Header<'p>>,
}

impl AsHttp1<'_> {
    /// As a head that was read from an HTTP/1.1 connection.
    pub fn request(&self) -> Request<'_, '_> {
        Request {
            method: self.method,
            target: self.target,
            host: self.host,
            old: false,
            framing: self.framing,
            keep_alive: true,
            expects_continue: self.expects_continue,
            upgrade: self.upgrade,
            te_trailers: self.te_trailers,
            fields: &self.fields,
            lists: false,
        }
    }
}

/// A request's head, which may have so many fields. `ended` says that no body comes.
pub fn as_http1<'p>(
    parts: &'p Parts,
    words: &'p Words,
    ended: bool,
    fields_max: usize,
) -> Result<AsHttp1<'p>, OwnAnswer> {
    let refuse = |status| OwnAnswer::new(status, Own::BadRequest);
    let websocket = words.key.is_some();
    if parts.method == Method::CONNECT && !websocket {
        // Neither a tunnel to anywhere, nor another protocol than WebSocket (RFC 9220, section 3).
        return Err(refuse(501));
    }
    if parts.headers.len() > fields_max {
        return Err(refuse(431));
    }
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => parts.headers.get(header::HOST).ok_or(refuse(400))?.as_bytes(),
    };
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let is_target = target.starts_with('/') || target == "*" && parts.method == Method::OPTIONS;
    if !is_authority(host) || !is_target || target.contains('#') {
        return Err(refuse(400));
    }
    let length = match parts.headers.get(header::CONTENT_LENGTH) {
        Some(value) => Some(decimal(value.as_bytes()).ok_or(refuse(400))?),
        None => None,
    };
    // Trailers go with chunks alone.
    let announced = parts.headers.contains_key(header::TRAILER) && !ended;
    let framing = match (length, ended) {
        _ if websocket => Framing::None,
        (Some(length), _) if !announced => Framing::Length(length),
        (_, true) => Framing::None,
        (_, false) => Framing::Chunked,
    };
    let expects_continue = match parts.headers.get(header::EXPECT) {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(refuse(417)),
        None => false,
    };
    let te_trailers = parts.headers.get(header::TE).is_some_and(|value| value == "trailers");
    let mut fields: Vec<httparse::Header<'_>> = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != header::COOKIE && !(websocket && *name == header::SEC_WEBSOCKET_KEY))
        .map(|(name, value)| httparse::Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    if !words.cookies.is_empty() {
        fields.push(httparse::Header { name: "cookie", value: &words.cookies });
    }
    if let Some(key) = &words.key {
        fields.push(httparse::Header { name: "sec-websocket-key", value: key.as_bytes() });
    }
    Ok(AsHttp1 {
        method: if websocket { "GET" } else { parts.method.as_str() },
        target,
        host,
        framing,
        te_trailers,
        expects_continue,
        upgrade: websocket.then_some(b"websocket"),
        fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(builder: http::request::Builder, ended: bool) -> Result<String, u16> {
        let (parts, ()) = builder.body(()).unwrap().into_parts();
        let words = Words::new(&parts, &Random::new(1));
        let read = as_http1(&parts, &words, ended, 5).map_err(|own| own.status)?;
        let fields = read.fields.iter().map(|f| format!(" {}={}", f.name, String::from_utf8_lossy(f.value)));
        Ok(format!("{} {} {:?}{}", read.method, read.target, read.framing, fields.collect::<String>()))
    }

    #[test]
    fn requests_are_read_or_refused() {
        let builder = |method: &str, uri: &str| http::Request::builder().method(method).uri(uri);
        let get = || builder("GET", "http://a/x");
        assert_eq!(read(get(), true), Ok("GET /x None".to_owned()));
        assert_eq!(read(get().header("host", "b"), true), Ok("GET /x None host=b".to_owned()));
        assert_eq!(
            read(get().header("content-length", "5"), false),
            Ok("GET /x Length(5) content-length=5".to_owned())
        );
        let announced = get().header("content-length", "5").header("trailer", "x-sum");
        assert_eq!(read(announced, false), Ok("GET /x Chunked content-length=5 trailer=x-sum".to_owned()));
        let cookies = get().header("cookie", "a=b").header("x", "1").header("cookie", "c=d");
        assert_eq!(read(cookies, true), Ok("GET /x None x=1 cookie=a=b; c=d".to_owned()));
        for (request, status) in [
            (builder("GET", "/x"), 400),
            (builder("GET", "/x").header("host", "a\"b"), 400),
            (builder("GET", "http://u@a/x"), 400),
            (builder("CONNECT", "a:443"), 501),
            (get().header("content-length", "+5"), 400),
            (get().header("expect", "a miracle"), 417),
            ((0..6).fold(get(), |get, i| get.header(format!("x-{i}"), "1")), 431),
        ] {
            assert_eq!(read(request, true), Err(status));
        }
    }

    #[test]
    fn trailers_cross_both_ways() {
        let map = trailers(b"X-Sum: 1\r\nX-Sum: 2\r\n").unwrap();
        let mut lines = Vec::new();
        trailer_lines(&mut lines, &map);
        assert_eq!(lines, b"x-sum: 1\r\nx-sum: 2\r\n");
        assert_eq!(trailers(b""), None);
        let mut lines = Vec::new();
        let hostile = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        trailer_lines(&mut lines, &hostile);
        assert_eq!(lines, b"", "a length is no trailer");
    }
}
