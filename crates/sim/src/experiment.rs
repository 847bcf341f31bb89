//! An experiment: replications until the figures are precise enough, and the run that they make.

use plimsoll_model::run::{
    Event, FaultPhase, FaultSpan, Figure, Histogram, PhaseRun, Run, Series, SubjectKind, SubjectRun, Totals, Unit,
    Verdict, World, bound_words,
};
use plimsoll_model::system::{Expectation, Metric, Phase, Subject as Who, System};

use crate::collect::{Sample, Subject};
use crate::gives_way::gives_way;
use crate::measure::Times;
use crate::metric;
use crate::plan::{Plan, Prepared, Scenario};
use crate::replicate::Runner;
use crate::stats::interval;

/// How many replications, and how precise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// Replications at least. Default: 10, below which Student's t makes intervals wide.
    pub least: u32,
    /// Replications at most. Default: 40.
    pub most: u32,
    /// Half the width of the 95% intervals of goodput and p95, relative to their means, at which
    /// it stops. Default: 5%.
    pub relative: f64,
}

impl Default for Precision {
    fn default() -> Self {
        Precision { least: 10, most: 40, relative: 0.05 }
    }
}

/// Replications between two looks at the precision. It must not depend on the number of threads, or
/// the result would.
const BATCH: u32 = 4;

/// Runs a scenario and judges expectations.
pub fn simulate(
    system: &System,
    scenario: &Scenario,
    expect: &[Expectation],
    precision: &Precision,
    runner: &Runner<'_>,
) -> Run {
    let plan = Plan::new(&Prepared::new(system), scenario, true);
    let mut samples: Vec<Sample> = Vec::new();
    while (samples.len() as u32) < precision.most && !runner.stopped() {
        let from = samples.len() as u32;
        let to = if from < precision.least { precision.least } else { (from + BATCH).min(precision.most) };
        let wanted = to - from;
        let done = std::sync::atomic::AtomicU32::new(0);
        let new = runner.run(&plan, from, to, |_, sample| {
            let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            (runner.progress)((from + done) as f64 / to as f64, &scenario.name);
            sample
        });
        let complete = new.len() as u32 == wanted;
        samples.extend(new);
        if !complete || (to >= precision.least && precise(&plan, &samples, precision.relative)) {
            break;
        }
    }
    let refs: Vec<&Sample> = samples.iter().collect();
    let mut run = assemble(&plan, scenario, &refs, runner.seed);
    run.partial = runner.stopped();
    run.verdicts = expect.iter().map(|expectation| verdict(&plan, &refs, expectation)).collect();
    run
}

/// Whether goodput and p95 are known well enough.
fn precise(plan: &Plan, samples: &[Sample], relative: f64) -> bool {
    let segments = plan.segments(Phase::Whole);
    [Metric::Goodput(Who::All), Metric::Percentile(95.0, Who::All)].iter().all(|metric| {
        let values: Vec<f64> = samples.iter().map(|sample| metric::value(plan, sample, metric, segments)).collect();
        let i = interval(&values, 0.95);
        !i.mean.is_finite() || i.mean == 0.0 || (i.high - i.low) / 2.0 <= relative * i.mean
    })
}

/// The run that replications of one scenario make.
pub(crate) fn assemble(plan: &Plan, scenario: &Scenario, samples: &[&Sample], seed: u64) -> Run {
    let segments = plan.segments(Phase::Whole);
    let mut warnings = Vec::new();
    let unfinished: u64 = samples.iter().map(|sample| sample.unfinished).sum();
    let requests: u64 = samples.iter().map(|sample| sample.requests).sum();
    if unfinished > 0 {
        warnings.push(format!(
            "{unfinished} of {requests} requests had not ended {} s after the run's end; they count as failed",
            plan.drain / 1_000_000_000
        ));
    }
    if samples.len() == 1 {
        warnings.push("one replication: figures have no confidence intervals".to_owned());
    }
    let worst = if scenario.faults.is_empty() { Phase::Whole } else { Phase::During };
    Run {
        format: Run::FORMAT,
        plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
        system: plan.system.name.clone(),
        system_hash: format!("{:016x}", plan.system.hash),
        experiment: scenario.name.clone(),
        world: World::Virtual,
        seed,
        replications: samples.len() as u32,
        warmup_ns: plan.warmup,
        ready_ns: None,
        balancer: None,
        invalid: None,
        duration_ns: plan.duration,
        partial: false,
        subjects: subjects(plan, samples, segments),
        faults: scenario
            .faults
            .iter()
            .map(|fault| FaultSpan { text: fault.text.clone(), at_ns: fault.at, until_ns: fault.until })
            .collect(),
        events: samples.first().map(|sample| events(sample)).unwrap_or_default(),
        verdicts: Vec::new(),
        bottlenecks: gives_way(plan, samples, plan.segments(worst)),
        warnings,
    }
}

