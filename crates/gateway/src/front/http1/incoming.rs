//! A request's body from an HTTP/1.1 connection.

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
    /// Bytes of `100 Continue` that are still to be sent.
    pub go_on: &'c mut usize,
    /// Whether to look whether the client is still there.
    pub watch: bool,
}

/// All of `100 Continue`.
pub const GO_ON: usize = CONTINUE.len();

impl Arriving<'_> {
    fn check(&mut self) -> Result<(), BodyError> {
        let count = self.body.pass(&self.input.bytes()[self.ready..]).map_err(|_: Malformed| BodyError::Malformed)?;
        self.left = self.left.checked_sub(count as u64).ok_or(BodyError::TooLarge)?;
        self.ready += count;
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while *self.go_on > 0 {
            let rest = &CONTINUE[CONTINUE.len() - *self.go_on..];
            *self.go_on -= ready!(Pin::new(&mut *self.stream).poll_write(cx, rest))?;
            if *self.go_on == 0 {
                let _ = Pin::new(&mut *self.stream).poll_flush(cx)?;
            }
        }
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
        *self.go_on == GO_ON && self.input.is_empty()
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
