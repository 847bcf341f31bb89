//! A client's connection that speaks HTTP/2. Its requests go to the upstream as HTTP/1.1.
//!
//! Each stream is a task of its own. What the `h2` crate refuses is refused: fields for one hop, upper
//! case, a length that the body does not have. Where an answer is whole before its request is, `h2` asks for
//! no more by RST_STREAM(NO_ERROR). Trailers of requests and answers are not passed on.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderName, HeaderValue, Request as Http2Request};
use plimsoll_policy::Time;
use tokio::task::spawn_local;

use super::http1::Connection;
use super::incoming2::Stream2;
use crate::answers::OwnAnswer;
use crate::core::{Core, Place};
use crate::exchange::attempt::Answered;
use crate::exchange::ending::{End, unrouted};
use crate::exchange::facts::facts;
use crate::exchange::fetch::Tried;
use crate::exchange::forward::Peer;
use crate::exchange::handle::{Handled, Job, Passed, Passing};
use crate::figures::Own;
use crate::http1::request::room;
use crate::http1::{Body, Framing, Request, Response};
use crate::net::Alarm;
use crate::net::prefixed::Prefixed;

/// Streams of one connection at once (nginx, http2_max_concurrent_streams).
const STREAMS: u32 = 128;
/// Bytes that a stream, and a connection, may send before they are told to go on.
const WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of answers that wait to be sent, a connection.
const SEND_BUFFER: usize = 256 << 10;
/// Between two looks whether the gateway stops or the connection is idle.
const LOOK: Duration = Duration::from_millis(100);

/// Serves a connection to its end.
pub async fn serve(connection: Connection, prefix: Vec<u8>) {
    let Connection { core, stream, peer, idle, leaving: closing, place } = connection;
    idle.set(false);
    let _place: Place = place;
    let limits = core.current().live.plan.serving.limits.clone();
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(limits.header_bytes)
        .handshake(Prefixed::new(prefix, stream));
    let patience = Duration::from_nanos(limits.header_timeout);
    let Ok(Ok(mut connection)) = tokio::time::timeout(patience, handshake).await else { return };
    let open = Rc::new(Cell::new(0usize));
    let mut last = core.clock.now();
    let mut leaving = false;
    let mut look = Box::pin(tokio::time::sleep(LOOK));
    loop {
        let accepted = std::future::poll_fn(|cx| {
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Some(accepted));
            }
            look.as_mut().poll(cx).map(|()| None)
        })
        .await;
        match accepted {
            Some(Some(Ok((request, respond)))) => {
                last = core.clock.now();
                let open = Counted::new(&open);
                let task = stream_task(core.clone(), peer, request, respond, last);
                spawn_local(async move {
                    let _open = open;
                    task.await;
                });
            }
            // The connection has ended, well or badly.
            Some(None | Some(Err(_))) => return,
            None => {
                look.as_mut().reset(core.clock.instant(core.clock.now() + LOOK));
                if open.get() > 0 {
                    last = core.clock.now();
                }
                let idle = core.clock.now().nanos_since(last) > limits.idle_timeout;
                if (core.shared.is_stopping() || closing.get() || idle) && !leaving {
                    leaving = true;
                    connection.graceful_shutdown();
                }
            }
        }
    }
}

