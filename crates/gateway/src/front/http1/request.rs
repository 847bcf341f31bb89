//! One request of an HTTP/1.1 connection, from its head to the end of its answer.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::Write;

use plimsoll_model::system::FallbackAnswer;
use plimsoll_policy::Time;

use super::incoming::Arriving;
use super::relay::{Patience, relay};
use crate::answers::own::reason;
use crate::answers::{Kept, OwnAnswer};
use crate::clock::DateText;
use crate::exchange::BodyError;
use crate::exchange::ending::{End, unrouted};
use crate::exchange::facts::{facts, interned};
use crate::exchange::fetch::Tried;
use crate::exchange::handle::{Handled, Job, Passed, Passing};
use crate::figures::Own;
use crate::front::connection::Connection;
use crate::front::tunnel::{Ways, tunnel};
use crate::http1::request::room;
use crate::http1::{Body, Framing, Request};
use crate::net::stream::poll_write_both;
use crate::net::{Alarm, Buffer};

/// What follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next one.
    Next,
    /// The connection is closed.
    Close,
    /// The same, but the client may still be sending.
    Linger,
}

/// Serves the request whose head is the first `end` bytes of `input`.
pub async fn serve(connection: &mut Connection, input: &mut Buffer, end: usize, alarm: &mut Alarm, now: Time) -> After {
    let core = connection.core.clone();
    let current = core.current();
    let mut out = core.take_head();
    // Where there is no route, the connection goes on only if nothing of a body has to be skipped.
    let (mut method, mut stays) = (Cow::Borrowed(""), false);
    let found = {
        let fields_max = current.live.plan.serving.limits.header_count as usize;
        let mut room = room();
        match Request::parse(&input.bytes()[..end], &mut room, fields_max) {
            Ok(request) => {
                method = interned(request.method);
                let leaving = core.shared.is_stopping() || connection.listed.is_leaving();
                stays = request.keep_alive && !request.framing.has_body() && !leaving;
                let version = if request.old { "HTTP/1.0" } else { "HTTP/1.1" };
                facts(&core, &current, &connection.peer, &request, version, &mut out, now)
            }
            Err(refused) => Err((OwnAnswer::bad_head(refused), None)),
        }
    };
    let facts = match found {
        Ok(facts) => facts,
        Err((own, said)) => {
            let counted = End { status: own.status, bytes: own.text().len() as u64, own: Some(own.why) };
            unrouted(&core, &current, &method, said.as_deref(), &counted, now);
            out.clear();
            own.write(&mut out, !stays, method == "HEAD", &core.date.at(now));
            input.consume(end);
            let written = write(connection, &out, &[], alarm).await;
            core.put_head(out);
            return match (written, stays) {
                (false, _) => After::Close,
                (true, true) => After::Next,
                (true, false) => After::Linger,
            };
        }
    };
    input.consume(end);
    let body = Body::new(facts.framing, current.live.plan.serving.limits.header_bytes as usize);
    let job = Job { core, current, facts, out, started: now, tried: Tried::default(), attempts: 0 };
    let mut serving = Serving { connection, input, alarm, body, owed: Vec::new(), job };
    let after = serving.run().await;
    let Serving { job: Job { core, out, .. }, .. } = serving;
    core.put_head(out);
    after
}

struct Serving<'c> {
    connection: &'c mut Connection,
    input: &'c mut Buffer,
    alarm: &'c mut Alarm,
    body: Body,
    /// Interim answers that are still to be sent: the answer goes after them.
    owed: Vec<u8>,
    job: Job,
}

