//! How old what a replica shows is: by a row that the primary changes all the time.
//!
//! The server's own `replay_lag` is measured by answers of the replica, and while none come it stays as good as it
//! was: with the connection between them frozen it went on saying half a millisecond.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::cluster::Cluster;
use super::{DATABASE, PostgresError, SUPERUSER, Session, Sql};
use crate::clock::{self, Clock};

/// How often the row is changed, and so how exact ages are.
pub(super) const BEAT: Duration = Duration::from_millis(50);
/// How long a change may take; a primary that takes longer beats no more.
const BEATS: Duration = Duration::from_secs(1);

/// A thread that changes a row of the primary, whichever that is.
#[derive(Debug)]
pub struct Heartbeat {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    stop: AtomicBool,
    /// When the newest change that the primary has acknowledged was made, ns.
    acknowledged: AtomicU64,
}

/// How far a replica is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// The time between the newest change that the primary acknowledged and the newest that the replica shows: at most
    /// a beat too long.
    pub age: Duration,
    /// Bytes of the write-ahead log that it has not replayed; `None` while the primary does not answer.
    pub bytes: Option<u64>,
}

impl Heartbeat {
    /// Starts beating. The first beat is there when this returns.
    /// `told` hears of every change that the primary has acknowledged, by when it was made, ns.
    pub fn start(cluster: &Cluster, told: impl Fn(u64) + Send + 'static) -> Result<Heartbeat, PostgresError> {
        cluster.ask(
            cluster.primary(),
            "CREATE TABLE IF NOT EXISTS plimsoll_heartbeat (id int PRIMARY KEY, at bigint NOT NULL); \
             INSERT INTO plimsoll_heartbeat VALUES (1, 0) ON CONFLICT DO NOTHING; \
             GRANT SELECT ON plimsoll_heartbeat TO PUBLIC",
        )?;
        let shared =
            Arc::new(Shared { clock: Clock::start(), stop: AtomicBool::new(false), acknowledged: AtomicU64::new(0) });
        let (own, sql, whereabouts) = (shared.clone(), cluster.sql.clone(), cluster.whereabouts.clone());
        let thread = std::thread::Builder::new().name("heartbeat".to_owned());
        let thread = thread.spawn(move || own.beat(&sql, &whereabouts, &told));
        let thread = thread.map_err(|why| PostgresError::File { path: "a thread".into(), why })?;
        let heartbeat = Heartbeat { shared, thread: Some(thread) };
        let primary = &cluster.nodes[cluster.primary()];
        primary.until("has no heartbeat", || Ok(heartbeat.shared.acknowledged.load(Ordering::Acquire) > 0))?;
        Ok(heartbeat)
    }

    /// When the newest change that the primary has acknowledged was made, ns.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }

    /// How far a server is behind. One that does not answer within the patience is an error.
    pub fn staleness(&self, cluster: &Cluster, number: usize, patience: Duration) -> Result<Staleness, PostgresError> {
        // Asked before: what is acknowledged meanwhile must not count against it.
        let newest = self.shared.acknowledged.load(Ordering::Acquire);
        let sql = "SELECT at, COALESCE(pg_last_wal_replay_lsn(), '0/0') - '0/0' FROM plimsoll_heartbeat";
        let rows = cluster.within(number, sql, patience)?;
        let mut numbers = rows.iter().flatten().flatten().filter_map(|text| text.parse::<u64>().ok());
        let (seen, replayed) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let bytes = if number == cluster.primary() {
            Some(0)
        } else {
            let written = cluster.within(cluster.primary(), "SELECT pg_current_wal_lsn() - '0/0'", patience);
            let written =
                written.ok().and_then(|rows| rows.into_iter().flatten().flatten().next()?.parse::<u64>().ok());
            written.map(|written| written.saturating_sub(replayed))
        };
        Ok(Staleness { age: Duration::from_nanos(newest.saturating_sub(seen)), bytes })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn beat(&self, sql: &Sql, whereabouts: &Mutex<SocketAddr>, told: &dyn Fn(u64)) {
        let mut session: Option<(SocketAddr, Session)> = None;
        while !self.stop.load(Ordering::Acquire) {
            let primary = *whereabouts.lock().unwrap_or_else(PoisonError::into_inner);
            if session.as_ref().is_none_or(|(at, _)| *at != primary) {
                session = sql.connect(primary, SUPERUSER, DATABASE, BEATS).ok().map(|session| (primary, session));
            }
            let at = self.clock.now().as_nanos().max(1);
            let change = format!("UPDATE plimsoll_heartbeat SET at = {at}");
            match session.as_ref().map(|(_, session)| session.run(&change, BEATS)) {
                Some(Ok(_)) => {
                    self.acknowledged.store(at, Ordering::Release);
                    told(at);
                }
                _ => session = None,
            }
            clock::block(BEAT);
        }
    }
}
