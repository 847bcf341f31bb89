//! Steps: what an endpoint or a handler does.

use plimsoll_policy::cache::WriteMode;

use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::filled::Filled;
use super::policy::{SHADOW, cache};
use super::quantity::{COUNT, DURATION, FLAG, NAME, NUMBER_POSITIVE, ROUNDS, SHARE, TEXT};
use super::table::{Choice, Field, Kind, Object, absent, required, value};
use crate::system::{Action, CacheWrite, Component, EdgeId, KeyspaceId, Program, ServiceId, Step, StoreId};

/// A list of steps, done in order.
pub(crate) static STEPS: Kind = Kind::List(&Kind::Choice(&STEP));

pub(crate) static STEP: Choice = Choice {
    name: "step",
    what: "a step",
    doc: "One step of an endpoint or a handler. Its first key says what is done.",
    options: &[
        &WORK, &WAIT, &FAIL, &CALL, &QUERY, &CACHE, &WRITE_THROUGH, &WRITE_BEHIND, &INVALIDATE, &TRANSACTION, &PUBLISH,
        &PARALLEL, &FOR_EACH, &CHOICE, &FALLBACK, &LEASE,
    ],
};

/// Keys that every step has.
const COMMON: &[Field] = &[
    absent("name", Kind::Scalar(&NAME), "no name", "A name of your own, for `crash_between`."),
    absent("optional", Kind::Scalar(&NAME), "always done", "The name under which a degradation level skips it."),
];

static WORK: Object = Object {
    name: "work",
    doc: "Compute: takes one of the instance's cores.",
    groups: &[&[required("work", DURATIONS, "For how long.")], COMMON],
};

static WAIT: Object = Object {
    name: "wait",
    doc: "Wait without a core; a worker is held all the same.",
    groups: &[&[required("wait", DURATIONS, "For how long.")], COMMON],
};

static FAIL: Object = Object {
    name: "fail",
    doc: "Fail with 500.",
    groups: &[&[required("fail", Kind::Scalar(&SHARE), "Share of requests that fail here.")], COMMON],
};

static CALL: Object = Object {
    name: "call",
    doc: "Call another service and wait for its answer.",
    groups: &[&[required("call", Kind::Scalar(&TEXT), "The service and its endpoint, as in `payments POST /charge`.")], COMMON],
};

static QUERY: Object = Object {
    name: "query",
    doc: "Run an operation of a store.",
    groups: &[&[required("query", Kind::Scalar(&TEXT), "The store and its operation, as in `db.read_note`.")], COMMON],
};

static CACHED_KEY: &[Field] = &[
    required("key", Kind::Scalar(&NAME), "The kind of thing that is cached, a name of your own; steps with the same name share entries."),
    absent("keys", Kind::Scalar(&COUNT), "as many as the clients' requests that lead here have", "How many such things there are."),
];

