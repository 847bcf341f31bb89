//! `experiments:` — questions put to the system.

use super::decode::Decoder;
use super::expectation::EXPECTATION;
use super::fault::FAULT;
use super::filled::{Filled, Value};
use super::quantity::{COUNT, DURATION, DURATION_OR_ZERO, LOAD, NAME, RATE};
use super::table::{Kind, MapKey, Object, required, value};
use crate::system::{Arrivals, Experiment, Load, System};

pub(crate) static EXPERIMENT: Object = Object {
    name: "experiment",
    doc: "A question put to the system: a load, what goes wrong, and what should hold.",
    groups: &[&[
        value("for", Kind::Scalar(&DURATION), "60s", "a minute", "Length of the measured part."),
        value(
            "warmup",
            Kind::Scalar(&DURATION_OR_ZERO),
            "5s",
            "caches and pools fill within seconds",
            "Time before it, not counted. Fault times count from its end.",
        ),
        value(
            "load",
            Kind::Map { key: &MapKey { what: "a client's name", scalar: &NAME }, value: &LOADS },
            "{}",
            "as the clients say",
            "Load that replaces a client's own: `300/s`, a ramp `100/s..600/s`, steps `[100/s, 200/s]`, or `{ users: 500 }` for a closed loop.",
        ),
        value("faults", Kind::List(&Kind::Choice(&FAULT)), "[]", "nothing", "What goes wrong."),
        value(
            "expect",
            Kind::List(&Kind::Scalar(&EXPECTATION)),
            "[]",
            "the objectives",
            "What should hold: a metric, perhaps a phase, and a bound.",
        ),
    ]],
};

static LOADS: Kind = Kind::Or(&[Kind::Scalar(&LOAD), Kind::List(&Kind::Scalar(&RATE)), Kind::Object(&USERS)]);

static USERS: Object = Object {
    name: "users_load",
    doc: "The load of a closed loop.",
    groups: &[&[required("users", Kind::Scalar(&COUNT), "Users.")]],
};

impl Decoder<'_> {
    pub(super) fn experiments(&mut self, root: &Filled, system: &System) -> Vec<Experiment> {
        let mut experiments = Vec::new();
        for (key, filled) in root.get("experiments").map() {
            let duration = filled.get("for").nanos();
            let mut load = Vec::new();
            for (client, value) in filled.get("load").map() {
                let Some(id) = self.client_named(client.at, &client.text) else { continue };
                let Some(decoded) = self.load(value) else { continue };
                let closed =
                    system.clients.get(id.index()).is_some_and(|c| matches!(c.arrivals, Arrivals::Closed { .. }));
                let problem = match (&decoded, closed) {
                    (Load::Users(_), false) => Some("is an open loop, whose load is a rate"),
                    (Load::Users(_), true) | (_, false) => None,
                    (_, true) => Some("is a closed loop, whose load is `{ users: N }`"),
                };
                if let Some(problem) = problem {
                    self.report.at(value.at, format!("`{}` {problem}", client.text));
                }
                load.push((id, decoded));
            }
            let faults = filled.get("faults").list().iter();
            let faults = faults.filter_map(|fault| self.fault(fault, duration, &system.services)).collect();
            let expect = filled.get("expect").list().iter();
            let expect = expect.filter_map(|expectation| self.expectation(expectation)).collect();
            experiments.push(Experiment {
                name: key.text.clone(),
                duration,
                warmup: filled.get("warmup").nanos(),
                load,
                faults,
                expect,
                line: key.at.line,
            });
        }
        experiments
    }

    fn load(&mut self, value: &Filled) -> Option<Load> {
        match &value.value {
            Value::List(rates) if rates.is_empty() => {
                self.report.at(value.at, "steps need at least one rate".to_owned());
                None
            }
            Value::List(rates) => Some(Load::Steps(rates.iter().map(Filled::number).collect())),
            Value::Object(_) => Some(Load::Users(value.get("users").count())),
            _ => value.load(),
        }
    }
}
