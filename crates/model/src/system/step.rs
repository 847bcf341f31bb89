use plimsoll_policy as policy;

use super::{Dist, EdgeId, EndpointId, KeyspaceId, StoreId, TopicId};

/// What an endpoint or handler does, in order.
pub type Program = Vec<Step>;

/// One step of a program.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// The reader's name for it (`name:`), for `crash_between`.
    pub name: Option<String>,
    /// The name under which a degradation level skips it (`optional:`).
    pub optional: Option<String>,
    /// Line in the file, from 1.
    pub line: u32,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Compute: takes one of the instance's cores for this long, ns.
    Work(Dist),
    /// Wait without a core, ns.
    Wait(Dist),
    /// Fail with this probability, 0 to 1.
    Fail(f64),
    /// Call another service and wait for its answer.
    Call {
        /// The edge that carries it.
        edge: EdgeId,
        /// What is called.
        endpoint: EndpointId,
    },
    /// Run an operation of a store.
    Query {
        /// The edge that carries it.
        edge: EdgeId,
        /// The store.
        store: StoreId,
        /// Position in the store's operations.
        operation: u32,
    },
    /// Look a key up in a cache; on a miss, run steps and fill it.
    Cache {
        /// The edge to the store that caches.
        edge: EdgeId,
        /// The store that caches.
        store: StoreId,
        /// The kind of thing that is cached.
        keyspace: KeyspaceId,
        /// Freshness, staleness, stampede lock and write mode.
        config: policy::cache::Config,
        /// Steps after a miss.
        on_miss: Program,
    },
    /// Write a key into a cache and through or behind it to the steps, or drop it (`invalidate:`).
    CacheWrite {
        /// The edge to the store that caches.
        edge: EdgeId,
        /// The store that caches.
        store: StoreId,
        /// The kind of thing that is cached.
        keyspace: KeyspaceId,
        /// How the write reaches the origin.
        kind: CacheWrite,
        /// Steps that write the origin.
        write: Program,
    },
    /// Hold one connection and run steps within one transaction.
    Transaction {
        /// The edge to the store.
        edge: EdgeId,
        /// The store.
        store: StoreId,
        /// Steps within it; a failure rolls back.
        steps: Program,
        /// Share of transactions that touch a second shard and need two-phase commit, 0 to 1.
        cross_shard: f64,
    },
    /// Publish a message; within a transaction, through an outbox.
    Publish {
        /// The topic.
        topic: TopicId,
        /// Whether it goes through the transaction's outbox.
        outbox: bool,
    },
    /// Run branches at once and wait for all.
    Parallel {
        /// The branches.
        branches: Vec<Program>,
        /// Branches in flight at once.
        limit: u32,
    },
    /// Run steps a number of times.
    ForEach {
        /// How many times.
        count: Count,
        /// Rounds in flight at once; 1: one after the other.
        limit: u32,
        /// Steps of a round.
        steps: Program,
    },
    /// Run one of several alternatives.
    Choice(Vec<(f64, Program)>),
    /// Run steps; where they fail, run others instead.
    Fallback {
        /// Tried first.
        attempt: Program,
        /// Run when that fails; the answer counts as degraded.
        otherwise: Program,
    },
    /// Run steps while holding a lease's lock; others wait.
    Lease {
        /// The lease.
        lease: super::LeaseId,
        /// Steps within it.
        steps: Program,
    },
}

/// How a write to a cache reaches the origin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheWrite {
    /// The origin first, then the cache.
    Through,
    /// The cache now, the origin within `flush` ns; what a crash loses is bounded by it.
    Behind {
        /// Longest time until the origin has it, ns.
        flush: u64,
    },
    /// The origin first, then the key is dropped from the cache.
    Invalidate,
}

/// How many rounds a `for_each` makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// Always this many.
    Constant(u32),
    /// Any number from the first to the second, both included.
    Uniform(u32, u32),
    /// Geometric with this mean, at least 1.
    Geometric(f64),
}
