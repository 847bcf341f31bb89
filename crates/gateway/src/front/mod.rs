//! Clients' connections.
//!
//! [`accept`] takes them in and hands each to the protocol that it speaks; the two protocols know nothing of
//! each other.

pub mod accept;
pub mod connection;
pub mod http1;
pub mod http2;
pub mod open;
pub mod tunnel;
