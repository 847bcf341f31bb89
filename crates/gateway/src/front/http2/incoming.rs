//! A request's body from an HTTP/2 stream, framed as HTTP/1.1 has it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use super::head::{answer_head, trailer_lines};
use crate::core::Core;
use crate::exchange::{BodyError, Incoming, KeptBody};
use crate::http1::chunked;

/// A stream's body as it arrives.
pub struct Stream2<'s> {
    recv: RecvStream,
    respond: &'s mut SendResponse<Bytes>,
    /// Whether the upstream gets chunks.
    chunked: bool,
    /// Bytes that may still come.
    left: u64,
    /// What has arrived, framed, from `sent` on not yet passed on.
    framed: Vec<u8>,
    sent: usize,
    over: bool,
    /// Whether all content has come, and trailers are next.
    trails: bool,
    /// Whether the client waits for `100 Continue`.
    waits: bool,
    /// Whether to look whether the client is still there.
    watch: bool,
}

impl<'s> Stream2<'s> {
    /// A body of which nothing has come. `waits` says that the client waits until it is asked for it,
    /// `watch` that a request ends where its client has gone.
    pub fn new(
        recv: RecvStream,
        respond: &'s mut SendResponse<Bytes>,
        chunked: bool,
        most: u64,
        waits: bool,
        watch: bool,
    ) -> Stream2<'s> {
        let over = recv.is_end_stream();
        let framed = Vec::new();
        Stream2 { recv, respond, chunked, left: most, framed, sent: 0, over, trails: false, waits, watch }
    }

    /// The stream, of which no body was wanted.
    pub fn into_recv(self) -> RecvStream {
        self.recv
    }

    /// Takes in the next frame. False at the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        if self.over {
            return Poll::Ready(Ok(false));
        }
        if std::mem::take(&mut self.waits) {
            let mut go_on = http::Response::new(());
            *go_on.status_mut() = http::StatusCode::CONTINUE;
            // A stream that takes no more answers is seen to be over below.
            let _ = self.respond.send_informational(go_on);
        }
        if self.trails {
            let trailers = ready!(self.recv.poll_trailers(cx)).map_err(|_| BodyError::Gone)?;
            self.over = true;
            if self.chunked {
                self.framed.extend_from_slice(chunked::LAST);
                if let Some(trailers) = &trailers {
                    trailer_lines(&mut self.framed, trailers);
                }
                self.framed.extend_from_slice(b"\r\n");
            }
            return Poll::Ready(Ok(true));
        }
        match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => {
                self.left = self.left.checked_sub(data.len() as u64).ok_or(BodyError::TooLarge)?;
                // Its room is free again as soon as it is copied; the bound is the upstream's pace, since
                // nothing more is asked for before this has gone out.
                let _ = self.recv.flow_control().release_capacity(data.len());
                if self.chunked && !data.is_empty() {
                    chunked::size_line(&mut self.framed, data.len());
                    self.framed.extend_from_slice(&data);
                    self.framed.extend_from_slice(b"\r\n");
                } else {
                    self.framed.extend_from_slice(&data);
                }
                Poll::Ready(Ok(true))
            }
            Some(Err(_)) => Poll::Ready(Err(BodyError::Gone)),
            None => {
                self.trails = true;
                self.poll_frame(cx)
            }
        }
    }
}

impl Incoming for Stream2<'_> {
    fn waits(&self) -> bool {
        self.waits && self.framed.is_empty()
    }

    fn interim(&mut self, status: u16, head: &[u8]) {
        let head = head.strip_suffix(b"\r\n").unwrap_or(head);
        if let Some(interim) = answer_head(head, status) {
            // A stream that takes no more answers is seen to be over elsewhere.
            let _ = self.respond.send_informational(interim);
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        while self.sent == self.framed.len() {
            self.framed.clear();
            self.sent = 0;
            if !ready!(self.poll_frame(cx))? {
                return Poll::Ready(Ok(false));
            }
        }
        Poll::Ready(Ok(true))
    }

    fn piece(&self) -> &[u8] {
        &self.framed[self.sent..]
    }

    fn consume(&mut self, count: usize) {
        self.sent += count;
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.watch {
            return Poll::Pending;
        }
        self.respond.poll_reset(cx).map(drop)
    }

    fn poll_keep(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<bool, BodyError>> {
        while self.framed.len() <= most {
            if !ready!(self.poll_frame(cx))? {
                return Poll::Ready(Ok(true));
            }
        }
        Poll::Ready(Ok(self.over))
    }

    fn keep_arrived(&mut self) -> Result<bool, BodyError> {
        Ok(false)
    }

    fn take_kept(&mut self, _: &Core) -> KeptBody {
        KeptBody::Bytes(std::mem::take(&mut self.framed))
    }
}
