//! Plimsoll's layers around the routes: the same policies, in the same order, as in `system.yaml`.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use plimsoll_middleware::{
    ConcurrencyConfig, ConcurrencyLayer, DeadlineLayer, IdempotencyLayer, RateLimitLayer, ShedConfig, ShedLayer,
};
use plimsoll_policy::{InvalidConfig, bulkhead, deadline, idempotency, rate_limit};

use crate::config::Args;
use crate::session;

/// The layers; their clones share their state.
pub struct Guards {
    deadline: DeadlineLayer,
    quota: Option<RateLimitLayer>,
    workers: ShedLayer,
    writes: Option<ConcurrencyLayer>,
    idempotency: IdempotencyLayer,
}

impl Guards {
    /// As the arguments say.
    pub fn new(args: &Args) -> Result<Guards, InvalidConfig> {
        let timeout = Duration::from_millis(args.timeout_ms);
        let mut workers = ShedConfig::new(args.workers);
        workers.queue.capacity = args.queue;
        let writes = bulkhead::Config { permits: args.writes, ..bulkhead::Config::default() };
        let writes = ConcurrencyConfig { bulkhead: Some(writes), adaptive_limit: None };
        let kept = idempotency::Config {
            // Longer than any request may take, and no longer: whoever repeats one that was dropped waits for that.
            lease: timeout * 2,
            ..idempotency::Config::default()
        };
        let idempotency = IdempotencyLayer::new(kept)?
            .scope(|parts| session::scope(&parts.headers))
            // What had no effect is worth another try.
            .keep(|parts| !parts.status.is_server_error() && parts.status != StatusCode::TOO_MANY_REQUESTS);
        Ok(Guards {
            deadline: DeadlineLayer::new(deadline::Config { timeout: Some(timeout), ..deadline::Config::default() })?,
            quota: match args.no_quota {
                true => None,
                false => Some(RateLimitLayer::new(rate_limit::Config::new(args.quota, Duration::from_secs(1)))?),
            },
            workers: ShedLayer::new(workers)?,
            writes: if args.no_bulkhead { None } else { Some(ConcurrencyLayer::new(writes)?) },
            idempotency,
        })
    }

    /// Puts them around the routes. The last layer is the outermost.
    pub fn around<S>(&self, reads: Router<S>, writes: Router<S>) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let mut writes = writes.route_layer(self.idempotency.clone());
        if let Some(bulkhead) = &self.writes {
            writes = writes.route_layer(bulkhead.clone());
        }
        let mut routes = reads.merge(writes).route_layer(self.workers.clone());
        if let Some(quota) = &self.quota {
            routes = routes.route_layer(quota.clone());
        }
        routes.route_layer(self.deadline.clone())
    }

    /// What each policy has turned away so far.
    pub fn rejected(&self) -> Vec<(&'static str, u64)> {
        let queue = self.workers.handle().snapshot();
        let sum = |classes: &[u64]| classes.iter().sum::<u64>();
        let counts = queue.counts;
        let shed = sum(&counts.rejected) + sum(&counts.displaced) + sum(&counts.shed) + sum(&counts.expired);
        let mut rejected = vec![("workers", shed + queue.late)];
        if let Some(quota) = &self.quota {
            rejected.push(("quota", quota.handle().counts().rejected));
        }
        if let Some(writes) = &self.writes {
            rejected.push(("writes", writes.handle().snapshot().bulkhead.map_or(0, |counts| counts.rejected)));
        }
        rejected
    }

    /// Requests answered from memory.
    pub fn replayed(&self) -> u64 {
        self.idempotency.handle().counts().replayed
    }
}
