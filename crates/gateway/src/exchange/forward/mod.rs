//! What of a head is passed on, what is left out, and what is added.

mod answers;
mod peer;
mod requests;

use std::io::Write;
use std::net::IpAddr;

pub use answers::{has_directive, interim, response, retry_after};
pub use peer::Peer;
pub use requests::{Gateway, caller_timeout, is_at_its_end, request};

use crate::http1::Framing;

/// The field that says where a body ends.
pub fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            put_number(out, length);
            out.extend_from_slice(b"\r\n");
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

/// A number's digits.
pub fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// An address. Requests have it twice, and most are of version 4, which the standard library's formatting takes a
/// thousand instructions for.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                put_number(out, u64::from(octet));
            }
        }
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}
