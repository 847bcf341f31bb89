//! Expectations: `p(99, edge GET /notes) during fault < 2s`

use super::decode::Decoder;
use super::filled::Filled;
use super::quantity::{Quantity, Wrong, duration, number, share};
use super::suggest;
use super::table::{Json, Scalar};
use super::tree::{Span, shorten};
use crate::system::{Bound, Component, Expectation, Metric, MetricTarget, Phase, Subject};

pub(crate) static EXPECTATION: Scalar = Scalar {
    what: "an expectation",
    example: "errors < 0.1%` or `p(95, edge GET /notes) during fault < 100ms",
    pattern: r"^[a-z_]+ *(\(.+\))? *((before|during|after) fault|at end)? *((<|<=|>|>=|==?) *[^ ]+|between [^ ]+ and [^ ]+)$",
    json: Json::String,
    parse: |text| match (text.matches('(').count(), text.matches(')').count()) {
        (open, close) if open > close => Err(Wrong {
            why: "a parenthesis is open".to_owned(),
            help: Some(
                "within `[ ]` a comma ends an item: put expectations with commas on lines of their own, or in quotes"
                    .to_owned(),
            ),
        }),
        _ => Ok(Quantity::Text),
    },
};

/// What a metric's value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Share,
    Duration,
    Rate,
    Number,
}

/// What a metric is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Requests,
    Percentile,
    Component,
    Instance,
    Store,
    Topic,
    Edge,
    Service,
}

pub(crate) struct MetricRow {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    about: About,
    pub(crate) doc: &'static str,
}

const fn row(name: &'static str, unit: Unit, about: About, doc: &'static str) -> MetricRow {
    MetricRow { name, unit, about, doc }
}

pub(crate) static METRICS: &[MetricRow] = &[
    row("errors", Unit::Share, About::Requests, "Share of requests that failed."),
    row("success", Unit::Share, About::Requests, "Share of requests that were answered well."),
    row("goodput", Unit::Rate, About::Requests, "Requests answered well, a second."),
    row(
        "p",
        Unit::Duration,
        About::Percentile,
        "Percentile of the response time, failures included: `p(95)`, `p(99, edge GET /notes)`.",
    ),
    row("mean", Unit::Duration, About::Requests, "Mean response time."),
    row("gap", Unit::Duration, About::Requests, "Longest time without a successful answer."),
    row("degraded", Unit::Share, About::Requests, "Share of answers that a fallback gave."),
    row("amplification", Unit::Number, About::Component, "Attempts over calls, of a client or on an edge."),
    row(
        "share",
        Unit::Share,
        About::Instance,
        "Share of its service's requests that an instance answered: `share(api/1)`.",
    ),
    row("utilization", Unit::Share, About::Component, "Busy share of what limits a component."),
    row("queue", Unit::Number, About::Component, "Mean number waiting."),
    row(
        "rejected",
        Unit::Share,
        About::Component,
        "Requests that a component or edge turned away, as a share of those it was offered.",
    ),
    row(
        "stale_reads",
        Unit::Share,
        About::Store,
        "Share of reads that were older than the session's own writes or the last commit.",
    ),
    row("lost_writes", Unit::Number, About::Component, "Acknowledged writes that were lost."),
    row("duplicates", Unit::Number, About::Component, "Effects that happened twice."),
    row("backlog", Unit::Number, About::Topic, "Messages waiting."),
    row("dead_letters", Unit::Number, About::Topic, "Messages set aside."),
    row("trips", Unit::Number, About::Edge, "Times that breakers on an edge opened: `trips(api -> db)`."),
    row("ejections", Unit::Number, About::Edge, "Ejections of a service's instances by an edge."),
    row("hits", Unit::Share, About::Store, "Share of lookups that a cache answered."),
    row("instances", Unit::Number, About::Service, "Instances in service at the phase's end."),
];

