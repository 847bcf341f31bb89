//! The gateway from outside: real sockets, backends that do as they are told.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod absences;
mod dns;
mod hostility;
mod http;
mod http2;
mod idempotency;
mod idempotency_http2;
mod interim;
mod listening;
mod operations;
mod policies;
mod quota;
mod redis;
mod support;
mod tls;
