//! A client's connection that speaks HTTP/1.1.
//!
//! ```text
//!            readable                      no request for a second
//!   ┌──────┐ ────────► ┌──────┐ ─────────────────────────────────► ┌──────┐
//!   │ cold │           │ warm │ head, request, answer, next head ...│ cold │ ...
//!   └──────┘           └──────┘                                     └──────┘
//! ```
//!
//! A connection has a buffer only while something is in it. A cold one has no more than its task, of a few
//! hundred bytes: thousands of clients that keep connections open for later cost little.

pub mod incoming;
pub mod relay;
pub mod request;

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use plimsoll_policy::Time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::request::After;
use super::connection::Connection;
use crate::answers::OwnAnswer;
use crate::figures::Own;
use crate::http1::head;
use crate::net::{Alarm, Buffer};

/// How long a connection keeps what it needs for a request after the last one.
const WARM: Duration = Duration::from_secs(1);
/// Connections of a core that may do so. With more of them, each becomes cold at once: thousands that come within
/// a second would else take some KiB each, and the allocator keeps what has been taken once.
const WARM_MOST: usize = 128;
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

/// Serves a connection to its end, or until it is seen to speak HTTP/2: then, what was read of it.
#[expect(clippy::manual_async_fn, reason = "an argument of an `async fn` takes its room twice")]
pub fn serve(connection: &mut Connection) -> impl Future<Output = Option<Vec<u8>>> {
    async move {
        let mut first = true;
        // What came together with the end of a handshake has been read already.
        let mut waits = !connection.stream.is_tls();
        loop {
            if waits {
                let wait = patience(connection, first);
                connection.listed.set_idle(true);
                let stream = &connection.stream;
                let readable = tokio::time::timeout(wait, poll_fn(|cx| stream.poll_readable(cx)));
                if !matches!(readable.await, Ok(Ok(()))) {
                    return None;
                }
            }
            waits = true;
            // In a box, so that it takes no room while the connection is cold.
            match Box::pin(warm(connection, &mut first)).await {
                Rest::Cold => {}
                Rest::Closed => return None,
                Rest::Http2(prefix) => return Some(prefix),
            }
        }
    }
}

/// How long a request is waited for. Who has never sent anything has as long as for a head.
fn patience(connection: &Connection, first: bool) -> Duration {
    let current = connection.core.current();
    let limits = &current.live.plan.serving.limits;
    let idle = limits.idle_timeout;
    Duration::from_nanos(if first { limits.header_timeout.min(idle) } else { idle })
}

/// Serves requests as they come, until none comes for a while. `first` says that there has been none yet.
async fn warm(connection: &mut Connection, first: &mut bool) -> Rest {
    let core = connection.core.clone();
    let clock = core.clock;
    let _counted = core.warm.clone();
    let stays_warm = |now: Time| if Rc::strong_count(&core.warm) > WARM_MOST { now } else { now + WARM };
    let mut input = Buffer::default();
    let mut now = clock.now();
    let mut alarm = Alarm::new(clock, now + WARM);
    let mut cold_at = stays_warm(now);
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
                Box::pin(linger(connection)).await;
                break Rest::Closed;
            }
        };
        if *first && input.bytes().starts_with(PREFACE) {
            break Rest::Http2(input.bytes().to_vec());
        }
        *first = false;
        connection.listed.set_idle(false);
        now = clock.now();
        let after = request::serve(connection, &mut input, end, &mut alarm, now).await;
        match after {
            After::Next => {}
            After::Close => break Rest::Closed,
            After::Linger => {
                Box::pin(linger(connection)).await;
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
            connection.listed.set_idle(true);
            cold_at
        } else {
            connection.listed.set_idle(false);
            *until.get_or_insert_with(|| core.clock.now().plus_nanos(header_timeout))
        };
        let stream = &mut connection.stream;
        match alarm.within(deadline, poll_fn(|cx| core.buffers.poll_read(input, stream, cx))).await {
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
