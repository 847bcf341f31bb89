//! A request's way to an upstream and back.

pub mod answer;
pub mod attempt;
pub mod cached;
pub mod fetch;
pub mod forward;
pub mod hedge;

use std::io;
use std::task::{Context, Poll};

/// A request's body as it comes in from a client.
pub trait Incoming {
    /// Ready with true once [`piece`](Self::piece) has something, with false at the body's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>>;
    /// What has arrived, framed as the upstream gets it.
    fn piece(&self) -> &[u8];
    /// So many of those bytes were sent.
    fn consume(&mut self, count: usize);
    /// Ready once the client has gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Why a body does not come in.
#[derive(Debug)]
pub enum BodyError {
    /// Its framing is malformed.
    Malformed,
    /// It is larger than allowed.
    TooLarge,
    /// It came too slowly.
    Slow,
    /// The client has gone.
    Gone,
}

impl From<io::Error> for BodyError {
    fn from(_: io::Error) -> Self {
        BodyError::Gone
    }
}
