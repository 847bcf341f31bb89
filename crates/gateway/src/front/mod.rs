//! Clients' connections.

pub mod accept;
pub mod http1;
pub mod http2;
pub mod incoming;
pub mod incoming2;
pub mod relay;
pub mod request;
pub mod tunnel;