/// Counts a stream for as long as it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(open: &Rc<Cell<usize>>) -> Counted {
        open.set(open.get() + 1);
        Counted(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One request.
async fn stream_task(
    core: Rc<Core>,
    peer: Peer,
    request: Http2Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    now: Time,
) {
    let current = core.current();
    let (parts, recv) = request.into_parts();
    let mut out = core.take_head();
    let found = as_http1(&parts, recv.is_end_stream())
        .map_err(|own| (own, None))
        .and_then(|read| facts(&core, &current, &peer, &read.request(), "HTTP/2.0", &mut out, now));
    let facts = match found {
        Ok(facts) => facts,
        Err((own, said)) => {
            core.put_head(out);
            let bytes = own.text().len() as u64;
            let end = End { status: own.status, bytes, own: Some(own.why) };
            unrouted(&core, &current, parts.method.as_str(), said.as_deref(), &end, now);
            own_answer(&mut respond, own, parts.method == http::Method::HEAD);
            return;
        }
    };
    let limits = &current.live.plan.serving.limits;
    let (body_bytes, timeout) = (limits.body_bytes, limits.body_timeout);
    let mut alarm = Alarm::new(core.clock, now.plus_nanos(1_000_000_000));
    let head_only = facts.method == "HEAD";
    let chunked = facts.framing == Framing::Chunked;
    let mut job = Job {
        core: core.clone(),
        current: current.clone(),
        facts,
        out,
        started: now,
        tried: Tried::default(),
        attempts: 0,
    };
    let mut incoming = Stream2::new(recv, &mut respond, chunked, body_bytes);
    let handled = job.handle(&mut incoming, &mut alarm).await;
    drop(incoming);
    let end = match handled {
        Handled::Own(own) => {
            own_answer(&mut respond, own, head_only);
            End { status: own.status, bytes: own.text().len() as u64, own: Some(own.why) }
        }
        Handled::Fallback(answer) => {
            let mut response = http::Response::new(());
            set_status(&mut response, answer.status);
            if let Ok(kind) = HeaderValue::from_str(&answer.content_type) {
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            }
            let bytes = answer.body.len() as u64;
            send_small(&mut respond, response, answer.body.into_bytes().into(), head_only);
            End { status: answer.status, bytes, own: Some(Own::Fallback) }
        }
        Handled::Kept(ref kept) | Handled::Shared(ref kept) => {
            let cached = matches!(handled, Handled::Kept(_));
            let status = kept.status;
            let bytes = kept.body.len() as u64;
            if let Some(mut response) = head(&kept.head, status) {
                if cached {
                    response.headers_mut().insert(http::header::AGE, kept.age(core.clock.now()).into());
                }
                let body = if head_only { Bytes::new() } else { Bytes::copy_from_slice(&kept.body) };
                if let Ok(mut stream) = respond.send_response(response, body.is_empty())
                    && !body.is_empty()
                {
                    let _ = send(&mut stream, body, true, &mut alarm, core.clock, timeout).await;
                }
            }
            End { status, bytes, own: cached.then_some(Own::Cached) }
        }
        Handled::Answer(passing) => pass_on(&core, *passing, &mut respond, &mut alarm, timeout).await,
        Handled::Body(error) => match error.answer() {
            Some(own) => {
                own_answer(&mut respond, own, head_only);
                End { status: own.status, bytes: own.text().len() as u64, own: Some(own.why) }
            }
            None => End { status: 499, bytes: 0, own: None },
        },
    };
    job.end(&end, core.clock.now());
    let Job { out, .. } = job;
    core.put_head(out);
}

/// Hands an upstream's answer on.
async fn pass_on(
    core: &Rc<Core>,
    mut passing: Passing,
    respond: &mut SendResponse<Bytes>,
    alarm: &mut Alarm,
    timeout: u64,
) -> End {
    let mut bytes = 0;
    let status = passing.answered.status;
    let passed = relay(core, &mut passing.answered, respond, alarm, timeout, &mut bytes).await;
    if passed == Passed::Broken {
        respond.send_reset(Reason::INTERNAL_ERROR);
    }
    passing.end(core, passed, core.clock.now());
    End { status: if passed == Passed::ClientGone { 499 } else { status }, bytes, own: None }
}

async fn relay(
    core: &Rc<Core>,
    answered: &mut Answered,
    respond: &mut SendResponse<Bytes>,
    alarm: &mut Alarm,
    timeout: u64,
    bytes: &mut u64,
) -> Passed {
    let Some(response) = head(&answered.head, answered.status) else { return Passed::Broken };
    let mut body = Body::new(answered.framing, 16 << 10);
    let bodiless = body.is_over();
    let Ok(mut stream) = respond.send_response(response, bodiless) else { return Passed::ClientGone };
    if bodiless {
        return Passed::Whole;
    }
    loop {
        let mut content = Vec::new();
        let arrived = answered.buffer.bytes();
        let Ok(count) = body.unwrap(arrived, |range| content.extend_from_slice(&arrived[range])) else {
            return Passed::Broken;
        };
        answered.buffer.consume(count);
        let over = body.is_over();
        if !content.is_empty() || over {
            *bytes += content.len() as u64;
            if send(&mut stream, content.into(), over, alarm, core.clock, timeout).await.is_err() {
                return Passed::ClientGone;
            }
        }
        if over {
            return Passed::Whole;
        }
        let until = core.clock.now().plus_nanos(timeout);
        let (buffer, from) = (&mut answered.buffer, &mut answered.stream);
        let read = std::future::poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            match buffer.poll_read(from, cx) {
                Poll::Ready(read) => Poll::Ready(Some(read.unwrap_or(usize::MAX))),
                Poll::Pending => alarm.poll(cx, until).map(|()| Some(usize::MAX)),
            }
        })
        .await;
        match read {
            None => return Passed::ClientGone,
            Some(0) if answered.framing == Framing::UntilClose => {
                return match stream.send_data(Bytes::new(), true) {
                    Ok(()) => Passed::Whole,
                    Err(_) => Passed::ClientGone,
                };
            }
            Some(0 | usize::MAX) => return Passed::Broken,
            Some(_) => {}
        }
    }
}

