//! What goes wrong within a server that runs: replicas that lag, a migration's lock, no connection left. Each is
//! looked at until it has come about.

use std::time::Duration;

use super::cluster::Cluster;
use super::{DATABASE, PATIENCE, PostgresError, SUPERUSER, Session, SqlError};

/// SQLSTATE of a server that has no connection left.
const TOO_MANY: &str = "53300";

/// A table that nobody can use while this lives, as while a migration alters it.
#[derive(Debug)]
pub struct TableLock {
    _session: Session,
}

/// Connections that are taken while this lives.
#[derive(Debug)]
pub struct Exhaustion {
    sessions: Vec<Session>,
}

impl Exhaustion {
    /// How many it has taken.
    pub fn taken(&self) -> usize {
        self.sessions.len()
    }
}

impl Cluster {
    /// Has a replica apply each commit so much later than it was made; zero ends that.
    pub fn delay_apply(&self, number: usize, delay: Duration) -> Result<(), PostgresError> {
        let millis = delay.as_millis();
        self.ask(number, &format!("ALTER SYSTEM SET recovery_min_apply_delay = '{millis}ms'"))?;
        self.ask(number, "SELECT pg_reload_conf()")?;
        let sql = "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'";
        self.nodes[number].until("does not take the delay up", || Ok(self.value(number, sql)? == millis.to_string()))
    }

    /// Has a replica apply nothing; what it receives waits.
    pub fn pause_replay(&self, number: usize) -> Result<(), PostgresError> {
        self.ask(number, "SELECT pg_wal_replay_pause()")?;
        // Asked for is not done: that shows since version 14.
        let sql = match self.tools.binaries.version {
            ..14 => "SELECT pg_is_wal_replay_paused()::text",
            _ => "SELECT (pg_get_wal_replay_pause_state() = 'paused')::text",
        };
        self.nodes[number].until("does not pause", || Ok(self.value(number, sql)? == "true"))
    }

    /// Lets it go on.
    pub fn resume_replay(&self, number: usize) -> Result<(), PostgresError> {
        self.ask(number, "SELECT pg_wal_replay_resume()").map(drop)
    }

    /// Locks a table of the services' database as a migration does: reads wait too. Statements under way end first,
    /// and hold the lock up, and it them that come after it.
    pub fn lock_table(&self, table: &str) -> Result<TableLock, PostgresError> {
        let session = self.sql.connect(self.address(self.primary), SUPERUSER, DATABASE, PATIENCE)?;
        let name = format!("\"{}\"", table.replace('"', "\"\""));
        session.run(&format!("BEGIN; LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"), PATIENCE)?;
        Ok(TableLock { _session: session })
    }

    /// Takes every connection that a server has for services. Those that are kept for superusers stay free.
    pub fn exhaust(&self, number: usize) -> Result<Exhaustion, PostgresError> {
        let mut sessions = Vec::new();
        loop {
            match self.sql.connect(self.address(number), DATABASE, DATABASE, PATIENCE) {
                Ok(session) => sessions.push(session),
                Err(SqlError { code: Some(code), .. }) if code == TOO_MANY => return Ok(Exhaustion { sessions }),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
