//! An answer's body, from an instance to a client.

use std::future::poll_fn;
use std::task::{Context, Poll};

use plimsoll_policy::Time;
use tokio::io::AsyncWrite;

use crate::clock::Clock;
use crate::exchange::attempt::Answered;
use crate::exchange::handle::Passed;
use crate::http1::{Body, Framing};
use crate::net::Alarm;
use crate::net::stream::poll_write_both;

/// How long a read or a write of a body may take.
pub struct Patience<'a> {
    /// The timer.
    pub alarm: &'a mut Alarm,
    /// How long, ns.
    pub timeout: u64,
    /// The time.
    pub clock: Clock,
}

impl Patience<'_> {
    /// Ready when it has taken too long. `until` is set at the first wait.
    pub fn poll(&mut self, cx: &mut Context<'_>, until: &mut Option<Time>) -> Poll<()> {
        let until = *until.get_or_insert_with(|| self.clock.now().plus_nanos(self.timeout));
        self.alarm.poll(cx, until)
    }
}

/// Bytes of an answer's trailers, at most.
const TRAILER_MAX: usize = 16 << 10;

/// Sends a head and the body that belongs to it. `unwrap` takes chunks out of their framing. `bytes` counts
/// what of the body was sent.
pub async fn relay<S: AsyncWrite + Unpin>(
    client: &mut S,
    answered: &mut Answered,
    head: &[u8],
    unwrap: bool,
    patience: &mut Patience<'_>,
    bytes: &mut u64,
) -> Passed {
    let mut body = Body::new(answered.framing, TRAILER_MAX);
    let mut head = head;
    let mut content = Vec::new();
    loop {
        let count = if unwrap {
            content.clear();
            let arrived = answered.buffer.bytes();
            match body.unwrap(arrived, |range| content.extend_from_slice(&arrived[range])) {
                Ok(count) => count,
                Err(_) => return Passed::Broken,
            }
        } else {
            match body.pass(answered.buffer.bytes()) {
                Ok(count) => count,
                Err(_) => return Passed::Broken,
            }
        };
        let piece = if unwrap { &content[..] } else { &answered.buffer.bytes()[..count] };
        if !head.is_empty() || !piece.is_empty() {
            let mut done = 0;
            let mut until = None;
            let written = poll_fn(|cx| match poll_write_both(client, cx, head, piece, &mut done) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending => patience.poll(cx, &mut until).map(|()| false),
            })
            .await;
            if !written {
                return Passed::ClientGone;
            }
            *bytes += piece.len() as u64;
            head = &[];
        }
        answered.buffer.consume(count);
        if body.is_over() {
            return Passed::Whole;
        }
        let (buffer, stream) = (&mut answered.buffer, &mut answered.stream);
        let mut until = None;
        let read = poll_fn(|cx| match buffer.poll_read(stream, cx) {
            Poll::Ready(result) => Poll::Ready(result.ok()),
            Poll::Pending => patience.poll(cx, &mut until).map(|()| None),
        })
        .await;
        match read {
            Some(0) if answered.framing == Framing::UntilClose => return Passed::Whole,
            Some(1..) => {}
            _ => return Passed::Broken,
        }
    }
}