fn events(sample: &Sample) -> Vec<Event> {
    sample
        .log
        .iter()
        .map(|event| Event {
            at_ns: event.at,
            kind: event.kind,
            subject: event.subject.clone(),
            text: event.text.clone(),
        })
        .collect()
}

fn subjects(plan: &Plan, samples: &[&Sample], segments: &[usize]) -> Vec<SubjectRun> {
    let system = &plan.system;
    let mut out = Vec::new();
    let mut audience = |kind, name: String, at: usize, who: Who| {
        out.push(audience_run(plan, samples, segments, kind, name, at, who));
    };
    audience(SubjectKind::All, "all".to_owned(), 0, Who::All);
    for (c, client) in system.clients.iter().enumerate() {
        let id = plimsoll_model::system::ClientId(c as u32);
        audience(SubjectKind::Client, client.name.clone(), 1 + c, Who::Client(id));
    }
    for (e, at) in plan.endpoint_audience.iter().enumerate() {
        if let Some(at) = at {
            let code = &plan.code.endpoints[e];
            let id = plimsoll_model::system::EndpointId {
                service: plimsoll_model::system::ServiceId(code.service),
                index: code.index,
            };
            audience(SubjectKind::Endpoint, system.endpoint_name(id), *at as usize, Who::Endpoint(id));
        }
    }
    let first = samples.first();
    for (at, subject) in first.iter().flat_map(|sample| sample.subjects.iter().enumerate()) {
        // Slots of instances can be used in one replication and not in another.
        let of: Vec<&Subject> = samples
            .iter()
            .filter_map(|sample| {
                sample.subjects.get(at).filter(|s| s.of == subject.of).or_else(|| sample.subject(subject.of))
            })
            .collect();
        out.push(subject_run(plan, &of, segments));
    }
    out
}

fn audience_run(
    plan: &Plan,
    samples: &[&Sample],
    segments: &[usize],
    kind: SubjectKind,
    name: String,
    at: usize,
    who: Who,
) -> SubjectRun {
    let seconds = plan.length(segments) as f64 / 1e9;
    let mut totals = Totals::default();
    let (mut latency, mut latency_ok) = (Histogram::new(), Histogram::new());
    for sample in samples {
        for &segment in segments {
            let cell = &sample.audiences[at].cells[segment];
            totals.add(&cell.totals);
            cell.all.pour_into(&mut latency);
            let mut ok = cell.all.clone();
            ok.subtract(&cell.failed);
            ok.pour_into(&mut latency_ok);
        }
    }
    let mut figures = Figures::new(samples.len());
    for (name, metric, scale) in Unit::audience(who) {
        figures.push(name, None, samples.iter().map(|sample| metric::value(plan, sample, &metric, segments) * scale));
    }
    let totals_of = |sample: &Sample| {
        let mut sum = Totals::default();
        segments.iter().for_each(|&s| sum.add(&sample.audiences[at].cells[s].totals));
        sum
    };
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    figures.push("offered_per_s", None, samples.iter().map(|s| totals_of(s).offered as f64 / seconds));
    figures.push("rejected", None, samples.iter().map(|s| ratio(totals_of(s).rejected, totals_of(s).offered)));
    figures.push("degraded", None, samples.iter().map(|s| ratio(totals_of(s).degraded, totals_of(s).ok)));
    figures.push(
        "amplification",
        None,
        samples.iter().map(|s| 1.0 + ratio(totals_of(s).retries, totals_of(s).offered)),
    );
    let length = plan.length(segments);
    let in_flight = |s: &&Sample| {
        let area: f64 =
            segments.iter().filter_map(|&i| s.audiences[at].in_flight.segments.get(i)).map(|g| g.area).sum();
        area / length as f64
    };
    figures.push("in_flight_mean", None, samples.iter().map(in_flight));

    let counters: Vec<&[Totals]> = samples.iter().map(|s| &s.audiences[at].counter.seconds[..]).collect();
    let mut series = counts(&counters);
    let percentile = |p: usize| mean_series(samples.iter().map(|s| s.audiences[at].seconds.iter().map(move |v| v[p])));
    series.p50_ms = percentile(0);
    series.p95_ms = percentile(1);
    series.p99_ms = percentile(2);
    series.in_flight = mean_series(samples.iter().map(|s| s.audiences[at].in_flight.seconds.iter().copied()));
    let phases = phases(plan, samples, at, who);
    SubjectRun { kind, name, totals, figures: figures.done(), latency, latency_ok, series, phases }
}

