//! Reading a run's figures, and what each of them means.

use plimsoll_model::run::{Figure, Run, SubjectKind, SubjectRun};

use crate::number::{millis, percent, rate, significant};

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// It says something, but neither way is better in itself.
    Neither,
}

/// What a figure's number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Share,
    Millis,
    Count,
}

impl Unit {
    /// A value in this unit, as text.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Unit::PerSecond => rate(value),
            Unit::Share => percent(value),
            Unit::Millis => millis(value),
            Unit::Count => significant(value, 3),
        }
    }
}

/// A figure's label, unit, direction and meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
    pub(crate) text: &'static str,
}

macro_rules! meanings {
    ($($name:literal, $label:literal, $unit:ident, $better:ident, $text:literal;)*) => {
        /// Every figure that a run can hold, in the order in which they are shown.
        pub(crate) const MEANINGS: &[Meaning] = &[$(Meaning {
            name: $name, label: $label, unit: Unit::$unit, better: Better::$better, text: $text,
        },)*];
    };
}

meanings! {
    "goodput_per_s", "goodput", PerSecond, Higher,
        "Requests answered well, a second. Errors, rejections and timeouts don't count.";
    "offered_per_s", "offered load", PerSecond, Neither,
        "Requests that were asked for, a second, whether or not they were answered.";
    "errors", "errors", Share, Lower,
        "Share of requests that failed: answered with an error, rejected, reset, or timed out.";
    "rejected", "rejected", Share, Lower,
        "Share of requests that a policy or a full queue turned away. They are part of the errors.";
    "latency_ms_mean", "mean latency", Millis, Lower,
        "Mean time from when a request was due until its answer, failures included. It hides the tail.";
    "latency_ms_p50", "p50", Millis, Lower,
        "Half of the requests took at most this long, from when they were due, failures included.";
    "latency_ms_p95", "p95", Millis, Lower,
        "95% of the requests took at most this long; 1 in 20 took longer.";
    "latency_ms_p99", "p99", Millis, Lower,
        "99% of the requests took at most this long; 1 in 100 took longer.";
    "latency_ms_p999", "p99.9", Millis, Lower,
        "99.9% of the requests took at most this long; 1 in 1,000 took longer.";
    "latency_ms_max", "max", Millis, Lower,
        "The longest time that any request took. It grows with the length of a run.";
    "utilization", "utilization", Share, Neither,
        "Share of a resource that is busy, on average: workers, cores or connections. Waiting grows steeply above about 80%.";
    "queue_mean", "queue", Count, Lower,
        "Mean number of requests that wait for a resource.";
    "queue_max", "longest queue", Count, Lower,
        "The most requests that waited at once.";
    "in_flight_mean", "in flight", Count, Neither,
        "Mean number of requests that are in a component at once, waiting or being served.";
    "amplification", "amplification", Count, Lower,
        "Attempts for each request: 1 without retries. Retries of retries multiply.";
    "hits", "cache hits", Share, Higher,
        "Share of lookups that a cache answered.";
    "trips", "breaker trips", Count, Lower,
        "Times that a circuit breaker opened and turned calls away at once.";
    "coalesced", "coalesced calls", Count, Neither,
        "Calls that another call's answer was for too.";
    "ejections", "ejections", Count, Lower,
        "Times that an instance was taken out of rotation because its calls failed.";
    "backlog_max", "largest backlog", Count, Lower,
        "The most messages that waited in a topic.";
    "replica_age_ms_mean", "age of a replica", Millis, Lower,
        "How much older what a replica shows is than what its primary has acknowledged, by a row that changes 20 times a second.";
    "replica_age_ms_max", "largest age of a replica", Millis, Lower,
        "The most that it was.";
}

/// What the figure of this name means; none for a name that this program does not know.
pub(crate) fn meaning(name: &str) -> Option<&'static Meaning> {
    MEANINGS.iter().find(|meaning| meaning.name == name)
}

/// A figure's value in its unit; the unit is guessed from a name that is not known.
pub(crate) fn show(name: &str, value: f64) -> String {
    unit(name).show(value)
}

/// The unit of the figure of this name.
pub(crate) fn unit(name: &str) -> Unit {
    match meaning(name) {
        Some(meaning) => meaning.unit,
        None if name.ends_with("_per_s") => Unit::PerSecond,
        None if name.contains("_ms") => Unit::Millis,
        None => Unit::Count,
    }
}

/// A percentile of the response time, ms: the mean over replications, or that of all requests
/// together where the run has no such figure.
pub(crate) fn percentile_ms(subject: &SubjectRun, name: &str, percentile: f64) -> f64 {
    match subject.figure(name) {
        Some(figure) => figure.mean,
        None if subject.latency.count() == 0 => f64::NAN,
        None => subject.latency.percentile_ms(percentile),
    }
}

/// A share of what a subject was offered: its figure, or the quotient of its totals.
pub(crate) fn share(subject: &SubjectRun, name: &str, part: u64) -> f64 {
    match subject.figure(name) {
        Some(figure) => figure.mean,
        None => crate::number::ratio(part as f64, subject.totals.offered as f64),
    }
}

/// The interval of a figure as text, in its unit: `298 to 300/s`; none if it has no width or is
/// not known.
pub(crate) fn spread(figure: &Figure) -> Option<String> {
    let shown = |value: f64| show(&figure.name, value);
    let (low, high) = (shown(figure.low), shown(figure.high));
    let known = figure.low.is_finite() && figure.high.is_finite();
    if !known || figure.low == figure.high {
        return None;
    }
    // The unit is said once, where both ends have the same.
    let ends = match (split_unit(&low), split_unit(&high)) {
        ((number, one), (_, other)) if one == other => format!("{number} to {high}"),
        _ => format!("{low} to {high}"),
    };
    Some(ends)
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | ',' | '-')).unwrap_or(text.len());
    text.split_at(end)
}

/// Those who ask, as a run measured them: all, each client, each endpoint.
pub(crate) fn callers(run: &Run) -> Vec<&SubjectRun> {
    let mut subjects: Vec<&SubjectRun> = run
        .subjects
        .iter()
        .filter(|s| matches!(s.kind, SubjectKind::All | SubjectKind::Client | SubjectKind::Endpoint))
        .collect();
    subjects.sort_by_key(|subject| subject.kind);
    let clients = subjects.iter().filter(|s| s.kind == SubjectKind::Client).count();
    if clients == 1 && subjects.iter().any(|s| s.kind == SubjectKind::All) {
        // The only client says what all of them say.
        subjects.retain(|subject| subject.kind != SubjectKind::Client);
    }
    subjects
}

/// Every component with a utilization, and each of its utilizations.
pub(crate) fn utilizations(run: &Run) -> Vec<(&SubjectRun, &Figure)> {
    run.subjects
        .iter()
        .filter(|subject| !matches!(subject.kind, SubjectKind::Instance))
        .flat_map(|subject| {
            subject.figures.iter().filter(|figure| figure.name == "utilization").map(move |figure| (subject, figure))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_say_their_unit_once() {
        let figure = |name: &str, low, high| Figure {
            name: name.into(),
            detail: None,
            mean: 0.0,
            low,
            high,
            samples: Vec::new(),
        };
        assert_eq!(spread(&figure("goodput_per_s", 298.2, 300.4)).as_deref(), Some("298 to 300/s"));
        assert_eq!(spread(&figure("latency_ms_p99", 980.0, 1010.0)).as_deref(), Some("980 ms to 1.01 s"));
        assert_eq!(spread(&figure("errors", 0.0, 0.0)), None);
        assert_eq!(spread(&figure("errors", f64::NAN, 0.1)), None);
    }
}
