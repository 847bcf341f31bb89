//! Answers that are read whole, so that others can have them too.

use std::sync::Arc;

use plimsoll_policy::Outcome;

use super::attempt::Answered;
use super::forward;
use crate::answers::Kept;
use crate::answers::kept::Fetch;
use crate::answers::records::Record;
use crate::clock::Clock;
use crate::core::Core;
use crate::http1::{Body, Framing};
use crate::net::Alarm;
use crate::upstream::call::Ended;

/// The largest body that is kept.
pub const BODY_MAX: usize = 1 << 20;

/// Keeps an answer if it may be kept. Its body is read whole for that, and stays where it was.
pub async fn keep(right: Fetch, core: &Core, answered: &mut Answered, id: &str, alarm: &mut Alarm, timeout: u64) {
    let now = core.clock.now();
    if matches!(answered.status, 404 | 410) {
        return right.fill(now, None, core.random.bits());
    }
    if answered.status != 200 || answered.private {
        return;
    }
    let Some(kept) = whole(answered, id, alarm, core.clock, timeout).await else { return };
    right.fill(core.clock.now(), Some(Arc::new(kept)), core.random.bits());
}

/// Keeps an answer that several share, if it may be kept.
pub fn fill(right: Fetch, core: &Core, kept: &Arc<Kept>) {
    match kept.status {
        200 => right.fill(core.clock.now(), Some(kept.clone()), core.random.bits()),
        404 | 410 => right.fill(core.clock.now(), None, core.random.bits()),
        _ => {}
    }
}

/// Records the answer to a request with an idempotency key, for those that repeat it. One that says it has failed may be
/// tried again, as in the simulation.
pub async fn remember(
    record: Record,
    core: &Core,
    answered: &mut Answered,
    ended: Ended,
    alarm: &mut Alarm,
    timeout: u64,
) {
    if ended.outcome() == Outcome::Failure {
        return record.abandon();
    }
    let kept = whole(answered, "", alarm, core.clock, timeout).await;
    record.complete(core.clock.now(), kept);
}

/// An answer as it can be given to several; none if its body is too large or breaks off.
pub async fn whole(answered: &mut Answered, id: &str, alarm: &mut Alarm, clock: Clock, timeout: u64) -> Option<Kept> {
    let body = complete(answered, alarm, clock, timeout).await?;
    let head = match answered.framing {
        Framing::Chunked => {
            let mut head = without_trailer(&answered.head);
            forward::framing(&mut head, Framing::Length(body.len() as u64));
            head
        }
        _ => answered.head.clone(),
    };
    Some(Kept { id: id.into(), head, body, status: answered.status, at: answered.at })
}

/// A head that announces no trailers: they are not kept.
fn without_trailer(head: &[u8]) -> Vec<u8> {
    let announces = |line: &[u8]| line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"trailer:"));
    head.split_inclusive(|byte| *byte == b'\n').filter(|line| !announces(line)).flatten().copied().collect()
}

/// Reads the rest of a body into its buffer, and gives its content; none if it is too large or breaks off.
async fn complete(answered: &mut Answered, alarm: &mut Alarm, clock: Clock, timeout: u64) -> Option<Vec<u8>> {
    match answered.framing {
        Framing::None => return Some(Vec::new()),
        Framing::Length(length) if length <= BODY_MAX as u64 => {}
        Framing::Chunked => {}
        // Whether all of it has come could not be told.
        Framing::Length(_) | Framing::UntilClose => return None,
    }
    let mut body = Body::new(answered.framing, 1024);
    let mut content = Vec::new();
    let mut looked = 0;
    loop {
        let arrived = &answered.buffer.bytes()[looked..];
        looked += body.unwrap(arrived, |range| content.extend_from_slice(&arrived[range])).ok()?;
        if body.is_over() {
            return Some(content);
        }
        if looked > BODY_MAX {
            return None;
        }
        if answered.buffer.is_full() {
            answered.buffer.grow();
        }
        let until = clock.now().plus_nanos(timeout);
        let (buffer, stream) = (&mut answered.buffer, &mut answered.stream);
        let read = alarm.within(until, std::future::poll_fn(|cx| buffer.poll_read(stream, cx))).await;
        if !matches!(read, Ok(Ok(1..))) {
            return None;
        }
    }
}
