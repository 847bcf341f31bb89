//! HTTP/1.1 as bytes: what a head says, where a body ends. Nothing here waits or reads a socket.
//!
//! [httparse] splits a head into lines; everything that decides where a message ends is decided here,
//! and strictly. Two programs that read one stream of bytes as different messages are how requests
//! are smuggled past the first of them, so whatever two programs might read differently is refused:
//! a bare line feed, a folded line, a space before a colon, two lengths, a length beside chunks, a
//! coding other than `chunked`, a sign or a space in a length, a chunk size of more than 16 digits.
//!
//! What passes is forwarded as it came, since it can only be read in one way.

pub mod body;
pub mod chunked;
pub mod head;
pub mod name;
pub mod request;
pub mod response;

pub use body::{Body, Framing};
pub use chunked::Chunked;
pub use request::Request;
pub use response::Response;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line ends with a line feed alone.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    /// A head's lines are not of the form that the standard gives.
    #[error("the head is malformed")]
    Head,
    /// A version other than 1.0 and 1.1.
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A target that is no path, and no `http` address.
    #[error("the request's target is malformed")]
    Target,
    /// No `Host` where one must be, or two, or one that is none.
    #[error("there must be one Host")]
    Host,
    /// Two lengths, or one that is no plain number.
    #[error("the Content-Length is malformed")]
    ContentLength,
    /// A coding of the message other than `chunked`, or `chunked` twice.
    #[error("the Transfer-Encoding is malformed or unknown")]
    TransferEncoding,
    /// A length and chunks: two ends of one message.
    #[error("the message has both a Content-Length and a Transfer-Encoding")]
    BothLengths,
    /// A chunk's size, extension or end is malformed.
    #[error("a chunk is malformed")]
    Chunk,
    /// A trailer that would change how the message is read, or is malformed.
    #[error("a trailer is malformed or may not stand there")]
    Trailer,
    /// An `Upgrade` without what belongs to it, or an `Expect` other than `100-continue`.
    #[error("the Expect is unknown")]
    Expect,
}

/// Why a head is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no head.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It has more bytes than allowed.
    #[error("the head has too many bytes")]
    HeadTooLarge,
    /// It has more fields than allowed.
    #[error("the head has too many fields")]
    TooManyFields,
}

/// Most fields of a head; the limit that a file states is at most this.
pub const FIELDS_MAX: usize = 128;