/// Sends a piece as the client takes it in.
async fn send(
    stream: &mut SendStream<Bytes>,
    mut piece: Bytes,
    end: bool,
    alarm: &mut Alarm,
    clock: crate::clock::Clock,
    timeout: u64,
) -> Result<(), ()> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let until = clock.now().plus_nanos(timeout);
        let room = std::future::poll_fn(|cx| {
            if let Poll::Ready(room) = stream.poll_capacity(cx) {
                return Poll::Ready(room.and_then(Result::ok));
            }
            alarm.poll(cx, until).map(|()| None)
        })
        .await
        .ok_or(())?;
        let part = piece.split_to(room.min(piece.len()));
        if !part.is_empty() {
            stream.send_data(part, end && piece.is_empty()).map_err(drop)?;
            if end && piece.is_empty() {
                return Ok(());
            }
        }
    }
    if end { stream.send_data(Bytes::new(), true).map_err(drop) } else { Ok(()) }
}

/// A head as HTTP/1.1 has it, as HTTP/2 has it.
fn head(bytes: &[u8], status: u16) -> Option<http::Response<()>> {
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

fn set_status(response: &mut http::Response<()>, status: u16) {
    if let Ok(status) = http::StatusCode::from_u16(status) {
        *response.status_mut() = status;
    }
}

fn own_answer(respond: &mut SendResponse<Bytes>, own: OwnAnswer, head_only: bool) {
    let mut response = http::Response::new(());
    set_status(&mut response, own.status);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(seconds) = own.retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    send_small(respond, response, Bytes::from_static(own.text().as_bytes()), head_only);
}

/// Sends an answer that fits any window.
fn send_small(respond: &mut SendResponse<Bytes>, mut response: http::Response<()>, body: Bytes, head_only: bool) {
    response.headers_mut().insert(http::header::CONTENT_LENGTH, body.len().into());
    let bodiless = head_only || body.is_empty();
    if let Ok(mut stream) = respond.send_response(response, bodiless)
        && !bodiless
    {
        let _ = stream.send_data(body, true);
    }
}

/// A request's head with what HTTP/1.1 says in other words.
struct AsHttp1<'p> {
    method: &'p str,
    target: &'p str,
    host: &'p [u8],
    framing: Framing,
    te_trailers: bool,
    fields: Vec<httparse::Header<'p>>,
}

impl AsHttp1<'_> {
    fn request(&self) -> Request<'_, '_> {
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

fn as_http1(parts: &http::request::Parts, ended: bool) -> Result<AsHttp1<'_>, OwnAnswer> {
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
