//! What goes wrong within a server that runs: replicas that lag, a migration's lock, no connection left. Each is
//! looked at until it has come about.

use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::cluster::Cluster;
use super::sql::Connector;
use super::{DATABASE, PATIENCE, PostgresError, SUPERUSER, Session, SqlError};

/// SQLSTATE of a server that has no connection left.
const TOO_MANY: &str = "53300";
/// Connections that have become free are taken so soon.
const AGAIN: Duration = Duration::from_millis(50);
/// So long a connection is waited for then: the server may be stopped, and the fault's end waits for this.
const BRIEF: Duration = Duration::from_millis(500);

/// A table that nobody can use while this lives, as while a migration alters it.
#[derive(Debug)]
pub struct TableLock {
    _session: Session,
}

/// Every connection of a server, taken while this lives: those that others give back too.
#[derive(Debug)]
pub struct Exhaustion {
    sessions: Arc<Mutex<Vec<Session>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Exhaustion {
    /// How many it has taken.
    pub fn taken(&self) -> usize {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Exhaustion {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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

    /// Takes every connection that a server has for services, and those that become free. Those that are kept for
    /// superusers stay free.
    pub fn exhaust(&self, number: usize) -> Result<Exhaustion, PostgresError> {
        let (connector, at) = (self.sql.connector(), self.address(number));
        let sessions = Arc::new(Mutex::default());
        take_all(&connector, at, PATIENCE, &sessions)?;
        let (stop, stopped) = mpsc::channel();
        let taken = sessions.clone();
        let goes_on = move || {
            // A server that is down has none to take; one that starts again has.
            while stopped.recv_timeout(AGAIN) == Err(RecvTimeoutError::Timeout) {
                let _ = take_all(&connector, at, BRIEF, &taken);
            }
        };
        let thread = std::thread::Builder::new().name("exhaustion".to_owned()).spawn(goes_on);
        let thread = thread.map_err(|error| SqlError { code: None, why: error.to_string() })?;
        Ok(Exhaustion { sessions, stop: Some(stop), thread: Some(thread) })
    }
}

/// Connects until the server refuses to, for want of connections.
fn take_all(
    connector: &Connector,
    at: SocketAddr,
    patience: Duration,
    sessions: &Mutex<Vec<Session>>,
) -> Result<(), SqlError> {
    loop {
        match connector.connect(at, DATABASE, DATABASE, patience) {
            Ok(session) => sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session),
            Err(SqlError { code: Some(code), .. }) if code == TOO_MANY => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