impl Decoder<'_> {
    pub(super) fn expectation(&mut self, filled: &Filled) -> Option<Expectation> {
        if filled.is_bad() {
            return None;
        }
        let text = filled.text();
        // Where a piece of the text stands, counted in characters.
        let place = |piece: &str| {
            let offset = piece.as_ptr() as usize - text.as_ptr() as usize;
            filled.at.part(text[..offset].chars().count(), piece.chars().count())
        };
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let Some(row) = METRICS.iter().find(|row| row.name == name) else {
            let known: Vec<&str> = METRICS.iter().map(|row| row.name).collect();
            let help = suggest::nearest(name, known.iter().copied()).map_or_else(
                || format!("there is {}", suggest::quoted(&known, "and")),
                |name| format!("did you mean `{name}`?"),
            );
            self.report.at(place(name), format!("there is no metric `{}`", shorten(name))).help(help);
            return None;
        };
        let rest = rest.trim_start();
        let (argument, rest) = match rest.strip_prefix('(') {
            None => (None, rest),
            Some(inner) => match inner.find(')') {
                Some(close) => (Some(inner[..close].trim()), inner[close + 1..].trim_start()),
                None => (None, rest),
            },
        };
        let metric = self.metric(row, argument, &place, filled.at);
        let (phase, rest) = phase(rest);
        let bound = match bound(rest, row.unit) {
            Ok(bound) => Some(bound),
            Err(wrong) => {
                let at = if rest.is_empty() { filled.at } else { place(rest) };
                let problem = self.report.at(at, wrong.why);
                problem.help = wrong.help;
                None
            }
        };
        Some(Expectation { metric: metric?, phase, bound: bound?, text: text.to_owned(), line: filled.at.line })
    }

    fn metric(
        &mut self,
        row: &MetricRow,
        argument: Option<&str>,
        place: &dyn Fn(&str) -> Span,
        whole: Span,
    ) -> Option<Metric> {
        let at = argument.filter(|argument| !argument.is_empty()).map_or(whole, place);
        let subject = |decoder: &mut Self, text: Option<&str>| match text {
            None => Some(Subject::All),
            Some(text) => decoder.subject(place(text), text),
        };
        if row.about == About::Requests {
            let subject = subject(self, argument)?;
            return Some(match row.name {
                "errors" => Metric::Errors(subject),
                "success" => Metric::Success(subject),
                "goodput" => Metric::Goodput(subject),
                "mean" => Metric::Mean(subject),
                "gap" => Metric::Gap(subject),
                _ => Metric::Degraded(subject),
            });
        }
        let Some(argument) = argument.filter(|argument| !argument.is_empty()) else {
            // A file with one client may leave it out where the client is meant.
            if row.name == "amplification" && self.names.clients.len() == 1 {
                return Some(Metric::Amplification(MetricTarget::Component(Component::Client(0.into()))));
            }
            let example = match row.about {
                About::Percentile => "p(95)",
                About::Instance => "share(api/1)",
                About::Edge => "trips(api -> db)",
                _ => "utilization(db)",
            };
            self.report.at(whole, format!("`{}` needs to know what it is about, as in `{example}`", row.name));
            return None;
        };
        match row.about {
            About::Requests => None,
            About::Percentile => {
                let (percentile, of) = match argument.split_once(',') {
                    Some((percentile, of)) => (percentile.trim(), Some(of.trim())),
                    None => (argument, None),
                };
                match number(percentile) {
                    Ok(percentile) if percentile > 0.0 && percentile <= 100.0 => {
                        Some(Metric::Percentile(percentile, subject(self, of)?))
                    }
                    _ => {
                        let found = format!("`{}`", shorten(percentile));
                        self.report.mismatch(at, "a percentile above 0, up to 100, such as `99.9`", &found, None);
                        None
                    }
                }
            }
            About::Component => {
                let target = self.metric_target(at, argument)?;
                Some(match row.name {
                    "amplification" => Metric::Amplification(target),
                    "utilization" => Metric::Utilization(target),
                    "queue" => Metric::Queue(target),
                    "rejected" => Metric::Rejected(target),
                    "lost_writes" => Metric::LostWrites(target),
                    _ => Metric::Duplicates(target),
                })
            }
            About::Instance => match argument.split_once('/') {
                Some((name, number)) => {
                    let (component, index) = self.instance(at, name, number)?;
                    Some(Metric::Share(component, index))
                }
                None => {
                    let found = format!("`{}`", shorten(argument));
                    self.report.mismatch(at, "an instance such as `api/1`", &found, None);
                    None
                }
            },
            About::Store => {
                let store = self.store_named(at, argument)?;
                let fits = if row.name == "hits" { self.is_redis(store) } else { !self.is_redis(store) };
                if !fits {
                    self.report.at(at, format!("`{}` has no meaning for `{argument}`", row.name));
                }
                Some(if row.name == "hits" { Metric::Hits(store) } else { Metric::StaleReads(store) })
            }
            About::Topic => {
                let topic = self.named(at, argument, "topic", |component| match component {
                    Component::Topic(id) => Some(id),
                    _ => None,
                })?;
                Some(if row.name == "backlog" { Metric::Backlog(topic) } else { Metric::DeadLetters(topic) })
            }
            About::Edge => match argument.split_once("->") {
                Some((from, to)) => {
                    let edge = self.edge_between(at, from.trim(), to.trim())?;
                    Some(if row.name == "trips" { Metric::Trips(edge) } else { Metric::Ejections(edge) })
                }
                None => {
                    let found = format!("`{}`", shorten(argument));
                    self.report.mismatch(at, "an edge such as `api -> db`", &found, None);
                    None
                }
            },
            About::Service => {
                let service = self.named(at, argument, "service", |component| match component {
                    Component::Service(id) => Some(id),
                    _ => None,
                })?;
                Some(Metric::Instances(service))
            }
        }
    }
}