static CACHE: Object = Object {
    name: "cache",
    doc: "Look a key up in a cache; on a miss, do the steps and fill it (cache-aside).",
    groups: &[
        &[required("cache", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[value("on_miss", STEPS, "[]", "nothing", "Steps after a miss.")],
        cache::FRESHNESS,
        SHADOW,
        COMMON,
    ],
};

static WRITE_THROUGH: Object = Object {
    name: "write_through",
    doc: "Write the origin, then the cache.",
    groups: &[
        &[required("write_through", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[required("do", STEPS, "Steps that write the origin.")],
        COMMON,
    ],
};

static WRITE_BEHIND: Object = Object {
    name: "write_behind",
    doc: "Write the cache now, the origin later; a crash in between loses the write.",
    groups: &[
        &[required("write_behind", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[
            value("flush", Kind::Scalar(&DURATION), "1s", "Redis's appendfsync everysec makes the same trade", "Longest time until the origin has it."),
            required("do", STEPS, "Steps that write the origin."),
        ],
        COMMON,
    ],
};

static INVALIDATE: Object = Object {
    name: "invalidate",
    doc: "Write the origin, then drop the key from the cache.",
    groups: &[
        &[required("invalidate", Kind::Scalar(&NAME), "The Redis that caches.")],
        CACHED_KEY,
        &[value("do", STEPS, "[]", "the origin was written before", "Steps that write the origin.")],
        COMMON,
    ],
};

static TRANSACTION: Object = Object {
    name: "transaction",
    doc: "Hold one connection and do steps within one transaction; a failure rolls back.",
    groups: &[
        &[
            required("transaction", Kind::Scalar(&NAME), "The PostgreSQL."),
            required("do", STEPS, "Steps within it."),
            value("cross_shard", Kind::Scalar(&SHARE), "0%", "a good shard key keeps a transaction together", "Share of transactions that touch a second shard and need two-phase commit."),
        ],
        COMMON,
    ],
};

static PUBLISH: Object = Object {
    name: "publish",
    doc: "Publish a message.",
    groups: &[
        &[
            required("publish", Kind::Scalar(&NAME), "The topic."),
            absent("outbox", Kind::Scalar(&FLAG), "`true` within a transaction, `false` elsewhere", "Whether it goes through the transaction's outbox. Without one, a transaction and a publish are two writes, and a crash may do one of them."),
        ],
        COMMON,
    ],
};

static PARALLEL: Object = Object {
    name: "parallel",
    doc: "Do branches at once and wait for all.",
    groups: &[&[required("parallel", Kind::Short(&BRANCHES, "do"), "The branches: a list, each item a step or a list of steps.")], COMMON],
};

static BRANCHES: Object = Object {
    name: "branches",
    doc: "Branches of a `parallel` step. The list alone may stand in place of the mapping.",
    groups: &[&[
        required("do", Kind::List(&Kind::Or(&[STEPS, Kind::Choice(&STEP)])), "The branches, each a step or a list of steps."),
        absent("limit", Kind::Scalar(&COUNT), "all of them", "Branches in flight at once."),
    ]],
};

static FOR_EACH: Object = Object {
    name: "for_each",
    doc: "Do steps a number of times.",
    groups: &[
        &[
            required("for_each", Kind::Scalar(&ROUNDS), "How many times: `20`, `5..50` (uniform) or `geometric(8)` (by its mean)."),
            required("do", STEPS, "Steps of a round."),
            value("limit", Kind::Scalar(&COUNT), "1", "a loop", "Rounds in flight at once; 1: one after the other."),
        ],
        COMMON,
    ],
};

static CHOICE: Object = Object {
    name: "choice",
    doc: "Do one of several alternatives.",
    groups: &[&[required("choice", Kind::List(&Kind::Object(&ALTERNATIVE)), "The alternatives.")], COMMON],
};

static ALTERNATIVE: Object = Object {
    name: "alternative",
    doc: "One alternative of a `choice` step.",
    groups: &[&[
        value("weight", Kind::Scalar(&NUMBER_POSITIVE), "1", "equal shares", "How often, relative to the other weights."),
        required("do", STEPS, "Its steps; `[]` does nothing."),
    ]],
};

static FALLBACK: Object = Object {
    name: "fallback",
    doc: "Do steps; where they fail, do others instead, and answer degraded.",
    groups: &[&[required("fallback", Kind::Object(&ATTEMPT), "What is tried, and what else.")], COMMON],
};

static ATTEMPT: Object = Object {
    name: "attempt",
    doc: "The two ways of a `fallback` step.",
    groups: &[&[
        required("try", STEPS, "Done first."),
        value("else", STEPS, "[]", "nothing: the answer lacks that part", "Done when that fails."),
    ]],
};

static LEASE: Object = Object {
    name: "lease_step",
    doc: "Do steps while holding a lease's lock; others wait.",
    groups: &[&[required("lease", Kind::Scalar(&NAME), "The lease."), required("do", STEPS, "Steps within it.")], COMMON],
};

impl Decoder<'_> {
    /// The steps of an endpoint or handler of `caller`.
    pub(super) fn program(&mut self, caller: ServiceId, steps: &Filled) -> Program {
        Programmer { decoder: self, caller, within: None }.program(steps)
    }
}

struct Programmer<'d, 'a> {
    decoder: &'d mut Decoder<'a>,
    caller: ServiceId,
    /// The store whose transaction the steps are in.
    within: Option<StoreId>,
}

impl Programmer<'_, '_> {
    fn program(&mut self, steps: &Filled) -> Program {
        steps.list().iter().filter_map(|step| self.step(step)).collect()
    }

    fn step(&mut self, filled: &Filled) -> Option<Step> {
        let action = self.action(filled)?;
        let word = |key: &str| filled.get(key).set().map(|name| name.text().to_owned());
        Some(Step { action, name: word("name"), optional: word("optional"), line: filled.at.line })
    }

    /// `None` where something was refused.
    fn action(&mut self, filled: &Filled) -> Option<Action> {
        let lead = filled.object()?.lead();
        let value = filled.get(lead);
        Some(match lead {
            "work" => Action::Work(self.decoder.dist(value)),
            "wait" => Action::Wait(self.decoder.dist(value)),
            "fail" => Action::Fail(value.number()),
            "call" => {
                let endpoint = self.decoder.endpoint(value)?;
                Action::Call { edge: self.edge(Component::Service(endpoint.service)), endpoint }
            }
            "query" => self.query(value)?,
            "cache" => {
                let on_miss = self.program(filled.get("on_miss"));
                let (store, keyspace) = self.cached(filled, value)?;
                let capacity = self.decoder.capacity(store);
                let config = cache::freshness(filled, capacity, WriteMode::Aside, self.decoder.report);
                Action::Cache { edge: self.edge(Component::Store(store)), store, keyspace, config, on_miss }
            }
            "write_through" | "write_behind" | "invalidate" => {
                let kind = match lead {
                    "write_through" => CacheWrite::Through,
                    "write_behind" => CacheWrite::Behind { flush: filled.get("flush").nanos() },
                    _ => CacheWrite::Invalidate,
                };
                let write = self.program(filled.get("do"));
                let (store, keyspace) = self.cached(filled, value)?;
                Action::CacheWrite { edge: self.edge(Component::Store(store)), store, keyspace, kind, write }
            }
            "transaction" => {
                let store = self.decoder.store(value);
                if let Some(store) = store {
                    self.transactional(store, value);
                }
                if self.within.is_some() {
                    self.decoder.report.at(filled.at, "a transaction cannot stand within another".to_owned());
                }
                let outer = std::mem::replace(&mut self.within, store);
                let steps = self.program(filled.get("do"));
                self.within = outer;
                let store = store?;
                let cross_shard = filled.get("cross_shard").number();
                Action::Transaction { edge: self.edge(Component::Store(store)), store, steps, cross_shard }
            }
            "publish" => {
                let outbox = filled.get("outbox");
                if outbox.flag() && self.within.is_none() {
                    let message = "an outbox needs a transaction around the step".to_owned();
                    self.decoder.report.at(outbox.at, message).help("put it under a `transaction:` step's `do:`".to_owned());
                }
                let outbox = if outbox.is_set() { outbox.flag() } else { self.within.is_some() };
                Action::Publish { topic: self.decoder.topic(value)?, outbox }
            }
            "parallel" => {
                let branches: Vec<Program> = value.get("do").list().iter().map(|branch| self.branch(branch)).collect();
                self.not_empty(value.get("do"), branches.len(), "branch");
                let all = u32::try_from(branches.len()).unwrap_or(u32::MAX);
                let limit = value.get("limit").set().map_or(all, Filled::count).min(all).max(1);
                Action::Parallel { branches, limit }
            }
            "for_each" => Action::ForEach {
                count: value.rounds(),
                limit: filled.get("limit").count(),
                steps: self.program(filled.get("do")),
            },
            "choice" => {
                let alternatives: Vec<(f64, Program)> = value
                    .list()
                    .iter()
                    .map(|option| (option.get("weight").number(), self.program(option.get("do"))))
                    .collect();
                self.not_empty(value, alternatives.len(), "alternative");
                Action::Choice(alternatives)
            }
            "fallback" => Action::Fallback {
                attempt: self.program(value.get("try")),
                otherwise: self.program(value.get("else")),
            },
            "lease" => {
                let steps = self.program(filled.get("do"));
                Action::Lease { lease: self.decoder.lease(value)?, steps }
            }
            _ => return None,
        })
    }

    fn branch(&mut self, branch: &Filled) -> Program {
        match branch.object() {
            Some(_) => self.step(branch).into_iter().collect(),
            None => self.program(branch),
        }
    }

    fn not_empty(&mut self, filled: &Filled, length: usize, what: &str) {
        if length == 0 && !filled.is_bad() {
            self.decoder.report.at(filled.at, format!("the step needs at least one {what}"));
        }
    }

    fn edge(&mut self, to: Component) -> EdgeId {
        self.decoder.edge(Component::Service(self.caller), to)
    }

    /// `db.read_note`, or a store's name alone if it has one operation.
    fn query(&mut self, value: &Filled) -> Option<Action> {
        let text = value.text();
        let (name, operation) = text.split_once('.').unwrap_or((text, ""));
        let length = |text: &str| text.chars().count();
        let store = self.decoder.store_named(value.at.part(0, length(name)), name)?;
        if self.decoder.names.stores[store.index()].kind.is_empty() {
            // The store was refused: that is reported where it stands.
            return None;
        }
        let known = &self.decoder.names.stores[store.index()].operations;
        let index = match (operation, known.len()) {
            ("", 1) => Some(0),
            ("", _) => None,
            _ => self.decoder.names.stores[store.index()].operation(operation),
        };
        let Some(index) = index else {
            if operation.is_empty() {
                let help = known.first().map(|first| format!("write `{name}.{first}`, for one")).unwrap_or_default();
                let message = format!("`{name}` has {} operations, and none is named", known.len());
                self.decoder.report.at(value.at, message).help(help);
            } else {
                let at = value.at.part(length(name) + 1, length(operation));
                super::names::unknown(at, &format!("operation of `{name}` called"), operation, known.iter().copied(), self.decoder.report);
            }
            return None;
        };
        Some(Action::Query { edge: self.edge(Component::Store(store)), store, operation: index })
    }

    /// The store and kind of key that a cache step names.
    fn cached(&mut self, filled: &Filled, store: &Filled) -> Option<(StoreId, KeyspaceId)> {
        let key = filled.get("key");
        let keyspace = (!key.is_bad()).then(|| self.decoder.keyspace(key, filled.get("keys").set()));
        let id = self.decoder.store(store)?;
        if !self.decoder.is_redis(id) {
            let message = format!("`{}` cannot cache: it is not a Redis", store.text());
            self.decoder.report.at(store.at, message);
            return None;
        }
        Some((id, keyspace?))
    }

    fn transactional(&mut self, store: StoreId, at: &Filled) {
        if !self.decoder.is_postgres(store) {
            let message = format!("`{}` has no transactions: it is not a PostgreSQL", at.text());
            self.decoder.report.at(at.at, message);
        }
    }
}
