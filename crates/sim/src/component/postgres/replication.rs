//! The log of a shard, and how far its replicas are.

use std::collections::VecDeque;

use plimsoll_model::lag::Lag;
use plimsoll_model::system::{Dist, Postgres, Store, StoreKind};
use plimsoll_policy::read_your_writes::ReadYourWrites;

use crate::component::client::FRESH_KEY;
use crate::engine::{Draw, Ref, duration};
use crate::world::World;

// A purpose of draws.
const LAG: u64 = 2;

/// One shard's commits, and what its replicas have of them.
pub(crate) struct Log {
    pub(crate) commits: u64,
    pub(super) timeline: u32,
    /// By node of the shard; the primary's is unused.
    pub(super) replicas: Vec<Replica>,
    /// The last commit that wrote a key.
    pub(super) written: Vec<u64>,
    pub(super) sessions: Option<ReadYourWrites>,
    /// Whether the primary that was stopped for a promotion comes back as a replica after it.
    pub(super) returns: bool,
}

/// How far a replica is.
pub(super) struct Replica {
    pub(super) applied: u64,
    /// Commits not yet visible: (number, time of the commit, time at which it is visible).
    pub(super) pending: VecDeque<(u64, u64, u64)>,
    pub(super) free_at: u64,
    pub(super) lag: Lag,
}

impl Log {
    pub(crate) fn new(store: &Store, nodes: u32, draw: Draw, shard: u32) -> Self {
        let lag = match &store.kind {
            StoreKind::Postgres(pg) => &pg.replication_lag,
            StoreKind::Redis(_) | StoreKind::Quorum(_) => &Dist::Constant(0),
        };
        let draw = draw.part(LAG).part(u64::from(shard));
        let replica = |number| Replica {
            applied: 0,
            pending: VecDeque::new(),
            free_at: 0,
            lag: Lag::new(lag, draw.part(u64::from(number))),
        };
        Log {
            commits: 0,
            timeline: 1,
            replicas: (0..nodes).map(replica).collect(),
            written: Vec::new(),
            sessions: None,
            returns: false,
        }
    }

    /// The last commit that a node shows.
    pub(super) fn applied(&mut self, number: u32, now: u64) -> u64 {
        let replica = &mut self.replicas[number as usize];
        while let Some(&(commit, _, visible)) = replica.pending.front()
            && visible <= now
        {
            replica.applied = commit;
            replica.pending.pop_front();
        }
        replica.applied
    }

    /// How far a replica is behind: the age of the oldest commit that it does not show, ns.
    pub(super) fn lag(&mut self, number: u32, now: u64) -> u64 {
        self.applied(number, now);
        self.replicas[number as usize].pending.front().map_or(0, |&(_, committed, _)| now - committed)
    }

    /// When a replica will show a commit; none if it shows it.
    pub(super) fn visible_at(&self, number: u32, commit: u64) -> Option<u64> {
        let replica = &self.replicas[number as usize];
        let at = replica.pending.partition_point(|&(number, ..)| number < commit);
        replica.pending.get(at).map(|&(.., visible)| visible)
    }
}

impl World<'_> {
    /// A commit goes into the log and to the replicas; how long it waits for them, ns.
    pub(super) fn log_commit(&mut self, store: u32, shard: u32, keys: &[u32], op: Ref, synchronous: bool) -> u64 {
        if keys.is_empty() {
            return 0;
        }
        let pg = self.pg(store);
        let now = self.now;
        let per_shard = self.nodes_per_shard(store);
        let base = self.stores[store as usize].first + shard * per_shard;
        let primary = self.stores[store as usize].primary[shard as usize];
        let extra = self.stores[store as usize].extra_lag;
        let draw = self.stores[store as usize].draw.part(LAG).part(shard as u64);
        let state = &mut self.stores[store as usize];
        let log = &mut state.logs[shard as usize];
        log.commits += 1;
        let commit = log.commits;
        for &key in keys.iter().filter(|&&key| key & FRESH_KEY == 0) {
            if log.written.len() <= key as usize {
                log.written.resize(key as usize + 1, 0);
            }
            log.written[key as usize] = commit;
        }
        if pg.reads.read_your_writes {
            log.sessions.get_or_insert_with(|| sessions(pg, log.timeline));
        }
        self.ops[op].commit = commit;
        let mut wait = u64::MAX;
        for number in (0..per_shard).filter(|&number| number != primary) {
            let node = &self.nodes[(base + number) as usize];
            let apply = duration(&pg.apply, draw.part(number as u64 | 1 << 32).bits(commit));
            let replica = &mut log.replicas[number as usize];
            let there = node.slow.apply(replica.lag.at(now));
            let arrives = now + there + extra;
            let visible = arrives.max(replica.free_at) + node.slow.apply(apply);
            replica.free_at = visible;
            replica.pending.push_back((commit, now, visible));
            if synchronous && node.up {
                // It is waited for until it has the commit on disk, which is long before it shows it (PostgreSQL,
                // `synchronous_commit`: `on` and `remote_apply`).
                let flush = duration(&pg.commit, draw.part(number as u64 | 2 << 32).bits(commit));
                wait = wait.min(node.slow.apply(flush));
            }
        }
        if wait < u64::MAX { wait } else { 0 }
    }

    pub(super) fn is_stale(&mut self, store: u32, shard: u32, node: u32, key: u32) -> bool {
        if node == self.primary_node(store, shard) {
            return false;
        }
        let now = self.now;
        let number = self.nodes[node as usize].number;
        let log = &mut self.stores[store as usize].logs[shard as usize];
        let applied = log.applied(number, now);
        log.written.get(key as usize).is_some_and(|&written| written > applied)
    }

    /// Replicas fall behind.
    pub(crate) fn add_lag(&mut self, store: u32, by: u64) {
        let lag = &mut self.stores[store as usize].extra_lag;
        *lag = lag.saturating_add(by);
    }

    /// They catch up, as far as no other fault holds them back: what was held back is there.
    pub(crate) fn remove_lag(&mut self, store: u32, by: u64) {
        let now = self.now;
        let state = &mut self.stores[store as usize];
        state.extra_lag -= by;
        for replica in state.logs.iter_mut().flat_map(|log| &mut log.replicas) {
            for (_, committed, visible) in &mut replica.pending {
                let due = if state.extra_lag == 0 { now } else { committed.saturating_add(state.extra_lag).max(now) };
                *visible = (*visible).min(due);
            }
            replica.free_at = replica.pending.back().map_or(now, |&(.., visible)| visible);
        }
    }
}

fn sessions(pg: &Postgres, timeline: u32) -> ReadYourWrites {
    let config = plimsoll_policy::read_your_writes::Config {
        wait_max: std::time::Duration::from_nanos(pg.reads.wait),
        ..Default::default()
    };
    ReadYourWrites::new(config, timeline).expect("its wait comes from the file's reader")
}
