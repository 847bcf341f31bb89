//! One request of an HTTP/1.1 connection, from its head to the end of its answer.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use plimsoll_policy::{Outcome, Time};
use tokio::io::AsyncWriteExt;

use super::http1::{After, Connection};
use super::incoming::{Arriving, GO_ON};
use super::relay::{Patience, Relayed, relay};
use super::tunnel::{Ways, tunnel};
use crate::access_log::Entry;
use crate::core::Current;
use crate::exchange::answer::{OwnAnswer, reason};
use crate::exchange::cached::{Fetch, Found, Kept, Store};
use crate::exchange::fetch::{Fetched, Outgoing, Tried, fetch};
use crate::exchange::forward;
use crate::exchange::hedge::Nobody;
use crate::exchange::{BodyError, attempt::Answered};
use crate::figures::{Own, RouteFigures};
use crate::http1::request::room;
use crate::http1::{Body, Framing, Request};
use crate::inbound::{Asked, Held, Inbound};
use crate::net::stream::poll_write_both;
use crate::net::{Alarm, Buffer};
use crate::plan::router::Found as Routed;
use crate::random::{agreed_hash, secret_hash};
use crate::upstream::call::{Call, Ended};
use plimsoll_model::system::{FallbackAnswer, RateLimitKey};
use plimsoll_policy::rate_limit::Scope;
use tokio::task::spawn_local;

/// What of a request outlives its head.
pub struct Facts {
    /// Position of the route.
    pub route: u32,
    /// `HEAD`, `GET` and so on.
    pub method: Cow<'static, str>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether it is HTTP/1.0.
    pub old: bool,
    /// Whether the client wants to go on with the connection.
    pub keep_alive: bool,
    /// Whether it waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether it asks for another protocol.
    pub upgrade: bool,
    /// Whether making it twice does no harm.
    pub repeatable: bool,
    /// Until when the caller waits.
    pub caller_deadline: Option<Time>,
    /// For balancing.
    pub key: u64,
    /// For the quota.
    pub quota_key: u64,
    /// What it asks for, where an answer may come from a cache: host and target, and their hash.
    pub cached: Option<(String, u64)>,
    /// For the log, where there is one.
    pub said: Option<Box<Said>>,
}

/// What the log says of a request's head.
pub struct Said {
    client: IpAddr,
    target: String,
    version: &'static str,
    referer: String,
    agent: String,
}

/// What the end of a request is counted as.
struct End<'a> {
    status: u16,
    bytes: u64,
    own: Option<Own>,
    tried: &'a Tried,
    attempts: u32,
}

/// Serves the request whose head is the first `end` bytes of `input`.
pub async fn serve(connection: &mut Connection, input: &mut Buffer, end: usize, alarm: &mut Alarm, now: Time) -> After {
    let core = connection.core.clone();
    let current = core.current();
    let mut out = core.take_head();
    let facts = match read(connection, &current, input, end, &mut out, now) {
        Ok(facts) => facts,
        Err((own, said)) => {
            out.clear();
            own.write(&mut out, true, false);
            let written = write(connection, &out, alarm).await;
            core.put_head(out);
            let end = End { status: own.status, bytes: 0, own: Some(own.why), tried: &Tried::default(), attempts: 0 };
            finish(connection, &current, None, said.as_deref(), &end, now);
            return if written { After::Linger } else { After::Close };
        }
    };
    input.consume(end);
    let mut job = Job { connection, current, input, alarm, facts, out, now };
    let after = job.run().await;
    let out = std::mem::take(&mut job.out);
    core.put_head(out);
    after
}

struct Job<'c> {
    connection: &'c mut Connection,
    current: Rc<Current>,
    input: &'c mut Buffer,
    alarm: &'c mut Alarm,
    facts: Facts,
    /// The head for the upstream.
    out: Vec<u8>,
    now: Time,
}

