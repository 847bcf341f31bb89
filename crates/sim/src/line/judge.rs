use plimsoll_model::run::Totals;
use plimsoll_model::system::{Indicator, Objective, Subject};

use super::weather::Forecast;
use crate::collect::Sample;
use crate::metric::{audience, audience_index};
use crate::plan::Plan;

/// What one replication says about each objective, and about the whole.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// By objective: good and all requests while the weather lasted.
    pub(crate) during: Vec<(u64, u64)>,
    /// And after it had cleared and the grace was over.
    pub(crate) after: Vec<(u64, u64)>,
    totals: Totals,
    seconds: f64,
    p99: f64,
    /// From the fault's end to the last request that failed after it, ns.
    pub(crate) back_after: u64,
}

/// What several replications say together.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) held: bool,
    pub(crate) recovered: bool,
    /// Whether more replications could change the answer.
    pub(crate) doubtful: bool,
    /// The objective that failed by most, whether that was while the weather lasted, and its
    /// value.
    pub(crate) worst: Option<(usize, bool, f64)>,
    /// Requests a second while the weather lasted, and good answers among them.
    pub(crate) requests: f64,
    pub(crate) goodput: f64,
    pub(crate) errors: f64,
    /// ms
    pub(crate) p99: f64,
    pub(crate) back_after: u64,
}

/// Which segments count as the weather, and which as after it.
pub(crate) fn windows(plan: &Plan, forecast: &Forecast) -> (Vec<usize>, Vec<usize>) {
    let scenario = &forecast.scenario;
    let whole = plan.segments_between(0, scenario.duration);
    let first = scenario.faults.iter().map(|fault| fault.at).min();
    let last = scenario.faults.iter().map(|fault| fault.until).max();
    match (first, last) {
        (Some(first), Some(last)) => {
            let after = plan.segments_between(last + forecast.grace, scenario.duration);
            (plan.segments_between(first, last), after)
        }
        _ => (whole, Vec::new()),
    }
}

/// What a replication says.
pub(crate) fn tally(plan: &Plan, forecast: &Forecast, sample: &Sample) -> Tally {
    let (during, after) = windows(plan, forecast);
    let (totals, times) = audience(plan, sample, Subject::All, &during);
    let cleared = forecast.scenario.faults.iter().map(|fault| fault.until).max().map(|until| until + plan.warmup);
    let back_after = cleared.map_or(0, |cleared| {
        let cells = &sample.audiences[0].cells;
        cells.iter().map(|cell| cell.last_bad).max().unwrap_or(0).saturating_sub(cleared)
    });
    Tally {
        during: counts(plan, &during, sample),
        after: counts(plan, &after, sample),
        totals,
        seconds: plan.length(&during) as f64 / 1e9,
        p99: times.percentile(99.0) / 1e6,
        back_after,
    }
}

/// By objective: good and all requests that arrived in these segments.
pub(crate) fn counts(plan: &Plan, segments: &[usize], sample: &Sample) -> Vec<(u64, u64)> {
    let of = |objective: &Objective| {
        let at = audience_index(plan, objective.subject);
        segments.iter().fold((0, 0), |(good, all), &segment| {
            let cell = &sample.audiences[at].cells[segment];
            let well = match objective.indicator {
                Indicator::Success => cell.totals.ok,
                Indicator::LatencyBelow(limit) => {
                    plan.thresholds.iter().position(|&t| t == limit).map_or(0, |at| cell.within[at])
                }
            };
            (good + well, all + cell.totals.offered)
        })
    };
    plan.system.objectives.iter().map(of).collect()
}

/// What replications say together; `waived` objectives don't count while the weather lasts.
pub(crate) fn judge(plan: &Plan, tallies: &[Tally], waived: &[bool]) -> Judgement {
    let mut worst: Option<(f64, usize, bool, f64)> = None;
    let (mut doubtful, mut clear) = (false, false);
    let mut held = [true, true];
    for (o, objective) in plan.system.objectives.iter().enumerate() {
        for (which, phase) in [(0, true), (1, false)] {
            if phase && waived[o] {
                continue;
            }
            let counts: Vec<(u64, u64)> =
                tallies.iter().map(|t| if phase { t.during[o] } else { t.after[o] }).collect();
            let (good, all) = counts.iter().fold((0, 0), |(g, a), c| (g + c.0, a + c.1));
            if all == 0 {
                continue;
            }
            let value = good as f64 / all as f64;
            // The spread between replications knows of collapses; the binomial one of rare errors.
            let n = counts.len() as f64;
            let shares: Vec<f64> = counts.iter().filter(|c| c.1 > 0).map(|c| c.0 as f64 / c.1 as f64).collect();
            let between = if n > 1.0 {
                (shares.iter().map(|s| (s - value) * (s - value)).sum::<f64>() / (n - 1.0) / n).sqrt()
            } else {
                0.0
            };
            let binomial = (value * (1.0 - value) / all as f64).sqrt();
            let error = between.max(binomial);
            if value < objective.target {
                held[which] = false;
                let by = (objective.target - value) / (1.0 - objective.target).max(1e-9);
                if worst.is_none_or(|(most, ..)| by > most) {
                    worst = Some((by, o, phase, value));
                }
            }
            let doubt = (value - objective.target).abs() < 3.0 * error;
            doubtful |= doubt;
            clear |= value < objective.target && !doubt;
        }
    }
    let n = tallies.len().max(1) as f64;
    let offered: u64 = tallies.iter().map(|t| t.totals.offered).sum();
    let ok: u64 = tallies.iter().map(|t| t.totals.ok).sum();
    let seconds: f64 = tallies.iter().map(|t| t.seconds).sum();
    Judgement {
        held: held[0] && held[1],
        recovered: held[1],
        // Where one objective clearly fails, the others change nothing.
        doubtful: doubtful && !clear,
        worst: worst.map(|(_, o, phase, value)| (o, phase, value)),
        requests: offered as f64 / seconds.max(1e-9),
        goodput: ok as f64 / seconds.max(1e-9),
        errors: if offered == 0 { 0.0 } else { 1.0 - ok as f64 / offered as f64 },
        p99: tallies.iter().map(|t| t.p99).filter(|v| v.is_finite()).sum::<f64>() / n,
        back_after: tallies.iter().map(|t| t.back_after).max().unwrap_or(0),
    }
}
