//! A request's body from an HTTP/1.1 connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::core::Core;
use crate::exchange::{BodyError, Incoming, KeptBody};
use crate::http1::{Body, Malformed};
use crate::net::{Buffer, Stream};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A body as it arrives.
#[derive(Debug)]
pub struct Arriving<'c> {
    /// The connection.
    pub stream: &'c mut Stream,
    /// What has arrived and is not yet passed on.
    pub input: &'c mut Buffer,
    /// Where the body ends.
    pub body: &'c mut Body,
    /// Bytes of `input` that belong to the body.
    pub ready: usize,
    /// Bytes that may still come.
    pub left: u64,
    /// Whether the client waits until it is asked for the body by a `100 Continue`, and was not yet.
    pub waits: &'c mut bool,
    /// Interim answers that are still to be sent.
    pub owed: &'c mut Vec<u8>,
    /// Whether the client speaks HTTP/1.0, which has no interim answers (RFC 9110, section 15.2).
    pub old: bool,
    /// Whether to look whether the client is still there.
    pub watch: bool,
}

impl Arriving<'_> {
    fn check(&mut self) -> Result<(), BodyError> {
        let count = self.body.pass(&self.input.bytes()[self.ready..]).map_err(|_: Malformed| BodyError::Malformed)?;
        self.left = self.left.checked_sub(count as u64).ok_or(BodyError::TooLarge)?;
        self.ready += count;
        Ok(())
    }

    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            let count = ready!(Pin::new(&mut *self.stream).poll_write(cx, self.owed))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.owed.drain(..count);
            if self.owed.is_empty() {
                let _ = Pin::new(&mut *self.stream).poll_flush(cx)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if std::mem::take(self.waits) {
            self.owed.extend_from_slice(CONTINUE);
        }
        // It sends nothing before that has reached it.
        ready!(self.poll_owed(cx))?;
        if self.input.is_full() {
            self.input.grow();
        }
        match ready!(self.input.poll_read(self.stream, cx))? {
            0 => Poll::Ready(Err(BodyError::Gone)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl Incoming for Arriving<'_> {
    fn waits(&self) -> bool {
        *self.waits && self.input.is_empty()
    }

    fn interim(&mut self, _: u16, head: &[u8]) {
        if !self.old {
            self.owed.extend_from_slice(head);
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) {
        // Who has gone is seen when the connection is read, or the answer is written.
        let _ = self.poll_owed(cx);
    }

    fn poll_keep(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<bool, BodyError>> {
        loop {
            if !self.body.is_over() {
                self.check()?;
            }
            if self.body.is_over() {
                return Poll::Ready(Ok(true));
            }
            if self.ready > most {
                return Poll::Ready(Ok(false));
            }
            ready!(self.poll_read(cx))?;
        }
    }

    fn keep_arrived(&mut self) -> Result<bool, BodyError> {
        self.check()?;
        Ok(self.body.is_over())
    }

    fn take_kept(&mut self, core: &Core) -> KeptBody {
        // The body leaves the input, so that the next request can come in beside it.
        let mut rest = core.buffers.take();
        rest.push(&self.input.bytes()[self.ready..]);
        let buffer = std::mem::replace(self.input, rest);
        KeptBody::Buffer(buffer, std::mem::take(&mut self.ready))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        while self.ready == 0 && !self.body.is_over() {
            self.check()?;
            if self.ready == 0 && !self.body.is_over() {
                ready!(self.poll_read(cx))?;
            }
        }
        Poll::Ready(Ok(self.ready > 0))
    }

    fn piece(&self) -> &[u8] {
        &self.input.bytes()[..self.ready]
    }

    fn consume(&mut self, count: usize) {
        self.ready -= count;
        self.input.consume(count);
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What comes meanwhile is the next request's; once there is as much as fits, nobody looks.
        while self.watch && !self.input.is_full() {
            match self.input.poll_read(self.stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}
