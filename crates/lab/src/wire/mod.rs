//! HTTP/1.1 between the processes of a run: connections that ask, and servers that answer. What a message means is
//! read by the gateway's parser.

pub mod client;
pub mod resp;
pub mod server;

/// Fields of answers that mean something to a run start with this.
pub const FIELD: &str = "x-plimsoll-";

/// Most bytes of a head.
const HEAD_MAX: usize = 64 << 10;
