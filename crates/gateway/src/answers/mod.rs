//! Answers that no request fetches for itself: the gateway's own, kept ones, and those that several share.
//!
//! What is here knows neither connections nor cores: `exchange` fetches, and tells it what came.

pub mod kept;
pub mod own;
pub mod sharing;

pub use kept::{Kept, Store};
pub use own::OwnAnswer;
pub use sharing::Sharing;
