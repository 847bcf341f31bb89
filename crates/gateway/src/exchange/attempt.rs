//! One attempt: a connection to an instance, the request on it, the head of the answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use plimsoll_policy::Time;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::interim::{Counted, Interims};
use super::{BodyError, Incoming, forward};
use crate::core::Core;
use crate::http1::request::room;
use crate::http1::{Framing, Response, head};
use crate::net::stream::poll_write_both;
use crate::net::{Alarm, Buffer};
use crate::upstream::Instance;

/// Bytes of an answer's head, at most.
const HEAD_MAX: usize = 64 << 10;
/// What is said to a server where the client waits for its word, and how long that is waited for, ns: one that does
/// not know the expectation says nothing (RFC 9110, section 10.1.1; curl waits as long).
const EXPECTS: &[u8] = b"expect: 100-continue\r\n\r\n";
const WORD: u64 = 1_000_000_000;

/// An answer whose head has come.
#[derive(Debug)]
pub struct Answered {
    /// The connection that the rest comes from.
    pub stream: TcpStream,
    /// What has come of its body.
    pub buffer: Buffer,
    /// Its head as a client gets it, all but what says how it goes on with this connection.
    pub head: Vec<u8>,
    /// Its status.
    pub status: u16,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
    /// What it says about coming back.
    pub retry_after: Option<Duration>,
    /// Whether it forbids to keep it, by `Cache-Control`, `Set-Cookie` or `Vary`.
    pub private: bool,
    /// When its head was whole.
    pub at: Time,
    /// Where the connection belongs.
    pub slot: usize,
}

/// Why there is none.
#[derive(Debug)]
pub enum Failed {
    /// No connection could be made: nothing was sent.
    Connect,
    /// The connection broke, or what came was no answer.
    Reset,
    /// There was no answer in time.
    Timeout,
    /// The client's body did not come in.
    Body(BodyError),
}

/// What is asked of an instance.
#[derive(Debug)]
pub struct Ask<'r> {
    /// The whole head.
    pub head: &'r [u8],
    /// The body, as far as it is kept.
    pub body: &'r [u8],
    /// Whether more of it comes from the client.
    pub streamed: bool,
    /// The method.
    pub method: &'r str,
    /// Whether sending it twice does no harm.
    pub repeatable: bool,
    /// Whether the client asked for another protocol.
    pub upgrade: bool,
    /// Until when.
    pub deadline: Time,
    /// Where interim answers go that come while nobody watches the client.
    pub interims: Option<&'r Interims>,
}

