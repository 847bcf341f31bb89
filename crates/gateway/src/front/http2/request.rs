//! One request of an HTTP/2 connection: a stream.

use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderValue, Request as Http2Request};
use plimsoll_policy::Time;

use super::Counted;
use super::head::{Words, answer_head, as_http1, set_status};
use super::incoming::Stream2;
use super::relay::{relay, send};
use super::websocket::Duplex;
use crate::answers::OwnAnswer;
use crate::clock::DateText;
use crate::core::Core;
use crate::exchange::ending::{End, unrouted};
use crate::exchange::facts::facts;
use crate::exchange::fetch::Tried;
use crate::exchange::forward::Peer;
use crate::exchange::handle::{Handled, Job, Passed, Passing};
use crate::figures::Own;
use crate::front::tunnel::{Ways, tunnel};
use crate::http1::Framing;
use crate::net::Alarm;

/// Serves a stream to its end.
pub async fn serve(
    core: Rc<Core>,
    peer: Peer,
    request: Http2Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    now: Time,
    _open: Counted,
) {
    let current = core.current();
    let (parts, recv) = request.into_parts();
    let mut out = core.take_head();
    let words = Words::new(&parts, &core.random);
    let fields_max = current.live.plan.serving.limits.header_count as usize;
    let found = as_http1(&parts, &words, recv.is_end_stream(), fields_max)
        .map_err(|own| (own, None))
        .and_then(|read| facts(&core, &current, &peer, &read.request(), "HTTP/2.0", &mut out, now));
    let facts = match found {
        Ok(facts) => facts,
        Err((own, said)) => {
            core.put_head(out);
            let bytes = own.text().len() as u64;
            let end = End { status: own.status, bytes, own: Some(own.why) };
            unrouted(&core, &current, parts.method.as_str(), said.as_deref(), &end, now);
            let head_only = parts.method == http::Method::HEAD;
            own_answer(&mut respond, own, head_only, &core.date.at(core.clock.now()));
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
    let watch = current.live.plan.stops_when_cancelled;
    let waits = job.facts.expects_continue && job.facts.framing.has_body();
    let mut incoming = Stream2::new(recv, &mut respond, chunked, body_bytes, waits, watch);
    let handled = job.handle(&mut incoming, &mut alarm).await;
    // What else of a body comes is not waited for.
    let recv = incoming.into_recv();
    let socket = words.accept().map(move |accept| (recv, accept));
    let date = core.date.at(core.clock.now());
    let end = match handled {
        Handled::Own(own) => {
            own_answer(&mut respond, own, head_only, &date);
            End { status: own.status, bytes: own.text().len() as u64, own: Some(own.why) }
        }
        Handled::Fallback(answer) => {
            let mut response = http::Response::new(());
            set_status(&mut response, answer.status);
            set_date(&mut response, &date);
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
            if let Some(mut response) = answer_head(&kept.head, status) {
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
        Handled::Answer(passing) => {
            let mut giving = Giving { core: &core, respond: &mut respond, alarm: &mut alarm, timeout };
            match socket {
                Some((recv, accept)) => giving.connect(*passing, recv, &accept).await,
                None => giving.pass_on(*passing).await,
            }
        }
        Handled::Body(error) => match error.answer() {
            Some(own) => {
                own_answer(&mut respond, own, head_only, &date);
                End { status: own.status, bytes: own.text().len() as u64, own: Some(own.why) }
            }
            None => End { status: 499, bytes: 0, own: None },
        },
    };
    job.end(&end, core.clock.now());
    let Job { out, .. } = job;
    core.put_head(out);
}

/// What an upstream's answer is given with.
struct Giving<'s> {
    core: &'s Rc<Core>,
    respond: &'s mut SendResponse<Bytes>,
    alarm: &'s mut Alarm,
    timeout: u64,
}

impl Giving<'_> {
    /// Hands an upstream's answer on.
    async fn pass_on(&mut self, mut passing: Passing) -> End {
        let mut bytes = 0;
        let status = passing.answered.status;
        let Giving { core, respond, alarm, timeout } = self;
        let passed = relay(core, &mut passing.answered, respond, alarm, *timeout, &mut bytes).await;
        if passed == Passed::Broken {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
        self.end(passing, passed, status, bytes)
    }

    /// Hands on the answer to a request for a WebSocket, and what follows it.
    async fn connect(&mut self, mut passing: Passing, recv: RecvStream, accept: &str) -> End {
        let answered = &mut passing.answered;
        let agreed = match answered.status {
            101 => match answer_head(&answered.head, 200) {
                Some(mut head) => {
                    let said = head.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
                    said.is_some_and(|said| said == *accept).then_some(head)
                }
                None => None,
            },
            // To the client any success would say that it has its WebSocket.
            200..=299 => None,
            _ => return self.pass_on(passing).await,
        };
        let Some(head) = agreed else {
            let own = OwnAnswer::new(502, Own::Reset);
            own_answer(self.respond, own, false, &self.core.date.at(self.core.clock.now()));
            let bytes = own.text().len() as u64;
            return End { own: Some(own.why), ..self.end(passing, Passed::Broken, own.status, bytes) };
        };
        let mut bytes = 0;
        let passed = match self.respond.send_response(head, false) {
            Err(_) => Passed::ClientGone,
            Ok(send) => {
                let mut client = Duplex::new(recv, send);
                let mut input = self.core.buffers.take();
                let ways = Ways { client: &mut client, answered, input: &mut input };
                let passed = tunnel(ways, &[], self.alarm, self.timeout, self.core.clock, &mut bytes).await;
                self.core.buffers.put(input);
                passed
            }
        };
        self.end(passing, passed, 200, bytes)
    }

    fn end(&self, passing: Passing, passed: Passed, status: u16, bytes: u64) -> End {
        passing.end(self.core, passed, self.core.clock.now());
        End { status: if passed == Passed::ClientGone { 499 } else { status }, bytes, own: None }
    }
}

fn set_date(response: &mut http::Response<()>, date: &DateText) {
    if let Ok(date) = HeaderValue::from_bytes(date) {
        response.headers_mut().insert(http::header::DATE, date);
    }
}

fn own_answer(respond: &mut SendResponse<Bytes>, own: OwnAnswer, head_only: bool, date: &DateText) {
    let mut response = http::Response::new(());
    set_status(&mut response, own.status);
    set_date(&mut response, date);
    if own.status == 204 {
        let _ = respond.send_response(response, true);
        return;
    }
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
