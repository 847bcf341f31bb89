//! Quorum stores: `kind: quorum`

use super::{OPERATION_KIND, OPERATION_NAME, PLACE, SIZE};
use crate::file::decode::Decoder;
use crate::file::distribution::DURATIONS;
use crate::file::filled::Filled;
use crate::file::quantity::{BYTES, COUNT};
use crate::file::service::SCALABILITY_LAW;
use crate::file::table::{Default, Field, Kind, Object, none, required, value};
use crate::system::Quorum;

pub(super) static QUORUM: Object = Object {
    name: "quorum",
    doc: "A leaderless store that answers when enough of its nodes have, as Cassandra does.",
    groups: &[
        &[
            required("kind", Kind::Words(&[("quorum", "a quorum store")]), "What it is."),
            value("nodes", Kind::Scalar(&COUNT), "3", "Cassandra's usual replication factor", "Nodes, N."),
            Field {
                key: "read",
                kind: Kind::Scalar(&COUNT),
                default: Default::Derived {
                    from: majority,
                    rule: "a majority of the nodes",
                    source: "Cassandra, QUORUM",
                },
                doc: "Answers that a read waits for, R.",
                when: None,
            },
            Field {
                key: "write",
                kind: Kind::Scalar(&COUNT),
                default: Default::Derived {
                    from: majority,
                    rule: "a majority of the nodes",
                    source: "Cassandra, QUORUM",
                },
                doc: "Acknowledgements that a write waits for, W. Reads see the last write only if R + W > N.",
                when: None,
            },
            value(
                "concurrency",
                Kind::Scalar(&COUNT),
                "32",
                "Cassandra, concurrent_reads",
                "Operations that one node runs at once.",
            ),
            none(
                "scalability",
                Kind::Object(&SCALABILITY_LAW),
                "operations share nothing but places",
                "How operations that run at once on one node slow each other down.",
            ),
            value(
                "propagation",
                DURATIONS,
                "10ms",
                "a guess: hints and repairs take longer",
                "From an acknowledged write until the nodes that did not take part have it.",
            ),
            value("cores", Kind::Scalar(&COUNT), "4", "a common size", "Processors of a node, for its cost."),
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
            Kind::Map { key: &OPERATION_NAME, value: &Kind::Short(&QUORUM_OPERATION, "time") },
            "What can be asked of it, by name.",
        )],
    ],
};

static QUORUM_OPERATION: Object = Object {
    name: "quorum_operation",
    doc: "Something that can be asked of a quorum store. The time alone may stand in place of the mapping.",
    groups: &[&[OPERATION_KIND, required("time", DURATIONS, "Time on an idle node."), SIZE]],
};

fn majority(store: &Filled) -> String {
    (store.get("nodes").count() / 2 + 1).to_string()
}

impl Decoder<'_> {
    pub(super) fn quorum(&mut self, filled: &Filled) -> Quorum {
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
            scalability: self.scalability_law(filled),
            propagation: self.dist(filled.get("propagation")),
            cores: filled.get("cores").count(),
            storage: filled.get("storage").bytes(),
        }
    }
}