/// The phase, if the text starts with one, and the rest.
fn phase(text: &str) -> (Phase, &str) {
    let phases = [
        ("before fault", Phase::Before),
        ("during fault", Phase::During),
        ("after fault", Phase::After),
        ("at end", Phase::End),
    ];
    for (words, phase) in phases {
        if let Some(rest) = text.strip_prefix(words) {
            return (phase, rest.trim_start());
        }
    }
    (Phase::Whole, text)
}

fn bound(text: &str, unit: Unit) -> Result<Bound, Wrong> {
    let wrong = |why: String| Err(Wrong { why, help: None });
    if let Some(rest) = text.strip_prefix("between ") {
        let Some((low, high)) = rest.split_once(" and ") else {
            return wrong("`between` needs two values, as in `between 45% and 55%`".to_owned());
        };
        let (low, high) = (measure(low.trim(), unit)?, measure(high.trim(), unit)?);
        if low > high {
            return wrong("the first value is above the second".to_owned());
        }
        return Ok(Bound::Between(low, high));
    }
    type Make = fn(f64) -> Bound;
    let signs: [(&str, Make); 6] = [
        ("<=", Bound::AtMost),
        (">=", Bound::AtLeast),
        ("==", Bound::Equal),
        ("<", Bound::Below),
        (">", Bound::Above),
        ("=", Bound::Equal),
    ];
    for (sign, make) in signs {
        if let Some(value) = text.strip_prefix(sign) {
            return Ok(make(measure(value.trim(), unit)?));
        }
    }
    if text.is_empty() {
        return wrong("the bound is missing, as in `< 100ms`".to_owned());
    }
    let found = shorten(text);
    Err(Wrong {
        why: format!("expected a phase or a bound such as `< 100ms` or `between 45% and 55%`, found `{found}`"),
        help: Some("phases are `before fault`, `during fault`, `after fault` and `at end`".to_owned()),
    })
}

/// A metric's value in its own unit: shares from 0 to 1, ns, a second.
fn measure(text: &str, unit: Unit) -> Result<f64, Wrong> {
    if text.is_empty() {
        return Err(Wrong { why: "the value of the bound is missing".to_owned(), help: None });
    }
    let (value, expected) = match unit {
        // Nothing of something needs no unit.
        _ if text == "0" => (Ok(0.0), ""),
        Unit::Share => (share(text), "a percentage such as `0.1%`"),
        Unit::Duration => (duration(text).map(|ns| ns as f64), "a duration such as `100ms`"),
        Unit::Number => (number(text.strip_suffix('x').unwrap_or(text)), "a number such as `3`"),
        Unit::Rate => match (super::quantity::RATE.parse)(text) {
            Ok(Quantity::Rate(rate)) => (Ok(rate), ""),
            Ok(_) => (Ok(0.0), ""),
            Err(wrong) => (Err(wrong), "a rate such as `290/s`"),
        },
    };
    value.map_err(|wrong| Wrong {
        why: format!("expected {expected}, found `{}`: {}", shorten(text), wrong.why),
        help: wrong.help,
    })
}
