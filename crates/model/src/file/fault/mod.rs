//! Faults of an experiment: `{ at: 20s, kill: api/2, for: 15s }`

mod table;

use table::{
    BANDWIDTH_FAULT, CRASH_BETWEEN, DEPLOY, DOWN, DROP, EXHAUST, FLUSH, KILL, LAG, LOCK, PARTITION, PAUSE, PROMOTE,
    RESET, SKEW, SLOW, SURGE,
};

use crate::file::decode::{Decoder, sort_of};
use crate::file::filled::Filled;
use crate::file::quantity::Quantity;
use crate::file::table::Choice;
use crate::system::{Action, Component, Dist, Fault, FaultKind, Program, Target, Version};

pub(crate) static FAULT: Choice = Choice {
    name: "fault",
    what: "a fault",
    doc: "Something that goes wrong, and is undone. A target is a component (`api`), one instance of a service or node of a \
          store (`api/2`, counted from 1), a share of it (`30% of api`), `primary of db`, `replicas of db`, a zone \
          (`zone a`) or an edge (`api -> db`).",
    options: &[
        &KILL,
        &PAUSE,
        &SLOW,
        &PARTITION,
        &DROP,
        &RESET,
        &BANDWIDTH_FAULT,
        &FLUSH,
        &PROMOTE,
        &LAG,
        &LOCK,
        &EXHAUST,
        &DEPLOY,
        &CRASH_BETWEEN,
        &SKEW,
        &SURGE,
        &DOWN,
    ],
};

