//! What a process counts, and hands over bit by bit: each report has what is new since the last one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_model::draw::mix;
use plimsoll_model::run::{EventKind, Histogram, Totals};
use plimsoll_model::system::Dist;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;

/// What is counted about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Of {
    /// An instance of a service or gateway, from 0.
    Instance(u32, u32),
    /// A node of a store, from 0.
    Node(u32, u32),
    /// A store as a whole.
    Store(u32),
    /// An edge.
    Edge(u32),
    /// A topic.
    Topic(u32),
    /// A consumer.
    Consumer(u32),
    /// A lease.
    Lease(u32),
    /// A time that calibration fits.
    Time(Time),
}

/// What takes time in a run, and is drawn from a distribution in the simulation. Times of each kind are recorded as
/// response times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Time {
    /// A `work` or `wait` step of a service: its line, and which of the durations that stand there.
    Step(u32, u32, u64),
    /// An operation of a database, once it has a place to run: the store and the operation.
    Operation(u32, u32),
    /// A commit as its caller sees it, less its wait for a replica.
    Commit(u32),
    /// A command of a store in memory, once the store is free.
    Command(u32),
    /// The same with the wait for others' commands.
    Stay(u32),
    /// An exchange on an edge, less the network's delays and what the one asked says that it took.
    Hop(u32),
    /// An exchange on an edge to a store in memory, which does not say how long it took, less the network's delays.
    Exchange(u32),
    /// A publish, as its caller sees it.
    Publish(u32),
    /// From a commit until the outbox's message is published.
    Relay(u32),
    /// What a consumer does beside its handler for a message.
    Handling(u32),
    /// A good answer of a service and endpoint that says nothing about itself, as its caller sees it.
    Answer(u32, u32),
}

/// Tells apart distributions that stand on one line of a file.
pub fn marker(dist: &Dist) -> u64 {
    let (kind, a, b) = match dist {
        Dist::Constant(value) => (1, *value, 0),
        Dist::Uniform { low, high } => (2, *low, *high),
        Dist::Exponential { mean } => (3, mean.to_bits(), 0),
        Dist::LogNormal { mu, sigma } => (4, mu.to_bits(), sigma.to_bits()),
        Dist::Pareto { min, alpha } => (5, min.to_bits(), alpha.to_bits()),
        Dist::Empirical(steps) => (6, steps.len() as u64, dist.mean().to_bits()),
    };
    mix(mix(mix(kind) ^ a) ^ b)
}

/// What is new about something.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Counts.
    pub totals: Totals,
    /// Response times.
    pub latency: Histogram,
    /// Levels over time: the integral, value times ns, and the most.
    pub levels: BTreeMap<String, (f64, f64)>,
    /// Other counts.
    pub extras: BTreeMap<String, f64>,
}

