//! `stores:` — PostgreSQL, Redis and quorum stores.

use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::filled::Filled;
use super::names::MAIN_TABLE;
use super::quantity::{BYTES, COUNT, COUNT_OR_ZERO, DURATION, DURATION_OR_ZERO, FLAG, NAME, RATE, TEXT};
use super::table::{Default, Field, Kind, MapKey, Object, Tagged, absent, none, required, value};
use crate::system::{Dist, Failover, Lock, Operation, Postgres, Quorum, Reads, Redis, Store, StoreId, StoreKind};

pub(crate) static STORE: Tagged = Tagged {
    name: "store",
    what: "a store",
    default: None,
    options: &[("postgres", &POSTGRES), ("redis", &REDIS), ("quorum", &QUORUM)],
};

static PLACE: &[Field] = &[
    absent("owner", Kind::Scalar(&TEXT), "the system's owner", "Who answers for it."),
    value("zones", Kind::List(&Kind::Scalar(&NAME)), "[]", "one place without a name", "Zones that its nodes are spread over, in turn, the primary first."),
];

const OPERATION_NAME: MapKey = MapKey { what: "an operation's name", scalar: &NAME };

static POSTGRES: Object = Object {
    name: "postgres",
    doc: "PostgreSQL: a primary and replicas, in one or more shards.",
    groups: &[
        &[
            required("kind", Kind::Words(&[("postgres", "PostgreSQL")]), "What it is."),
            value("shards", Kind::Scalar(&COUNT), "1", "most need no more", "Shards, each with its own primary and replicas; a request's key chooses."),
            value("replicas", Kind::Scalar(&COUNT_OR_ZERO), "0", "the least there can be", "Replicas of each primary."),
            value("replication_lag", DURATIONS, "{ p50: 10ms, p99: 200ms }", "a guess: measure with a heartbeat row", "How far a replica is behind."),
            value("apply", DURATIONS, "0.1ms", "replay is one process; PostgreSQL replays some 10k small commits a second", "Time that a replica takes to apply one commit, one after the other."),
            value("synchronous", Kind::Scalar(&FLAG), "false", "PostgreSQL, synchronous_standby_names", "Whether a commit waits for a replica, and so loses nothing at failover."),
            value("reads", Kind::Short(&READS, "from"), "primary", "a pool without routing", "Where reads go, and how old they may be."),
            value("max_connections", Kind::Scalar(&COUNT), "100", "PostgreSQL, max_connections", "Connections that one node accepts."),
            value("pool", Kind::Scalar(&COUNT), "10", "HikariCP, maximumPoolSize", "Connections in the pool of one service instance, for each node that it talks to."),
            value("pool_timeout", Kind::Scalar(&DURATION), "30s", "HikariCP, connectionTimeout", "Longest wait for a pooled connection."),
            value("cores", Kind::Scalar(&COUNT), "4", "a common size", "Processors of a node, for its cost."),
            Field {
                key: "concurrency",
                kind: Kind::Scalar(&COUNT),
                default: Default::Derived {
                    from: |store| (2 * u64::from(store.get("cores").count()) + 1).to_string(),
                    rule: "2 × cores + 1",
                    source: "the PostgreSQL wiki's pool size, with one disk",
                },
                doc: "Operations that one node runs at once; further ones wait in it.",
                when: None,
            },
            value("commit", DURATIONS, "1ms", "one fsync on a solid-state disk", "Time of a commit."),
            none("failover", Kind::Object(&FAILOVER), "PostgreSQL has none of its own", "Automatic failover; without it a lost primary stays lost until its fault ends."),
            value("storage", Kind::Scalar(&BYTES), "100GB", "a guess: look yours up", "Data held by a node, for its cost."),
        ],
        PLACE,
        &[required("operations", Kind::Map { key: &OPERATION_NAME, value: &Kind::Short(&OPERATION, "time") }, "What can be asked of it, by name.")],
    ],
};