impl Serving<'_> {
    async fn run(&mut self) -> After {
        let facts = &self.job.facts;
        let plan = &self.job.current.live.plan;
        let mut waits = facts.expects_continue && facts.framing.has_body();
        let mut arriving = Arriving {
            left: plan.serving.limits.body_bytes,
            watch: plan.stops_when_cancelled,
            stream: &mut self.connection.stream,
            input: self.input,
            body: &mut self.body,
            ready: 0,
            waits: &mut waits,
            owed: &mut self.owed,
            old: facts.old,
        };
        match self.job.handle(&mut arriving, self.alarm).await {
            Handled::Own(own) => self.answer(own).await,
            Handled::Fallback(fallback) => self.fall_back(&fallback).await,
            Handled::Kept(kept) => self.give(&kept, true).await,
            Handled::Shared(kept) => self.give(&kept, false).await,
            Handled::Answer(passing) => self.pass_on(*passing).await,
            Handled::Body(error) => self.bad_body(error).await,
        }
    }

    /// Whether the connection goes on after an answer that was not the upstream's. A body that has all come
    /// is skipped; any other would have to be waited for.
    fn stays(&self) -> bool {
        let leaving = self.job.core.shared.is_stopping() || self.connection.listed.is_leaving();
        self.job.facts.keep_alive && self.body.is_over() && !leaving
    }

    fn date(&self) -> DateText {
        self.job.core.date.at(self.job.core.clock.now())
    }

    /// Hands an upstream's answer on.
    async fn pass_on(&mut self, mut passing: Passing) -> After {
        let core = self.job.core.clone();
        let old = self.job.facts.old;
        // What the client has not sent of its body would be read as its next request.
        let stays = self.stays();
        let answered = &mut passing.answered;
        let mut head = std::mem::take(&mut answered.head);
        if !self.owed.is_empty() {
            head.splice(0..0, self.owed.drain(..));
        }
        let unwrap = old && answered.framing == Framing::Chunked;
        let status = answered.status;
        let keep_alive = stays && answered.framing != Framing::UntilClose && !unwrap && status != 101;
        if status == 101 {
            head.extend_from_slice(b"connection: upgrade\r\n\r\n");
        } else {
            if answered.framing == Framing::Chunked && !unwrap {
                head.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            end_head(&mut head, keep_alive, old);
        }
        let timeout = self.job.current.live.plan.serving.limits.body_timeout;
        let client = &mut self.connection.stream;
        let mut bytes = 0;
        let passed = if status == 101 {
            let ways = Ways { client, answered, input: self.input };
            tunnel(ways, &head, self.alarm, timeout, core.clock, &mut bytes).await
        } else {
            let mut patience = Patience { alarm: self.alarm, timeout, clock: core.clock };
            relay(client, answered, &head, unwrap, &mut patience, &mut bytes).await
        };
        answered.head = head;
        let now = core.clock.now();
        passing.end(&core, passed, now);
        let status = if passed == Passed::ClientGone { 499 } else { status };
        self.job.end(&End { status, bytes, own: None }, now);
        match passed {
            Passed::Whole if keep_alive => After::Next,
            Passed::Whole if !self.body.is_over() => After::Linger,
            _ => After::Close,
        }
    }

    /// Answers in place of an upstream that failed.
    async fn fall_back(&mut self, answer: &FallbackAnswer) -> After {
        let stays = self.stays();
        let FallbackAnswer { status, content_type, body } = answer;
        let words = reason(*status);
        let length = body.len();
        self.job.out.clear();
        let _ = write!(self.job.out, "HTTP/1.1 {status} {words}\r\ndate: ");
        let date = self.date();
        self.job.out.extend_from_slice(&date);
        let _ = write!(self.job.out, "\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n");
        end_head(&mut self.job.out, stays, self.job.facts.old);
        let body = if self.job.facts.method == "HEAD" { &[] } else { body.as_bytes() };
        self.send(*status, body, Some(Own::Fallback), stays).await
    }

    /// Gives an answer that was kept, or one that several share.
    async fn give(&mut self, kept: &Kept, cached: bool) -> After {
        let stays = self.stays();
        self.job.out.clear();
        self.job.out.extend_from_slice(&kept.head);
        if cached {
            let age = kept.age(self.job.core.clock.now());
            let _ = write!(self.job.out, "age: {age}\r\n");
        }
        end_head(&mut self.job.out, stays, self.job.facts.old);
        let body: &[u8] = if self.job.facts.method == "HEAD" { &[] } else { &kept.body };
        self.send(kept.status, body, cached.then_some(Own::Cached), stays).await
    }

    /// Answers by itself.
    async fn answer(&mut self, own: OwnAnswer) -> After {
        let stays = self.stays();
        self.job.out.clear();
        let date = self.date();
        own.write(&mut self.job.out, !stays, self.job.facts.method == "HEAD", &date);
        self.send(own.status, &[], Some(own.why), stays).await
    }

    /// Sends the head that was made in place of the request's, and a body.
    async fn send(&mut self, status: u16, body: &[u8], own: Option<Own>, stays: bool) -> After {
        let mut out = std::mem::take(&mut self.job.out);
        if !self.owed.is_empty() {
            out.splice(0..0, self.owed.drain(..));
        }
        let written = write(self.connection, &out, body, self.alarm).await;
        self.job.out = out;
        let status = if written { status } else { 499 };
        let now = self.job.core.clock.now();
        self.job.end(&End { status, bytes: body.len() as u64, own }, now);
        match (written, stays) {
            (false, _) => After::Close,
            (true, true) => After::Next,
            (true, false) if self.body.is_over() => After::Close,
            (true, false) => After::Linger,
        }
    }

    async fn bad_body(&mut self, error: BodyError) -> After {
        self.job.facts.keep_alive = false;
        match error.answer() {
            Some(own) => self.answer(own).await,
            None => {
                let now = self.job.core.clock.now();
                self.job.end(&End { status: 499, bytes: 0, own: None }, now);
                After::Close
            }
        }
    }
}

/// What an answer says of the connection, and the empty line.
fn end_head(head: &mut Vec<u8>, stays: bool, old: bool) {
    head.extend_from_slice(match (stays, old) {
        (false, _) => b"connection: close\r\n\r\n",
        (true, true) => b"connection: keep-alive\r\n\r\n",
        (true, false) => b"\r\n",
    });
}

/// Writes an answer of the gateway's own. Whether all of it went out.
async fn write(connection: &mut Connection, head: &[u8], body: &[u8], alarm: &mut Alarm) -> bool {
    let core = &connection.core;
    let until = core.clock.now().plus_nanos(core.current().live.plan.serving.limits.body_timeout);
    let stream = &mut connection.stream;
    let mut done = 0;
    let written = alarm.within(until, poll_fn(|cx| poll_write_both(stream, cx, head, body, &mut done))).await;
    matches!(written, Ok(Ok(())))
}