impl Job<'_> {
    async fn run(&mut self) -> After {
        let now = self.now;
        let core = self.connection.core.clone();
        let current = self.current.clone();
        let plan = &current.live.plan;
        let limits = &plan.serving.limits;
        let route = &plan.routes[self.facts.route as usize];
        let mut body = Body::new(self.facts.framing, limits.header_bytes as usize);
        if let Framing::Length(length) = self.facts.framing
            && length > limits.body_bytes
        {
            return self.answer(OwnAnswer::new(413, Own::BadRequest), &body, &Tried::default(), 0).await;
        }
        let asked = Asked {
            route: self.facts.route,
            quota_key: self.facts.quota_key,
            bulkhead: route.bulkhead,
            guarded: Inbound::guards(plan),
            deadline: self.facts.caller_deadline.unwrap_or(Time::MAX),
        };
        let mut held = match current.live.inbound.admit(now, asked, core.clock).await {
            Ok(held) => held,
            Err(own) => return self.answer(own, &body, &Tried::default(), 0).await,
        };
        let mut fetch_right = None;
        if let (Some(store), Some((id, key))) =
            (&current.live.caches[self.facts.route as usize], self.facts.cached.take())
        {
            match self.look_up(store, &id, key).await {
                Some(Found::Hit(kept, refresh)) => {
                    if let Some(right) = refresh {
                        self.refresh(right, id);
                    }
                    held.finish(core.clock.now(), core.clock.now(), Outcome::Success);
                    return self.give(&kept).await;
                }
                Some(Found::Absent) => {
                    held.finish(core.clock.now(), core.clock.now(), Outcome::Success);
                    return self.answer(OwnAnswer::new(404, Own::Cached), &body, &Tried::default(), 0).await;
                }
                // Only a GET's answer is whole.
                Some(Found::Miss(right)) if self.facts.method == "GET" => fetch_right = Some((right, id)),
                Some(_) => {}
                None => {
                    held.finish(core.clock.now(), core.clock.now(), Outcome::Cancelled);
                    return self.bad_body(BodyError::Gone, &body, &Tried::default(), 0).await;
                }
            }
        }
        let upstream = &current.live.upstreams[route.target];
        let policies = &plan.targets[route.target].policies.pipeline;
        let repeats = policies.retry.is_some() || policies.hedge.is_some();

        // A body that may be needed again is kept, if it is small.
        let mut go_on = if self.facts.expects_continue && self.facts.framing.has_body() { GO_ON } else { 0 };
        let mut arriving = Arriving {
            stream: &mut self.connection.stream,
            input: self.input,
            body: &mut body,
            ready: 0,
            left: limits.body_bytes,
            go_on: &mut go_on,
            watch: plan.stops_when_cancelled,
        };
        let mut kept = None;
        let mut streamed = false;
        if self.facts.framing.has_body() {
            let most = if repeats && self.facts.repeatable { limits.retry_body_bytes as usize } else { 0 };
            let until = now.plus_nanos(limits.body_timeout);
            // What has arrived with the head goes out with it.
            let whole = if most > 0 {
                let keep = std::future::poll_fn(|cx| arriving.poll_keep(cx, most));
                self.alarm.within(until, keep).await.unwrap_or(Err(BodyError::Slow))
            } else {
                arriving.keep_arrived()
            };
            match whole {
                Ok(whole) => streamed = !whole,
                Err(error) => return self.bad_body(error, &body, &Tried::default(), 0).await,
            }
            let count = arriving.ready;
            if !streamed {
                // The body leaves the input, so that the next request can come in beside it.
                let mut rest = core.buffers.take();
                rest.push(&arriving.input.bytes()[count..]);
                let buffer = std::mem::replace(arriving.input, rest);
                arriving.ready = 0;
                kept = Some((buffer, count));
            }
        }
        let kept_body = kept.as_ref().map_or(&[][..], |(buffer, count)| &buffer.bytes()[..*count]);
        let outgoing = Outgoing {
            head: &mut self.out,
            deadline_field: &plan.serving.headers.deadline,
            body: kept_body,
            streamed,
            method: &self.facts.method,
            upgrade: self.facts.upgrade,
            repeatable: self.facts.repeatable,
            caller_deadline: self.facts.caller_deadline,
            key: self.facts.key,
        };
        let mut tried = Tried::default();
        let (mut call, fetched) = fetch(&core, upstream, outgoing, &mut arriving, self.alarm, now, &mut tried).await;
        if let Some((buffer, _)) = kept {
            core.buffers.put(emptied(buffer));
        }
        let attempts = call.attempts();
        let figures = &current.routes[self.facts.route as usize];
        figures.retries.add(u64::from(attempts.saturating_sub(1)));
        let fallback = route.fallback.as_ref();
        match fetched {
            Fetched::Answer(mut answered, slot) => {
                if let Some((right, id)) = fetch_right {
                    right.keep(&core, &mut answered, &id, self.alarm, limits.body_timeout).await;
                }
                let failed = Ended::Answered(answered.status, None).outcome() == Outcome::Failure;
                if let Some(fallback) = fallback.filter(|_| failed) {
                    let answered_at = answered.at;
                    crate::exchange::fetch::discard(&core, *answered, core.clock.now());
                    held.finish(core.clock.now(), answered_at, Outcome::Success);
                    return self.fall_back(fallback, &body, &tried, attempts).await;
                }
                self.pass_on(*answered, slot, &mut call, &mut held, &mut body, &tried).await
            }
            Fetched::Own(own) => {
                let end = core.clock.now();
                if let Some(fallback) = fallback {
                    held.finish(end, end, Outcome::Success);
                    return self.fall_back(fallback, &body, &tried, attempts).await;
                }
                let ours = matches!(own.why, Own::Breaker | Own::Bulkhead | Own::Limit);
                held.finish(end, end, if ours { Outcome::Ignored } else { Outcome::Failure });
                drop(held);
                self.answer(own, &body, &tried, attempts).await
            }
            Fetched::Body(error) => {
                held.finish(core.clock.now(), core.clock.now(), Outcome::Cancelled);
                self.bad_body(error, &body, &tried, attempts).await
            }
        }
    }

    /// Hands an answer on.
    async fn pass_on(
        &mut self,
        mut answered: Answered,
        slot: usize,
        call: &mut Call,
        held: &mut Held,
        body: &mut Body,
        tried: &Tried,
    ) -> After {
        let core = self.connection.core.clone();
        let stopping = core.shared.is_stopping();
        // What the client has not sent of its body would be read as its next request.
        let stays = self.facts.keep_alive && body.is_over() && !stopping;
        let mut head = std::mem::take(&mut answered.head);
        let unwrap = self.facts.old && answered.framing == Framing::Chunked;
        let keep_alive = stays && answered.framing != Framing::UntilClose && !unwrap && answered.status != 101;
        if answered.status == 101 {
            head.extend_from_slice(b"connection: upgrade\r\n\r\n");
        } else {
            if answered.framing == Framing::Chunked && !unwrap {
                head.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            match (keep_alive, self.facts.old) {
                (false, _) => head.extend_from_slice(b"connection: close\r\n\r\n"),
                (true, true) => head.extend_from_slice(b"connection: keep-alive\r\n\r\n"),
                (true, false) => head.extend_from_slice(b"\r\n"),
            }
        }
        let (status, at) = (answered.status, answered.at);
        let retry_after = answered.retry_after;
        let body_timeout = self.current.live.plan.serving.limits.body_timeout;
        let stream = &mut self.connection.stream;
        let mut bytes = 0;
        let relayed = if status == 101 {
            let ways = Ways { client: stream, answered: &mut answered, input: self.input };
            tunnel(ways, &head, self.alarm, body_timeout, core.clock, &mut bytes).await
        } else {
            let mut patience = Patience { alarm: self.alarm, timeout: body_timeout, clock: core.clock };
            relay(stream, &mut answered, &head, unwrap, &mut patience, &mut bytes).await
        };
        let end = core.clock.now();
        let ended = if relayed == Relayed::Broken { Ended::Reset } else { Ended::Answered(status, retry_after) };
        match relayed {
            Relayed::ClientGone => call.cancel(slot, end),
            _ => {
                call.settle(slot, end, at, ended, core.random.bits());
            }
        }
        held.finish(end, at, if relayed == Relayed::ClientGone { Outcome::Cancelled } else { ended.outcome() });
        let Answered { stream, buffer, keep_alive: reusable, slot: place, .. } = answered;
        if relayed == Relayed::Whole && reusable && buffer.is_empty() {
            core.pool.put(place, end, stream);
        }
        core.buffers.put(emptied(buffer));
        core.put_head(head);
        let logged = if relayed == Relayed::ClientGone { 499 } else { status };
        self.end(End { status: logged, bytes, own: None, tried, attempts: call.attempts() }, end);
        match relayed {
            Relayed::Whole if keep_alive => After::Next,
            Relayed::Whole if !body.is_over() => After::Linger,
            _ => After::Close,
        }
    }

    /// Looks an answer up, and waits while another request fetches it. None if the client goes meanwhile.
    async fn look_up(&mut self, store: &Arc<Store>, id: &str, key: u64) -> Option<Found> {
        let core = self.connection.core.clone();
        let give_up_at = self.facts.caller_deadline.unwrap_or(Time::MAX);
        let mut now = self.now;
        loop {
            let (mut receiver, until) = match store.look_up(now, key, id, core.random.bits()) {
                Found::Wait(receiver, until) => (receiver, until),
                found => return Some(found),
            };
            let (stream, input) = (&mut self.connection.stream, &mut *self.input);
            let alarm = &mut *self.alarm;
            let there = poll_fn(|cx| {
                if Pin::new(&mut receiver).poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                while !input.is_full() {
                    match input.poll_read(stream, cx) {
                        Poll::Ready(Ok(1..)) => {}
                        Poll::Ready(_) => return Poll::Ready(false),
                        Poll::Pending => break,
                    }
                }
                alarm.poll(cx, until.min(give_up_at)).map(|()| true)
            })
            .await;
            if !there {
                return None;
            }
            now = core.clock.now();
            if now >= give_up_at {
                return Some(Found::Pass);
            }
        }
    }

    /// Fetches an answer anew while the one that is kept is given.
    fn refresh(&self, right: Fetch, id: String) {
        let core = self.connection.core.clone();
        let current = self.current.clone();
        let mut head = core.take_head();
        head.extend_from_slice(&self.out);
        let (route, key) = (self.facts.route as usize, self.facts.key);
        spawn_local(async move {
            let plan = &current.live.plan;
            let now = core.clock.now();
            let timeout = plan.serving.limits.body_timeout;
            let mut alarm = Alarm::new(core.clock, now.plus_nanos(timeout));
            let outgoing = Outgoing {
                head: &mut head,
                deadline_field: &plan.serving.headers.deadline,
                body: &[],
                streamed: false,
                method: "GET",
                upgrade: false,
                repeatable: plan.routes[route].repeatable,
                caller_deadline: None,
                key,
            };
            let upstream = &current.live.upstreams[plan.routes[route].target];
            let mut tried = Tried::default();
            let (mut call, fetched) = fetch(&core, upstream, outgoing, &mut Nobody, &mut alarm, now, &mut tried).await;
            if let Fetched::Answer(mut answered, slot) = fetched {
                right.keep(&core, &mut answered, &id, &mut alarm, timeout).await;
                let ended = Ended::Answered(answered.status, answered.retry_after);
                let (end, at) = (core.clock.now(), answered.at);
                call.settle(slot, end, at, ended, core.random.bits());
                crate::exchange::fetch::discard(&core, *answered, end);
            }
            core.put_head(head);
        });
    }

    /// Gives an answer that was kept.
    async fn give(&mut self, kept: &Kept) -> After {
        let core = self.connection.core.clone();
        let stays = self.facts.keep_alive && !core.shared.is_stopping();
        self.out.clear();
        self.out.extend_from_slice(&kept.head);
        let _ = write!(self.out, "age: {}\r\n", kept.age(core.clock.now()));
        match (stays, self.facts.old) {
            (false, _) => self.out.extend_from_slice(b"connection: close\r\n\r\n"),
            (true, true) => self.out.extend_from_slice(b"connection: keep-alive\r\n\r\n"),
            (true, false) => self.out.extend_from_slice(b"\r\n"),
        }
        let body: &[u8] = if self.facts.method == "HEAD" { &[] } else { &kept.body };
        let until = core.clock.now().plus_nanos(self.current.live.plan.serving.limits.body_timeout);
        let (stream, out) = (&mut self.connection.stream, &self.out);
        let mut done = 0;
        let written = self.alarm.within(until, poll_fn(|cx| poll_write_both(stream, cx, out, body, &mut done))).await;
        let written = matches!(written, Ok(Ok(())));
        let end = core.clock.now();
        let status = if written { kept.status } else { 499 };
        let bytes = body.len() as u64;
        self.end(End { status, bytes, own: Some(Own::Cached), tried: &Tried::default(), attempts: 0 }, end);
        if written && stays { After::Next } else { After::Close }
    }

    /// Answers in place of an upstream that failed.
    async fn fall_back(&mut self, answer: &FallbackAnswer, body: &Body, tried: &Tried, attempts: u32) -> After {
        let core = self.connection.core.clone();
        let stays = self.facts.keep_alive && body.is_over() && !core.shared.is_stopping();
        self.out.clear();
        let FallbackAnswer { status, content_type, body: text } = answer;
        let words = reason(*status);
        let _ = write!(
            self.out,
            "HTTP/1.1 {status} {words}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n{}\r\n",
            text.len(),
            if stays { "" } else { "connection: close\r\n" },
        );
        if self.facts.method != "HEAD" {
            self.out.extend_from_slice(text.as_bytes());
        }
        let out = std::mem::take(&mut self.out);
        let written = write(self.connection, &out, self.alarm).await;
        self.out = out;
        let end = core.clock.now();
        self.end(End { status: *status, bytes: text.len() as u64, own: Some(Own::Fallback), tried, attempts }, end);
        self.after(stays, written, body)
    }

    /// Answers by itself.
    async fn answer(&mut self, own: OwnAnswer, body: &Body, tried: &Tried, attempts: u32) -> After {
        let core = self.connection.core.clone();
        // A body that has all come with its head is skipped; any other would have to be waited for.
        let stays = self.facts.keep_alive && body.is_over() && !core.shared.is_stopping();
        self.out.clear();
        own.write(&mut self.out, !stays, self.facts.method == "HEAD");
        let out = std::mem::take(&mut self.out);
        let written = write(self.connection, &out, self.alarm).await;
        self.out = out;
        let end = core.clock.now();
        let bytes = own.text().len() as u64;
        self.end(End { status: own.status, bytes, own: Some(own.why), tried, attempts }, end);
        self.after(stays, written, body)
    }

    async fn bad_body(&mut self, error: BodyError, body: &Body, tried: &Tried, attempts: u32) -> After {
        match OwnAnswer::bad_body(&error) {
            Some(own) => {
                self.facts.keep_alive = false;
                self.answer(own, body, tried, attempts).await
            }
            None => {
                let end = self.connection.core.clock.now();
                self.end(End { status: 499, bytes: 0, own: None, tried, attempts }, end);
                After::Close
            }
        }
    }

    fn after(&self, stays: bool, written: bool, body: &Body) -> After {
        match (written, stays) {
            (false, _) => After::Close,
            (true, true) => After::Next,
            (true, false) if body.is_over() && self.facts.keep_alive => After::Close,
            (true, false) => After::Linger,
        }
    }

    fn end(&self, end: End<'_>, now: Time) {
        let said = self.facts.said.as_deref();
        let took = now.nanos_since(self.now);
        let figures = &self.current.routes[self.facts.route as usize];
        count(figures, &end, took);
        log(self.connection, &self.current, Some((&self.facts.method, self.facts.route)), said, &end, self.now, took);
    }
}

