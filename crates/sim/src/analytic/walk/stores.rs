//! What is asked of stores: operations, connections, locks.

use plimsoll_model::system::{Component, Dist, EdgeId, Lock, MetricTarget, Program, ServiceId, StoreId, StoreKind};

use super::{Walk, hold};
use crate::analytic::hit_ratio::top_key;
use crate::analytic::hold::Hold;

/// A transaction under way: its store and the locks that it has taken, with how long for, s.
pub(super) struct Transaction {
    store: StoreId,
    locks: Vec<(Taken, f64)>,
}

/// A lock.
#[derive(Clone, Copy)]
struct Taken {
    lock: Lock,
    table: u32,
    weight: f64,
}

impl<'s> Walk<'s> {
    pub(super) fn query(&mut self, edge: EdgeId, store: StoreId, operation: u32, weight: f64) -> Hold {
        let of = &self.system.stores[store.index()];
        let spec = &of.operations[operation as usize];
        let time = hold(&spec.time);
        let place = MetricTarget::Component(Component::Store(store));
        match &of.kind {
            StoreKind::Redis(_) => self.command(edge, store, weight, Some(&spec.time)),
            StoreKind::Quorum(quorum) => self.through(edge, weight, !spec.write, |walk, weight| {
                walk.take(place, "concurrency", 0, quorum.concurrency as f64, weight * time.mean);
                let needed = if spec.write { quorum.write } else { quorum.read };
                let there = time.needed(needed, quorum.nodes);
                Hold { mean: there.mean + 2.0 * walk.one_way(edge), ..there }
            }),
            StoreKind::Postgres(pg) => {
                let inside = self.transaction.as_ref().is_some_and(|transaction| transaction.store == store);
                self.through(edge, weight, !spec.write && !inside, |walk, weight| {
                    let from_replicas = !spec.write && !inside && pg.reads.from_replicas && pg.replicas > 0;
                    // The busiest node's part of it.
                    let shard = if spec.scatter { 1.0 } else { walk.hottest(pg.shards) };
                    let part = if from_replicas { shard / pg.replicas as f64 } else { shard };
                    let node = from_replicas as u32;
                    let one_way = walk.one_way(edge);
                    let mut there = if spec.scatter { time.rounds(pg.shards as f64, pg.shards) } else { time };
                    // Each shard's connection is given back with its own part.
                    let mut part_mean = time.mean;
                    walk.take(place, "concurrency", node, pg.concurrency as f64, weight * part * time.mean);
                    if inside {
                        walk.lock(store, spec.lock, spec.table, weight, there.mean);
                    } else {
                        if spec.write && pg.synchronous {
                            there.mean += pg.commit.mean() / 1e9;
                            part_mean += pg.commit.mean() / 1e9;
                        }
                        walk.lock(store, spec.lock, spec.table, weight, there.mean);
                        walk.connections(edge, store, node, weight * part * (one_way + part_mean));
                    }
                    Hold { mean: there.mean + 2.0 * one_way, ..there }
                })
            }
        }
    }

    /// A command of a Redis: one of its operations, or the cache's or limiter's own.
    pub(super) fn command(&mut self, edge: EdgeId, store: StoreId, weight: f64, time: Option<&Dist>) -> Hold {
        let StoreKind::Redis(redis) = &self.system.stores[store.index()].kind else { return Hold::NOTHING };
        let place = MetricTarget::Component(Component::Store(store));
        self.through(edge, weight, true, |walk, weight| {
            let turn = 1.0 / redis.max_rate;
            let there = hold(time.unwrap_or(&redis.time));
            let one_way = walk.one_way(edge);
            walk.take(place, "max_rate", 0, 1.0, weight * turn);
            walk.connections(edge, store, 0, weight * (one_way + turn + there.mean));
            Hold { mean: there.mean + turn + 2.0 * one_way, ..there }
        })
    }

    /// Pooled connections to one node of a store, and what the node sees of all pools.
    fn connections(&mut self, edge: EdgeId, store: StoreId, node: u32, held: f64) {
        let callers = self.processes(self.system.edges[edge.index()].from);
        let (pool, most) = match &self.system.stores[store.index()].kind {
            StoreKind::Postgres(pg) => (pg.pool, Some(pg.max_connections)),
            StoreKind::Redis(redis) => (redis.pool, None),
            StoreKind::Quorum(_) => return,
        };
        self.take(MetricTarget::Edge(edge), "connections", node, callers * pool as f64, held);
        if let Some(most) = most {
            let place = MetricTarget::Component(Component::Store(store));
            self.take(place, "max_connections", node, most as f64, held);
        }
    }

    pub(super) fn transaction(
        &mut self,
        edge: EdgeId,
        store: StoreId,
        steps: &'s Program,
        cross_shard: f64,
        service: ServiceId,
        weight: f64,
    ) -> Hold {
        let StoreKind::Postgres(pg) = &self.system.stores[store.index()].kind else { return Hold::NOTHING };
        let outer = self.transaction.replace(Transaction { store, locks: Vec::new() });
        let mut done = Hold::NOTHING;
        // Locks with the time at which the step that took them began.
        let mut since: Vec<f64> = Vec::new();
        for step in steps {
            let began = done.mean;
            done = done.then(self.step(step, service, weight * done.ok));
            let taken = self.transaction.as_ref().map_or(0, |transaction| transaction.locks.len());
            since.resize(taken, began);
        }
        let locks = std::mem::replace(&mut self.transaction, outer).map_or(Vec::new(), |transaction| transaction.locks);
        let one_way = self.one_way(edge);
        let shard = self.hottest(pg.shards);
        let place = MetricTarget::Component(Component::Store(store));
        // Prepare and commit on the second shard, and the commit on the first: three more forced writes.
        let forced = hold(&pg.commit).mean * (1.0 + 3.0 * cross_shard);
        self.take(place, "concurrency", 0, pg.concurrency as f64, weight * done.ok * shard * forced);
        let confirmed = if pg.synchronous { pg.commit.mean() / 1e9 } else { 0.0 };
        let held = done.then(Hold::fixed(one_way + forced + confirmed));
        self.connections(edge, store, 0, weight * shard * held.mean);
        // A transaction that has a lock does not take it again.
        let mut had: Vec<Taken> = Vec::new();
        for ((taken, _), since) in locks.into_iter().zip(since) {
            let before = had.iter().filter(|had| had.lock == taken.lock && had.table == taken.table);
            let more = taken.weight.min(weight) - before.map(|had| had.weight).sum::<f64>();
            if more > 0.0 {
                let taken = Taken { weight: more, ..taken };
                had.push(taken);
                self.take_lock(store, taken, held.mean - since);
            }
        }
        held
    }

    /// An operation takes a lock: until it has ended, or its transaction has.
    fn lock(&mut self, store: StoreId, lock: Lock, table: u32, weight: f64, held: f64) {
        let taken = Taken { lock, table, weight };
        match &mut self.transaction {
            Some(transaction) if transaction.store == store => transaction.locks.push((taken, held)),
            _ => self.take_lock(store, taken, held),
        }
    }

    fn take_lock(&mut self, store: StoreId, taken: Taken, held: f64) {
        let StoreKind::Postgres(pg) = &self.system.stores[store.index()].kind else { return };
        let place = MetricTarget::Component(Component::Store(store));
        match taken.lock {
            Lock::None => {}
            Lock::Row => self.take(place, "row lock", taken.table, 1.0, taken.weight * top_key(self.keys) * held),
            Lock::Table => {
                let shard = self.hottest(pg.shards);
                self.take(place, "table lock", taken.table, 1.0, taken.weight * shard * held);
            }
        }
    }
}
