use super::{Dist, Scalability, ZoneId};

/// Something that keeps data.
#[derive(Clone, Debug)]
pub struct Store {
    /// The reader's name for it.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is.
    pub kind: StoreKind,
    /// Zones that its nodes are spread over, in turn (the primary first); empty: no zone.
    pub zones: Vec<ZoneId>,
    /// What can be asked of it. A cache without operations has one, `get`.
    pub operations: Vec<Operation>,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

/// What a store is.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// A relational database with a primary and replicas, in one or more shards.
    Postgres(Postgres),
    /// A store in memory, used as a cache, for sessions or for limiters.
    Redis(Redis),
    /// A leaderless store that answers when enough of its nodes have.
    Quorum(Quorum),
}

/// PostgreSQL.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// Shards, each with its own primary and replicas; a request's key chooses.
    pub shards: u32,
    /// Replicas of each primary.
    pub replicas: u32,
    /// How far a replica is behind, ns.
    pub replication_lag: Dist,
    /// Time that a replica takes to apply one commit, one after the other, ns.
    pub apply: Dist,
    /// Whether a commit waits for a replica, and so loses nothing at failover.
    pub synchronous: bool,
    /// Where reads go.
    pub reads: Reads,
    /// Connections that one node accepts.
    pub max_connections: u32,
    /// Connections in the pool of one service instance, for each node that it talks to.
    pub pool: u32,
    /// Longest wait for a pooled connection, ns.
    pub pool_timeout: u64,
    /// Operations that one node runs at once; further ones wait in it.
    pub concurrency: u32,
    /// How operations that run at once on one node slow each other down; none: not at all.
    pub scalability: Option<Scalability>,
    /// Time of a commit, ns.
    pub commit: Dist,
    /// Without it, a lost primary stays lost until its fault ends.
    pub failover: Option<Failover>,
    /// Memory and processors of a node, for its cost.
    pub cores: u32,
    /// Data held, bytes, for its cost.
    pub storage: u64,
}

/// Where reads go, and how old they may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reads {
    /// Whether reads go to the replicas.
    pub from_replicas: bool,
    /// A replica further behind than this is not read, ns.
    pub max_lag: Option<u64>,
    /// Whether a session sees its own writes: it waits for the replica, then asks the primary.
    pub read_your_writes: bool,
    /// How long it waits for a replica to catch up, ns.
    pub wait: u64,
}

/// Automatic failover.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failover {
    /// From the loss of the primary to the decision, ns.
    pub detect: u64,
    /// Time that promotion takes, ns.
    pub promote: u64,
}

/// Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Keys held; past it the least recently used of a sample is evicted.
    pub capacity: u32,
    /// Time of a command as the caller sees it on an idle server, ns.
    pub time: Dist,
    /// Commands a second that its one thread does.
    pub max_rate: f64,
    /// Connections in the pool of one service instance.
    pub pool: u32,
    /// Longest wait for a pooled connection, ns.
    pub pool_timeout: u64,
    /// Whether keys survive a restart.
    pub persistent: bool,
    /// Memory, bytes, for its cost.
    pub memory: u64,
    /// Where it is in the real world, where the file says so.
    pub at: Option<RedisAt>,
}

/// Where a real Redis is, and what it wants to see before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAt {
    /// `127.0.0.1:6379`
    pub address: String,
    /// The number of its database, from 0.
    pub database: u32,
    /// Who asks; none: its default user.
    pub user: Option<String>,
    /// The file whose first line is the password, relative to the system file.
    pub password_file: Option<String>,
    /// How it is asked by TLS; none: without.
    pub tls: Option<RedisTls>,
}

/// TLS towards a Redis. Files are PEM, relative to the system file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisTls {
    /// Certificates of the authorities that may have signed the server's.
    pub ca: String,
    /// The name in the server's certificate; none: that of its address.
    pub name: Option<String>,
    /// The certificate that is shown to the server, and its key.
    pub own: Option<(String, String)>,
}

/// A quorum store.
#[derive(Clone, Debug)]
pub struct Quorum {
    /// Nodes, N.
    pub nodes: u32,
    /// Answers that a read waits for, R.
    pub read: u32,
    /// Acknowledgements that a write waits for, W.
    pub write: u32,
    /// Operations that one node runs at once.
    pub concurrency: u32,
    /// How operations that run at once on one node slow each other down; none: not at all.
    pub scalability: Option<Scalability>,
    /// From an acknowledged write until the nodes that did not take part have it, ns.
    pub propagation: Dist,
    /// Processors of a node, for its cost.
    pub cores: u32,
    /// Data held by a node, bytes, for its cost.
    pub storage: u64,
}

/// Something that can be asked of a store.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The reader's name for it.
    pub name: String,
    /// Whether it changes data: then it runs on the primary.
    pub write: bool,
    /// Time on an idle node, ns.
    pub time: Dist,
    /// What it locks until its transaction ends.
    pub lock: Lock,
    /// The table it touches, for table locks; by default one table a store.
    pub table: u32,
    /// Whether every shard is asked (a query without the shard key).
    pub scatter: bool,
    /// Size of the answer, bytes: it takes time where a fault limits bandwidth.
    pub size: u64,
}

/// What an operation locks until its transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nothing.
    None,
    /// The row of the request's key.
    Row,
    /// The whole table.
    Table,
}