/// Reads a head closely: writes it as the upstream gets it into `out`, and finds the route.
fn read(
    connection: &Connection,
    current: &Current,
    input: &Buffer,
    end: usize,
    out: &mut Vec<u8>,
    now: Time,
) -> Result<Facts, (OwnAnswer, Option<Box<Said>>)> {
    let core = &connection.core;
    let plan = &current.live.plan;
    let serving = &plan.serving;
    let mut room = room();
    let request = match Request::parse(&input.bytes()[..end], &mut room, serving.limits.header_count as usize) {
        Ok(request) => request,
        Err(refused) => return Err((OwnAnswer::bad_head(refused), None)),
    };
    let peer = &connection.peer;
    let client = peer.client(request.value("x-forwarded-for").filter(|_| peer.trusted), |address| {
        serving.trusted.iter().any(|network| network.contains(address))
    });
    let said = current.live.log.is_some().then(|| {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        Box::new(Said {
            client,
            target: request.target.to_owned(),
            version: if request.old { "HTTP/1.0" } else { "HTTP/1.1" },
            referer: text(request.value("referer")),
            agent: text(request.value("user-agent")),
        })
    });
    let route = match plan.router.find(request.method, request.target) {
        Routed::Route(route) => route,
        Routed::OtherMethod => return Err((OwnAnswer::new(405, Own::NotFound), said)),
        Routed::Nothing => return Err((OwnAnswer::new(404, Own::NotFound), said)),
    };
    let about = &plan.routes[route as usize];
    forward::request(out, &request, peer, &serving.headers.deadline, &core.random);
    let caller = request.value(&serving.headers.deadline).and_then(forward::caller_timeout);
    let keyed = about.key_header.as_ref().is_some_and(|header| request.value(header).is_some());
    // Who asks: by the field that names users, or by address.
    let user = serving.headers.user.as_ref().and_then(|header| request.value(header));
    let mut address = [0; 17];
    let user = user.unwrap_or_else(|| octets(client, &mut address));
    let hashes = plan.targets[about.target].policies.balance.algorithm.uses_key();
    let quota_key = match &plan.rate_limit {
        Some(limit) if limit.config.scope != Scope::Shared => match limit.per {
            RateLimitKey::User => secret_hash(core.shared.secret, user),
            RateLimitKey::Client => secret_hash(core.shared.secret, octets(client, &mut [0; 17])),
            RateLimitKey::Endpoint => secret_hash(core.shared.secret, &route.to_le_bytes()),
            RateLimitKey::All => 0,
        },
        _ => 0,
    };
    Ok(Facts {
        route,
        method: interned(request.method),
        framing: request.framing,
        old: request.old,
        keep_alive: request.keep_alive,
        expects_continue: request.expects_continue,
        upgrade: request.upgrade.is_some(),
        repeatable: about.repeatable && is_repeatable(request.method, &about.name) || keyed,
        caller_deadline: caller.map(|caller| now + caller),
        key: if hashes { agreed_hash(user) } else { 0 },
        quota_key,
        cached: about.cache.as_ref().and_then(|_| cache_id(&request)).map(|id| {
            let key = secret_hash(core.shared.secret, id.as_bytes());
            (id, key)
        }),
        said,
    })
}

