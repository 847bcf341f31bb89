//! What processes have counted, as it was collected.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_model::run::{Event, EventKind, Totals};

use super::Cuts;
use crate::tally::{Delta, Of, Report};

/// What was collected about everything.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The experiment's segments.
    pub cuts: Arc<Cuts>,
    /// By what it is about, then segment.
    pub segments: BTreeMap<Of, Vec<Delta>>,
    /// By what it is about, then second.
    pub seconds: BTreeMap<Of, Vec<Second>>,
    /// In the order in which they were heard of.
    pub events: Vec<Event>,
}

/// One second of something.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Counts.
    pub totals: Totals,
    /// Mean levels.
    pub levels: BTreeMap<String, f64>,
    /// Other counts.
    pub extras: BTreeMap<String, f64>,
}

impl Parts {
    /// Nothing collected yet.
    pub fn new(cuts: Arc<Cuts>) -> Parts {
        Parts { cuts, segments: BTreeMap::new(), seconds: BTreeMap::new(), events: Vec::new() }
    }

    /// Takes in what is new: counts as of `counted`, events as heard of `now`, both ns from the start of the load.
    pub fn take(&mut self, counted: u64, now: u64, report: Report) {
        for (of, delta) in report.deltas {
            self.add(counted, of, &delta);
        }
        for event in report.events {
            self.happened(now.saturating_sub(event.ago_ns), event.kind, event.subject, event.text);
        }
    }

    /// Takes in what is new about something.
    pub fn add(&mut self, now: u64, of: Of, delta: &Delta) {
        let before = now.saturating_sub(1);
        let segments = self.segments.entry(of).or_insert_with(|| vec![Delta::default(); self.cuts.count()]);
        segments[self.cuts.at(before)].add(delta);
        let seconds = self.seconds.entry(of).or_insert_with(|| vec![Second::default(); self.cuts.seconds()]);
        if let Some(second) = self.cuts.second(before).and_then(|at| seconds.get_mut(at)) {
            second.totals.add(&delta.totals);
            for (name, (area, _)) in &delta.levels {
                *second.levels.entry(name.clone()).or_default() += area / 1e9;
            }
            for (name, count) in &delta.extras {
                *second.extras.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// Something has happened at a time, ns from the start of the load.
    pub fn happened(&mut self, at: u64, kind: EventKind, subject: impl Into<String>, text: impl Into<String>) {
        let at_ns = at.saturating_sub(self.cuts.warmup);
        self.events.push(Event { at_ns, kind, subject: subject.into(), text: text.into() });
    }

    /// What was counted about something over segments.
    pub fn over(&self, of: Of, segments: &[usize]) -> Option<Delta> {
        let all = self.segments.get(&of)?;
        let mut sum = Delta::default();
        segments.iter().filter_map(|&at| all.get(at)).for_each(|delta| sum.add(delta));
        Some(sum)
    }

    /// The sum over several.
    pub fn sum(&self, of: impl IntoIterator<Item = Of>, segments: &[usize]) -> Delta {
        let mut sum = Delta::default();
        of.into_iter().filter_map(|of| self.over(of, segments)).for_each(|delta| sum.add(&delta));
        sum
    }

    /// A level of something, integrated over all that was heard of so far, value times ns.
    pub fn area(&self, of: Of, level: &str) -> f64 {
        let segments = self.segments.get(&of).into_iter().flatten();
        segments.filter_map(|delta| delta.levels.get(level)).map(|(area, _)| area).sum()
    }

    /// All that was counted about something so far.
    pub fn so_far(&self, of: Of) -> Totals {
        let mut sum = Totals::default();
        self.segments.get(&of).into_iter().flatten().for_each(|delta| sum.add(&delta.totals));
        sum
    }
}
