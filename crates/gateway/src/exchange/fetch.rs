//! A request through a target's policies: attempts, waits, retries, hedges.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::pipeline::Next;
use plimsoll_policy::{Deadline, Outcome, Time};

use super::attempt::{Answered, Ask, Failed, attempt};
use super::{BodyError, Incoming};
use crate::answers::OwnAnswer;
use crate::core::Core;
use crate::figures::{InstanceFigures, Own};
use crate::net::Alarm;
use crate::upstream::call::{Begun, Ended};
use crate::upstream::{Call, Instance, Upstream};

/// A request, ready to be sent.
#[derive(Debug)]
pub struct Outgoing<'r> {
    /// Its head, all but the remaining time and the empty line.
    pub head: &'r mut Vec<u8>,
    /// The field that says how much time remains.
    pub deadline_field: &'r str,
    /// The body, as far as it is kept.
    pub body: &'r [u8],
    /// Whether more of it comes from the client.
    pub streamed: bool,
    /// The method.
    pub method: &'r str,
    /// Whether the client asked for another protocol.
    pub upgrade: bool,
    /// Whether making it twice does no harm.
    pub repeatable: bool,
    /// Whether there may be extra attempts.
    pub hedges: bool,
    /// When the request must have been answered: its arrival and `timeout`, or what its caller says.
    pub until: Time,
    /// Until when the caller waits, by its own word.
    pub caller_deadline: Option<Time>,
    /// Sticks it to an instance, for balancers that mind.
    pub key: u64,
}

/// What became of a request.
#[derive(Debug)]
pub enum Fetched {
    /// An answer. The attempt that brought it is settled at its end, unless it was a failure.
    Answer(Box<Answered>, usize),
    /// None.
    Own(OwnAnswer),
    /// The client's body did not come in, or it has gone.
    Body(BodyError),
}

/// What was tried, for the log.
#[derive(Debug, Default)]
pub struct Tried {
    /// The instance asked last.
    pub instance: Option<Arc<Instance>>,
    /// When it was asked.
    pub started: Time,
    /// When the head of its answer came.
    pub answered: Option<Time>,
}

/// Makes a request until it is answered or the policies say that it is over.
pub async fn fetch<I: Incoming>(
    core: &Core,
    upstream: &Arc<Upstream>,
    outgoing: Outgoing<'_>,
    incoming: &mut I,
    alarm: &mut Alarm,
    now: Time,
    tried: &mut Tried,
) -> (Call, Fetched) {
    let base = outgoing.head.len();
    // A body that was not kept can be sent once.
    let repeatable = outgoing.repeatable && !outgoing.streamed;
    let random = core.random.bits();
    let until = Some(outgoing.until).filter(|until| *until < Time::MAX);
    let (mut call, mut begun) = Call::begin(upstream, core.clock, now, until, repeatable, outgoing.key, random);
    let mut now = now;
    let mut last = OwnAnswer::busy(Own::NoTarget);
    loop {
        let (slot, result) = match begun {
            Begun::Refused(rejected) => {
                // A retry that is refused has failed as its last attempt did.
                let refused = OwnAnswer::refused(rejected, now);
                return (call, Fetched::Own(if tried.instance.is_some() { last } else { refused }));
            }
            Begun::Wait(until) => {
                begun = match wait(&mut call, until, incoming, alarm).await {
                    Waited::Granted(granted) => {
                        now = core.clock.now();
                        call.resume(now, granted, core.random.bits())
                    }
                    Waited::Late => {
                        now = core.clock.now();
                        call.give_up(now, core.random.bits())
                    }
                    Waited::Gone => return (call, Fetched::Body(BodyError::Gone)),
                };
                continue;
            }
            Begun::Pending(deadline) => match room(&mut call, deadline.time(), incoming, alarm).await {
                Room::There => {
                    now = core.clock.now();
                    begun = call.look_again(deadline, now, core.random.bits());
                    continue;
                }
                Room::Late => (0, Err(Failed::Timeout)),
                Room::Gone => (0, Err(Failed::Body(BodyError::Gone))),
            },
            Begun::Nobody => (0, Err(Failed::Connect)),
            Begun::Ask(instance, deadline) => {
                outgoing.head.truncate(base);
                finish_head(outgoing.head, outgoing.deadline_field, deadline, call.deadline(), now);
                let ask = Ask {
                    head: outgoing.head,
                    body: outgoing.body,
                    streamed: outgoing.streamed,
                    method: outgoing.method,
                    repeatable,
                    upgrade: outgoing.upgrade,
                    deadline: deadline.time(),
                    interims: None,
                };
                tried.instance = Some(instance.clone());
                tried.started = now;
                tried.answered = None;
                if outgoing.hedges && repeatable && !outgoing.upgrade {
                    super::hedge::hedged(core, &mut call, &instance, ask, incoming, alarm, tried).await
                } else {
                    (0, attempt(core, &instance, &ask, Some(incoming), alarm, now).await)
                }
            }
        };
        now = core.clock.now();
        let figures = tried.instance.as_ref().map(|instance| core.instance(instance.slot));
        let ended = match &result {
            Ok(answered) => {
                tried.answered = Some(answered.at);
                Ended::Answered(answered.status, answered.retry_after)
            }
            Err(Failed::Connect) => Ended::ConnectError,
            Err(Failed::Reset) => Ended::Reset,
            // A caller who waits for a millisecond makes no instance slow: that would be a way to have all of
            // them ejected.
            Err(Failed::Timeout) if outgoing.caller_deadline == Some(call.deadline().time()) => {
                call.cancel(slot, now);
                return (call, Fetched::Own(OwnAnswer::new(504, Own::Timeout)));
            }
            Err(Failed::Timeout) => Ended::Timeout,
            Err(Failed::Body(_)) => {
                call.cancel(slot, now);
                let Err(Failed::Body(error)) = result else { unreachable!("just seen") };
                return (call, Fetched::Body(error));
            }
        };
        if let Some(figures) = &figures {
            count(figures, ended, now.nanos_since(tried.started));
        }
        last = own(ended, tried.instance.is_some());
        if ended.outcome() != Outcome::Failure
            && let Ok(answered) = result
        {
            // The other attempt has lost.
            call.cancel(1 - slot, now);
            return (call, Fetched::Answer(Box::new(answered), slot));
        }
        let next = call.settle(slot, now, now, ended, core.random.bits());
        let Next::Retry { at } = next else {
            call.cancel(1 - slot, now);
            let fetched = match result {
                Ok(answered) => Fetched::Answer(Box::new(answered), slot),
                Err(_) => Fetched::Own(last),
            };
            return (call, fetched);
        };
        if let Ok(answered) = result {
            discard(core, answered, now);
        }
        if !sleep(at, incoming, alarm).await {
            return (call, Fetched::Body(BodyError::Gone));
        }
        now = core.clock.now();
        begun = call.attempt(now, core.random.bits());
    }
}

