//! Answers that no request fetches for itself: the gateway's own, kept ones, those that several share, and
//! those that a request with an idempotency key gets again.
//!
//! What is here knows neither connections nor cores: `exchange` fetches, and tells it what came.

pub mod kept;
pub mod own;
pub mod records;
pub mod sharing;

pub use kept::{Kept, Store};
pub use own::OwnAnswer;
pub use records::Records;
pub use sharing::Sharing;
