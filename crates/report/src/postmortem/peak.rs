//! The second with the most good answers.

use plimsoll_model::run::Run;

use super::document::{Block, plain};
use super::{SECOND, all};
use crate::number::{millis, rate};
use crate::words::clock;

/// A second of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Peak {
    second: usize,
    ok_per_s: f64,
    p95_ms: Option<f64>,
}

fn peak(run: &Run) -> Option<Peak> {
    let series = &all(run)?.series;
    // The earliest of several alike.
    let seconds = series.ok.iter().enumerate().rev().filter(|(_, ok)| ok.is_finite() && **ok > 0.0);
    let (second, ok) = seconds.max_by(|a, b| a.1.total_cmp(b.1))?;
    let p95_ms = series.p95_ms.get(second).map(|ms| f64::from(*ms)).filter(|ms| ms.is_finite() && *ms > 0.0);
    Some(Peak { second, ok_per_s: f64::from(*ok), p95_ms })
}

pub(super) fn block(run: &Run) -> Option<Block> {
    let Peak { second, ok_per_s, p95_ms } = peak(run)?;
    let p95 = p95_ms.map_or(String::new(), |ms| format!("; p95 was {} then", millis(ms)));
    let mean = if run.replications > 1 { ", by the mean over replications" } else { "" };
    Some(Block::Text(vec![plain(format!(
        "Highest throughput in one second: {} answered well, in the second from {} on{mean}{p95}.",
        rate(ok_per_s),
        clock(second as u64 * SECOND),
    ))]))
}
