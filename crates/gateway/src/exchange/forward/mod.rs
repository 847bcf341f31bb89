//! What of a head is passed on, what is left out, and what is added.

mod answers;
mod peer;
mod requests;

use std::io::Write;

pub use answers::{has_directive, response, retry_after};
pub use peer::Peer;
pub use requests::{Gateway, caller_timeout, is_at_its_end, request};

use crate::http1::Framing;

/// The field that says where a body ends.
pub fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
