use plimsoll_model::run::{GivesWay, Limit, Mark, Quiet, Recovery};

use super::judge::{judge, tally};
use super::weather::Forecast;
use super::{Settings, describe, today};
use crate::collect::Sample;
use crate::gives_way::gives_way;
use crate::plan::{Plan, Prepared, Scenario};
use crate::replicate::Runner;

/// Length of one quiet run, ns: long enough for a rare coincidence, short enough to have several.
const STRETCH: u64 = 600_000_000_000;

/// Stretches of a part at least: work for several threads, and the same for any number of them.
const RUNS: u64 = 2;

/// The quiet run's parts, as shares of it: a load at which the system collapses soon is mostly found
/// out in the first.
const PARTS: [f64; 2] = [0.25, 0.75];

/// A second, ns.
const SECOND: u64 = 1_000_000_000;

/// A minute, ns.
const MINUTE: u64 = 60 * SECOND;

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
    let waived = vec![false; prepared.system.objectives.len()];
    // Other draws than the search's: a mark must not be confirmed by the luck that made it.
    let fresh = Runner { seed: runner.seed ^ 0x5157_4945_5421, progress: &|_, _| {}, ..*runner };
    let mut lowered = 0;
    loop {
        let load = mark.load;
        let affordable = (settings.quiet_requests / mark.requests_per_s.max(1e-9) * 1e9) as u64;
        let total = settings.horizon.min(affordable).max(calm.scenario.duration);
        let mut quiet = Quiet { horizon_ns: settings.horizon, simulated_ns: 0, collapses: 0 };
        let (mut requests, mut stretches) = (0.0, 0);
        for part in PARTS {
            let length = (total as f64 * part) as u64;
            let runs = length.div_ceil(STRETCH).max(RUNS) as u32;
            let each = length / runs as u64;
            let scenario =
                Scenario { scale: load / today(&prepared.system), ..Scenario::calm(calm.scenario.warmup, each) };
            // The first collapse is explained, by what is recorded of it.
            let explains = lowered == 0;
            let plan = Plan::new(prepared, &scenario, explains);
            let settled = plan.segments_between(each / 4 * 3, each);
            let forecast = Forecast { scenario: scenario.clone(), ..calm.clone() };
            let results = fresh.run(&plan, stretches, stretches + runs, |_, sample| {
                let mut last = tally(&plan, &forecast, &sample);
                last.during = super::judge::counts(&plan, &settled, &sample);
                let judgement = judge(&plan, &[last], &waived);
                let collapsed = !judgement.held;
                let why = (collapsed && explains).then(|| explain(&plan, &forecast, &settled, &sample));
                (collapsed, judgement.requests, why)
            });
            if results.len() < runs as usize {
                mark.limit = Limit::Interrupted;
                return;
            }
            quiet.simulated_ns += each * runs as u64;
            quiet.collapses += results.iter().filter(|(collapsed, ..)| *collapsed).count() as u32;
            requests += results.iter().map(|(_, requests, _)| requests).sum::<f64>();
            if let Some((fails, first)) = results.into_iter().find_map(|(.., why)| why) {
                say_why(mark, fails, first, each);
            }
            stretches += runs;
            if quiet.collapses > 0 {
                break;
            }
        }
        if lowered > 0 {
            mark.requests_per_s = requests / f64::from(stretches);
        }
        let collapses = quiet.collapses;
        mark.quiet = Some(quiet);
        if collapses == 0 || lowered == 8 {
            return;
        }
        lowered += 1;
        mark.high = load;
        mark.load = load / (1.0 + settings.precision);
        mark.low = mark.load;
        mark.recovery = Recovery::Steady;
    }
}

/// What limits a calm mark is what its collapse shows, after so much time without a fault.
fn say_why(mark: &mut Mark, fails: Option<String>, first: Option<GivesWay>, after: u64) {
    let time = if after < 2 * MINUTE { (after / SECOND, "s") } else { (after / MINUTE, "min") };
    mark.fails = fails.map(|fails| format!("{fails} at the end of {} {} without a fault", time.0, time.1));
    if let (Some(analytic), Some(first)) = (&mut mark.analytic, &first)
        && first.component != analytic.component
    {
        analytic.agrees = false;
        analytic.explanation = Some("the closed forms know nothing of what comes with time".to_owned());
    }
    mark.first = first;
}
