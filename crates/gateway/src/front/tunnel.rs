//! Once client and server have agreed on another protocol: bytes in both directions, whatever they mean.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::Clock;
use crate::exchange::attempt::Answered;
use crate::exchange::handle::Passed;
use crate::net::stream::poll_write_both;
use crate::net::{Alarm, Buffer};

/// Both sides, with what has come of each already.
pub struct Ways<'a, C> {
    /// The client.
    pub client: &'a mut C,
    /// The server.
    pub answered: &'a mut Answered,
    /// What the client has sent.
    pub input: &'a mut Buffer,
}

/// Sends the client a head, and passes bytes both ways until both sides have ended, or nothing passes for `timeout`.
pub async fn tunnel<C: AsyncRead + AsyncWrite + Unpin>(
    ways: Ways<'_, C>,
    head: &[u8],
    alarm: &mut Alarm,
    timeout: u64,
    clock: Clock,
    bytes: &mut u64,
) -> Passed {
    let Ways { client, answered, input } = ways;
    let mut done = 0;
    if poll_fn(|cx| poll_write_both(client, cx, head, &[], &mut done)).await.is_err() {
        return Passed::ClientGone;
    }
    let Answered { stream: server, buffer, .. } = answered;
    let (mut up, mut down) = (Way::default(), Way::default());
    let mut until = clock.now().plus_nanos(timeout);
    poll_fn(|cx| {
        let before = (up.passed, down.passed);
        let to_server = up.poll(cx, client, input, server);
        let to_client = down.poll(cx, server, buffer, client);
        *bytes = down.passed;
        if to_server.is_ready() && to_client.is_ready() {
            return Poll::Ready(());
        }
        if matches!(to_server, Poll::Ready(Err(()))) || matches!(to_client, Poll::Ready(Err(()))) {
            return Poll::Ready(());
        }
        if (up.passed, down.passed) != before {
            until = clock.now().plus_nanos(timeout);
        }
        alarm.poll(cx, until)
    })
    .await;
    Passed::Whole
}

/// One direction.
#[derive(Default)]
struct Way {
    passed: u64,
    ended: bool,
    over: bool,
}

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        buffer: &mut Buffer,
        to: &mut W,
    ) -> Poll<Result<(), ()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.over {
                return Poll::Ready(Ok(()));
            }
            while !buffer.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, buffer.bytes()) {
                    Poll::Ready(Ok(count @ 1..)) => {
                        buffer.consume(count);
                        self.passed += count as u64;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.ended {
                match Pin::new(&mut *to).poll_shutdown(cx) {
                    Poll::Ready(_) => self.over = true,
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            let _ = Pin::new(&mut *to).poll_flush(cx);
            match buffer.poll_read(from, cx) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
