use plimsoll_model::run::{GivesWay, Limit, Mark, Quiet, Recovery};

use super::judge::{judge, tally};
use super::search::Search;
use super::weather::Forecast;
use super::{Settings, describe, today};
use crate::collect::Sample;
use crate::gives_way::gives_way;
use crate::plan::{Plan, Prepared, Scenario};
use crate::replicate::Runner;

/// Length of one quiet run, ns: long enough for a rare coincidence, short enough to have several.
const STRETCH: u64 = 600_000_000_000;

/// Quiet runs at least: work for several threads, and the same for any number of them.
const RUNS: u64 = 2;

/// A minute, ns.
const MINUTE: u64 = 60_000_000_000;

/// What a collapsed stretch misses by most in its last quarter, in words, and what gave way there.
fn explain(plan: &Plan, forecast: &Forecast, settled: &[usize], sample: &Sample) -> (Option<String>, Option<GivesWay>) {
    let objectives = &plan.system.objectives;
    let mut last = tally(plan, forecast, sample);
    last.during = super::judge::counts(plan, settled, sample);
    let judgement = judge(plan, &[last], &vec![false; objectives.len()]);
    let fails = judgement
        .worst
        .map(|(o, _, value)| format!("{}: only {:.2}% do", describe(&plan.system, &objectives[o]), value * 100.0));
    (fails, gives_way(plan, &[sample], settled).into_iter().next())
}

/// A stretch counts as collapsed if its last quarter fails.
///
/// A short run overstates a line: a system can be one unlucky burst away from a collapse that it
/// does not leave. So the calm mark is run for its whole horizon, as far as the budget of requests
/// goes, and lowered while collapses are seen.
pub(crate) fn confirm(prepared: &Prepared, calm: &Forecast, settings: &Settings, runner: &Runner<'_>, mark: &mut Mark) {
    if mark.limit != Limit::Found || mark.load <= 0.0 {
        return;
    }
    let mut lowered = 0;
    loop {
        let load = mark.load;
        let affordable = (settings.quiet_requests / mark.requests_per_s.max(1e-9) * 1e9) as u64;
        let total = settings.horizon.min(affordable).max(calm.scenario.duration);
        let runs = total.div_ceil(STRETCH).max(RUNS) as u32;
        let each = total / runs as u64;
        let scenario = Scenario { scale: load / today(&prepared.system), ..Scenario::calm(calm.scenario.warmup, each) };
        let plan = Plan::new(prepared, &scenario, false);
        let settled = plan.segments_between(each / 4 * 3, each);
        let forecast = Forecast { scenario: scenario.clone(), ..calm.clone() };
        let waived = vec![false; prepared.system.objectives.len()];
        // Other draws than the search's: a mark must not be confirmed by the luck that made it.
        let fresh = Runner { seed: runner.seed ^ 0x5157_4945_5421, progress: &|_, _| {}, ..*runner };
        let results = fresh.run(&plan, 0, runs, |_, sample| {
            let mut last = tally(&plan, &forecast, &sample);
            last.during = super::judge::counts(&plan, &settled, &sample);
            let judgement = judge(&plan, &[last], &waived);
            (!judgement.held, judgement.requests)
        });
        if results.len() < runs as usize {
            mark.limit = Limit::Interrupted;
            return;
        }
        let collapses = results.iter().filter(|(collapsed, _)| *collapsed).count() as u32;
        if lowered > 0 {
            mark.requests_per_s = results.iter().map(|(_, requests)| requests).sum::<f64>() / f64::from(runs);
        }
        mark.quiet = Some(Quiet { horizon_ns: settings.horizon, simulated_ns: each * runs as u64, collapses });
        if lowered == 0
            && let Some(collapsed) = results.iter().position(|(collapsed, _)| *collapsed)
        {
            let plan = Plan::new(prepared, &scenario, true);
            let replay = fresh.run(&plan, collapsed as u32, collapsed as u32 + 1, |_, sample| {
                explain(&plan, &forecast, &settled, &sample)
            });
            if let Some((fails, first)) = replay.into_iter().next() {
                mark.fails = fails.map(|fails| format!("{fails} at the end of {} min without a fault", each / MINUTE));
                if let (Some(analytic), Some(first)) = (&mut mark.analytic, &first)
                    && first.component != analytic.component
                {
                    analytic.agrees = false;
                    analytic.explanation = Some("the closed forms know nothing of what comes with time".to_owned());
                }
                mark.first = first;
            }
        }
        if collapses == 0 || lowered == 8 {
            if lowered > 0 && settings.keep_runs {
                // The picture at the mark is one at the mark as it is now.
                mark.at_mark = Some(Box::new(Search::new(prepared, calm, settings, runner, None).at(load)));
            }
            return;
        }
        lowered += 1;
        mark.high = load;
        mark.load = load / (1.0 + settings.precision);
        mark.low = mark.load;
        mark.recovery = Recovery::Steady;
    }
}
