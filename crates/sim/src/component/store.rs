//! What every store has: nodes that run operations, connections to them, transactions.

use std::collections::{BTreeMap, VecDeque};

use plimsoll_model::system::{Scalability, Store, StoreKind};
use plimsoll_policy::{Cache, read_your_writes};

use crate::component::instance::Slowness;
use crate::component::postgres::LockId;
use crate::component::quorum::Versions;
use crate::component::task::Context;
use crate::engine::{Draw, Event, Ref};
use crate::measure::{Counter, Gauge};
use crate::world::World;

/// A store's state beside its nodes.
pub(crate) struct StoreState {
    /// Its first node.
    pub(crate) first: u32,
    /// Its nodes: shard by shard, the primary first where there is one.
    pub(crate) nodes: u32,
    pub(crate) shards: u32,
    /// By shard: which node is primary, as an offset within the shard.
    pub(crate) primary: Vec<u32>,
    /// By shard: counts changes of its primary.
    pub(crate) primary_epoch: Vec<u32>,
    pub(crate) draw: Draw,
    /// Caches in it, by keyspace.
    pub(crate) caches: Vec<Option<Cache<u32>>>,
    /// By shard: commits, and what replicas have of them.
    pub(crate) logs: Vec<super::postgres::Log>,
    /// Replication lag that a fault adds, ns.
    pub(crate) extra_lag: u64,
    /// Locks by (shard, table, row); the row `u32::MAX` is the whole table.
    pub(crate) locks: BTreeMap<LockId, super::postgres::LockState>,
    /// A quorum store's acknowledged versions, by key.
    pub(crate) versions: Versions,
    /// Hits and lookups of its caches, by segment.
    pub(crate) hits: Vec<(u64, u64)>,
    pub(crate) counter: Counter,
}

/// One server of a store.
pub(crate) struct Node<'a> {
    /// What the file says of its store.
    pub(crate) spec: &'a Store,
    pub(crate) store: u32,
    pub(crate) shard: u32,
    /// Offset within its shard.
    pub(crate) number: u32,
    pub(crate) zone: Option<u32>,
    pub(crate) up: bool,
    pub(crate) epoch: u32,
    pub(crate) paused_at: Option<u64>,
    /// What falls due while it is stopped: ns still needed, and what it is.
    pub(crate) held: Vec<(u64, Event)>,
    pub(crate) slow: Slowness,
    /// Connections that it has accepted.
    pub(crate) connections: u32,
    /// Faults under way for which it has none left.
    pub(crate) exhausted: u32,
    pub(crate) free: u32,
    /// How operations slow each other down, and how many places there are.
    pub(crate) scalability: Option<(Scalability, u32)>,
    pub(crate) queue: VecDeque<Ref>,
    /// When a single-threaded server is next free, ns.
    pub(crate) next_free: u64,
    /// A quorum node's versions, by key.
    pub(crate) versions: Versions,
    pub(crate) counter: Counter,
    pub(crate) busy: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) connected: Gauge,
}

/// An operation on a node.
pub(crate) struct StoreOp {
    /// Who waits for it, if they still do.
    pub(crate) attempt: Ref,
    pub(crate) node: u32,
    /// The node's life in which it began.
    pub(crate) epoch: u32,
    /// The caller's life in which it began.
    pub(crate) life: u32,
    /// The connection that it uses, given back at its end: edge end and pool; none within a
    /// transaction.
    pub(crate) connection: Option<(u32, u32)>,
    pub(crate) transaction: Ref,
    pub(crate) kind: OpKind,
    pub(crate) context: Context,
    /// Time that it takes, ns, drawn when it came.
    pub(crate) takes: u64,
    /// Whether it runs on the node now.
    pub(crate) running: bool,
    /// The locks that it has taken.
    pub(crate) locks: Vec<LockId>,
    /// The lock that it waits for, and whether for itself alone.
    pub(crate) waits_for: Option<(LockId, bool)>,
    /// Whether the answer is older than it may be.
    pub(crate) stale: bool,
    /// While it waits for a replica to show what its session had written when it came.
    pub(crate) waits: Option<read_your_writes::Waiting>,
    /// The commit that it made; 0 if none.
    pub(crate) commit: u64,
}

