//! Bodies: read up to a bound, and passed on all the same.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// What was read of a body.
pub(super) enum Read<B> {
    /// All of it, and its trailers.
    Whole(Bytes, Option<HeaderMap>),
    /// More than the bound.
    TooLarge {
        /// What was read.
        start: Bytes,
        /// What was not.
        rest: Pin<Box<B>>,
    },
}

/// Reads a body, or its start. An error comes with what was read before.
pub(super) async fn read<B: Body>(body: B, max: usize) -> Result<Read<B>, (Bytes, B::Error)> {
    let mut body = Box::pin(body);
    let mut read = BytesMut::new();
    let mut trailers = None;
    loop {
        // A body that says that it is too large need not be read for it.
        if read.len() > max || body.size_hint().lower() > (max - read.len()) as u64 {
            return Ok(Read::TooLarge { start: read.freeze(), rest: body });
        }
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => return Ok(Read::Whole(read.freeze(), trailers)),
            Some(Err(error)) => return Err((read.freeze(), error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    while data.has_remaining() {
                        let chunk = data.chunk();
                        let length = chunk.len();
                        read.extend_from_slice(chunk);
                        data.advance(length);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

/// A response's body behind an [`IdempotencyLayer`](super::IdempotencyLayer): what was read of it, then what was not.
#[derive(Debug)]
pub struct KeptBody<B: Body> {
    read: VecDeque<Frame<Bytes>>,
    error: Option<B::Error>,
    rest: Option<Pin<Box<B>>>,
}

impl<B: Body<Data = Bytes>> KeptBody<B> {
    pub(super) fn passed(body: B) -> KeptBody<B> {
        KeptBody { read: VecDeque::new(), error: None, rest: Some(Box::pin(body)) }
    }

    pub(super) fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> KeptBody<B> {
        let mut body = KeptBody::from(bytes);
        body.read.extend(trailers.map(Frame::trailers));
        body
    }

    pub(super) fn rest(start: Bytes, rest: Pin<Box<B>>) -> KeptBody<B> {
        KeptBody { rest: Some(rest), ..KeptBody::from(start) }
    }

    pub(super) fn broken(start: Bytes, error: B::Error) -> KeptBody<B> {
        KeptBody { error: Some(error), ..KeptBody::from(start) }
    }
}

impl<B: Body<Data = Bytes>> From<Bytes> for KeptBody<B> {
    fn from(bytes: Bytes) -> KeptBody<B> {
        let read = (!bytes.is_empty()).then(|| Frame::data(bytes)).into_iter().collect();
        KeptBody { read, error: None, rest: None }
    }
}

// The rest is behind a box, and nothing else is ever pinned.
impl<B: Body> Unpin for KeptBody<B> {}

impl<B: Body<Data = Bytes>> Body for KeptBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.error.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.error.is_some() {
            return SizeHint::default();
        }
        let read = self.read.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), |rest| rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(read.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}
