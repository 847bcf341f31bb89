//! PostgreSQL: `kind: postgres`

use super::{OPERATION_KIND, OPERATION_NAME, PLACE, SIZE};
use crate::file::decode::Decoder;
use crate::file::distribution::DURATIONS;
use crate::file::filled::Filled;
use crate::file::names::MAIN_TABLE;
use crate::file::quantity::{BYTES, COUNT, COUNT_OR_ZERO, DURATION, DURATION_OR_ZERO, FLAG, NAME};
use crate::file::service::SCALABILITY_LAW;
use crate::file::table::{Default, Field, Kind, Object, none, required, value};
use crate::system::{Failover, Postgres, Reads};

pub(super) static POSTGRES: Object = Object {
    name: "postgres",
    doc: "PostgreSQL: a primary and replicas, in one or more shards.",
    groups: &[
        &[
            required("kind", Kind::Words(&[("postgres", "PostgreSQL")]), "What it is."),
            value(
                "shards",
                Kind::Scalar(&COUNT),
                "1",
                "most need no more",
                "Shards, each with its own primary and replicas; a request's key chooses.",
            ),
            value("replicas", Kind::Scalar(&COUNT_OR_ZERO), "0", "the least there can be", "Replicas of each primary."),
            value(
                "replication_lag",
                DURATIONS,
                "{ p50: 10ms, p99: 200ms }",
                "a guess: measure with a heartbeat row",
                "How far a replica is behind; drawn anew every second or so, whatever the rate of writes.",
            ),
            value(
                "apply",
                DURATIONS,
                "0.1ms",
                "replay is one process; PostgreSQL replays some 10k small commits a second",
                "Time that a replica takes to apply one commit, one after the other.",
            ),
            value(
                "synchronous",
                Kind::Scalar(&FLAG),
                "false",
                "PostgreSQL, synchronous_standby_names",
                "Whether a commit waits for a replica, and so loses nothing at failover.",
            ),
            value(
                "reads",
                Kind::Short(&READS, "from"),
                "primary",
                "a pool without routing",
                "Where reads go, and how old they may be.",
            ),
            value(
                "max_connections",
                Kind::Scalar(&COUNT),
                "100",
                "PostgreSQL, max_connections",
                "Connections that one node accepts.",
            ),
            value(
                "pool",
                Kind::Scalar(&COUNT),
                "10",
                "HikariCP, maximumPoolSize",
                "Connections in the pool of one service instance, for each node that it talks to.",
            ),
            value(
                "pool_timeout",
                Kind::Scalar(&DURATION),
                "30s",
                "HikariCP, connectionTimeout",
                "Longest wait for a pooled connection.",
            ),
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
            none(
                "scalability",
                Kind::Object(&SCALABILITY_LAW),
                "operations share nothing but places",
                "How operations that run at once on one node slow each other down.",
            ),
            value("commit", DURATIONS, "1ms", "one fsync on a solid-state disk", "Time of a commit."),
            none(
                "failover",
                Kind::Object(&FAILOVER),
                "PostgreSQL has none of its own",
                "Automatic failover; without it a lost primary stays lost until its fault ends.",
            ),
            value(
                "storage",
                Kind::Scalar(&BYTES),
                "100GB",
                "a guess: look yours up",
                "Data held by a node, for its cost.",
            ),
        ],
        PLACE,
        &[required(
            "operations",
            Kind::Map { key: &OPERATION_NAME, value: &Kind::Short(&OPERATION, "time") },
            "What can be asked of it, by name.",
        )],
    ],
};

static READS: Object = Object {
    name: "reads",
    doc: "Where reads go, and how old they may be. `primary` or `replicas` alone may stand in place of the mapping.",
    groups: &[&[
        value(
            "from",
            Kind::Words(&[("primary", "never stale"), ("replicas", "as stale as replication lags")]),
            "primary",
            "a pool without routing",
            "Which nodes answer reads.",
        ),
        none(
            "max_lag",
            Kind::Scalar(&DURATION),
            "any replica will do",
            "A replica further behind than this is not read.",
        )
        .when(from_replicas, "where reads come `from: replicas`"),
        none(
            "read_your_writes",
            Kind::Words(&[("session", "a user's session sees what it wrote itself")]),
            "a session may miss its own writes",
            "Whether a session sees its own writes: it waits for the replica, then asks the primary.",
        )
        .when(from_replicas, "where reads come `from: replicas`"),
        value(
            "wait",
            Kind::Scalar(&DURATION_OR_ZERO),
            "100ms",
            "a few times the usual lag",
            "How long it waits for a replica to catch up.",
        )
        .when(from_replicas, "where reads come `from: replicas`"),
    ]],
};

static FAILOVER: Object = Object {
    name: "failover",
    doc: "Automatic failover to a replica.",
    groups: &[&[
        value(
            "detect",
            Kind::Scalar(&DURATION),
            "30s",
            "Patroni, ttl",
            "From the loss of the primary to the decision.",
        ),
        value(
            "promote",
            Kind::Scalar(&DURATION_OR_ZERO),
            "300ms",
            "measured with PostgreSQL 15: 0.1 s to 0.3 s",
            "Time that promotion takes.",
        ),
    ]],
};

pub(crate) static OPERATION: Object = Object {
    name: "operation",
    doc: "Something that can be asked of a store. The time alone may stand in place of the mapping.",
    groups: &[&[
        OPERATION_KIND,
        required("time", DURATIONS, "Time on an idle node."),
        Field {
            key: "lock",
            kind: Kind::Words(&[
                ("none", "nothing"),
                ("row", "the row of the request's key"),
                ("table", "the whole table"),
            ]),
            default: Default::Derived {
                from: |operation| {
                    if operation.get("kind").text() == "write" { "row".to_owned() } else { "none".to_owned() }
                },
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

fn from_replicas(reads: &Filled) -> bool {
    reads.get("from").text() == "replicas"
}

impl Decoder<'_> {
    pub(super) fn postgres(&mut self, filled: &Filled) -> Postgres {
        let reads = filled.get("reads");
        let replicas = filled.get("replicas");
        let from_replicas = from_replicas(reads);
        let without = |report: &mut crate::file::problem::Report, at, what: &str| {
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
            scalability: self.scalability_law(filled),
            commit: self.dist(filled.get("commit")),
            failover: filled.get("failover").set().map(|failover| Failover {
                detect: failover.get("detect").nanos(),
                promote: failover.get("promote").nanos(),
            }),
            cores: filled.get("cores").count(),
            storage: filled.get("storage").bytes(),
        }
    }
}
