//! A relational database: primaries and replicas in shards, pooled connections, locks,
//! transactions, replication and failover.

mod failover;
mod lock;
mod operation;
mod pool;
mod replication;
mod transaction;

use plimsoll_model::system::{Postgres, StoreKind};
use plimsoll_policy::Eligible;

use crate::component::edge::{Parent, Target, What};
use crate::component::task::Context;
use crate::engine::{Ref, mix, scale};
use crate::world::World;

pub(crate) use lock::{Holder, LockId, LockState};
pub(crate) use replication::Log;

// A purpose of draws.
const REPLICA: u64 = 3;

impl<'a> World<'a> {
    fn pg(&self, store: u32) -> &'a Postgres {
        match &self.plan.system.stores[store as usize].kind {
            StoreKind::Postgres(pg) => pg,
            _ => unreachable!("only called for PostgreSQL"),
        }
    }

    /// The shard that a key belongs to.
    fn shard_of(&self, store: u32, key: u32) -> u32 {
        let shards = self.stores[store as usize].shards;
        if shards == 1 { 0 } else { scale(mix(key as u64 ^ 0x5348_4152), shards) }
    }

    fn nodes_per_shard(&self, store: u32) -> u32 {
        let state = &self.stores[store as usize];
        state.nodes / state.shards
    }

    pub(crate) fn primary_node(&self, store: u32, shard: u32) -> u32 {
        let state = &self.stores[store as usize];
        state.first + shard * self.nodes_per_shard(store) + state.primary[shard as usize]
    }

    /// The node that an operation goes to.
    pub(crate) fn choose_node(&mut self, call: Ref) -> Option<u32> {
        let c = &self.calls[call];
        let end = c.end;
        let (what, context) = (c.what, c.context);
        let Target::Postgres(store) = self.ends[end as usize].to else {
            unreachable!("the others' first node is the one to ask");
        };
        if let Some(tx) = self.transaction_in(c.parent, store) {
            return Some(self.transactions[tx].node);
        }
        let shard = self.shard_of(store, context.key);
        let primary = self.primary_node(store, shard);
        let pg = self.pg(store);
        let What::Operation { write, .. } = what else { return Some(primary) };
        if write || !pg.reads.from_replicas || pg.replicas == 0 {
            return Some(primary);
        }
        let now = self.now;
        let time = self.time();
        let per_shard = self.nodes_per_shard(store);
        let base = primary - self.stores[store as usize].primary[shard as usize];
        let state = &mut self.stores[store as usize];
        let first = state.first;
        let log = &mut state.logs[shard as usize];
        let mut eligible = Eligible::none(state.nodes as usize);
        for number in 0..per_shard {
            let node = base + number;
            let mut behind = || pg.reads.max_lag.is_some_and(|max| log.lag(number, now) > max);
            if node != primary && self.nodes[node as usize].up && !behind() {
                eligible.insert((node - first) as usize);
            }
        }
        let random = context.draw.bits(REPLICA | 1 << 32);
        let picked = self.ends[end as usize].balancer.pick(time, session(&context), random, &eligible);
        Some(picked.map_or(primary, |node| first + node as u32))
    }

    fn transaction_in(&self, parent: Parent, store: u32) -> Option<Ref> {
        let Parent::Task(task) = parent else { return None };
        let mut tx = self.tasks.get(task)?.transaction;
        while let Some(t) = self.transactions.get(tx) {
            if t.store == store {
                return Some(tx);
            }
            tx = t.outer;
        }
        None
    }

    /// An attempt asks a store: for a connection first, then for the operation.
    pub(crate) fn ask_store(&mut self, attempt: Ref) {
        let a = &self.attempts[attempt];
        let node = a.target;
        let c = &self.calls[a.call];
        let (end, parent, what) = (c.end, c.parent, c.what);
        let store = self.nodes[node as usize].store;
        if matches!(self.ends[end as usize].to, Target::Quorum(_)) {
            return self.ask_quorum(attempt);
        }
        if self.is_scattered(store, what) {
            self.attempts[attempt].shards_left = self.stores[store as usize].shards;
            self.ask_one(attempt, end, node, parent, what, store);
            let home = self.nodes[node as usize].shard;
            for shard in (0..self.stores[store as usize].shards).filter(|&shard| shard != home) {
                let node = self.primary_node(store, shard);
                self.take_connection(attempt, end, node);
            }
            return;
        }
        self.ask_one(attempt, end, node, parent, what, store);
    }

    /// Asks one node, over the connection of the transaction where there is one.
    #[inline(always)]
    fn ask_one(&mut self, attempt: Ref, end: u32, node: u32, parent: Parent, what: What, store: u32) {
        if matches!(what, What::Operation { .. })
            && let Some(tx) = self.transaction_in(parent, store)
        {
            self.send_op(attempt, node, None, tx);
        } else {
            self.take_connection(attempt, end, node);
        }
    }

    /// Whether an operation lacks the shards' key, and so asks them all.
    fn is_scattered(&self, store: u32, what: What) -> bool {
        let What::Operation { operation, .. } = what else { return false };
        self.stores[store as usize].shards > 1
            && self.plan.system.stores[store as usize].operations[operation as usize].scatter
    }

    // --- transactions

    // --- locks

    // --- replication

    // --- nodes that come and go
}

/// The session that a request belongs to: its user's.
fn session(context: &Context) -> u64 {
    (context.client as u64) << 32 | context.user as u64
}
