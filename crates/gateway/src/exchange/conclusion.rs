//! What the end of a call to the upstream means for the request that it was made for.

use plimsoll_model::system::FallbackAnswer;
use plimsoll_policy::Outcome;

use crate::answers::OwnAnswer;
use crate::plan::Route;
use crate::upstream::call::Ended;

/// The answer that stands in for what a call has brought, if one does, and how the request has ended then.
pub fn conclude(route: &Route, brought: Result<Ended, OwnAnswer>) -> (Option<&FallbackAnswer>, Outcome) {
    let (failed, outcome) = match brought {
        Ok(ended) => (ended.outcome() == Outcome::Failure, ended.outcome()),
        Err(own) => (true, own.outcome()),
    };
    match &route.fallback {
        Some(fallback) if failed => (Some(fallback), Outcome::Success),
        _ => (None, outcome),
    }
}
