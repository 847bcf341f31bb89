//! One server: its connections, the policies around them, and what it last said of itself.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::Status;
use deadpool::managed::Pool;
use plimsoll_middleware::{Classify, Once, Permit, PipelineHandle, PipelineLayer};
use plimsoll_policy::pipeline::{self, Reply};
use plimsoll_policy::{InvalidConfig, Outcome, circuit_breaker};
use tokio_postgres::Config;
use tower::{Layer, ServiceExt, service_fn};

use super::pool::{Connector, Lease, pool};
use super::{Lsn, StoreError};
use crate::config::Args;

/// What is done with a node. Each kind has a breaker of its own: when writing fails, reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A statement that changes nothing.
    Read,
    /// One that changes something.
    Write,
}

/// A server.
pub struct Node {
    /// `HOST:PORT`, as it was given.
    pub address: String,
    pool: Pool<Connector>,
    connections: Config,
    reads: PipelineLayer<Once, ByHealth>,
    writes: PipelineLayer<Once, ByHealth>,
    seen: Mutex<Option<Lsn>>,
}

impl Node {
    /// Connects to nothing yet.
    pub fn new(address: &str, args: &Args) -> Result<Node, Box<dyn std::error::Error>> {
        let timeout = Duration::from_millis(args.db_timeout_ms);
        let mut connections = Config::from_str(&format!("postgres://plimsoll@{address}/plimsoll"))?;
        connections.application_name(format!("notes-{}", args.instance)).connect_timeout(timeout);
        let mut pooled = connections.clone();
        // The server gives up with us, and lets go of what it holds for a statement that nobody waits for any more.
        pooled.options(format!("-c statement_timeout={}", args.db_timeout_ms));
        Ok(Node {
            address: address.to_owned(),
            pool: pool(pooled, args.pool as usize, timeout),
            connections,
            reads: policies(timeout, !args.no_breaker)?,
            writes: policies(timeout, !args.no_breaker)?,
            seen: Mutex::new(None),
        })
    }

    /// What a connection of one's own is made with, without a limit on statements.
    pub fn config(&self) -> &Config {
        &self.connections
    }

    /// Does something with a connection, within the node's policies: a timeout and a circuit breaker.
    ///
    /// The work is the pipeline's request: a layer takes whatever a tower service takes, and this service is asked to
    /// run a future.
    pub async fn run<T, W, F>(&self, kind: Kind, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(Lease) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let pool = self.pool.clone();
        let job = Box::pin(async move { work(Lease::of(&pool).await?).await });
        Ok(self.policies(kind).layer(service_fn(|job| job)).oneshot(job).await?)
    }

    fn policies(&self, kind: Kind) -> &PipelineLayer<Once, ByHealth> {
        match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        }
    }

    /// The policies' counts and states.
    pub fn handle(&self, kind: Kind) -> PipelineHandle {
        self.policies(kind).handle()
    }

    /// How full the pool is.
    pub fn pool(&self) -> Status {
        self.pool.status()
    }

    /// How far it has written the log, or replayed it, when it was last asked; `None` if it did not answer.
    pub fn seen(&self) -> Option<Lsn> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what it has said.
    pub fn see(&self, position: Option<Lsn>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }
}

fn policies(timeout: Duration, breaker: bool) -> Result<PipelineLayer<Once, ByHealth>, InvalidConfig> {
    let config = circuit_breaker::Config { ramp: Duration::from_secs(2), ..circuit_breaker::Config::default() };
    let layer = PipelineLayer::new(pipeline::Config {
        timeout: Some(timeout),
        breaker: breaker.then_some(config),
        ..pipeline::Config::default()
    })?;
    // What is repeated, and where, is the store's decision: at another node.
    Ok(layer.requests(Once).classify(ByHealth))
}

/// Counts as a failure what says that the node is ill.
#[derive(Clone, Copy)]
struct ByHealth;

impl<T> Classify<T, StoreError> for ByHealth {
    type Held = T;

    fn classify(&self, result: &Result<T, StoreError>) -> Reply {
        Reply::new(match result {
            Ok(_) => Outcome::Success,
            Err(error) if error.is_failure() => Outcome::Failure,
            Err(_) => Outcome::Ignored,
        })
    }

    fn hold(&self, answer: T, _permit: Permit) -> T {
        answer
    }
}

/// Shared by those who ask a node.
pub type Shared = Arc<Node>;