impl Decoder<'_> {
    /// A fault of an experiment that is so many ns long.
    pub(in crate::file) fn fault(
        &mut self,
        filled: &Filled,
        duration: u64,
        services: &[crate::system::Service],
    ) -> Option<Fault> {
        let lead = filled.object()?.lead();
        let (at, until) = self.span(filled, duration);
        let kind = self.fault_kind(filled, lead, services)?;
        Some(Fault { at, until, kind, text: text(filled, lead), line: filled.at.line })
    }

    fn span(&mut self, filled: &Filled, duration: u64) -> (u64, u64) {
        let start = filled.get("at");
        let at = start.nanos();
        let lasts = filled.object().is_some_and(|object| object.field("for").is_some());
        if !start.is_bad() && at >= duration {
            self.report.at(filled.place("at"), "the experiment is over before the fault starts".to_owned());
        }
        if !lasts {
            return (at, at);
        }
        let (length, end) = (filled.get("for"), filled.get("until"));
        let (place, until) = match (length.set(), end.set()) {
            (Some(length), None) => (length, at.saturating_add(length.nanos())),
            (None, Some(end)) => (end, end.nanos()),
            (Some(_), Some(end)) => {
                self.report.at(end.at, "a fault has either `for` or `until`, not both".to_owned());
                return (at, at);
            }
            (None, None) => {
                self.report.at(filled.at, "the fault never ends: it has neither `for` nor `until`".to_owned());
                return (at, at);
            }
        };
        if !place.is_bad() && !start.is_bad() {
            if until <= at {
                self.report.at(place.at, "the fault ends before it starts".to_owned());
            } else if until > duration && at < duration {
                let seconds = |ns: u64| ns as f64 / 1e9;
                let message = format!(
                    "the fault ends at {}s, after the experiment's end at {}s",
                    seconds(until),
                    seconds(duration)
                );
                self.report
                    .at(place.at, message)
                    .help("make the experiment longer: what comes after a fault tells most".to_owned());
            }
        }
        (at, until)
    }

    fn fault_kind(&mut self, filled: &Filled, lead: &str, services: &[crate::system::Service]) -> Option<FaultKind> {
        let what = filled.get(lead);
        let missing = Filled::bad(filled.at);
        let by = filled.maybe("by").unwrap_or(&missing);
        let share = || filled.get("share").number();
        Some(match lead {
            "kill" => FaultKind::Kill(self.processes(what)?),
            "pause" => FaultKind::Pause(self.processes(what)?),
            "slow" => {
                let target = self.slowed(what, services)?;
                let (factor, added) = match by.quantity() {
                    Some(Quantity::Factor(factor)) => (*factor, Dist::Constant(0)),
                    Some(_) => (1.0, self.dist(by)),
                    None => return None,
                };
                if factor < 1.0 {
                    self.report.at(by.at, "a fault makes slower: the factor must be at least 1x".to_owned());
                }
                FaultKind::Slow { target, factor, added }
            }
            "partition" => FaultKind::Partition(self.network_target(what)?),
            "drop" => FaultKind::Drop { target: self.network_target(what)?, share: share() },
            "reset" => FaultKind::Reset { target: self.network_target(what)?, share: share() },
            "bandwidth" => FaultKind::Bandwidth { target: self.network_target(what)?, rate: filled.get("to").number() },
            "flush" => {
                let store = self.store(what)?;
                if !self.is_redis(store) {
                    self.report.at(what.at, format!("`{}` cannot be flushed: it is not a Redis", what.text()));
                }
                FaultKind::Flush(store)
            }
            "promote" => {
                let store = self.store(what)?;
                self.with_replicas(what, store, "nothing can be promoted");
                FaultKind::Promote(store)
            }
            "lag" => {
                let store = self.store(what)?;
                self.with_replicas(what, store, "nothing can lag");
                FaultKind::Lag { store, by: by.nanos() }
            }
            "lock" => self.lock(what)?,
            "exhaust" => FaultKind::Exhaust(self.exhausted(what)?),
            "deploy" => {
                let version = filled.get("version");
                FaultKind::Deploy {
                    service: self.service(what)?,
                    version: Version {
                        slow: version.get("slow").number(),
                        errors: version.get("errors").number(),
                        startup: version.get("startup").set().map(|startup| self.dist(startup)),
                    },
                }
            }
            "crash_between" => self.crash_between(what, filled.get("of"), services)?,
            "skew" => FaultKind::Skew { target: self.processes(what)?, by: by.offset() },
            "surge" => {
                let client = match what.text() {
                    "all" => None,
                    name => Some(self.client_named(what.at, name)?),
                };
                FaultKind::Surge { client, factor: by.number() }
            }
            "down" => FaultKind::BrokerDown(self.topic(what)?),
            _ => return None,
        })
    }

    /// A target that runs as processes.
    fn processes(&mut self, what: &Filled) -> Option<Target> {
        let target = self.target(what.at, what.text())?;
        match target {
            Target::All(component @ (Component::Client(_) | Component::Topic(_) | Component::Lease(_))) => {
                let help = match component {
                    Component::Topic(_) => "`down:` stops a topic",
                    Component::Lease(_) => "kill or pause the service that holds it",
                    _ => "faults strike what answers, not who asks",
                };
                let message = format!("a {} has no processes here", sort_of(component));
                self.report.at(what.at, message).help(help.to_owned());
                None
            }
            Target::Edge(_) => {
                let help = "`partition:`, `drop:`, `reset:`, `slow:` and `bandwidth:` strike edges".to_owned();
                self.report.at(what.at, "an edge has no processes".to_owned()).help(help);
                None
            }
            target => Some(target),
        }
    }

    fn slowed(&mut self, what: &Filled, services: &[crate::system::Service]) -> Option<Target> {
        let target = self.target(what.at, what.text())?;
        if let Target::Edge(_) = target {
            return Some(target);
        }
        if let Target::All(component) | Target::Instance(component, _) | Target::Share(component, _) = target
            && let Component::Service(service) = self.names.acting(component)
            && let Some(service) = services.get(service.index())
            && !service.endpoints.iter().any(|endpoint| takes_time(&endpoint.program))
        {
            let message = format!("`{}` has no step that could be slow: none works or waits", service.name);
            let help = format!("slow what it calls, or the edge there: `slow: {} -> ...`", service.name);
            self.report.at(what.at, message).help(help);
            return None;
        }
        self.processes(what)
    }

    /// A target that talks to others.
    fn network_target(&mut self, what: &Filled) -> Option<Target> {
        match self.target(what.at, what.text())? {
            Target::All(component @ (Component::Topic(_) | Component::Lease(_))) => {
                let message = format!("a {} has no network of its own here", sort_of(component));
                let problem = self.report.at(what.at, message);
                if matches!(component, Component::Topic(_)) {
                    problem.help("`down:` cuts a topic off".to_owned());
                }
                None
            }
            target => Some(target),
        }
    }

    fn with_replicas(&mut self, what: &Filled, store: crate::system::StoreId, why: &str) {
        let filled = self.names.stores[store.index()].filled;
        if !self.is_postgres(store) {
            self.report.at(what.at, format!("`{}` is not a PostgreSQL: {why}", what.text()));
        } else if !filled.get("replicas").is_bad() && filled.get("replicas").count() == 0 {
            self.report.at(what.at, format!("`{}` has no replicas: {why}", what.text()));
        }
    }

    fn lock(&mut self, what: &Filled) -> Option<FaultKind> {
        let (name, table) = what.text().split_once('.').unwrap_or((what.text(), ""));
        let length = |text: &str| text.chars().count();
        let store = self.store_named(what.at.part(0, length(name)), name)?;
        if !self.is_postgres(store) {
            self.report.at(what.at, format!("`{name}` has no tables: it is not a PostgreSQL"));
            return None;
        }
        let known = &self.names.stores[store.index()].tables;
        let position = match (table, known.as_slice()) {
            ("", [_]) => Some(0),
            _ => self.names.stores[store.index()].table(table),
        };
        if position.is_none() {
            let at = if table.is_empty() { what.at } else { what.at.part(length(name) + 1, length(table)) };
            crate::file::names::unknown(
                at,
                &format!("table of `{name}` called"),
                table,
                known.iter().copied(),
                self.report,
            );
        }
        position.map(|table| FaultKind::LockTable { store, table })
    }

    /// A target that counts its connections.
    fn exhausted(&mut self, what: &Filled) -> Option<Target> {
        let target = self.processes(what)?;
        let store = match target {
            Target::All(Component::Store(store))
            | Target::Instance(Component::Store(store), _)
            | Target::Share(Component::Store(store), _)
            | Target::Primary(store)
            | Target::Replicas(store) => Some(store),
            _ => None,
        };
        if !store.is_some_and(|store| self.is_postgres(store)) {
            let message = format!("`{}` has no connections that could run out: it is not a PostgreSQL", what.text());
            self.report.at(what.at, message);
            return None;
        }
        Some(target)
    }

    fn crash_between(&mut self, steps: &Filled, of: &Filled, services: &[crate::system::Service]) -> Option<FaultKind> {
        let [done, next] = steps.list() else {
            if !steps.is_bad() {
                self.report
                    .at(steps.at, "two steps are needed: the one that was done and the one that was not".to_owned());
            }
            return None;
        };
        let component = self.process_named(of.at, of.text())?;
        let Component::Service(service) = self.names.acting(component) else {
            self.report.at(of.at, "a store does no steps".to_owned());
            return None;
        };
        let mut known = Vec::new();
        for endpoint in services.get(service.index()).map_or(&[][..], |service| &service.endpoints) {
            step_names(&endpoint.program, &mut known);
        }
        for step in [done, next] {
            if !step.is_bad() && !known.iter().any(|name| name == step.text()) {
                let what = format!("step of `{}` with the name", of.text());
                crate::file::names::unknown(step.at, &what, step.text(), known.iter().map(String::as_str), self.report);
            }
        }
        Some(FaultKind::CrashBetween { service, done: done.text().to_owned(), next: next.text().to_owned() })
    }
}

fn step_names(program: &Program, names: &mut Vec<String>) {
    for step in program {
        names.extend(step.name.clone());
        crate::file::keyspace::inner(step).into_iter().for_each(|inner| step_names(inner, names));
    }
}

/// Whether a program has a step that takes time of its own process.
fn takes_time(program: &Program) -> bool {
    program.iter().any(|step| {
        matches!(step.action, Action::Work(_) | Action::Wait(_))
            || crate::file::keyspace::inner(step).into_iter().any(takes_time)
    })
}

/// The fault in words: `slow db by 5x`.
fn text(filled: &Filled, lead: &str) -> String {
    let value = filled.get(lead);
    let mut text = match lead {
        "crash_between" => {
            let steps: Vec<&str> = value.list().iter().map(Filled::text).collect();
            format!("crash between {}", steps.join(" and "))
        }
        "down" => format!("{} down", value.text()),
        _ => format!("{lead} {}", value.text()),
    };
    for key in ["by", "to", "of"] {
        if let Some(value) = filled.maybe(key) {
            text.push_str(&format!(" {key} {}", value.text()));
        }
    }
    if let Some(share) = filled.maybe("share") {
        text.push_str(&format!(" for {}", share.text()));
    }
    text
}