static READS: Object = Object {
    name: "reads",
    doc: "Where reads go, and how old they may be. `primary` or `replicas` alone may stand in place of the mapping.",
    groups: &[&[
        value("from", Kind::Words(&[("primary", "never stale"), ("replicas", "as stale as replication lags")]), "primary", "a pool without routing", "Which nodes answer reads."),
        none("max_lag", Kind::Scalar(&DURATION), "any replica will do", "A replica further behind than this is not read.").when(from_replicas, "where reads come `from: replicas`"),
        none("read_your_writes", Kind::Words(&[("session", "a user's session sees what it wrote itself")]), "a session may miss its own writes", "Whether a session sees its own writes: it waits for the replica, then asks the primary.").when(from_replicas, "where reads come `from: replicas`"),
        value("wait", Kind::Scalar(&DURATION_OR_ZERO), "100ms", "a few times the usual lag", "How long it waits for a replica to catch up.").when(from_replicas, "where reads come `from: replicas`"),
    ]],
};

static FAILOVER: Object = Object {
    name: "failover",
    doc: "Automatic failover to a replica.",
    groups: &[&[
        value("detect", Kind::Scalar(&DURATION), "30s", "Patroni, ttl", "From the loss of the primary to the decision."),
        value("promote", Kind::Scalar(&DURATION_OR_ZERO), "300ms", "measured with PostgreSQL 15: 0.1 s to 0.3 s", "Time that promotion takes."),
    ]],
};

const SIZE: Field = value("size", Kind::Scalar(&BYTES), "1KiB", "a small row", "Size of the answer: it takes time where a fault limits bandwidth.");
const OPERATION_KIND: Field = value("kind", Kind::Words(&[("read", "may run on a replica"), ("write", "changes data, and runs on the primary")]), "read", "most are", "Whether it changes data.");

pub(crate) static OPERATION: Object = Object {
    name: "operation",
    doc: "Something that can be asked of a store. The time alone may stand in place of the mapping.",
    groups: &[&[
        OPERATION_KIND,
        required("time", DURATIONS, "Time on an idle node."),
        Field {
            key: "lock",
            kind: Kind::Words(&[("none", "nothing"), ("row", "the row of the request's key"), ("table", "the whole table")]),
            default: Default::Derived {
                from: |operation| if operation.get("kind").text() == "write" { "row".to_owned() } else { "none".to_owned() },
                rule: "`row` for writes, `none` for reads",
                source: "PostgreSQL's UPDATE and SELECT",
            },
            doc: "What it locks until its transaction ends.",
            when: None,
        },
        value("table", Kind::Scalar(&NAME), MAIN_TABLE, "one table a store", "The table it touches, for table locks."),
        value("scatter", Kind::Scalar(&FLAG), "false", "queries have the shard key", "Whether every shard is asked."),
        SIZE,
    ]],
};

static REDIS: Object = Object {
    name: "redis",
    doc: "Redis: a store in memory, used as a cache, for sessions or for limiters.",
    groups: &[
        &[
            required("kind", Kind::Words(&[("redis", "Redis")]), "What it is."),
            value("capacity", Kind::Scalar(&COUNT), "1M", "1 GiB of keys with 1 KiB each", "Keys held; past it the least recently used of a sample is evicted."),
            value("time", DURATIONS, "0.3ms", "a round trip within a zone", "Time of a command as the caller sees it on an idle server."),
            value("max_rate", Kind::Scalar(&RATE), "100k/s", "redis-benchmark without pipelining", "Commands a second that its one thread does."),
            value("pool", Kind::Scalar(&COUNT), "20", "go-redis: 10 for each of 2 processors", "Connections in the pool of one service instance."),
            value("pool_timeout", Kind::Scalar(&DURATION), "4s", "go-redis, PoolTimeout", "Longest wait for a pooled connection."),
            value("persistent", Kind::Scalar(&FLAG), "false", "a cache needs no disk", "Whether keys survive a restart."),
            value("memory", Kind::Scalar(&BYTES), "1GiB", "a small instance", "Memory, for its cost."),
        ],
        PLACE,
        &[value("operations", Kind::Map { key: &OPERATION_NAME, value: &Kind::Object(&COMMAND) }, "{ get: {} }", "what a cache is asked", "What can be asked of it, by name.")],
    ],
};

static COMMAND: Object = Object {
    name: "command",
    doc: "Something that can be asked of a Redis.",
    groups: &[&[OPERATION_KIND, absent("time", DURATIONS, "the store's `time`", "Time as the caller sees it on an idle server."), SIZE]],
};

