//! From what was measured to a run, as the simulation has it: so that one report shows both.

use plimsoll_model::run::{
    FaultPhase, FaultSpan, Figure, GivesWay, Histogram, PhaseRun, Run, Series, SubjectKind, SubjectRun, Totals, Unit,
    Verdict, World, bound_words,
};
use plimsoll_model::system::{
    Balancer, Component, ConsumerId, EdgeId, Expectation, Experiment, LeaseId, Metric, MetricTarget, Phase, ServiceId,
    StoreId, Subject, System, TopicId,
};

use crate::emulated::balancer;
use crate::layout::nodes;
use crate::measure::Cuts;
use crate::measure::metric::Measured;
use crate::measure::parts::{Parts, Second};
use crate::measure::requests::Requests;
use crate::names;
use crate::stack::stands_for;
use crate::tally::{Delta, Of};

/// Everything that a run left behind.
pub(crate) struct Gathered<'g> {
    pub(crate) system: &'g System,
    pub(crate) experiment: &'g Experiment,
    pub(crate) cuts: &'g Cuts,
    pub(crate) requests: &'g Requests,
    pub(crate) parts: &'g Parts,
    pub(crate) slots: &'g [u32],
    pub(crate) members: &'g [u32],
    pub(crate) seed: u64,
    pub(crate) partial: bool,
    /// When it ended, ns from the start of the load.
    pub(crate) ended: u64,
    pub(crate) warnings: Vec<String>,
    /// The share of requests that were late for want of a processor, if that is too large.
    pub(crate) starved: Option<f64>,
}

/// A run in which nothing has happened yet.
pub(crate) fn empty(system: &System, experiment: &Experiment, cuts: &Cuts, seed: u64) -> Run {
    Run {
        format: Run::FORMAT,
        plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
        system: system.name.clone(),
        system_hash: format!("{:016x}", system.hash),
        experiment: experiment.name.clone(),
        world: World::Real,
        seed,
        replications: 1,
        warmup_ns: cuts.warmup,
        duration_ns: experiment.duration,
        ready_ns: None,
        balancer: balancer(system),
        partial: true,
        invalid: None,
        subjects: Vec::new(),
        faults: Vec::new(),
        events: Vec::new(),
        verdicts: Vec::new(),
        bottlenecks: Vec::new(),
        warnings: Vec::new(),
    }
}

/// Who stands for the gateways, where it is not all Plimsoll's own.
fn balancer(system: &System) -> Option<String> {
    let gateways = system.services.iter().filter(|service| service.is_gateway() && service.run.is_none());
    let mut names: Vec<&str> = gateways.map(|service| balancer::name(stands_for(service))).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty() && names != [balancer::name(Balancer::Plimsoll)]).then(|| names.join(", "))
}

/// The run.
pub(crate) fn assemble(gathered: &Gathered<'_>) -> Run {
    let Gathered { system, experiment, cuts, requests, parts, .. } = gathered;
    let measured = Measured { system, cuts, requests, parts, slots: gathered.slots, members: gathered.members };
    let whole = cuts.phase(Phase::Whole);
    let worst = cuts.phase(if experiment.faults.is_empty() { Phase::Whole } else { Phase::During });
    let mut run = empty(system, experiment, cuts, gathered.seed);
    run.partial = gathered.partial;
    run.subjects = subjects(&measured, whole);
    run.faults = experiment
        .faults
        .iter()
        .map(|fault| FaultSpan { text: fault.text.clone(), at_ns: fault.at, until_ns: fault.until })
        .collect();
    run.events = parts.events.clone();
    run.events.sort_by_key(|event| event.at_ns);
    run.verdicts = experiment.expect.iter().map(|expectation| verdict(&measured, expectation)).collect();
    run.bottlenecks = bottlenecks(&measured, worst);
    if requests.unfinished > 0 {
        let (unfinished, made) = (requests.unfinished, requests.made);
        let since = gathered.ended.saturating_sub(cuts.ends.last().copied().unwrap_or(0)) / 1_000_000_000;
        run.warnings.push(match gathered.partial {
            true => format!("{unfinished} of {made} requests were under way when the run was interrupted"),
            false => format!(
                "{unfinished} of {made} requests had not ended {since} s after the run's end; they count as failed"
            ),
        });
    }
    run.warnings.extend(gathered.warnings.iter().cloned());
    run.warnings.push("one run on one machine: figures have no confidence intervals".to_owned());
    run
}

