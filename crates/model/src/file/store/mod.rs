//! `stores:` — PostgreSQL, Redis and quorum stores.

mod postgres;
mod quorum;
mod redis;

use postgres::POSTGRES;
use quorum::QUORUM;
use redis::REDIS;

use crate::file::decode::Decoder;
use crate::file::filled::Filled;
use crate::file::names::MAIN_TABLE;
use crate::file::quantity::{BYTES, NAME, TEXT};
use crate::file::table::{Field, Kind, MapKey, Tagged, absent, value};
use crate::system::{Dist, Lock, Operation, Store, StoreId, StoreKind};

pub(crate) static STORE: Tagged = Tagged {
    name: "store",
    what: "a store",
    default: None,
    options: &[("postgres", &POSTGRES), ("redis", &REDIS), ("quorum", &QUORUM)],
};

static PLACE: &[Field] = &[
    absent("owner", Kind::Scalar(&TEXT), "the system's owner", "Who answers for it."),
    value(
        "zones",
        Kind::List(&Kind::Scalar(&NAME)),
        "[]",
        "one place without a name",
        "Zones that its nodes are spread over, in turn, the primary first.",
    ),
];

const OPERATION_NAME: MapKey = MapKey { what: "an operation's name", scalar: &NAME };

const SIZE: Field = value(
    "size",
    Kind::Scalar(&BYTES),
    "1KiB",
    "a small row",
    "Size of the answer: it takes time where a fault limits bandwidth.",
);
const OPERATION_KIND: Field = value(
    "kind",
    Kind::Words(&[("read", "may run on a replica"), ("write", "changes data, and runs on the primary")]),
    "read",
    "most are",
    "Whether it changes data.",
);

impl Decoder<'_> {
    pub(in crate::file) fn stores(&mut self, root: &Filled) -> Vec<Store> {
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

    pub(in crate::file) fn is_redis(&self, store: StoreId) -> bool {
        self.names.stores[store.index()].kind == "redis"
    }

    pub(in crate::file) fn is_postgres(&self, store: StoreId) -> bool {
        self.names.stores[store.index()].kind == "postgres"
    }

    /// Keys that a Redis holds.
    pub(in crate::file) fn capacity(&self, store: StoreId) -> u32 {
        self.names.stores[store.index()].filled.maybe("capacity").map_or(1, Filled::count)
    }

    /// Nodes of a store: primaries and replicas, or quorum nodes.
    pub(in crate::file) fn nodes(&self, store: StoreId) -> u32 {
        let filled = self.names.stores[store.index()].filled;
        let number = |key: &str, other| filled.maybe(key).map_or(other, Filled::count);
        match self.names.stores[store.index()].kind {
            "redis" => 1,
            "quorum" => number("nodes", 1),
            _ => number("shards", 1).saturating_mul(number("replicas", 0).saturating_add(1)),
        }
    }
}
