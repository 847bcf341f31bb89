//! Toxiproxy's control API.
//!
//! | request | answer |
//! |---|---|
//! | `GET /proxies` | all proxies with their toxics, by name |
//! | `POST /proxies` | creates one, its `toxics` with it |
//! | `POST /populate` | creates those of a list, or puts them in others' place |
//! | `GET`, `PATCH` (or `POST`), `DELETE /proxies/PROXY` | one of them |
//! | `GET`, `POST /proxies/PROXY/toxics` | its toxics; adds one |
//! | `GET`, `PATCH` (or `POST`), `DELETE /proxies/PROXY/toxics/TOXIC` | one of these |
//! | `POST /reset` | enables all proxies and removes all toxics |
//! | `GET /version` | the version of the API |

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde_json::{Value, json};

use super::json::{Addition, Change, NewProxy, ToxicChange, shown_proxy, shown_toxic};
use super::{Refusal, Set};
use crate::wire::server::{self, Handler};

/// The version of Toxiproxy whose API this is.
pub const API_VERSION: &str = "2.12.0";

/// Answers until `until` ends.
pub(super) async fn serve(set: Arc<Set>, listener: std::net::TcpListener, until: impl Future<Output = ()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let connection = move || {
        let set = set.clone();
        let handler: Handler = Box::new(move |request| {
            let response = respond(&set, &request);
            Box::pin(std::future::ready(response))
        });
        Some(handler)
    };
    let mut serving = std::pin::pin!(server::serve(listener, true, connection));
    let mut until = std::pin::pin!(until);
    std::future::poll_fn(|cx| match until.as_mut().poll(cx) {
        std::task::Poll::Pending => serving.as_mut().poll(cx),
        ready => ready,
    })
    .await;
}

fn respond(set: &Set, request: &Request<Bytes>) -> Response<Bytes> {
    // No page of a browser may drive this, whatever site it is from.
    let agent = request.headers().get(header::USER_AGENT).map(|value| value.as_bytes());
    let (status, body) = if agent.is_some_and(|agent| agent.starts_with(b"Mozilla/")) {
        shown(Err(Refusal { status: 403, message: "browsers may not ask".to_owned() }))
    } else {
        answer(set, request.method(), request.uri().path(), request.body())
    };
    let mut response = Response::new(Bytes::from(body.map(|body| format!("{body}\n")).unwrap_or_default()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

type Answer = Result<(u16, Option<Value>), Refusal>;

fn shown(answer: Answer) -> (u16, Option<Value>) {
    match answer {
        Ok(answer) => answer,
        Err(Refusal { status, message }) => (status, Some(json!({ "error": message, "status": status }))),
    }
}

/// The status and the JSON with which a request is answered.
pub fn answer(set: &Set, method: &Method, path: &str, body: &[u8]) -> (u16, Option<Value>) {
    let segments: Vec<String> = path.trim_start_matches('/').split('/').map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    shown(match (method.as_str(), &segments[..]) {
        ("POST", ["populate"]) => return populate(set, body),
        ("GET" | "POST", ["proxies"]) => proxies(set, method, body),
        ("GET" | "POST" | "PATCH" | "DELETE", ["proxies", name]) => proxy(set, method, name, body),
        ("GET" | "POST", ["proxies", name, "toxics"]) => toxics(set, method, name, body),
        ("GET" | "POST" | "PATCH" | "DELETE", ["proxies", name, "toxics", toxic]) => {
            one_toxic(set, method, name, toxic, body)
        }
        ("POST", ["reset"]) => set.reset().map(|()| (204, None)),
        ("GET", ["version"]) => Ok((200, Some(json!({ "version": API_VERSION })))),
        (_, ["populate" | "proxies" | "reset" | "version"] | ["proxies", _] | ["proxies", _, "toxics"])
        | (_, ["proxies", _, "toxics", _]) => {
            Err(Refusal { status: 405, message: format!("{path} does not take {method}") })
        }
        _ => {
            let message = format!("nothing is at {path}: there are /proxies, /populate, /reset and /version");
            Err(Refusal { status: 404, message })
        }
    })
}

fn read(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("bad request body: {error}")))
}

/// Creates the proxies of a JSON list, as `POST /populate` does.
pub fn configure(set: &Set, json: &[u8]) -> Result<(), Refusal> {
    set.populate(list(json)?).1.map_or(Ok(()), Err)
}

fn list(json: &[u8]) -> Result<Vec<NewProxy>, Refusal> {
    let Value::Array(list) = read(json)? else {
        return Err(Refusal::bad("bad request body: expected a list of proxies".to_owned()));
    };
    let one = |(at, value)| {
        let placed = |refusal: Refusal| Refusal { message: format!("{refusal} at proxy {at}"), ..refusal };
        NewProxy::read(value).map_err(placed)
    };
    (1..).zip(&list).map(one).collect()
}

fn populate(set: &Set, body: &[u8]) -> (u16, Option<Value>) {
    let (done, refusal) = match list(body) {
        Ok(list) => set.populate(list),
        Err(refusal) => (Vec::new(), Some(refusal)),
    };
    let done: Vec<Value> = done.iter().map(shown_proxy).collect();
    match refusal {
        None => (201, Some(json!({ "proxies": done }))),
        Some(Refusal { status, message }) => {
            (status, Some(json!({ "error": message, "status": status, "proxies": done })))
        }
    }
}

fn proxies(set: &Set, method: &Method, body: &[u8]) -> Answer {
    if method == Method::GET {
        let all = set.all().iter().map(|proxy| (proxy.name.clone(), shown_proxy(proxy))).collect();
        return Ok((200, Some(Value::Object(all))));
    }
    let created = set.create(NewProxy::read(&read(body)?)?)?;
    Ok((201, Some(shown_proxy(&created))))
}

fn proxy(set: &Set, method: &Method, name: &str, body: &[u8]) -> Answer {
    let there = set.get(name)?;
    if method == Method::GET {
        return Ok((200, Some(shown_proxy(&there))));
    }
    if method == Method::DELETE {
        return set.delete(name).map(|()| (204, None));
    }
    let changed = set.update(name, Change::read(&read(body)?, name)?)?;
    Ok((200, Some(shown_proxy(&changed))))
}

fn toxics(set: &Set, method: &Method, name: &str, body: &[u8]) -> Answer {
    let there = set.get(name)?;
    if method == Method::GET {
        return Ok((200, Some(there.toxics.iter().map(shown_toxic).collect())));
    }
    let added = set.add(name, Addition::read(read(body)?))?;
    Ok((200, Some(shown_toxic(&added))))
}

fn one_toxic(set: &Set, method: &Method, name: &str, toxic: &str, body: &[u8]) -> Answer {
    let there = set.toxic(name, toxic)?;
    if method == Method::GET {
        return Ok((200, Some(shown_toxic(&there))));
    }
    if method == Method::DELETE {
        return set.remove(name, toxic).map(|()| (204, None));
    }
    let changed = set.change(name, toxic, &ToxicChange::read(&read(body)?)?)?;
    Ok((200, Some(shown_toxic(&changed))))
}

/// A segment of a path without its `%20`s.
fn decoded(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| segment.get(at + 1..at + 3)).flatten();
        let hex = hex.filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