impl Delta {
    /// Adds another's.
    pub fn add(&mut self, other: &Delta) {
        self.totals.add(&other.totals);
        self.latency.add(&other.latency);
        for (name, (area, most)) in &other.levels {
            let level = self.levels.entry(name.clone()).or_default();
            level.0 += area;
            level.1 = level.1.max(*most);
        }
        for (name, count) in &other.extras {
            *self.extras.entry(name.clone()).or_default() += count;
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Happening {
    /// How long before the report, ns: processes have clocks of their own.
    pub ago_ns: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// To what.
    pub subject: String,
    /// In words.
    pub text: String,
}

/// What is new since the last report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// By what it is about.
    pub deltas: Vec<(Of, Delta)>,
    /// In order of time.
    pub events: Vec<Happening>,
}

/// A process's counts.
#[derive(Debug)]
pub struct Tally {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cells: BTreeMap<Of, Cell>,
    events: Vec<(u64, EventKind, String, String)>,
}

#[derive(Debug, Default)]
struct Cell {
    delta: Delta,
    gauges: BTreeMap<&'static str, Gauge>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    value: i64,
    since: u64,
    area: f64,
    /// The same since the start.
    total: f64,
    most: i64,
}

impl Gauge {
    fn add(&mut self, now: u64, by: i64) {
        let area = self.value as f64 * now.saturating_sub(self.since) as f64;
        self.area += area;
        self.total += area;
        self.since = now;
        self.value += by;
        self.most = self.most.max(self.value);
    }
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(clock: Clock) -> Tally {
        Tally { clock, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To count several things at once, for as long as this lives.
    pub fn counts(&self) -> Counts<'_> {
        Counts(self.lock())
    }

    /// Counts.
    pub fn count(&self, of: Of, count: impl FnOnce(&mut Totals)) {
        count(&mut self.lock().cells.entry(of).or_default().delta.totals);
    }

    /// Counts something that took so long, ns.
    pub fn ended(&self, of: Of, nanos: u64, count: impl FnOnce(&mut Totals)) {
        self.counts().ended(of, nanos, count);
    }

    /// Something that calibration fits took so long, ns.
    pub fn took(&self, what: Time, nanos: u64) {
        self.counts().took(what, nanos);
    }

    /// A level rises or falls.
    pub fn level(&self, of: Of, name: &'static str, by: i64) {
        let now = self.clock.now().as_nanos();
        self.counts().level(of, name, now, by);
    }

    /// A level stands at a value.
    pub fn set_level(&self, of: Of, name: &'static str, value: i64) {
        let now = self.clock.now().as_nanos();
        let mut state = self.lock();
        let gauge = state.cells.entry(of).or_default().gauges.entry(name).or_default();
        gauge.add(now, value - gauge.value);
    }

    /// The levels of something, integrated since the start, value times ns.
    pub fn areas(&self, of: Of) -> BTreeMap<&'static str, f64> {
        let now = self.clock.now().as_nanos();
        let mut state = self.lock();
        let Some(cell) = state.cells.get_mut(&of) else { return BTreeMap::new() };
        let areas = cell.gauges.iter_mut().map(|(name, gauge)| {
            gauge.add(now, 0);
            (*name, gauge.total)
        });
        areas.collect()
    }

    /// Counts something else.
    pub fn extra(&self, of: Of, name: &'static str, count: f64) {
        let mut state = self.lock();
        *state.cells.entry(of).or_default().delta.extras.entry(name.to_owned()).or_default() += count;
    }

    /// Something has happened.
    pub fn happened(&self, kind: EventKind, subject: impl Into<String>, text: impl Into<String>) {
        let now = self.clock.now().as_nanos();
        self.lock().events.push((now, kind, subject.into(), text.into()));
    }

    /// What is new since the last report.
    pub fn report(&self) -> Report {
        let mut state = self.lock();
        let now = self.clock.now().as_nanos();
        let mut report = Report::default();
        for (of, cell) in &mut state.cells {
            if matches!(of, Of::Time(_)) && cell.delta.latency.count() == 0 {
                continue;
            }
            let mut delta = std::mem::take(&mut cell.delta);
            for (name, gauge) in &mut cell.gauges {
                gauge.add(now, 0);
                delta.levels.insert((*name).to_owned(), (gauge.area, gauge.most as f64));
                (gauge.area, gauge.most) = (0.0, gauge.value);
            }
            report.deltas.push((*of, delta));
        }
        let event = |(at, kind, subject, text)| Happening { ago_ns: now.saturating_sub(at), kind, subject, text };
        report.events = std::mem::take(&mut state.events).into_iter().map(event).collect();
        report
    }
}

/// A process's counts, held.
#[derive(Debug)]
pub struct Counts<'t>(MutexGuard<'t, State>);

impl Counts<'_> {
    /// Counts something that took so long, ns.
    pub fn ended(&mut self, of: Of, nanos: u64, count: impl FnOnce(&mut Totals)) {
        let delta = &mut self.0.cells.entry(of).or_default().delta;
        count(&mut delta.totals);
        delta.latency.record_ns(nanos);
    }

    /// Something that calibration fits took so long, ns.
    pub fn took(&mut self, what: Time, nanos: u64) {
        self.0.cells.entry(Of::Time(what)).or_default().delta.latency.record_ns(nanos);
    }

    fn level(&mut self, of: Of, name: &'static str, now: u64, by: i64) {
        self.0.cells.entry(of).or_default().gauges.entry(name).or_default().add(now, by);
    }
}

/// A level that is one higher for as long as this lives.
#[derive(Debug)]
pub struct Raised<'t> {
    tally: &'t Tally,
    of: Of,
    name: &'static str,
}

impl<'t> Raised<'t> {
    /// Raises a level.
    pub fn new(tally: &'t Tally, of: Of, name: &'static str) -> Raised<'t> {
        tally.level(of, name, 1);
        Raised { tally, of, name }
    }

    /// Lowers it again while other things are counted; now is in ns on the tally's clock.
    pub fn land(self, counts: &mut Counts<'_>, now: u64) {
        counts.level(self.of, self.name, now, -1);
        // It would count once more.
        std::mem::forget(self);
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.tally.level(self.of, self.name, -1);
    }
}

/// The same for what outlives its place.
#[derive(Debug)]
pub struct Held {
    tally: Arc<Tally>,
    of: Of,
    name: &'static str,
}

impl Held {
    /// Raises a level.
    pub fn new(tally: &Arc<Tally>, of: Of, name: &'static str) -> Held {
        tally.level(of, name, 1);
        Held { tally: tally.clone(), of, name }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tally.level(self.of, self.name, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_what_is_new() {
        let tally = Tally::new(Clock::start());
        let of = Of::Instance(0, 1);
        tally.count(of, |totals| totals.offered += 2);
        tally.ended(of, 5_000_000, |totals| totals.ok += 1);
        tally.level(of, "workers", 1);
        tally.happened(EventKind::QueueFull, "api/2", "full");
        let first = tally.report();
        assert_eq!(first.deltas.len(), 1);
        let (_, delta) = &first.deltas[0];
        assert_eq!((delta.totals.offered, delta.totals.ok, delta.latency.count()), (2, 1, 1));
        assert_eq!(delta.levels["workers"].1, 1.0);
        assert_eq!(first.events.len(), 1);
        let second = tally.report();
        assert_eq!((second.deltas[0].1.totals.offered, second.events.len()), (0, 0));
        assert_eq!(second.deltas[0].1.levels["workers"].1, 1.0, "it is still up");
        let mut sum = first.deltas[0].1.clone();
        sum.add(&second.deltas[0].1);
        assert_eq!(sum.totals.offered, 2);
    }
}