/// Why the measurement says nothing about the system: the load was late although it had connections to send on, or
/// because it had no processor.
pub(crate) fn invalid(gathered: &Gathered<'_>) -> Option<String> {
    let requests = gathered.requests;
    let cell = requests.over(Subject::All, gathered.cuts.phase(Phase::Whole));
    let lag = cell.lag.percentile_ms(99.0);
    let limit = LAG_MAX_MS.max(cell.all.percentile_ms(99.0) * LAG_SHARE_MAX);
    let late = requests.late as f64 / requests.made.max(1) as f64;
    if let Some(share) = gathered.starved.filter(|_| lag > limit) {
        return Some(format!(
            "{:.0}% of requests were sent late, 1% of all {lag:.0} ms or more, while the processors had nothing left: \
             the figures say how busy this machine is",
            share * 100.0
        ));
    }
    (lag > limit && late > 0.01).then(|| {
        format!(
            "1% of requests were sent {lag:.0} ms or more after they were due, while connections were idle: this \
             machine cannot make that load in time"
        )
    })
}

/// Lateness that is never too much, ms, and the share of the 99th percentile of the response time that is not either.
const LAG_MAX_MS: f64 = 20.0;
const LAG_SHARE_MAX: f64 = 0.25;

struct Figures(Vec<Figure>);

impl Figures {
    fn push(&mut self, name: &str, detail: Option<&str>, value: f64) {
        self.0.push(Figure {
            name: name.to_owned(),
            detail: detail.map(str::to_owned),
            mean: value,
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            samples: vec![value],
        });
    }
}

fn subjects(measured: &Measured<'_>, segments: &[usize]) -> Vec<SubjectRun> {
    let system = measured.system;
    let mut out = Vec::new();
    for who in measured.requests.audiences() {
        let (kind, name) = match who {
            Subject::All => (SubjectKind::All, "all".to_owned()),
            Subject::Client(id) => (SubjectKind::Client, system.clients[id.index()].name.clone()),
            Subject::Endpoint(id) => (SubjectKind::Endpoint, system.endpoint_name(id)),
        };
        out.push(audience(measured, segments, who, kind, name));
    }
    let mut part = |kind, name: String, target: MetricTarget, of: Vec<Of>| {
        out.push(part_run(measured, segments, kind, name, target, &of));
    };
    for (at, service) in system.services.iter().enumerate() {
        let component = Component::Service(ServiceId::from(at));
        let all: Vec<Of> = measured.instances(at as u32).collect();
        part(SubjectKind::Service, service.name.clone(), MetricTarget::Component(component), all.clone());
        for (number, of) in all.into_iter().enumerate() {
            if number as u32 >= service.instances && !measured.parts.segments.contains_key(&of) {
                continue;
            }
            let name = names::instance(system, at as u32, number as u32);
            part(SubjectKind::Instance, name, MetricTarget::Instance(component, number as u32), vec![of]);
        }
    }
    for (at, store) in system.stores.iter().enumerate() {
        let component = Component::Store(StoreId::from(at));
        let all: Vec<Of> = measured.nodes(at as u32).chain([Of::Store(at as u32)]).collect();
        part(SubjectKind::Store, store.name.clone(), MetricTarget::Component(component), all);
        for node in 0..nodes(&store.kind) {
            let name = names::node(system, at as u32, node);
            let of = vec![Of::Node(at as u32, node)];
            part(SubjectKind::Node, name, MetricTarget::Instance(component, node), of);
        }
    }
    for at in 0..system.edges.len() {
        let edge = EdgeId::from(at);
        // Routes with policies of their own are edges of the same pair: one to those who read.
        if system.same_pair(edge).next() == Some(edge) && !matches!(system.edges[at].to, Component::Topic(_)) {
            let of = system.same_pair(edge).map(|edge| Of::Edge(edge.0)).collect();
            part(SubjectKind::Edge, system.edge_name(edge), MetricTarget::Edge(edge), of);
        }
    }
    for (at, topic) in system.topics.iter().enumerate() {
        let target = MetricTarget::Component(Component::Topic(TopicId::from(at)));
        part(SubjectKind::Topic, topic.name.clone(), target, vec![Of::Topic(at as u32)]);
    }
    for (at, consumer) in system.consumers.iter().enumerate() {
        let target = MetricTarget::Component(Component::Consumer(ConsumerId::from(at)));
        part(SubjectKind::Consumer, consumer.name.clone(), target, vec![Of::Consumer(at as u32)]);
    }
    for (at, lease) in system.leases.iter().enumerate() {
        let target = MetricTarget::Component(Component::Lease(LeaseId::from(at)));
        part(SubjectKind::Lease, lease.name.clone(), target, vec![Of::Lease(at as u32)]);
    }
    out
}

