//! Clients' connections.

pub mod accept;
pub mod http1;
pub mod incoming;
pub mod relay;
pub mod request;
pub mod tunnel;
