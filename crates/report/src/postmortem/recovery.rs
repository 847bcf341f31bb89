//! When good answers were back at what they were before the faults, for good.

use plimsoll_model::run::{FaultSpan, Run, SubjectRun};

use super::detection::window;
use super::{SECOND, all};
use crate::number::ratio;

/// How a system came back from a fault. Times are in whole seconds of the run, by which good answers are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// There was no second with fewer good answers than before.
    NeverFewer,
    /// So long after its start, while it still lasted.
    WhileItLasted {
        /// ns.
        after_ns: u64,
    },
    /// So long after its end.
    AfterItsEnd {
        /// ns.
        after_ns: u64,
    },
    /// Not before the next fault.
    NotBeforeTheNext,
    /// Not by the end of the run.
    NotInTheRun,
}

/// By how much less of what ended in a second may be good than before the faults.
const LESS: f64 = 0.01;

/// How good answers came back; none if nothing is known of before, or nothing happened since.
pub(super) fn recovery(run: &Run, fault: &FaultSpan) -> Option<Recovery> {
    let all = all(run)?;
    let first = run.faults.iter().map(|fault| fault.at_ns).min()?;
    let before = ended(all, 0..(first / SECOND) as usize)?;
    let enough = ratio(before.0, before.1) - LESS;
    let until = window(run, fault);
    let window = fault.at_ns / SECOND..until.div_ceil(SECOND).min(all.series.ok.len() as u64);
    let judged = window.filter_map(|second| Some((second, well(all, second as usize, enough)?)));
    let judged: Vec<(u64, bool)> = judged.collect();
    let last = judged.last()?.0;
    let bad = judged.iter().rev().find(|(_, well)| !well).map(|(second, _)| *second);
    Some(match bad {
        None => Recovery::NeverFewer,
        Some(bad) if bad == last && until < run.duration_ns => Recovery::NotBeforeTheNext,
        Some(bad) if bad == last => Recovery::NotInTheRun,
        Some(bad) => {
            let back = (bad + 1) * SECOND;
            match back.checked_sub(fault.until_ns) {
                Some(after_ns) => Recovery::AfterItsEnd { after_ns },
                None => Recovery::WhileItLasted { after_ns: back.saturating_sub(fault.at_ns) },
            }
        }
    })
}

/// Whether enough of what ended in a second was good. A second in which nothing ended is a bad one if somebody waited
/// through all of it, and says nothing otherwise.
fn well(all: &SubjectRun, second: usize, enough: f64) -> Option<bool> {
    match ended(all, second..second + 1) {
        Some((ok, ended)) => Some(ratio(ok, ended) >= enough),
        None => all.series.in_flight.get(second).filter(|waiting| **waiting >= 1.0).map(|_| false),
    }
}

/// Good answers, and all requests that ended, in these seconds; none if none did.
fn ended(all: &SubjectRun, seconds: std::ops::Range<usize>) -> Option<(f64, f64)> {
    let sum = |column: &[f32]| -> f64 {
        let values = column.get(seconds.start..seconds.end.min(column.len())).unwrap_or_default();
        values.iter().copied().filter(|value| value.is_finite()).map(f64::from).sum()
    };
    let (ok, failed) = (sum(&all.series.ok), sum(&all.series.failed));
    (ok + failed > 0.0).then_some((ok, ok + failed))
}