fn audience(measured: &Measured<'_>, segments: &[usize], who: Subject, kind: SubjectKind, name: String) -> SubjectRun {
    let length = measured.cuts.length(segments).max(1) as f64;
    let cell = measured.requests.over(who, segments);
    let mut figures = Figures(Vec::new());
    for (name, metric, scale) in Unit::audience(who) {
        figures.push(name, None, measured.value(&metric, segments) * scale);
    }
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let totals = cell.totals;
    figures.push("offered_per_s", None, totals.offered as f64 / length * 1e9);
    figures.push("rejected", None, share(totals.rejected, totals.offered));
    figures.push("degraded", None, share(totals.degraded, totals.ok));
    figures.push("amplification", None, 1.0 + share(totals.retries, totals.offered));
    figures.push("in_flight_mean", None, cell.area / length);
    if cell.lag.count() > 0 {
        figures.push("send_lag_ms_p50", None, cell.lag.percentile_ms(50.0));
        figures.push("send_lag_ms_p99", None, cell.lag.percentile_ms(99.0));
        figures.push("service_time_ms_p50", None, cell.service.percentile_ms(50.0));
        figures.push("service_time_ms_p99", None, cell.service.percentile_ms(99.0));
    }
    let seconds = measured.cuts.seconds();
    let mut sums: Vec<(Totals, Histogram, f64)> = vec![(Totals::default(), Histogram::new(), 0.0); seconds];
    for group in measured.requests.groups_of(who) {
        for (sum, second) in sums.iter_mut().zip(&group.seconds) {
            sum.0.add(&second.totals);
            sum.1.add(&second.times);
            sum.2 += second.area;
        }
    }
    let totals_of: Vec<Totals> = sums.iter().map(|(totals, ..)| *totals).collect();
    let mut series = counts(&totals_of);
    let column = |p: f64| sums.iter().map(|(_, times, _)| times.percentile_ms(p) as f32).collect();
    (series.p50_ms, series.p95_ms, series.p99_ms) = (column(50.0), column(95.0), column(99.0));
    series.in_flight = sums.iter().map(|(.., area)| (area / 1e9) as f32).collect();
    let phases = phases(measured, who);
    SubjectRun { kind, name, totals, figures: figures.0, latency: cell.all, latency_ok: cell.ok, series, phases }
}

/// What an audience saw before, during and after the faults.
fn phases(measured: &Measured<'_>, who: Subject) -> Vec<PhaseRun> {
    let all =
        [(FaultPhase::Before, Phase::Before), (FaultPhase::During, Phase::During), (FaultPhase::After, Phase::After)];
    let runs = all.into_iter().map(|(phase, of)| {
        let segments = measured.cuts.phase(of);
        let percentile = |p| measured.value(&Metric::Percentile(p, who), segments) / 1e6;
        let totals = measured.requests.over(who, segments).totals;
        PhaseRun { phase, totals, latency_ms_p50: percentile(50.0), latency_ms_p95: percentile(95.0) }
    });
    runs.filter(|run| run.totals.offered > 0).collect()
}