/// What a request asks for, if its answer may be one that others got too.
fn cache_id(request: &Request<'_, '_>) -> Option<String> {
    let own = |header: &httparse::Header<'_>| {
        use crate::http1::name::{Field, field};
        matches!(field(header.name), Field::Authorization | Field::Cookie | Field::Range)
    };
    let shared = matches!(request.method, "GET" | "HEAD")
        && !request.framing.has_body()
        && request.upgrade.is_none()
        && !request.fields.iter().any(own);
    let host = std::str::from_utf8(request.host).ok()?;
    shared.then(|| [host, request.target].join(" "))
}

/// Whether a method may be repeated where its endpoint may: one named `* /path` answers any.
fn is_repeatable(method: &str, endpoint: &str) -> bool {
    !endpoint.starts_with('*') || matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

/// A method without a vector of its own, if it is a usual one.
fn interned(method: &str) -> Cow<'static, str> {
    const USUAL: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];
    match USUAL.iter().find(|usual| **usual == method) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(method.to_owned()),
    }
}

fn octets(address: IpAddr, room: &mut [u8; 17]) -> &[u8] {
    match address {
        IpAddr::V4(address) => {
            room[..4].copy_from_slice(&address.octets());
            &room[..4]
        }
        IpAddr::V6(address) => {
            room[1..].copy_from_slice(&address.octets());
            room
        }
    }
}

