//! Which node is the primary, and how far behind the others are.
//!
//! Each node is asked ten times a second, on a connection of its own, so that neither a full pool nor a breaker keeps
//! us from knowing. A replica's lag is told by positions in the write-ahead log: the primary's are kept with the times at
//! which they were seen, and a replica is as old as the first of them that it has not replayed. PostgreSQL's own
//! `replay_lag` stays small behind a partition, and a heartbeat row would take a writer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use super::node::Shared;
use super::{Lsn, Since};

/// How often a node is asked.
const EVERY: Duration = Duration::from_millis(100);
/// What it must answer within.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long the primary's positions are kept: a lag beyond is told as this much.
const HISTORY: Duration = Duration::from_secs(60);

const LOOK: &str = "SELECT NOT pg_is_in_recovery(), \
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint";

/// All nodes.
pub struct Cluster {
    nodes: Vec<Shared>,
    state: Mutex<State>,
    /// Whose turn it is among the replicas.
    turn: AtomicUsize,
    max_lag: Duration,
    any_replica: bool,
}

#[derive(Default)]
struct State {
    /// The last node that said it was primary. Whether it is well is its breaker's question.
    primary: Option<usize>,
    /// Where the primary was, and when.
    history: VecDeque<(Instant, Lsn)>,
}

/// A node to read from.
pub struct Reader {
    /// Which.
    pub node: Shared,
    /// Whether it may lack what it should have: read only if there is no better one.
    pub stale: bool,
    /// How far it has the log at least.
    pub position: Lsn,
    /// Whether it is the primary.
    pub primary: bool,
}

impl Cluster {
    /// `any_replica` heeds neither lag nor sessions.
    pub fn new(nodes: Vec<Shared>, max_lag: Duration, any_replica: bool) -> Cluster {
        Cluster { nodes, state: Mutex::default(), turn: AtomicUsize::new(0), max_lag, any_replica }
    }

    /// All of them.
    pub fn nodes(&self) -> &[Shared] {
        &self.nodes
    }

    /// The one to write to.
    pub fn primary(&self) -> Option<Shared> {
        Some(self.nodes[self.state().primary?].clone())
    }

    /// Whom to ask, the best first: a replica that is fresh enough and has what the session wrote, each in its turn;
    /// then the primary; then, rather than no answer, those that are behind, and those that did not answer lately.
    pub fn readers(&self, since: Since) -> Vec<Reader> {
        let primary = self.state().primary;
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut readers = Vec::new();
        for at in 0..self.nodes.len() {
            let number = (start + at) % self.nodes.len();
            let node = self.nodes[number].clone();
            let position = node.seen().unwrap_or(0);
            let is_primary = primary == Some(number);
            let fresh = self.lag(number).is_some_and(|lag| lag <= self.max_lag) && since.is_met_by(position);
            let (rank, stale) = match (node.seen().is_some(), is_primary) {
                (false, _) => (3, !is_primary),
                (true, true) => (1, false),
                (true, false) if fresh || self.any_replica => (0, false),
                (true, false) => (2, true),
            };
            readers.push((rank, Reader { node, stale, position, primary: is_primary }));
        }
        readers.sort_by_key(|(rank, _)| *rank);
        readers.into_iter().map(|(_, reader)| reader).collect()
    }

    /// How old a node's answers are: nothing for the primary, `None` if it did not answer lately.
    pub fn lag(&self, number: usize) -> Option<Duration> {
        let replayed = self.nodes[number].seen()?;
        let state = self.state();
        if state.primary == Some(number) {
            return Some(Duration::ZERO);
        }
        let missing = state.history.iter().find(|(_, position)| *position > replayed);
        Some(missing.map_or(Duration::ZERO, |(at, _)| at.elapsed()))
    }

    /// The bytes of the log that a node has yet to replay.
    pub fn lag_bytes(&self, number: usize) -> Option<u64> {
        let newest = self.state().history.back().map_or(0, |(_, position)| *position);
        Some(newest.saturating_sub(self.nodes[number].seen()?))
    }

    /// Whether a node is the primary.
    pub fn is_primary(&self, number: usize) -> bool {
        self.state().primary == Some(number)
    }

    /// A write has met a node that takes none: it is not the primary any more.
    pub fn deposed(&self, node: &Shared) {
        let mut state = self.state();
        if state.primary.is_some_and(|number| Arc::ptr_eq(&self.nodes[number], node)) {
            state.primary = None;
        }
    }

    /// Looks at every node from now on.
    pub fn watch(self: &Arc<Self>) {
        for number in 0..self.nodes.len() {
            tokio::spawn(self.clone().watch_one(number));
        }
    }

    async fn watch_one(self: Arc<Self>, number: usize) {
        let node = self.nodes[number].clone();
        loop {
            let connected = timeout(PATIENCE, node.config().connect(NoTls)).await;
            if let Ok(Ok((client, connection))) = connected {
                let connection = tokio::spawn(connection);
                while let Ok(Ok(row)) = timeout(PATIENCE, client.query_one(LOOK, &[])).await {
                    self.saw(number, row.get(0), row.get::<_, i64>(1).unsigned_abs());
                    sleep(EVERY).await;
                }
                connection.abort();
            }
            if node.seen().is_some() {
                tracing::warn!(node = node.address, "a database node does not answer");
            }
            node.see(None);
            sleep(EVERY).await;
        }
    }

    fn saw(&self, number: usize, primary: bool, position: Lsn) {
        let at = Instant::now();
        if self.nodes[number].seen().is_none() {
            tracing::info!(node = self.nodes[number].address, primary, "a database node answers");
        }
        self.nodes[number].see(Some(position));
        let mut state = self.state();
        if !primary {
            if state.primary == Some(number) {
                state.primary = None;
            }
            return;
        }
        if state.primary != Some(number) {
            tracing::info!(node = self.nodes[number].address, "this is the primary");
            state.primary = Some(number);
            // Positions past the point at which the new one took over are another's.
            state.history.clear();
        }
        if state.history.back().is_none_or(|(_, last)| *last < position) {
            state.history.push_back((at, position));
        }
        while state.history.len() > 1 && state.history[0].0.elapsed() > HISTORY {
            state.history.pop_front();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
