//! Concurrency: how many requests a service works on at once, fixed or found by their latency.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use plimsoll_policy::{InvalidConfig, adaptive_limit, bulkhead, pipeline};
use tower_layer::Layer;
use tower_service::Service;

use crate::call::{Call, Shared, Snapshot};
use crate::classify::{ByStatus, Classify};
use crate::deadline::RequestDeadline;
use crate::error::{Error, refuse};
use crate::{BoxFuture, take_ready};

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

/// Limits the requests at work. What is over it is answered with 503. A permit is held until the head of the
/// response, or until the future is dropped.
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

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;

    fn layer(&self, inner: S) -> Concurrency<S> {
        Concurrency { inner, shared: self.shared.clone() }
    }
}

/// The service of a [`ConcurrencyLayer`].
#[derive(Clone, Debug)]
pub struct Concurrency<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> Service<Request<B>> for Concurrency<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<Bytes> + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let shared = self.shared.clone();
        Box::pin(async move {
            let deadline = shared.clock.deadline(RequestDeadline::of(request.extensions()).instant());
            let mut call = Call::start(&shared, deadline, false, 0);
            if let Err(rejected) = call.attempt().await {
                return Ok(refuse(Error::rejected(rejected, call.now())));
            }
            let result = inner.call(request).await;
            let _ = call.settle(0, ByStatus.classify(&result));
            result
        })
    }
}
