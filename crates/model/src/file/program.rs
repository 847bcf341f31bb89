//! Programs: steps as they are done.

use plimsoll_policy::cache::WriteMode;

use super::decode::Decoder;
use super::filled::Filled;
use super::policy::cache;
use crate::system::{Action, CacheWrite, Component, EdgeId, KeyspaceId, Program, ServiceId, Step, StoreId};

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
                    self.decoder
                        .report
                        .at(outbox.at, message)
                        .help("put it under a `transaction:` step's `do:`".to_owned());
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
            "fallback" => {
                Action::Fallback { attempt: self.program(value.get("try")), otherwise: self.program(value.get("else")) }
            }
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
                super::names::unknown(
                    at,
                    &format!("operation of `{name}` called"),
                    operation,
                    known.iter().copied(),
                    self.decoder.report,
                );
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
