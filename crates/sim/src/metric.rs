//! The value of a metric in one replication, over the segments of a phase.

use plimsoll_model::run::Totals;
use plimsoll_model::system::{Component, Metric, MetricTarget, Subject};

use crate::collect::{Of, Sample};
use crate::measure::Times;
use crate::plan::Plan;

/// A metric's value; NaN where there is nothing to measure. Shares are from 0 to 1, durations in
/// ns, rates a second.
pub(crate) fn value(plan: &Plan, sample: &Sample, metric: &Metric, segments: &[usize]) -> f64 {
    let length = plan.length(segments);
    let seconds = length as f64 / 1e9;
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    match *metric {
        Metric::Errors(who) => {
            let totals = audience(plan, sample, who, segments).0;
            share(totals.offered - totals.ok, totals.offered)
        }
        Metric::Success(who) => {
            let totals = audience(plan, sample, who, segments).0;
            if totals.offered == 0 { 1.0 } else { share(totals.ok, totals.offered) }
        }
        Metric::Goodput(who) => audience(plan, sample, who, segments).0.ok as f64 / seconds,
        Metric::Percentile(p, who) => audience(plan, sample, who, segments).1.percentile(p),
        Metric::Mean(who) => audience(plan, sample, who, segments).1.mean(),
        Metric::Degraded(who) => {
            let totals = audience(plan, sample, who, segments).0;
            share(totals.degraded, totals.ok)
        }
        Metric::Gap(who) => {
            let at = audience_index(plan, who);
            segments.iter().map(|&s| sample.audiences[at].cells[s].gap).max().unwrap_or(0) as f64
        }
        Metric::Amplification(target) => {
            let totals = match target {
                MetricTarget::Component(Component::Client(id)) => {
                    let totals = audience(plan, sample, Subject::Client(id), segments).0;
                    return if totals.offered == 0 { 1.0 } else { 1.0 + share(totals.retries, totals.offered) };
                }
                MetricTarget::Edge(edge) => match sample.subject(Of::Edge(edge.0)) {
                    Some(subject) => subject.totals(segments),
                    None => return f64::NAN,
                },
                other => incoming(plan, sample, other, segments),
            };
            let calls = totals.offered - totals.retries;
            if calls == 0 { 1.0 } else { totals.offered as f64 / calls as f64 }
        }
        Metric::Share(component, number) => {
            let Component::Service(service) = component else {
                return node_share(sample, component, number, segments);
            };
            let of = |number| sample.subject(Of::Instance(service.0, number)).map_or(0, |s| s.totals(segments).ok);
            let all = sample.subject(Of::Component(component)).map_or(0, |s| s.totals(segments).ok);
            share(of(number), all)
        }
        Metric::Utilization(target) => subject_of(sample, target)
            .and_then(|subject| subject.utilization(segments, length))
            .map_or(f64::NAN, |(_, share)| share),
        Metric::Queue(target) => subject_of(sample, target)
            .and_then(|subject| subject.waiting.as_ref())
            .map_or(f64::NAN, |waiting| waiting.mean(segments, length)),
        Metric::Rejected(MetricTarget::Component(Component::Client(id))) => {
            let totals = audience(plan, sample, Subject::Client(id), segments).0;
            share(totals.rejected, totals.offered)
        }
        Metric::Rejected(target) => subject_of(sample, target).map_or(f64::NAN, |subject| {
            let totals = subject.totals(segments);
            share(totals.rejected, totals.offered)
        }),
        Metric::StaleReads(store) => component(sample, Component::Store(store)).map_or(f64::NAN, |subject| {
            let totals = subject.totals(segments);
            share(totals.stale, totals.ok)
        }),
        Metric::LostWrites(target) => totals_of(sample, target, segments).map_or(f64::NAN, |t| t.lost as f64),
        Metric::Duplicates(target) => totals_of(sample, target, segments).map_or(f64::NAN, |t| t.duplicates as f64),
        Metric::Backlog(topic) => component(sample, Component::Topic(topic))
            .and_then(|subject| subject.waiting.as_ref())
            .map_or(f64::NAN, |waiting| waiting.mean(segments, length)),
        Metric::DeadLetters(topic) => component(sample, Component::Topic(topic))
            .and_then(|subject| subject.extra("dead_letters", segments))
            .unwrap_or(f64::NAN),
        Metric::Trips(edge) => extra(sample, Of::Edge(edge.0), "trips", segments),
        Metric::Ejections(edge) => extra(sample, Of::Edge(edge.0), "ejections", segments),
        Metric::Hits(store) => {
            let of = Of::Component(Component::Store(store));
            extra(sample, of, "hits", segments) / extra(sample, of, "lookups", segments)
        }
        Metric::Instances(service) => component(sample, Component::Service(service))
            .and_then(|subject| subject.extras.iter().find(|(name, _)| *name == "instances"))
            .and_then(|(_, values)| segments.last().and_then(|&s| values.get(s)))
            .copied()
            .unwrap_or(f64::NAN),
    }
}

