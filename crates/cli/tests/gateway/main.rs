//! The gateway as a process, from outside: what strangers may do to it, signals and failing instances under load,
//! clients that others have written.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod bodies;
mod bombs;
mod clients;
mod floods;
mod http2;
mod instances;
mod load;
mod mutated;
mod process;
#[allow(dead_code, reason = "the gateway's own tests use the rest of it")]
#[path = "../../../gateway/tests/gateway/support.rs"]
mod support;
