//! Why the database gives no answer.

use std::time::Duration;

use plimsoll_middleware::Error;
use tokio_postgres::error::SqlState;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No node has said yet that it is the primary.
    #[error("no primary is known")]
    NoPrimary,
    /// No connection within the time for it: the pool is taken, or the node does not answer.
    #[error("no connection: {0}")]
    Connection(String),
    /// What PostgreSQL says, or the end of the connection.
    #[error("{}", explain(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A policy has refused: the breaker is open.
    #[error("rejected: {reason}")]
    Rejected {
        /// Which.
        reason: &'static str,
        /// When it may be otherwise.
        retry_after: Option<Duration>,
    },
    /// Nothing in time.
    #[error("no answer in time")]
    TimedOut,
}

impl StoreError {
    /// Whether it says that the node is ill, and another one should be asked. What is wrong with a statement alone is
    /// wrong everywhere.
    pub fn is_failure(&self) -> bool {
        let StoreError::Postgres(error) = self else { return true };
        let Some(code) = error.code() else { return true };
        // Connections, resources, operators, internal errors; a lock not had in time; a primary that is none any more.
        ["08", "53", "57", "58", "XX"].iter().any(|class| code.code().starts_with(class))
            || *code == SqlState::LOCK_NOT_AVAILABLE
            || self.is_read_only()
    }

    /// Whether a write has met a node that is not the primary.
    pub fn is_read_only(&self) -> bool {
        matches!(self, StoreError::Postgres(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
    }
}

impl From<Error<StoreError>> for StoreError {
    fn from(error: Error<StoreError>) -> StoreError {
        let retry_after = error.retry_after();
        match error {
            Error::Inner(error) => error,
            Error::Rejected { reason, .. } => StoreError::Rejected { reason: reason.as_str(), retry_after },
            _ => StoreError::TimedOut,
        }
    }
}

/// With its cause: "db error" alone says nothing.
fn explain(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
