//! The layers with real services: axum and hyper on loopback, and paused time where timing decides.

mod bodies;
mod cancellation;
mod client;
mod idempotency;
mod server;
mod support;
