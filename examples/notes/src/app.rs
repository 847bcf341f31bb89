//! Everything that requests share.

use std::sync::Arc;

use crate::cache::{Cache, Redis};
use crate::config::Args;
use crate::guards::Guards;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::store::Store;

/// An instance of the service.
pub struct App {
    /// PostgreSQL.
    pub store: Store,
    /// Notes that were read lately.
    pub cache: Cache,
    /// What the cache is in, and sessions.
    pub redis: Arc<Redis>,
    /// The layers around routes.
    pub guards: Guards,
    /// Whether it should get requests.
    pub health: Health,
    /// What it has done.
    pub metrics: Arc<Metrics>,
}

impl App {
    /// Connects to nothing yet.
    pub fn new(args: &Args) -> Result<App, Box<dyn std::error::Error>> {
        let metrics = Arc::new(Metrics::new()?);
        let redis = args.sessions.as_deref().ok_or("no Redis is given")?;
        let redis = Arc::new(Redis::new(redis, !args.no_breaker)?);
        Ok(App {
            store: Store::new(args, metrics.clone())?,
            cache: Cache::new(redis.clone(), metrics.clone()),
            redis,
            guards: Guards::new(args)?,
            health: Health::default(),
            metrics,
        })
    }
}