/// What an audience saw before, during and after the faults.
fn phases(plan: &Plan, samples: &[&Sample], at: usize, who: Who) -> Vec<PhaseRun> {
    if !plan.disturbed {
        return Vec::new();
    }
    let all =
        [(FaultPhase::Before, Phase::Before), (FaultPhase::During, Phase::During), (FaultPhase::After, Phase::After)];
    let runs = all.into_iter().map(|(phase, of)| {
        let segments = plan.segments(of);
        let mut totals = Totals::default();
        for sample in samples {
            segments.iter().for_each(|&s| totals.add(&sample.audiences[at].cells[s].totals));
        }
        let percentile = |p| {
            let of = |sample: &&Sample| metric::value(plan, sample, &Metric::Percentile(p, who), segments) / 1e6;
            let values: Vec<f64> = samples.iter().map(of).filter(|value| value.is_finite()).collect();
            interval(&values, 0.95).mean
        };
        PhaseRun { phase, totals, latency_ms_p50: percentile(50.0), latency_ms_p95: percentile(95.0) }
    });
    runs.filter(|run| run.totals.offered > 0).collect()
}

fn subject_run(plan: &Plan, subjects: &[&Subject], segments: &[usize]) -> SubjectRun {
    let length = plan.length(segments);
    let seconds = length as f64 / 1e9;
    let first = subjects[0];
    let mut totals = Totals::default();
    let mut latency = Histogram::new();
    for subject in subjects {
        totals.add(&subject.totals(segments));
        for times in segments.iter().filter_map(|&s| subject.times.get(s)) {
            times.pour_into(&mut latency);
        }
    }
    let mut figures = Figures::new(subjects.len());
    let each = |f: &dyn Fn(&Subject) -> f64| subjects.iter().map(|s| f(s)).collect::<Vec<_>>();
    figures.push("offered_per_s", None, each(&|s| s.totals(segments).offered as f64 / seconds));
    figures.push("goodput_per_s", None, each(&|s| s.totals(segments).ok as f64 / seconds));
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let of = |part: fn(&Totals) -> u64| {
        each(&move |s: &Subject| {
            let totals = s.totals(segments);
            share(part(&totals), totals.offered)
        })
    };
    figures.push("errors", None, of(|t| t.failed));
    figures.push("rejected", None, of(|t| t.rejected));
    if first.kind == SubjectKind::Edge {
        figures.push(
            "amplification",
            None,
            each(&|s| {
                let t = s.totals(segments);
                let calls = t.offered.saturating_sub(t.retries);
                if calls == 0 { 1.0 } else { t.offered as f64 / calls as f64 }
            }),
        );
    }
    if latency.count() > 0 {
        let times = |s: &Subject| {
            let mut sum = Times::new();
            segments.iter().filter_map(|&i| s.times.get(i)).for_each(|t| sum.add(t));
            sum
        };
        figures.push("latency_ms_mean", None, each(&|s| times(s).mean() / 1e6));
        for (name, p) in [("latency_ms_p50", 50.0), ("latency_ms_p95", 95.0), ("latency_ms_p99", 99.0)] {
            figures.push(name, None, each(&|s| times(s).percentile(p) / 1e6));
        }
    }
    let busiest = first.utilization(segments, length).map(|(name, _)| name);
    for resource in &first.resources {
        let detail = Some(resource.name);
        let name = if Some(resource.name) == busiest { "utilization" } else { "utilization_other" };
        figures.push(
            name,
            detail,
            each(&|s| {
                s.resources
                    .iter()
                    .find(|r| r.name == resource.name)
                    .map_or(0.0, |r| r.level.mean(segments, length) / r.capacity.max(1e-9))
            }),
        );
    }
    if first.waiting.is_some() {
        figures.push("queue_mean", None, each(&|s| s.waiting.as_ref().map_or(0.0, |w| w.mean(segments, length))));
        figures.push("queue_max", None, each(&|s| s.waiting.as_ref().map_or(0.0, |w| w.max(segments))));
    }
    if first.in_flight.is_some() {
        figures.push("in_flight_mean", None, each(&|s| s.in_flight.as_ref().map_or(0.0, |w| w.mean(segments, length))));
    }
    for (name, _) in &first.extras {
        match *name {
            "hits" => {
                let ratio = |s: &Subject| {
                    let lookups = s.extra("lookups", segments).unwrap_or(0.0);
                    s.extra("hits", segments).unwrap_or(0.0) / lookups
                };
                if subjects.iter().any(|s| s.extra("lookups", segments).unwrap_or(0.0) > 0.0) {
                    figures.push("hits", None, each(&ratio));
                }
            }
            "lookups" | "instances" => {}
            other => figures.push(other, None, each(&|s| s.extra(other, segments).unwrap_or(0.0))),
        }
    }
    let counters: Vec<&[Totals]> = subjects.iter().map(|s| &s.counter.seconds[..]).collect();
    let mut series = counts(&counters);
    if let Some(name) = busiest {
        series.utilization = mean_series(subjects.iter().map(|s| {
            let resource = s.resources.iter().find(|r| r.name == name);
            let capacity = resource.map_or(1.0, |r| r.capacity.max(1e-9)) as f32;
            resource.into_iter().flat_map(|r| &r.level.seconds).map(move |v| v / capacity)
        }));
    }
    series.queue = mean_series(subjects.iter().map(|s| s.waiting.iter().flat_map(|w| &w.seconds).copied()));
    series.in_flight = mean_series(subjects.iter().map(|s| s.in_flight.iter().flat_map(|w| &w.seconds).copied()));
    SubjectRun {
        kind: first.kind,
        name: first.name.clone(),
        totals,
        figures: figures.done(),
        latency,
        latency_ok: Histogram::new(),
        series,
        phases: Vec::new(),
    }
}