fn emptied(mut buffer: Buffer) -> Buffer {
    let all = buffer.bytes().len();
    buffer.consume(all);
    buffer
}

/// Writes an answer of the gateway's own. Whether all of it went out.
async fn write(connection: &mut Connection, bytes: &[u8], alarm: &mut Alarm) -> bool {
    let core = &connection.core;
    let until = core.clock.now().plus_nanos(core.current().live.plan.serving.limits.body_timeout);
    let stream = &mut connection.stream;
    let written = alarm.within(until, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    matches!(written.await, Ok(Ok(())))
}

fn count(figures: &RouteFigures, end: &End<'_>, took: u64) {
    let class = if end.status == 499 { 0 } else { usize::from(end.status / 100).min(5) };
    figures.answers[class].bump();
    figures.times.record(took);
    if let Some(own) = end.own {
        figures.own[own as usize].bump();
    }
}

/// Counts and logs a request that had no route.
fn finish(
    connection: &Connection,
    current: &Current,
    route: Option<(&str, u32)>,
    said: Option<&Said>,
    end: &End<'_>,
    started: Time,
) {
    let took = connection.core.clock.now().nanos_since(started);
    count(&current.unrouted, end, took);
    log(connection, current, route, said, end, started, took);
}

fn log(
    connection: &Connection,
    current: &Current,
    route: Option<(&str, u32)>,
    said: Option<&Said>,
    end: &End<'_>,
    started: Time,
    took: u64,
) {
    let (Some(log), Some(said)) = (&current.live.log, said) else { return };
    let client = said.client.to_string();
    let entry = Entry {
        at: connection.core.clock.wall(started),
        client: &client,
        method: route.map_or("", |(method, _)| method),
        target: &said.target,
        version: said.version,
        status: end.status,
        bytes: end.bytes,
        took,
        route: route.map_or("", |(_, route)| &current.live.plan.routes[route as usize].name),
        upstream: end.tried.instance.as_ref().map_or("", |instance| &instance.name),
        upstream_took: end.tried.answered.map(|at| at.nanos_since(end.tried.started)),
        attempts: end.attempts,
        own: end.own.map_or("", Own::name),
        referer: &said.referer,
        agent: &said.agent,
    };
    if !log.send(&entry) {
        connection.core.figures.log_dropped.bump();
    }
}