fn part_run(
    measured: &Measured<'_>,
    segments: &[usize],
    kind: SubjectKind,
    name: String,
    target: MetricTarget,
    of: &[Of],
) -> SubjectRun {
    let length = measured.cuts.length(segments).max(1) as f64;
    let sum: Delta = measured.parts.sum(of.iter().copied(), segments);
    let totals = sum.totals;
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let mut figures = Figures(Vec::new());
    figures.push("offered_per_s", None, totals.offered as f64 / length * 1e9);
    figures.push("goodput_per_s", None, totals.ok as f64 / length * 1e9);
    figures.push("errors", None, share(totals.failed, totals.offered));
    figures.push("rejected", None, share(totals.rejected, totals.offered));
    if kind == SubjectKind::Edge {
        let calls = totals.offered.saturating_sub(totals.retries);
        figures.push("amplification", None, if calls == 0 { 1.0 } else { totals.offered as f64 / calls as f64 });
    }
    if sum.latency.count() > 0 {
        figures.push("latency_ms_mean", None, sum.latency.mean_ms());
        for (name, p) in [("latency_ms_p50", 50.0), ("latency_ms_p95", 95.0), ("latency_ms_p99", 99.0)] {
            figures.push(name, None, sum.latency.percentile_ms(p));
        }
    }
    let busiest = measured.busiest(target, segments);
    for resource in measured.resources(target) {
        let is = busiest.is_some_and(|(busiest, _)| busiest.name == resource.name);
        let used = match busiest {
            Some((_, used)) if is => used,
            _ => measured.used(target, resource, segments),
        };
        figures.push(if is { "utilization" } else { "utilization_other" }, Some(resource.name), used);
    }
    let waiting = if matches!(kind, SubjectKind::Topic) { "backlog" } else { "queue" };
    if let Some((area, most)) = sum.levels.get(waiting) {
        figures.push("queue_mean", None, area / length);
        figures.push("queue_max", None, *most);
    }
    if let Some((area, _)) = sum.levels.get("in_flight") {
        figures.push("in_flight_mean", None, area / length);
    }
    if kind == SubjectKind::Edge {
        for name in ["trips", "ejections"] {
            figures.push(name, None, sum.extras.get(name).copied().unwrap_or(0.0));
        }
    }
    if let (SubjectKind::Node, Some((area, most))) = (kind, sum.levels.get("age_us")) {
        figures.push("replica_age_ms_mean", None, area / length / 1e3);
        figures.push("replica_age_ms_max", None, most / 1e3);
    }
    let extra = |name: &str| sum.extras.get(name).copied();
    if let (Some(hits), Some(lookups)) = (extra("hits"), extra("lookups")) {
        figures.push("hits", None, hits / lookups);
    }
    if let Some(dead) = extra("dead_letters") {
        figures.push("dead_letters", None, dead);
    }
    let series = series(measured, target, of, busiest.map(|(resource, _)| resource), waiting);
    let latency = sum.latency;
    let latency_ok = Histogram::new();
    SubjectRun { kind, name, totals, figures: figures.0, latency, latency_ok, series, phases: Vec::new() }
}