/// Asks an instance.
pub async fn attempt<I: Incoming>(
    core: &Core,
    instance: &Instance,
    ask: &Ask<'_>,
    mut incoming: Option<&mut I>,
    alarm: &mut Alarm,
    now: Time,
) -> Result<Answered, Failed> {
    let current = core.current();
    let limits = &current.live.plan.serving.limits;
    let figures = core.instance(instance.slot);
    let mut pooled = core.pool.take(instance.slot, now, limits.upstream_idle, !ask.repeatable);
    loop {
        let reused = pooled.is_some();
        let stream = match pooled.take() {
            Some(stream) => stream,
            None => {
                let until = ask.deadline.min(core.clock.now().plus_nanos(limits.connect_timeout));
                let connected = alarm.within(until, TcpStream::connect(instance.address)).await;
                match connected {
                    Ok(Ok(stream)) => {
                        // Small answers must not wait for acknowledgements.
                        let _ = stream.set_nodelay(true);
                        figures.connections.bump();
                        stream
                    }
                    Ok(Err(_)) => return Err(Failed::Connect),
                    Err(_) if until < ask.deadline => return Err(Failed::Connect),
                    Err(_) => return Err(Failed::Timeout),
                }
            }
        };
        let body = (limits.body_timeout, None);
        let buffer = core.buffers.take();
        let expects = ask.streamed && incoming.as_ref().is_some_and(|incoming| incoming.waits());
        let word = if expects { Word::Sent } else { Word::Given };
        let sending = Sending::Goes;
        let interims = Counted::default();
        let exchange = Exchange { stream, buffer, sent: 0, sending, heard: false, interims, body, expects, word };
        match exchange.run(core, instance, ask, incoming.as_deref_mut(), alarm).await {
            // The server closed a connection that nobody used just as it was used again. That is no
            // failure of the server's, and a fresh connection will do.
            Err((Failed::Reset, false)) if reused && ask.repeatable && !ask.streamed => {}
            Err((failed, _)) => return Err(failed),
            Ok(answered) => return Ok(answered),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Goes,
    Done,
    /// The server takes no more; it may have answered all the same.
    Broken,
}

/// The server's word that it wants the body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It will be asked for it, with the head.
    Sent,
    /// It is waited for, until then.
    Awaited(Time),
    /// It was given, or none is needed.
    Given,
}

struct Exchange {
    stream: TcpStream,
    buffer: Buffer,
    /// Bytes of head and kept body that are on their way.
    sent: usize,
    sending: Sending,
    /// Whether anything came back.
    heard: bool,
    interims: Counted,
    /// How long the client may be silent within its body, ns, and until when it may now.
    body: (u64, Option<Time>),
    /// Whether the head says that the body waits for the server's word.
    expects: bool,
    word: Word,
}

impl Exchange {
    /// The answer's head, or why there is none and whether anything was heard.
    async fn run<I: Incoming>(
        mut self,
        core: &Core,
        instance: &Instance,
        ask: &Ask<'_>,
        mut incoming: Option<&mut I>,
        alarm: &mut Alarm,
    ) -> Result<Answered, (Failed, bool)> {
        let mut seen = 0;
        loop {
            let end = std::future::poll_fn(|cx| match self.poll(cx, ask, incoming.as_deref_mut(), &mut seen, core) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending => match (self.body.1, self.word) {
                    (_, Word::Awaited(until)) if until < ask.deadline => alarm.poll(cx, until).map(|()| None),
                    (Some(until), _) if until < ask.deadline => {
                        alarm.poll(cx, until).map(|()| Some(Err(Failed::Body(BodyError::Slow))))
                    }
                    _ => alarm.poll(cx, ask.deadline).map(|()| Some(Err(Failed::Timeout))),
                },
            })
            .await;
            let Some(end) = end else {
                self.word = Word::Given;
                continue;
            };
            let end = match end {
                Ok(end) => end,
                Err(failed) => {
                    core.buffers.put(self.buffer);
                    return Err((failed, self.heard));
                }
            };
            let at = core.clock.now();
            let mut room = room();
            let Ok(response) = Response::parse(&self.buffer.bytes()[..end], &mut room, ask.method) else {
                return Err((Failed::Reset, true));
            };
            let status = response.status;
            if status < 200 && status != 101 {
                if !self.interims.add(end) {
                    return Err((Failed::Reset, true));
                }
                if status == 100 {
                    // That was for us.
                    self.word = Word::Given;
                } else {
                    let mut head = Vec::with_capacity(end);
                    forward::interim(&mut head, &response);
                    match (incoming.as_deref_mut(), ask.interims) {
                        (Some(incoming), _) => incoming.interim(status, &head),
                        (None, Some(interims)) => interims.push(status, head),
                        (None, None) => {}
                    }
                }
                self.buffer.consume(end);
                seen = 0;
                continue;
            }
            if status == 101 && !ask.upgrade {
                return Err((Failed::Reset, true));
            }
            let mut head = core.take_head();
            forward::response(&mut head, &response, &core.date.at(at));
            let framing = response.framing;
            // A server that answers before it has the whole request may not read the rest.
            let keep_alive = response.keep_alive && self.sending == Sending::Done && status != 101;
            let (retry_after, private) = (forward::retry_after(&response), is_private(&response));
            self.buffer.consume(end);
            let Exchange { stream, buffer, .. } = self;
            let slot = instance.slot;
            return Ok(Answered { stream, buffer, head, status, framing, keep_alive, retry_after, private, at, slot });
        }
    }

    fn poll<I: Incoming>(
        &mut self,
        cx: &mut Context<'_>,
        ask: &Ask<'_>,
        mut incoming: Option<&mut I>,
        seen: &mut usize,
        core: &Core,
    ) -> Poll<Result<usize, Failed>> {
        if let Some(incoming) = incoming.as_deref_mut() {
            incoming.poll_interim(cx);
        }
        if self.sending == Sending::Goes {
            match self.poll_send(cx, ask, incoming.as_deref_mut(), core) {
                Poll::Ready(Ok(())) => self.sending = Sending::Done,
                Poll::Ready(Err(Some(error))) => return Poll::Ready(Err(Failed::Body(error))),
                Poll::Ready(Err(None)) => self.sending = Sending::Broken,
                Poll::Pending => {}
            }
            if self.sending != Sending::Goes {
                self.body.1 = None;
            }
        }
        if (self.sending != Sending::Goes || self.word != Word::Given)
            && let Some(incoming) = incoming
            && incoming.poll_gone(cx).is_ready()
        {
            return Poll::Ready(Err(Failed::Body(BodyError::Gone)));
        }
        loop {
            match head::end(self.buffer.bytes(), seen, HEAD_MAX) {
                Ok(Some(end)) => return Poll::Ready(Ok(end)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(Failed::Reset)),
            }
            if self.buffer.is_full() {
                self.buffer.grow();
            }
            match ready!(self.buffer.poll_read(&mut self.stream, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Failed::Reset)),
                Ok(_) => self.heard = true,
            }
        }
    }

    /// Sends what there is to send. An error without a reason is the server's.
    fn poll_send<I: Incoming>(
        &mut self,
        cx: &mut Context<'_>,
        ask: &Ask<'_>,
        incoming: Option<&mut I>,
        core: &Core,
    ) -> Poll<Result<(), Option<BodyError>>> {
        let broken = |_: io::Error| None;
        // A body that waits is not here, so that nothing but the end of the head follows.
        let (head, rest) = if self.expects { (&ask.head[..ask.head.len() - 2], EXPECTS) } else { (ask.head, ask.body) };
        if self.sent < head.len() + rest.len() {
            ready!(poll_write_both(&mut self.stream, cx, head, rest, &mut self.sent)).map_err(broken)?;
        }
        if self.word == Word::Sent {
            self.word = Word::Awaited(core.clock.now().plus_nanos(WORD));
        }
        if self.word != Word::Given {
            return Poll::Pending;
        }
        let Some(incoming) = incoming.filter(|_| ask.streamed) else { return Poll::Ready(Ok(())) };
        loop {
            match incoming.poll_fill(cx) {
                Poll::Ready(more) => {
                    self.body.1 = None;
                    if !more.map_err(Some)? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Pending => {
                    self.body.1.get_or_insert_with(|| core.clock.now().plus_nanos(self.body.0));
                    return Poll::Pending;
                }
            }
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, incoming.piece())).map_err(broken)?;
            incoming.consume(count);
        }
    }
}

/// Whether an answer may not be given to others.
fn is_private(response: &Response<'_, '_>) -> bool {
    use crate::http1::name::{Field, field};
    response.fields.iter().any(|header| match field(header.name) {
        Field::SetCookie => true,
        Field::Vary => !header.value.eq_ignore_ascii_case(b"accept-encoding"),
        Field::CacheControl => forward::has_directive(header.value, &["no-store", "private", "no-cache"]),
        _ => false,
    })
}
