//! One request of an HTTP/2 connection: a stream.

use std::rc::Rc;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderValue, Request as Http2Request};
use plimsoll_policy::Time;

use super::head::{answer_head, as_http1, set_status};
use super::incoming::Stream2;
use super::relay::{relay, send};
use crate::answers::OwnAnswer;
use crate::core::Core;
use crate::exchange::ending::{End, unrouted};
use crate::exchange::facts::facts;
use crate::exchange::fetch::Tried;
use crate::exchange::forward::Peer;
use crate::exchange::handle::{Handled, Job, Passed, Passing};
use crate::figures::Own;
use crate::http1::Framing;
use crate::net::Alarm;

/// Serves a stream to its end.
pub async fn serve(
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
