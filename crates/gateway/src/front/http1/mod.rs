//! A client's connection that speaks HTTP/1.1.
//!
//! ```text
//!            readable                      no request for a second
//!   ┌──────┐ ────────► ┌──────┐ ─────────────────────────────────► ┌──────┐
//!   │ cold │           │ warm │ head, request, answer, next head ...│ cold │ ...
//!   └──────┘           └──────┘                                     └──────┘
//! ```
//!
//! A cold connection has no buffers, and its task is a few hundred bytes. Thousands of clients that keep
//! connections open for later cost little.

pub mod incoming;
pub mod relay;
pub mod request;

use std::rc::Rc;
use std::time::Duration;

use plimsoll_policy::Time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::request::After;
use super::connection::Connection;
use crate::answers::OwnAnswer;
use crate::figures::Own;
use crate::http1::head;
use crate::net::{Alarm, Buffer, Stream};

/// How long a connection keeps its buffers after a request.
const WARM: Duration = Duration::from_secs(1);
/// Connections of a core that may do so. With more of them, each gives its buffers back at once: thousands that
/// come within a second would else take 16 KiB each, and the allocator keeps what has been taken once.
const WARM_MOST: usize = 512;
/// How long, and how much, is read from a client that is told to go, so that the answer reaches it before
/// the connection is reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 << 10;

/// How a stretch of requests ended.
enum Rest {
    Cold,
    Closed,
    /// It speaks HTTP/2, and this is what was read of it.
    Http2(Vec<u8>),
}

/// How a connection begins that speaks HTTP/2 without having asked (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A connection that turns out to speak HTTP/2, and what was read of it.
pub type Http2 = (Connection, Vec<u8>);

/// Serves a connection to its end, or until it is seen to speak HTTP/2.
pub async fn serve(mut connection: Connection) -> Option<Http2> {
    let mut first = true;
    loop {
        let serving = &connection.core.current().live.plan.serving.limits;
        // Who has never sent anything has as long as for a head.
        let wait = if first { serving.header_timeout.min(serving.idle_timeout) } else { serving.idle_timeout };
        connection.idle.set(true);
        let wait = Duration::from_nanos(wait);
        let readable = match &connection.stream {
            Stream::Plain(stream) => tokio::time::timeout(wait, stream.readable()).await,
            Stream::Tls(stream) => tokio::time::timeout(wait, stream.get_ref().0.readable()).await,
        };
        if !matches!(readable, Ok(Ok(()))) {
            return None;
        }
        // In a box, so that it takes no room while the connection is cold.
        match Box::pin(warm(&mut connection, first)).await {
            Rest::Cold => first = false,
            Rest::Closed => return None,
            Rest::Http2(prefix) => return Some((connection, prefix)),
        }
    }
}

/// Serves requests as they come, until none comes for a while.
async fn warm(connection: &mut Connection, first: bool) -> Rest {
    let core = connection.core.clone();
    let clock = core.clock;
    let _counted = core.warm.clone();
    let stays_warm = |now: Time| if Rc::strong_count(&core.warm) > WARM_MOST { now } else { now + WARM };
    let mut input = core.buffers.take();
    let mut now = clock.now();
    let mut alarm = Alarm::new(clock, now + WARM);
    let mut cold_at = stays_warm(now);
    let mut first = first;
    let rest = loop {
        let read = read_head(connection, &mut input, &mut alarm, cold_at).await;
        let end = match read {
            Ok(Head::Whole(end)) => end,
            Ok(Head::Cold) if connection.stream.is_tls() || input.is_empty() => break Rest::Cold,
            Ok(Head::Cold | Head::Gone) => break Rest::Closed,
            Err(own) => {
                core.current().unrouted.own[own.why as usize].bump();
                core.current().unrouted.answers[usize::from(own.status / 100)].bump();
                let mut out = core.take_head();
                own.write(&mut out, true, false, &core.date.at(core.clock.now()));
                let _ = tokio::time::timeout(LINGER, connection.stream.write_all(&out)).await;
                core.put_head(out);
                linger(connection).await;
                break Rest::Closed;
            }
        };
        if first && input.bytes().starts_with(PREFACE) {
            break Rest::Http2(input.bytes().to_vec());
        }
        first = false;
        connection.idle.set(false);
        now = clock.now();
        let after = request::serve(connection, &mut input, end, &mut alarm, now).await;
        match after {
            After::Next => {}
            After::Close => break Rest::Closed,
            After::Linger => {
                linger(connection).await;
                break Rest::Closed;
            }
        }
        cold_at = stays_warm(clock.now());
    };
    core.buffers.put(input);
    rest
}

enum Head {
    /// A head of so many bytes.
    Whole(usize),
    /// Nothing came.
    Cold,
    /// The client has gone.
    Gone,
}

async fn read_head(
    connection: &mut Connection,
    input: &mut Buffer,
    alarm: &mut Alarm,
    cold_at: Time,
) -> Result<Head, OwnAnswer> {
    let core = connection.core.clone();
    let (header_bytes, header_timeout) = {
        let current = core.current();
        let limits = &current.live.plan.serving.limits;
        (limits.header_bytes as usize, limits.header_timeout)
    };
    let mut seen = 0;
    let mut until: Option<Time> = None;
    loop {
        if seen == 0 && !input.is_empty() {
            let blank = head::blank(input.bytes());
            input.consume(blank);
        }
        match head::end(input.bytes(), &mut seen, header_bytes) {
            Ok(Some(end)) => return Ok(Head::Whole(end)),
            Ok(None) => {}
            Err(refused) => return Err(OwnAnswer::bad_head(refused)),
        }
        let deadline = if input.is_empty() {
            connection.idle.set(true);
            cold_at
        } else {
            connection.idle.set(false);
            *until.get_or_insert_with(|| core.clock.now().plus_nanos(header_timeout))
        };
        if input.is_full() {
            input.grow();
        }
        let stream = &mut connection.stream;
        match alarm.within(deadline, std::future::poll_fn(|cx| input.poll_read(stream, cx))).await {
            Ok(Ok(0) | Err(_)) => return Ok(Head::Gone),
            Ok(Ok(_)) => {}
            Err(_) if input.is_empty() => return Ok(Head::Cold),
            Err(_) => return Err(OwnAnswer::new(408, Own::BadRequest)),
        }
    }
}

/// Says that nothing more comes, and reads for a while what the client still sends.
async fn linger(connection: &mut Connection) {
    let _ = tokio::time::timeout(LINGER, async {
        if connection.stream.shutdown().await.is_err() {
            return;
        }
        let mut waste = [0; 4096];
        let mut read = 0;
        while read < LINGER_BYTES {
            match connection.stream.read(&mut waste).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read += count,
            }
        }
    })
    .await;
}