/// The remaining time and the empty line.
fn finish_head(head: &mut Vec<u8>, field: &str, attempt: Deadline, call: Deadline, now: Time) {
    if let Some(left) = attempt.min(call).to_wire(now) {
        // Rounded down, so that the server gives up before we do; but not to zero, which says nothing.
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        head.extend_from_slice(field.as_bytes());
        head.extend_from_slice(b": ");
        super::forward::put_number(head, left);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
}

/// Counts how an attempt has ended at an instance.
pub fn count(figures: &InstanceFigures, ended: Ended, took: u64) {
    match ended {
        Ended::ConnectError => figures.connect_errors.bump(),
        Ended::Reset => figures.resets.bump(),
        Ended::Timeout => figures.timeouts.bump(),
        Ended::Answered(status, _) => {
            figures.answers[usize::from(status / 100).min(5)].bump();
            figures.times.record(took);
        }
    }
}

fn own(ended: Ended, asked: bool) -> OwnAnswer {
    match ended {
        Ended::ConnectError if !asked => OwnAnswer::busy(Own::NoTarget),
        Ended::ConnectError => OwnAnswer::new(502, Own::ConnectError),
        Ended::Reset | Ended::Answered(..) => OwnAnswer::new(502, Own::Reset),
        Ended::Timeout => OwnAnswer::new(504, Own::Timeout),
    }
}

/// An answer that is not passed on. Its connection is kept if all of it has come already.
pub fn discard(core: &Core, answered: Answered, now: Time) {
    let mut body = crate::http1::Body::new(answered.framing, 1024);
    let mut buffer = answered.buffer;
    let whole = body.pass(buffer.bytes()).is_ok_and(|count| count == buffer.bytes().len()) && body.is_over();
    if whole && answered.keep_alive {
        core.pool.put(answered.slot, now, answered.stream);
    }
    let all = buffer.bytes().len();
    buffer.consume(all);
    core.buffers.put(buffer);
    core.put_head(answered.head);
}

enum Waited {
    Granted(plimsoll_policy::bulkhead::Granted),
    Late,
    Gone,
}

/// Waits for the bulkhead.
async fn wait<I: Incoming>(call: &mut Call, until: Time, incoming: &mut I, alarm: &mut Alarm) -> Waited {
    let mut granted = std::pin::pin!(call.granted());
    std::future::poll_fn(|cx| {
        if let Poll::Ready(granted) = granted.as_mut().poll(cx) {
            return Poll::Ready(granted.map_or(Waited::Late, Waited::Granted));
        }
        if incoming.poll_gone(cx).is_ready() {
            return Poll::Ready(Waited::Gone);
        }
        alarm.poll(cx, until).map(|()| Waited::Late)
    })
    .await
}

enum Room {
    There,
    Late,
    Gone,
}

/// Waits for room at an instance.
async fn room<I: Incoming>(call: &mut Call, until: Time, incoming: &mut I, alarm: &mut Alarm) -> Room {
    let mut freed = std::pin::pin!(call.freed());
    std::future::poll_fn(|cx| {
        if freed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Room::There);
        }
        if incoming.poll_gone(cx).is_ready() {
            return Poll::Ready(Room::Gone);
        }
        alarm.poll(cx, until).map(|()| Room::Late)
    })
    .await
}

/// Waits for a backoff's end; false if the client has gone meanwhile.
async fn sleep<I: Incoming>(at: Time, incoming: &mut I, alarm: &mut Alarm) -> bool {
    std::future::poll_fn(|cx| {
        if incoming.poll_gone(cx).is_ready() {
            return Poll::Ready(false);
        }
        alarm.poll(cx, at).map(|()| true)
    })
    .await
}
