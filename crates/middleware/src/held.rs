//! Permits that are held until the end of a body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::call::Answered;
use crate::shed::Place;

/// A place that an answer takes for as long as its body comes: given back when it is dropped.
#[must_use = "it is given back when it is dropped"]
#[derive(Debug, Default)]
pub struct Permit(Kind);

#[derive(Debug, Default)]
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation a call")]
enum Kind {
    /// Given back already, or never needed.
    #[default]
    None,
    Call(Answered),
    /// Held for what its drop does.
    Place(#[allow(dead_code, reason = "it is dropped")] Place),
}

impl Permit {
    /// Nothing to give back.
    pub(crate) const fn none() -> Permit {
        Permit(Kind::None)
    }

    pub(crate) fn call(answered: Answered) -> Permit {
        Permit(Kind::Call(answered))
    }

    pub(crate) fn place(place: Place) -> Permit {
        Permit(Kind::Place(place))
    }

    /// The body has ended in an error: the target has failed after all.
    pub fn fail(&mut self) {
        if let Permit(Kind::Call(answered)) = self {
            answered.fail();
        }
    }
}

pin_project! {
    /// A body with the permit of its request, which ends with it: at its last frame, its error, or when it is dropped.
    #[derive(Debug)]
    pub struct HeldBody<B> {
        #[pin]
        body: B,
        // After the body, so that it is dropped after it.
        permit: Permit,
    }
}

impl<B> HeldBody<B> {
    /// A body that holds a permit.
    pub fn new(body: B, permit: Permit) -> HeldBody<B> {
        HeldBody { body, permit }
    }

    /// The body alone, for those that have all of it: what it held is given back.
    pub fn into_inner(self) -> B {
        self.body
    }
}

impl<B: From<Bytes>> From<Bytes> for HeldBody<B> {
    fn from(bytes: Bytes) -> HeldBody<B> {
        HeldBody::new(bytes.into(), Permit::none())
    }
}

impl<B: Default> Default for HeldBody<B> {
    fn default() -> HeldBody<B> {
        HeldBody::new(B::default(), Permit::none())
    }
}

impl<B: Body> Body for HeldBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = std::task::ready!(this.body.as_mut().poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            this.permit.fail();
        }
        // Servers do not ask again after the last frame.
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            *this.permit = Permit::none();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
