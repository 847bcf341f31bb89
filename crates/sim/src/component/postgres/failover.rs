//! Nodes that die, stand still and come back, and replicas that are promoted.

use plimsoll_model::run::EventKind;
use plimsoll_model::system::StoreKind;

use crate::engine::{Answer, Event, Ref};
use crate::world::{Wake, World};

/// Promotion of a replica takes so long where the file does not say (measured: 0.1-0.3 s, and the
/// gap in writes 0.15-0.4 s).
const PROMOTION: u64 = 300_000_000;

impl World<'_> {
    /// A database server dies: connections break, transactions are rolled back.
    pub(crate) fn kill_node(&mut self, node: u32) {
        if !self.nodes[node as usize].up {
            return;
        }
        let name = self.node_name(node);
        self.happened(EventKind::InstanceDown, name, "the server died");
        self.nodes[node as usize].up = false;
        self.break_connections(node);
        let (store, shard) = (self.nodes[node as usize].store, self.nodes[node as usize].shard);
        if let StoreKind::Postgres(pg) = &self.plan.system.stores[store as usize].kind
            && self.primary_node(store, shard) == node
            && let Some(failover) = &pg.failover
        {
            let epoch = self.stores[store as usize].primary_epoch[shard as usize];
            self.wake_at(self.now + failover.detect, Wake::FailoverDecision { store, shard, epoch });
        }
        if let StoreKind::Redis(redis) = &self.plan.system.stores[store as usize].kind
            && !redis.persistent
        {
            self.flush_store(store);
        }
    }

    /// A database server is back: the primary it was, or a replica if another took its place.
    pub(crate) fn revive_node(&mut self, node: u32) {
        if self.nodes[node as usize].up {
            return;
        }
        self.nodes[node as usize].up = true;
        let name = self.node_name(node);
        self.happened(EventKind::InstanceUp, name, "the server is back");
    }

    pub(crate) fn pause_node(&mut self, node: u32) {
        let now = self.now;
        self.nodes[node as usize].paused_at.get_or_insert(now);
    }

    pub(crate) fn unpause_node(&mut self, node: u32) {
        let n = &mut self.nodes[node as usize];
        if n.paused_at.take().is_some() {
            for (left, event) in std::mem::take(&mut n.held) {
                self.queue.at(self.now + left, event);
            }
        }
    }

    /// Ends everything that a node was doing.
    pub(super) fn break_connections(&mut self, node: u32) {
        let now = self.now;
        let n = &mut self.nodes[node as usize];
        n.epoch += 1;
        n.paused_at = None;
        n.held.clear();
        n.queue.clear();
        n.connections = 0;
        n.next_free = now;
        n.free = match &n.spec.kind {
            StoreKind::Postgres(pg) => pg.concurrency,
            StoreKind::Quorum(quorum) => quorum.concurrency,
            StoreKind::Redis(_) => 1,
        };
        for gauge in [&mut n.busy, &mut n.waiting, &mut n.connected] {
            gauge.set(now, 0);
        }
        let mut refused = Vec::new();
        for e in &mut self.ends {
            let local = node.wrapping_sub(e.first_target) as usize;
            let to_store =
                matches!(self.plan.system.edges[e.edge as usize].to, plimsoll_model::system::Component::Store(_));
            if !to_store || local >= e.pools.len() {
                continue;
            }
            let pool = &mut e.pools[local];
            pool.open = 0;
            pool.idle = 0;
            pool.used.set(now, 0);
            pool.queue.set(now, 0);
            refused.extend(pool.waiting.drain(..));
        }
        for attempt in refused.into_iter().filter(|&attempt| self.attempts.contains(attempt)).collect::<Vec<_>>() {
            self.soon(Event::Answered { attempt, answer: Answer::Refused });
        }
        let lost: Vec<Ref> = self.ops.refs().filter(|&op| self.ops[op].node == node).collect();
        for op in lost {
            if self.ops.contains(op) {
                self.fail_op(op, Answer::Reset);
            }
        }
    }

    /// A store's operators make a replica the primary.
    pub(crate) fn promote(&mut self, store: u32) {
        let StoreKind::Postgres(pg) = &self.plan.system.stores[store as usize].kind else { return };
        let takes = pg.failover.map_or(PROMOTION, |failover| failover.promote);
        for shard in 0..self.stores[store as usize].shards {
            let primary = self.primary_node(store, shard);
            let epoch = self.stores[store as usize].primary_epoch[shard as usize];
            // A primary that still runs is stopped first, and comes back as a replica.
            if self.nodes[primary as usize].up {
                self.nodes[primary as usize].up = false;
                self.break_connections(primary);
                self.stores[store as usize].logs[shard as usize].returns = true;
            }
            self.wake_at(self.now + takes, Wake::Promoted { store, shard, epoch });
        }
    }

    /// A lost primary has been noticed.
    pub(crate) fn failover_decision(&mut self, store: u32, shard: u32, epoch: u32) {
        let primary = self.primary_node(store, shard);
        if self.stores[store as usize].primary_epoch[shard as usize] != epoch || self.nodes[primary as usize].up {
            return;
        }
        let takes = self.pg(store).failover.map_or(PROMOTION, |failover| failover.promote);
        self.wake_at(self.now + takes, Wake::Promoted { store, shard, epoch });
    }

    /// The replica that is furthest takes over; what it does not have is lost.
    pub(crate) fn promoted(&mut self, store: u32, shard: u32, epoch: u32) {
        let now = self.now;
        if self.stores[store as usize].primary_epoch[shard as usize] != epoch {
            return;
        }
        let old = self.primary_node(store, shard);
        let synchronous = self.pg(store).synchronous;
        let per_shard = self.nodes_per_shard(store);
        let base = self.stores[store as usize].first + shard * per_shard;
        let log = &mut self.stores[store as usize].logs[shard as usize];
        let furthest = (0..per_shard)
            .filter(|&number| base + number != old && self.nodes[(base + number) as usize].up)
            .map(|number| (log.applied(number, now), std::cmp::Reverse(number)))
            .max();
        let Some((applied, std::cmp::Reverse(number))) = furthest else {
            let name = self.plan.system.stores[store as usize].name.clone();
            return self.happened(EventKind::Promoted, name, "no replica is left to promote");
        };
        // Synchronous commits are on a replica before they are acknowledged: it replays what it
        // has before it takes over.
        let kept = if synchronous { log.commits } else { applied };
        let lost = log.commits - kept;
        log.commits = kept;
        log.timeline += 1;
        let timeline = log.timeline;
        if let Some(sessions) = &mut log.sessions {
            sessions.failover(kept, timeline);
        }
        for (at, replica) in log.replicas.iter_mut().enumerate() {
            replica.pending.retain(|&(commit, ..)| commit <= kept);
            if at as u32 == number || base + at as u32 == old {
                replica.pending.clear();
                replica.applied = kept;
            }
        }
        for written in &mut log.written {
            *written = (*written).min(kept);
        }
        let returns = std::mem::take(&mut log.returns);
        let state = &mut self.stores[store as usize];
        state.primary[shard as usize] = number;
        state.primary_epoch[shard as usize] += 1;
        state.counter.now.lost += lost;
        if returns {
            self.nodes[old as usize].up = true;
        }
        let name = self.node_name(base + number);
        self.happened(EventKind::Promoted, name, format!("is the primary now; {lost} acknowledged commits are lost"));
    }
}