static QUORUM: Object = Object {
    name: "quorum",
    doc: "A leaderless store that answers when enough of its nodes have, as Cassandra does.",
    groups: &[
        &[
            required("kind", Kind::Words(&[("quorum", "a quorum store")]), "What it is."),
            value("nodes", Kind::Scalar(&COUNT), "3", "Cassandra's usual replication factor", "Nodes, N."),
            Field {
                key: "read",
                kind: Kind::Scalar(&COUNT),
                default: Default::Derived { from: majority, rule: "a majority of the nodes", source: "Cassandra, QUORUM" },
                doc: "Answers that a read waits for, R.",
                when: None,
            },
            Field {
                key: "write",
                kind: Kind::Scalar(&COUNT),
                default: Default::Derived { from: majority, rule: "a majority of the nodes", source: "Cassandra, QUORUM" },
                doc: "Acknowledgements that a write waits for, W. Reads see the last write only if R + W > N.",
                when: None,
            },
            value("concurrency", Kind::Scalar(&COUNT), "32", "Cassandra, concurrent_reads", "Operations that one node runs at once."),
            value("propagation", DURATIONS, "10ms", "a guess: hints and repairs take longer", "From an acknowledged write until the nodes that did not take part have it."),
            value("cores", Kind::Scalar(&COUNT), "4", "a common size", "Processors of a node, for its cost."),
            value("storage", Kind::Scalar(&BYTES), "100GB", "a guess: look yours up", "Data held by a node, for its cost."),
        ],
        PLACE,
        &[required("operations", Kind::Map { key: &OPERATION_NAME, value: &Kind::Short(&QUORUM_OPERATION, "time") }, "What can be asked of it, by name.")],
    ],
};

static QUORUM_OPERATION: Object = Object {
    name: "quorum_operation",
    doc: "Something that can be asked of a quorum store. The time alone may stand in place of the mapping.",
    groups: &[&[OPERATION_KIND, required("time", DURATIONS, "Time on an idle node."), SIZE]],
};

fn from_replicas(reads: &Filled) -> bool {
    reads.get("from").text() == "replicas"
}

fn majority(store: &Filled) -> String {
    (store.get("nodes").count() / 2 + 1).to_string()
}