fn series(
    measured: &Measured<'_>,
    target: MetricTarget,
    of: &[Of],
    busiest: Option<crate::measure::metric::Resource>,
    waiting: &str,
) -> Series {
    let mut seconds: Vec<Second> = vec![Second::default(); measured.cuts.seconds()];
    let mut any = false;
    for all in of.iter().filter_map(|of| measured.parts.seconds.get(of)) {
        any = true;
        for (sum, second) in seconds.iter_mut().zip(all) {
            sum.totals.add(&second.totals);
            for (name, level) in &second.levels {
                *sum.levels.entry(name.clone()).or_default() += level;
            }
            for (name, count) in &second.extras {
                *sum.extras.entry(name.clone()).or_default() += count;
            }
        }
    }
    if !any {
        return Series::default();
    }
    let totals: Vec<Totals> = seconds.iter().map(|second| second.totals).collect();
    let mut series = counts(&totals);
    let level = |name: &str| -> Vec<f32> {
        let there = seconds.iter().any(|second| second.levels.contains_key(name));
        let of = |second: &Second| second.levels.get(name).copied().unwrap_or(0.0) as f32;
        if there { seconds.iter().map(of).collect() } else { Vec::new() }
    };
    series.queue = level(waiting);
    series.in_flight = level("in_flight");
    if let Some(resource) = busiest {
        let nodes = match target {
            MetricTarget::Component(Component::Store(_)) => of.len().saturating_sub(1).max(1) as f64,
            _ => 1.0,
        };
        let used = |second: &Second| match resource.name {
            "max_rate" => second.extras.get("busy_ns").copied().unwrap_or(0.0) / 1e9,
            "capacity" => second.levels.get("backlog").copied().unwrap_or(0.0),
            name => second.levels.get(name).copied().unwrap_or(0.0),
        };
        series.utilization =
            seconds.iter().map(|second| (used(second) / resource.capacity.max(1e-9) / nodes) as f32).collect();
    }
    series
}

fn counts(seconds: &[Totals]) -> Series {
    let column = |f: fn(&Totals) -> u64| seconds.iter().map(|totals| f(totals) as f32).collect();
    Series {
        offered: column(|totals| totals.offered),
        ok: column(|totals| totals.ok),
        failed: column(|totals| totals.failed),
        rejected: column(|totals| totals.rejected),
        ..Series::default()
    }
}

fn verdict(measured: &Measured<'_>, expectation: &Expectation) -> Verdict {
    let segments = measured.cuts.phase(expectation.phase);
    let value = measured.value(&expectation.metric, segments);
    let unit = Unit::of(&expectation.metric);
    let passed = expectation.bound.holds(value);
    let why = (!passed).then(|| match bottlenecks(measured, segments).first() {
        Some(first) if first.value > 0.85 => first.why.clone(),
        _ => format!("it should be {}", bound_words(expectation.bound, unit)),
    });
    Verdict {
        text: expectation.text.clone(),
        line: expectation.line,
        passed,
        measured: unit.words(value),
        value: unit.plain(value),
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
        why,
    }
}

/// What limited the system, most first: resources that were used up by a third at least.
fn bottlenecks(measured: &Measured<'_>, segments: &[usize]) -> Vec<GivesWay> {
    let system = measured.system;
    let mut all = Vec::new();
    let mut suspect = |name: String, target: MetricTarget, owner: &Option<String>| {
        let Some((resource, used)) = measured.busiest(target, segments).filter(|(_, used)| *used >= 0.3) else {
            return;
        };
        let why = format!("{name} has {:.0}% of its {} in use", used * 100.0, resource.name.replace('_', " "));
        let owner = owner.clone().or_else(|| system.owner.clone());
        all.push(GivesWay { component: name, resource: resource.name.to_owned(), value: used, why, owner });
    };
    for (at, service) in system.services.iter().enumerate() {
        let target = MetricTarget::Component(Component::Service(ServiceId::from(at)));
        suspect(service.name.clone(), target, &service.owner);
    }
    for (at, store) in system.stores.iter().enumerate() {
        let target = MetricTarget::Component(Component::Store(StoreId::from(at)));
        suspect(store.name.clone(), target, &store.owner);
    }
    for at in 0..system.edges.len() {
        let edge = EdgeId::from(at);
        if system.same_pair(edge).next() == Some(edge) {
            suspect(system.edge_name(edge), MetricTarget::Edge(edge), &None);
        }
    }
    for (at, topic) in system.topics.iter().enumerate() {
        let target = MetricTarget::Component(Component::Topic(TopicId::from(at)));
        suspect(topic.name.clone(), target, &topic.owner);
    }
    all.sort_by(|a, b| b.value.total_cmp(&a.value).then_with(|| a.component.cmp(&b.component)));
    all.truncate(5);
    all
}
