//! How busy a database's server is and how old what it shows is, as it says itself: asked twelve times a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock;
use crate::postgres::{DATABASE, Heartbeat, SUPERUSER, Sql};
use crate::redis;
use crate::tally::{Of, Tally};

/// How often a server is asked. No multiple of the time between heartbeats: looks that always came so long after one
/// would see one age for ever.
const LOOK: Duration = Duration::from_millis(83);
/// A server that does not answer for so long is busy with something else.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections of services; those of them that run their operation, and that wait for a place or a lock; the newest
/// heartbeat that is shown.
const ASK: &str = "SELECT count(*), count(*) FILTER (WHERE state = 'active' AND wait_event = 'PgSleep'), \
     count(*) FILTER (WHERE state = 'active' AND wait_event_type = 'Lock'), \
     COALESCE((SELECT max(at) FROM plimsoll_heartbeat), 0) FROM pg_stat_activity WHERE usename = 'plimsoll'";

/// A thread that asks one server.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Starts asking.
    pub(crate) fn start(
        sql: Arc<Sql>,
        at: SocketAddr,
        of: Of,
        tally: Arc<Tally>,
        heartbeat: Option<Arc<Heartbeat>>,
    ) -> std::io::Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut session = None;
            while !stopped.load(Ordering::Acquire) {
                let known = session.take().or_else(|| sql.connect(at, SUPERUSER, DATABASE, PATIENCE).ok());
                // Asked before: what is acknowledged meanwhile must not count against it.
                let newest = heartbeat.as_ref().map_or(0, |heartbeat| heartbeat.acknowledged());
                let rows = known.as_ref().and_then(|session| session.run(ASK, PATIENCE).ok());
                let number = |at: usize| {
                    let row = rows.as_ref()?.first()?;
                    row.get(at)?.as_deref()?.parse::<i64>().ok()
                };
                let levels = ["max_connections", "concurrency", "queue"];
                for (at, name) in levels.into_iter().enumerate() {
                    tally.set_level(of, name, number(at).unwrap_or(0));
                }
                if heartbeat.is_some()
                    && let Some(seen) = number(3)
                {
                    tally.set_level(of, "age_us", (newest.saturating_sub(seen as u64) / 1000) as i64);
                }
                session = known.filter(|_| rows.is_some());
                clock::block(LOOK);
            }
        })?;
        Ok(Watch { stop, thread: Some(thread) })
    }

    /// Starts asking a Redis how much processor time it has had: of its one thread, all that there is.
    pub(crate) fn memory(at: SocketAddr, of: Of, tally: Arc<Tally>) -> std::io::Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut before = None;
            while !stopped.load(Ordering::Acquire) {
                let now = redis::processor_seconds(at, PATIENCE);
                if let (Some(before), Some(now)) = (before, now) {
                    // One that was started anew begins at nothing.
                    tally.extra(of, "busy_ns", f64::max(now - before, 0.0) * 1e9);
                }
                before = now;
                clock::block(LOOK);
            }
        })?;
        Ok(Watch { stop, thread: Some(thread) })
    }

    /// It asks no more from now on.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
