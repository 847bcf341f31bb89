//! Heads, as HTTP/1.1 and as HTTP/2 have them.

use http::{HeaderName, HeaderValue};

use crate::answers::OwnAnswer;
use crate::figures::Own;
use crate::http1::request::room;
use crate::http1::{Framing, Request, Response};

/// An answer's head as HTTP/1.1 has it, as HTTP/2 has it.
pub fn answer_head(bytes: &[u8], status: u16) -> Option<http::Response<()>> {
    let whole = [bytes, b"\r\n"].concat();
    let mut room = room();
    let parsed = Response::parse(&whole, &mut room, "HEAD").ok()?;
    let mut response = http::Response::new(());
    set_status(&mut response, status);
    for header in parsed.fields {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        if name != http::header::UPGRADE {
            response.headers_mut().append(name, HeaderValue::from_bytes(header.value).ok()?);
        }
    }
    Some(response)
}

/// Gives an answer its status.
pub fn set_status(response: &mut http::Response<()>, status: u16) {
    if let Ok(status) = http::StatusCode::from_u16(status) {
        *response.status_mut() = status;
    }
}

/// A request's head with what HTTP/1.1 says in other words.
pub struct AsHttp1<'p> {
    method: &'p str,
    target: &'p str,
    host: &'p [u8],
    framing: Framing,
    te_trailers: bool,
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
            expects_continue: false,
            upgrade: None,
            te_trailers: self.te_trailers,
            fields: &self.fields,
            lists: false,
        }
    }
}

/// A request's head. `ended` says that no body comes.
pub fn as_http1(parts: &http::request::Parts, ended: bool) -> Result<AsHttp1<'_>, OwnAnswer> {
    let bad = OwnAnswer::new(400, Own::BadRequest);
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => parts.headers.get(http::header::HOST).ok_or(bad)?.as_bytes(),
    };
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if !target.starts_with('/') && target != "*" || target.contains('#') {
        return Err(bad);
    }
    let length = match parts.headers.get(http::header::CONTENT_LENGTH) {
        Some(value) => Some(crate::http1::body::decimal(value.as_bytes()).ok_or(bad)?),
        None => None,
    };
    let framing = match (length, ended) {
        (Some(length), _) => Framing::Length(length),
        (None, true) => Framing::None,
        (None, false) => Framing::Chunked,
    };
    let te_trailers = parts.headers.get(http::header::TE).is_some_and(|value| value == "trailers");
    let fields =
        parts.headers.iter().map(|(name, value)| httparse::Header { name: name.as_str(), value: value.as_bytes() });
    let fields = fields.collect();
    Ok(AsHttp1 { method: parts.method.as_str(), target, host, framing, te_trailers, fields })
}