/// The position of an audience.
pub(crate) fn audience_index(plan: &Plan, who: Subject) -> usize {
    match who {
        Subject::All => 0,
        Subject::Client(id) => 1 + id.index(),
        Subject::Endpoint(id) => plan.endpoint_audience[plan.code.endpoint(id) as usize].unwrap_or(0) as usize,
    }
}

/// An audience's counts and response times over segments.
pub(crate) fn audience(plan: &Plan, sample: &Sample, who: Subject, segments: &[usize]) -> (Totals, Times) {
    let mut totals = Totals::default();
    let mut times = Times::new();
    for &segment in segments {
        let cell = &sample.audiences[audience_index(plan, who)].cells[segment];
        totals.add(&cell.totals);
        times.add(&cell.all);
    }
    (totals, times)
}

fn component(sample: &Sample, component: Component) -> Option<&crate::collect::Subject> {
    sample.subject(Of::Component(component))
}

fn subject_of(sample: &Sample, target: MetricTarget) -> Option<&crate::collect::Subject> {
    sample.subject(match target {
        MetricTarget::Component(component) => Of::Component(component),
        MetricTarget::Instance(Component::Service(service), number) => Of::Instance(service.0, number),
        MetricTarget::Instance(Component::Store(store), number) => Of::Node(store.0, number),
        MetricTarget::Instance(component, _) => Of::Component(component),
        MetricTarget::Edge(edge) => Of::Edge(edge.0),
    })
}

fn totals_of(sample: &Sample, target: MetricTarget, segments: &[usize]) -> Option<Totals> {
    subject_of(sample, target).map(|subject| subject.totals(segments))
}

/// What all edges to a component carry.
fn incoming(plan: &Plan, sample: &Sample, target: MetricTarget, segments: &[usize]) -> Totals {
    let mut sum = Totals::default();
    let MetricTarget::Component(component) = target else { return sum };
    for (e, _) in plan.system.edges.iter().enumerate().filter(|(_, edge)| edge.to == component) {
        if let Some(subject) = sample.subject(Of::Edge(e as u32)) {
            sum.add(&subject.totals(segments));
        }
    }
    sum
}

fn node_share(sample: &Sample, component: Component, number: u32, segments: &[usize]) -> f64 {
    let Component::Store(store) = component else { return f64::NAN };
    let of = |subject: &crate::collect::Subject| subject.totals(segments).ok as f64;
    let all: f64 = sample.subjects.iter().filter(|s| matches!(s.of, Of::Node(id, _) if id == store.0)).map(of).sum();
    sample.subject(Of::Node(store.0, number)).map_or(f64::NAN, |subject| of(subject) / all)
}

fn extra(sample: &Sample, of: Of, name: &str, segments: &[usize]) -> f64 {
    sample.subject(of).and_then(|subject| subject.extra(name, segments)).unwrap_or(f64::NAN)
}
