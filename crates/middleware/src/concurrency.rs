//! Concurrency: how many requests a service works on at once, fixed or found by their latency.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use plimsoll_policy::{InvalidConfig, Outcome, adaptive_limit, bulkhead, pipeline};
use tower_layer::Layer;

use crate::call::Call;
use crate::classify::outcome;
use crate::deadline::RequestDeadline;
use crate::error::{Error, refuse};
use crate::guard::{Guard, Guarded};
use crate::held::Permit;
use crate::shared::{Shared, Snapshot};

/// Which limits there are. The default is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConcurrencyConfig {
    /// A fixed number, and perhaps a queue, first come first served.
    pub bulkhead: Option<bulkhead::Config>,
    /// A number that follows the latency.
    pub adaptive_limit: Option<adaptive_limit::Config>,
}

impl From<ConcurrencyConfig> for pipeline::Config {
    fn from(config: ConcurrencyConfig) -> pipeline::Config {
        let ConcurrencyConfig { bulkhead, adaptive_limit } = config;
        pipeline::Config { bulkhead, adaptive_limit, ..pipeline::Config::default() }
    }
}

/// Limits the requests at work. What is over it is answered with 503.
///
/// A permit is held until the response's body has ended or is dropped: a stream is work for as long as it lasts. The
/// adaptive limit takes its times at the head of the response, since what follows depends on who reads it. A future
/// that is dropped before counts as cancelled.
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer {
    shared: Arc<Shared>,
}

impl ConcurrencyLayer {
    /// Refuses what either limit refuses.
    pub fn new(config: ConcurrencyConfig) -> Result<ConcurrencyLayer, InvalidConfig> {
        Ok(ConcurrencyLayer { shared: Shared::new(config.into())? })
    }

    /// Changes the configuration and reads counts while the layer runs.
    pub fn handle(&self) -> ConcurrencyHandle {
        ConcurrencyHandle(self.shared.clone())
    }
}

/// A running [`ConcurrencyLayer`].
#[derive(Clone, Debug)]
pub struct ConcurrencyHandle(Arc<Shared>);

impl ConcurrencyHandle {
    /// Replaces the configuration; requests at work and those that wait stay.
    pub fn set_config(&self, config: ConcurrencyConfig) -> Result<(), InvalidConfig> {
        self.0.set_config(config.into())
    }

    /// What was decided so far, and how the limits stand.
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }
}

/// The service of a [`ConcurrencyLayer`].
pub type Concurrency<S> = Guarded<S, ConcurrencyLayer>;

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;

    fn layer(&self, inner: S) -> Concurrency<S> {
        Guarded::new(inner, self.clone())
    }
}

impl Guard for ConcurrencyLayer {
    type Visit = Call;

    fn arrive(&self, parts: &mut Parts) -> Call {
        let deadline = self.shared.clock.deadline(RequestDeadline::of(&parts.extensions).instant());
        Call::new(self.shared.clone(), deadline, false, 0)
    }

    async fn admit(&self, call: &mut Call) -> Result<(), Response<Bytes>> {
        call.attempt().await.map_err(|rejected| refuse(Error::rejected(rejected, self.shared.clock.now())))
    }

    fn answered(&self, call: Call, status: Option<StatusCode>) -> Permit {
        Permit::call(call.answered(0, status.map_or(Outcome::Failure, outcome).into()))
    }
}
