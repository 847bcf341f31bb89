//! A PostgreSQL primary and its streaming replicas: the system's own programs, started for one run.
//!
//! A cluster is copied from a template that `initdb` made once. Replicas are copies of it too, for a standby that
//! begins where its primary did finds all that it needs in the primary's write-ahead log; a base backup would take
//! longer than everything else together. Settings that a run needs are on the command line, where neither a
//! rewind, which copies the other's files, nor `ALTER SYSTEM` can change them.
//!
//! Everything here stops the calling thread until it is done or has failed; none of it may be called from an
//! asynchronous runtime's thread.

mod binaries;
mod cluster;
mod failover;
mod fault;
mod heartbeat;
mod ledger;
mod node;
mod sql;
mod template;

use std::path::PathBuf;
use std::time::Duration;

use crate::process::ProcessError;

pub use binaries::Binaries;
pub use cluster::{Cluster, Options};
pub use failover::Promotion;
pub use fault::{Exhaustion, TableLock};
pub use heartbeat::{Heartbeat, Staleness};
pub use ledger::Ledger;
pub use sql::{Row, Session, Sql};

/// The database that services use, and the role that they use it as: its owner, and no superuser.
pub const DATABASE: &str = "plimsoll";
/// The role that runs ask with: a superuser, for whom some connections are kept.
pub const SUPERUSER: &str = "postgres";

/// As long as a server may take for what is usually done in less than a second.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why something with PostgreSQL failed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Its programs are not on this machine.
    #[error(
        "no PostgreSQL {least} or later on this machine: install the package `postgresql` (on Debian and Ubuntu: \
         apt-get install postgresql), or run with --emulate-stores; looked in {looked}"
    )]
    Missing {
        /// The oldest version that will do.
        least: u32,
        /// Where it was looked for.
        looked: String,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else.
    #[error("PostgreSQL does not run as root, and this machine has no user {0}")]
    NoUser(String),
    /// A file or directory.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A program ended otherwise than it should have.
    #[error("{program}: {how}\n{words}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        how: String,
        /// The end of its log.
        words: String,
    },
    /// A server does not do what it should in time.
    #[error("{node} {what} after {seconds} s\n{words}", seconds = PATIENCE.as_secs())]
    Late {
        /// Which.
        node: String,
        /// What it does instead.
        what: String,
        /// The end of its log.
        words: String,
    },
    /// A server refuses, or cannot be reached.
    #[error("{0}")]
    Sql(SqlError),
    /// What was asked for makes no sense now.
    #[error("{0}")]
    Refused(String),
}

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// SQLSTATE, where the server answered.
    pub code: Option<String>,
    /// What is wrong.
    pub why: String,
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)?;
        self.code.iter().try_for_each(|code| write!(f, " ({code})"))
    }
}

impl From<SqlError> for PostgresError {
    fn from(error: SqlError) -> PostgresError {
        PostgresError::Sql(error)
    }
}