impl Decoder<'_> {
    pub(super) fn stores(&mut self, root: &Filled) -> Vec<Store> {
        let owners = root.get("owners").map();
        let mut stores = Vec::new();
        for (index, (key, filled)) in root.get("stores").map().iter().enumerate() {
            let kind = match filled.object().map(|object| object.name) {
                Some("redis") => StoreKind::Redis(self.redis(filled)),
                Some("quorum") => StoreKind::Quorum(self.quorum(filled)),
                _ => StoreKind::Postgres(self.postgres(filled)),
            };
            stores.push(Store {
                name: key.text.clone(),
                owner: self.owner(filled, owners),
                kind,
                zones: self.zones(filled.get("zones")),
                operations: self.operations(index, filled),
                line: key.at.line,
            });
        }
        stores
    }

    fn postgres(&mut self, filled: &Filled) -> Postgres {
        let reads = filled.get("reads");
        let replicas = filled.get("replicas");
        let from_replicas = from_replicas(reads);
        let without = |report: &mut super::problem::Report, at, what: &str| {
            report.at(at, format!("{what} needs `replicas`, and there are none"));
        };
        if !replicas.is_bad() && replicas.count() == 0 {
            if from_replicas {
                without(self.report, reads.place("from"), "reading from replicas");
            }
            if filled.get("synchronous").flag() {
                without(self.report, filled.place("synchronous"), "a synchronous commit");
            }
            if filled.get("failover").is_set() {
                without(self.report, filled.place("failover"), "a failover");
            }
        }
        let pool = filled.get("pool");
        let connections = filled.get("max_connections");
        if !pool.is_bad() && !connections.is_bad() && pool.count() > connections.count() {
            self.report.at(filled.place("pool"), "one instance's pool alone exceeds `max_connections`".to_owned());
        }
        Postgres {
            shards: filled.get("shards").count(),
            replicas: replicas.count(),
            replication_lag: self.dist(filled.get("replication_lag")),
            apply: self.dist(filled.get("apply")),
            synchronous: filled.get("synchronous").flag(),
            reads: Reads {
                from_replicas,
                max_lag: reads.get("max_lag").set().map(Filled::nanos),
                read_your_writes: reads.get("read_your_writes").is_set(),
                wait: reads.get("wait").nanos(),
            },
            max_connections: connections.count(),
            pool: pool.count(),
            pool_timeout: filled.get("pool_timeout").nanos(),
            concurrency: filled.get("concurrency").count(),
            commit: self.dist(filled.get("commit")),
            failover: filled.get("failover").set().map(|failover| Failover {
                detect: failover.get("detect").nanos(),
                promote: failover.get("promote").nanos(),
            }),
            cores: filled.get("cores").count(),
            storage: filled.get("storage").bytes(),
        }
    }

    fn redis(&mut self, filled: &Filled) -> Redis {
        Redis {
            capacity: filled.get("capacity").count(),
            time: self.dist(filled.get("time")),
            max_rate: filled.get("max_rate").number(),
            pool: filled.get("pool").count(),
            pool_timeout: filled.get("pool_timeout").nanos(),
            persistent: filled.get("persistent").flag(),
            memory: filled.get("memory").bytes(),
        }
    }

    fn quorum(&mut self, filled: &Filled) -> Quorum {
        let nodes = filled.get("nodes");
        for key in ["read", "write"] {
            let quorum = filled.get(key);
            if !quorum.is_bad() && !nodes.is_bad() && quorum.count() > nodes.count() {
                let message = format!("`{key}: {}` can never be met by {} nodes", quorum.count(), nodes.count());
                self.report.at(filled.place(key), message);
            }
        }
        Quorum {
            nodes: nodes.count(),
            read: filled.get("read").count(),
            write: filled.get("write").count(),
            concurrency: filled.get("concurrency").count(),
            propagation: self.dist(filled.get("propagation")),
            cores: filled.get("cores").count(),
            storage: filled.get("storage").bytes(),
        }
    }

    fn operations(&mut self, store: usize, filled: &Filled) -> Vec<Operation> {
        let operations = filled.get("operations");
        if operations.map().is_empty() && operations.is_set() && !operations.is_bad() {
            self.report.at(filled.place("operations"), "a store needs at least one operation".to_owned());
        }
        let mut decoded = Vec::with_capacity(operations.map().len());
        for (key, operation) in operations.map() {
            let table = operation.maybe("table").map_or(MAIN_TABLE, Filled::text);
            // Only a Redis has a time for all its commands.
            let time = operation.get("time").set().or_else(|| filled.maybe("time"));
            decoded.push(Operation {
                name: key.text.clone(),
                write: operation.get("kind").text() == "write",
                table: self.names.stores[store].table(table).unwrap_or(0),
                lock: match operation.maybe("lock").map(Filled::text) {
                    Some("row") => Lock::Row,
                    Some("table") => Lock::Table,
                    _ => Lock::None,
                },
                scatter: operation.maybe("scatter").is_some_and(Filled::flag),
                size: operation.get("size").bytes(),
                time: time.map_or(Dist::Constant(1), |time| self.dist(time)),
            });
        }
        decoded
    }

    pub(super) fn is_redis(&self, store: StoreId) -> bool {
        self.names.stores[store.index()].kind == "redis"
    }

    pub(super) fn is_postgres(&self, store: StoreId) -> bool {
        self.names.stores[store.index()].kind == "postgres"
    }

    /// Keys that a Redis holds.
    pub(super) fn capacity(&self, store: StoreId) -> u32 {
        self.names.stores[store.index()].filled.maybe("capacity").map_or(1, Filled::count)
    }

    /// Nodes of a store: primaries and replicas, or quorum nodes.
    pub(super) fn nodes(&self, store: StoreId) -> u32 {
        let filled = self.names.stores[store.index()].filled;
        let number = |key: &str, other| filled.maybe(key).map_or(other, Filled::count);
        match self.names.stores[store.index()].kind {
            "redis" => 1,
            "quorum" => number("nodes", 1),
            _ => number("shards", 1).saturating_mul(number("replicas", 0).saturating_add(1)),
        }
    }
}
