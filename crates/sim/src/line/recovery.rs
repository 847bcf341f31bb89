use plimsoll_model::run::Recovery;

use super::judge::{Judgement, judge, tally};
use super::search::Search;
use super::weather::Forecast;
use crate::plan::Plan;

/// A load that calm weather carries with this to spare counts as not simply too much.
const BELOW_CALM: f64 = 0.97;

/// This share of what calm weather carries is tried too: it leaves as much room to work off what an
/// outage has left behind, so that a system which stays down there is held down by something else.
const VULNERABLE: f64 = 0.6;

/// The load falls so long after the fault has ended, ns.
const PATIENCE: u64 = 5_000_000_000;

/// Steps of the search for the load at which it comes back.
const STEPS: u32 = 5;

/// Replications in which a step is judged where the first leaves a doubt.
const RUNS: u32 = 2;

/// The least share of the load that is tried.
const LEAST: f64 = 0.02;

/// Whether a system comes back when the weather clears, at a load just past its mark.
///
/// Metastable means: at a load that it carries in calm weather it stays down after the fault has
/// ended. Then the load is lowered after the fault until it comes back (Bronson et al., HotOS
/// 2021: a trigger, a sustaining effect, and a vulnerable range of loads).
pub(crate) fn recovery(search: &Search<'_>, past: f64, judgement: &Judgement, calm: Option<f64>) -> Recovery {
    if search.forecast.scenario.faults.is_empty() {
        return Recovery::Steady;
    }
    let by_itself =
        if judgement.recovered { Some((judgement.back_after > 0).then_some(judgement.back_after)) } else { None };
    // Only a load that calm weather carries tells metastability from overload.
    let mut from = match calm {
        Some(calm) if past > calm * BELOW_CALM => calm * BELOW_CALM,
        _ => past,
    };
    let by_itself = by_itself.or_else(|| comes_back(search, from, 1.0).map(Some));
    if let Some(after_ns) = by_itself {
        // What comes back just past its mark may still stay down further up.
        match calm.map(|calm| calm * VULNERABLE) {
            Some(higher) if higher > from * 1.1 && comes_back(search, higher, 1.0).is_none() => from = higher,
            _ => return Recovery::ByItself { after_ns },
        }
    }
    let (mut low, mut high, mut drain) = (0.0, 1.0, None);
    let mut share: f64 = 0.5;
    for _ in 0..STEPS {
        match comes_back(search, from, share) {
            Some(after) => {
                low = share;
                drain = Some(after);
            }
            None => high = share,
        }
        share = if low > 0.0 { (low * high).sqrt() } else { (share * 0.45).max(LEAST) };
        if search.runner.stopped() || (low > 0.0 && high / low < 1.0 + search.settings.precision) {
            break;
        }
    }
    if low == 0.0 {
        return Recovery::Never { from };
    }
    Recovery::AtLoad { load: from * low, low: from * low, high: from * high, from, drain_ns: drain }
}

/// Whether it comes back when the load falls to a share of itself after the fault; and how long
/// after that.
fn comes_back(search: &Search<'_>, load: f64, share: f64) -> Option<u64> {
    let mut scenario = search.scenario(load);
    let cleared = scenario.faults.iter().map(|fault| fault.until).max().unwrap_or(0);
    // Queues that have grown in the meantime need time to drain.
    let extra = 2 * PATIENCE + search.forecast.grace;
    scenario.duration += extra;
    let falls = cleared + PATIENCE;
    scenario.steps.push((falls, scenario.duration, share));
    scenario.cuts = vec![cleared + extra + search.forecast.grace];
    let forecast =
        Forecast { scenario: scenario.clone(), grace: extra + search.forecast.grace, ..search.forecast.clone() };
    let plan = Plan::new(search.prepared, &scenario, false);
    let everything = vec![true; search.waived.len()];
    let mut tallies = Vec::new();
    loop {
        let done = tallies.len() as u32;
        tallies.extend(search.runner.run(&plan, done, done + 1, |_, sample| tally(&plan, &forecast, &sample)));
        if tallies.len() as u32 == done {
            return None;
        }
        let judgement = judge(&plan, &tallies, &everything);
        if !judgement.doubtful || tallies.len() as u32 == RUNS {
            return judgement.recovered.then(|| judgement.back_after.saturating_sub(PATIENCE));
        }
    }
}
