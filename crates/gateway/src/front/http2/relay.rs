//! An answer's body, from an instance to an HTTP/2 stream.

use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;

use super::head::{answer_head, trailers};
use crate::core::Core;
use crate::exchange::attempt::Answered;
use crate::exchange::handle::Passed;
use crate::http1::{Body, Framing};
use crate::net::Alarm;

/// Bytes of an answer's trailers, at most.
const TRAILER_MAX: usize = 16 << 10;

/// Sends a head and the body that belongs to it. `bytes` counts what of the body was sent.
pub async fn relay(
    core: &Rc<Core>,
    answered: &mut Answered,
    respond: &mut SendResponse<Bytes>,
    alarm: &mut Alarm,
    timeout: u64,
    bytes: &mut u64,
) -> Passed {
    let Some(response) = answer_head(&answered.head, answered.status) else { return Passed::Broken };
    let mut body = Body::new(answered.framing, TRAILER_MAX);
    body.keep_trailers();
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
        let trailers = if over { trailers(body.trailers()) } else { None };
        if !content.is_empty() || over {
            *bytes += content.len() as u64;
            let last = over && trailers.is_none();
            if send(&mut stream, content.into(), last, alarm, core.clock, timeout).await.is_err() {
                return Passed::ClientGone;
            }
        }
        if over {
            return match trailers.map(|trailers| stream.send_trailers(trailers)) {
                Some(Err(_)) => Passed::ClientGone,
                Some(Ok(())) | None => Passed::Whole,
            };
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
pub async fn send(
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