/// Figures in the making.
struct Figures {
    figures: Vec<Figure>,
    replications: usize,
}

impl Figures {
    fn new(replications: usize) -> Self {
        Figures { figures: Vec::new(), replications }
    }

    fn push(&mut self, name: &str, detail: Option<&str>, values: impl IntoIterator<Item = f64>) {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.truncate(self.replications);
        let i = interval(&values, 0.95);
        self.figures.push(Figure {
            name: name.to_owned(),
            detail: detail.map(str::to_owned),
            mean: i.mean,
            low: i.low,
            high: i.high,
            samples: values,
        });
    }

    fn done(self) -> Vec<Figure> {
        self.figures
    }
}

fn counts(counters: &[&[Totals]]) -> Series {
    let column =
        |f: fn(&Totals) -> u64| mean_series(counters.iter().map(|seconds| seconds.iter().map(move |t| f(t) as f32)));
    Series {
        offered: column(|t| t.offered),
        ok: column(|t| t.ok),
        failed: column(|t| t.failed),
        rejected: column(|t| t.rejected),
        ..Series::default()
    }
}

fn mean_series(columns: impl Iterator<Item = impl Iterator<Item = f32>>) -> Vec<f32> {
    let mut sum: Vec<f32> = Vec::new();
    let mut n = 0;
    for column in columns {
        n += 1;
        for (second, value) in column.enumerate() {
            if second >= sum.len() {
                sum.push(0.0);
            }
            sum[second] += value;
        }
    }
    sum.iter_mut().for_each(|v| *v /= n.max(1) as f32);
    sum
}

fn verdict(plan: &Plan, samples: &[&Sample], expectation: &Expectation) -> Verdict {
    let segments = plan.segments(expectation.phase);
    let values: Vec<f64> =
        samples.iter().map(|sample| metric::value(plan, sample, &expectation.metric, segments)).collect();
    let i = interval(&values, 0.95);
    let passed = expectation.bound.holds(i.mean);
    let unit = Unit::of(&expectation.metric);
    let why = (!passed).then(|| {
        let worst = gives_way(plan, samples, segments);
        match worst.first() {
            Some(first) if first.value > 0.5 || first.resource == "policies" => first.why.clone(),
            _ => format!("it should be {}", bound_words(expectation.bound, unit)),
        }
    });
    Verdict {
        text: expectation.text.clone(),
        line: expectation.line,
        passed,
        measured: unit.words(i.mean),
        value: unit.plain(i.mean),
        low: unit.plain(i.low),
        high: unit.plain(i.high),
        why,
    }
}
