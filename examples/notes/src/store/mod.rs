//! The database: reads from replicas, writes to the primary, whichever that is now.

mod activity;
mod cluster;
mod error;
mod migrate;
mod node;
mod notes;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use activity::Entry;
pub use cluster::Cluster;
pub use error::StoreError;
pub use node::Kind;
pub use notes::{Actor, Changed, Content, Created, Note};
pub use pool::Lease;

use crate::config::Args;
use crate::metrics::Metrics;

/// A place in the write-ahead log, in bytes from its beginning.
pub type Lsn = u64;

/// What a read has to have: everything up to the session's last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The session has written nothing lately.
    Anything,
    /// It has written up to there.
    At(Lsn),
    /// It may have written: what is known of it is out of reach. Only the primary surely has it.
    Unknown,
}

impl Since {
    /// Whether a state of the database at `position` will do.
    pub fn is_met_by(self, position: Lsn) -> bool {
        match self {
            Since::Anything => true,
            Since::At(written) => written <= position,
            Since::Unknown => false,
        }
    }
}

/// Where an answer came from, as `X-Notes-From` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// The cache.
    Cache,
    /// A replica that was fresh enough.
    Replica,
    /// The primary.
    Primary,
    /// A replica that was not, for want of a better one.
    Stale,
    /// A copy of some time ago, for want of a database.
    Fallback,
}

impl From {
    /// As headers and labels have it.
    pub fn as_str(self) -> &'static str {
        match self {
            From::Cache => "cache",
            From::Replica => "replica",
            From::Primary => "primary",
            From::Stale => "stale",
            From::Fallback => "fallback",
        }
    }
}

/// What was read.
pub struct Answer<T> {
    /// It.
    pub value: T,
    /// Where from.
    pub from: From,
    /// How far the log was there at least: the state is this old or newer.
    pub position: Lsn,
}

/// The database.
pub struct Store {
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Knows the nodes, and connects to none yet. Any replica will do with `--any-replica`.
    pub fn new(args: &Args, metrics: Arc<Metrics>) -> Result<Store, Box<dyn std::error::Error>> {
        let nodes = args.db.iter().map(|address| Ok(Arc::new(node::Node::new(address, args)?)));
        let nodes = nodes.collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
        let cluster = Cluster::new(nodes, Duration::from_millis(args.max_lag_ms), args.any_replica);
        Ok(Store { cluster: Arc::new(cluster), metrics })
    }

    /// Brings the schema up to date, as soon as there is a primary, and looks at all nodes from then on.
    pub async fn start(&self, seed_notes: u32) {
        migrate::until_done(self.cluster.nodes(), seed_notes).await;
        self.cluster.watch();
    }

    /// Which node is what.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Reads from the best node there is; from the next, if that one is ill.
    pub async fn read<T, F>(
        &self,
        since: Since,
        read: impl Fn(Lease) -> F + Clone + Send + 'static,
    ) -> Result<Answer<T>, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let mut last = StoreError::NoPrimary;
        for reader in self.cluster.readers(since) {
            match reader.node.run(Kind::Read, read.clone()).await {
                Ok(value) => {
                    let from = match (reader.stale, reader.primary) {
                        (true, _) => From::Stale,
                        (false, true) => From::Primary,
                        (false, false) => From::Replica,
                    };
                    self.metrics.reads.with_label_values(&[from.as_str()]).inc();
                    return Ok(Answer { value, from, position: reader.position });
                }
                Err(error) if error.is_failure() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Writes to the primary, once: whether a write that failed took effect is not known. Clients repeat those with an
    /// idempotency key.
    pub async fn write<T, F>(&self, write: impl FnOnce(Lease) -> F + Send + 'static) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let primary = self.cluster.primary().ok_or(StoreError::NoPrimary)?;
        let result = primary.run(Kind::Write, write).await;
        if result.as_ref().is_err_and(StoreError::is_read_only) {
            self.cluster.deposed(&primary);
        }
        result
    }
}

/// Where the log ends, after a write on the same connection: the write is before that.
async fn position(lease: &mut Lease) -> Result<Lsn, StoreError> {
    let rows = lease.query("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
}
