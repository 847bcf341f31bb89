//! A request's way to an upstream and back.

pub mod admission;
pub mod attempt;
pub mod borrowed;
pub mod conclusion;
pub mod ending;
pub mod facts;
pub mod fetch;
pub mod flight;
pub mod forward;
pub mod handle;
pub mod hedge;
pub mod interim;
pub mod whole;

use std::io;
use std::task::{Context, Poll};

use crate::answers::OwnAnswer;
use crate::core::Core;
use crate::figures::Own;
use crate::net::Buffer;

/// A request's body as it comes in from a client.
pub trait Incoming {
    /// Whether the client sends the body only once it is asked for it, and was not yet.
    fn waits(&self) -> bool {
        false
    }
    /// Ready with true once [`piece`](Self::piece) has something, with false at the body's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>>;
    /// What has arrived, framed as the upstream gets it.
    fn piece(&self) -> &[u8];
    /// So many of those bytes were sent.
    fn consume(&mut self, count: usize);
    /// An interim answer for the client: its status, and its head as HTTP/1.1 has it, the empty line included.
    fn interim(&mut self, _status: u16, _head: &[u8]) {}
    /// Sends what of interim answers was not sent yet, as far as the client takes it in; the rest goes out with the
    /// answer.
    fn poll_interim(&mut self, _: &mut Context<'_>) {}
    /// Ready once the client has gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Reads until the whole body is here, or more than `most` bytes of it are. Whether it is whole.
    fn poll_keep(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<bool, BodyError>>;
    /// Takes what of the body has arrived already. Whether that is all of it.
    fn keep_arrived(&mut self) -> Result<bool, BodyError>;
    /// The whole body, once it is here.
    fn take_kept(&mut self, core: &Core) -> KeptBody;
}

/// A body that is here whole.
#[derive(Debug)]
pub enum KeptBody {
    /// The first bytes of a buffer.
    Buffer(Buffer, usize),
    /// All bytes of a vector.
    Bytes(Vec<u8>),
}

impl KeptBody {
    /// The body, framed as the upstream gets it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            KeptBody::Buffer(buffer, count) => &buffer.bytes()[..*count],
            KeptBody::Bytes(bytes) => bytes,
        }
    }

    /// It is needed no more.
    pub fn give_back(self, core: &Core) {
        if let KeptBody::Buffer(mut buffer, _) = self {
            let all = buffer.bytes().len();
            buffer.consume(all);
            core.buffers.put(buffer);
        }
    }
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

impl BodyError {
    /// What is answered; nothing if nobody is there to be told.
    pub fn answer(&self) -> Option<OwnAnswer> {
        let status = match self {
            BodyError::Malformed => 400,
            BodyError::TooLarge => 413,
            BodyError::Slow => 408,
            BodyError::Gone => return None,
        };
        Some(OwnAnswer::new(status, Own::BadRequest))
    }
}

impl From<io::Error> for BodyError {
    fn from(_: io::Error) -> Self {
        BodyError::Gone
    }
}
