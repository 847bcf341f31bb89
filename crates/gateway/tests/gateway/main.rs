//! The gateway from outside: real sockets, backends that do as they are told.

mod http;
mod http2;
mod operations;
mod policies;
mod redis;
mod support;
