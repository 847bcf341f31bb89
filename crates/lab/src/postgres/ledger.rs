//! Rows that a primary acknowledged, and those among them that a failover lost.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cluster::Cluster;
use super::{PostgresError, SqlError};

/// Numbers written to a table of the services' database, by whoever writes: each is recorded when its commit was
/// acknowledged.
#[derive(Debug)]
pub struct Ledger {
    table: String,
    column: String,
    acknowledged: Mutex<BTreeSet<i64>>,
}

impl Ledger {
    /// One for a column of a table that is there.
    pub fn of(table: &str, column: &str) -> Ledger {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        Ledger { table: quoted(table), column: quoted(column), acknowledged: Mutex::default() }
    }

    /// One with a table of its own, `plimsoll_ledger(number)`, which services may write to.
    pub fn create(cluster: &Cluster) -> Result<Ledger, PostgresError> {
        cluster
            .connect(cluster.primary())?
            .run("CREATE TABLE IF NOT EXISTS plimsoll_ledger (number bigint PRIMARY KEY)", super::PATIENCE)?;
        Ok(Ledger::of("plimsoll_ledger", "number"))
    }

    fn set(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The statement that writes a number.
    pub fn insert(&self, number: i64) -> String {
        format!("INSERT INTO {} ({}) VALUES ({number})", self.table, self.column)
    }

    /// Records a number if its statement was answered with success, and says so.
    pub fn record<T>(&self, number: i64, answer: &Result<T, SqlError>) -> bool {
        answer.is_ok() && self.set().insert(number)
    }

    /// How many were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.set().len()
    }

    /// Those that were acknowledged and that the primary of now does not have.
    pub fn lost(&self, cluster: &Cluster) -> Result<Vec<i64>, PostgresError> {
        let rows = cluster.ask(cluster.primary(), &format!("SELECT {} FROM {}", self.column, self.table))?;
        let there: BTreeSet<i64> = rows.into_iter().flatten().flatten().filter_map(|text| text.parse().ok()).collect();
        Ok(self.set().difference(&there).copied().collect())
    }
}