impl StoreOp {
    pub(crate) fn blank() -> Self {
        StoreOp {
            attempt: Ref::NONE,
            node: 0,
            epoch: 0,
            life: 0,
            connection: None,
            transaction: Ref::NONE,
            kind: OpKind::Command,
            context: Context::BLANK,
            takes: 0,
            running: false,
            locks: Vec::new(),
            waits_for: None,
            stale: false,
            waits: None,
            commit: 0,
        }
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OpKind {
    /// An operation of the file.
    Operation(u32),
    /// The end of a transaction.
    Commit { second: bool },
    /// A command of a cache, a session or a limiter.
    Command,
    /// A quorum node's part of an operation.
    Replica { operation: u32 },
}

/// A transaction: one connection, held.
pub(crate) struct Transaction {
    pub(crate) store: u32,
    pub(crate) node: u32,
    pub(crate) epoch: u32,
    pub(crate) end: u32,
    pub(crate) pool: u32,
    /// The caller's life in which it began.
    pub(crate) life: u32,
    /// The task that began it.
    pub(crate) owner: Ref,
    /// The transaction around it, of another store.
    pub(crate) outer: Ref,
    pub(crate) locks: Vec<LockId>,
    /// Keys written.
    pub(crate) wrote: Vec<u32>,
    /// Messages for the outbox relay: topic and key.
    pub(crate) outbox: Vec<(u32, Context)>,
    /// Whether it touches a second shard.
    pub(crate) crosses: bool,
}

impl World<'_> {
    pub(crate) fn build_stores(&mut self) {
        let plan = self.plan;
        let segments = plan.cuts.len() + 1;
        for (s, store) in plan.system.stores.iter().enumerate() {
            let (shards, per_shard, slots, law) = match &store.kind {
                StoreKind::Postgres(pg) => (pg.shards, 1 + pg.replicas, pg.concurrency, pg.scalability),
                StoreKind::Redis(_) => (1, 1, 1, None),
                StoreKind::Quorum(q) => (1, q.nodes, q.concurrency, q.scalability),
            };
            let first = self.nodes.len() as u32;
            for shard in 0..shards {
                for number in 0..per_shard {
                    let zone =
                        (!store.zones.is_empty()).then(|| store.zones[(shard + number) as usize % store.zones.len()].0);
                    self.nodes.push(Node {
                        spec: store,
                        store: s as u32,
                        shard,
                        number,
                        zone,
                        up: true,
                        epoch: 0,
                        paused_at: None,
                        held: Vec::new(),
                        slow: Slowness::NONE,
                        connections: 0,
                        exhausted: 0,
                        free: slots,
                        scalability: law.map(|law| (law, slots)),
                        queue: VecDeque::new(),
                        next_free: 0,
                        versions: Versions::default(),
                        counter: Counter::default(),
                        busy: Gauge::new(),
                        waiting: Gauge::new(),
                        connected: Gauge::new(),
                    });
                }
            }
            let draw = self.root.named(&store.name);
            self.stores.push(StoreState {
                first,
                nodes: shards * per_shard,
                shards,
                primary: vec![0; shards as usize],
                primary_epoch: vec![0; shards as usize],
                draw,
                caches: super::cache::build(plan, s as u32),
                logs: (0..shards).map(|shard| super::postgres::Log::new(store, per_shard, draw, shard)).collect(),
                extra_lag: 0,
                locks: BTreeMap::new(),
                versions: Versions::default(),
                hits: vec![(0, 0); segments],
                counter: Counter::default(),
            });
        }
    }

    /// The name of a node, as reports give it: `db/primary`, `db/replica-1`, `cache/1`.
    pub(crate) fn node_name(&self, node: u32) -> String {
        let n = &self.nodes[node as usize];
        let store = &self.plan.system.stores[n.store as usize];
        let shard =
            if self.stores[n.store as usize].shards > 1 { format!("shard-{}/", n.shard + 1) } else { String::new() };
        match &store.kind {
            StoreKind::Postgres(_) if n.number == 0 => format!("{}/{shard}primary", store.name),
            StoreKind::Postgres(_) => format!("{}/{shard}replica-{}", store.name, n.number),
            _ => format!("{}/{shard}{}", store.name, n.number + 1),
        }
    }
}
