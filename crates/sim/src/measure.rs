//! What one replication records: counts, response times and time averages, split into the
//! segments between an experiment's cuts (warm-up, before, during and after its faults).

use plimsoll_model::run::{Histogram, Totals};

/// Response times to about 0.4%, cheap to record: 128 buckets an octave of nanoseconds above
/// 2^10, and an exact sum. Twice as many buckets would miss the processor's first cache more often
/// than percentiles, which are interpolated, gain by it.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    counts: Vec<u32>,
    sum: u64,
    max: u64,
}

const SUB_BITS: u32 = 7;
const MIN_BITS: u32 = 10;

/// Buckets that are summed at a stride when a percentile is looked for.
const BLOCK: usize = 64;

impl Times {
    pub(crate) fn new() -> Self {
        Times { counts: Vec::new(), sum: 0, max: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        let bucket = bucket(nanos);
        match self.counts.get_mut(bucket) {
            Some(count) => *count += 1,
            None => self.grow(bucket),
        }
        self.sum += nanos;
        self.max = self.max.max(nanos);
    }

    #[cold]
    fn grow(&mut self, bucket: usize) {
        self.counts.resize(bucket + 1 + (1 << SUB_BITS), 0);
        self.counts[bucket] = 1;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|&count| count as u64).sum()
    }

    /// Forgets all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.sum = 0;
        self.max = 0;
    }

    /// Takes another's away, which is part of these.
    pub(crate) fn subtract(&mut self, other: &Times) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine -= theirs;
        }
        self.sum -= other.sum;
    }

    pub(crate) fn add(&mut self, other: &Times) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// The mean, ns; NaN when empty.
    pub(crate) fn mean(&self) -> f64 {
        self.sum as f64 / self.count() as f64
    }

    /// A percentile (0 to 100), ns, by linear interpolation within its bucket; NaN when empty.
    pub(crate) fn percentile(&self, percentile: f64) -> f64 {
        let [value] = self.percentiles([percentile]);
        value
    }

    /// Percentiles (0 to 100, rising), as [`percentile`](Self::percentile) gives each, in one pass.
    pub(crate) fn percentiles<const N: usize>(&self, rising: [f64; N]) -> [f64; N] {
        let total = self.count();
        if total == 0 {
            return [f64::NAN; N];
        }
        let mut values = [self.max as f64; N];
        let mut at = 0;
        let mut below = 0u64;
        for (block, counts) in self.counts.chunks(BLOCK).enumerate() {
            // Most blocks hold none that is asked for: their sum tells.
            let here: u64 = counts.iter().map(|&count| count as u64).sum();
            let within = |at: usize, below: u64, count: u64| {
                at < N && count > 0 && (below + count) as f64 >= rising[at] / 100.0 * total as f64
            };
            if within(at, below, here) {
                let mut below = below;
                for (i, &count) in counts.iter().enumerate() {
                    let count = count as u64;
                    while within(at, below, count) {
                        let (low, high) = bounds(block * BLOCK + i);
                        let rank = rising[at] / 100.0 * total as f64;
                        let high = high.min(self.max as f64);
                        let inside = ((rank - below as f64) / count as f64).clamp(0.0, 1.0);
                        values[at] = low + inside * (high - low).max(0.0);
                        at += 1;
                    }
                    below += count;
                }
            }
            below += here;
        }
        values
    }

    /// Adds these to a histogram of the run, each bucket at its middle, the sum exact.
    pub(crate) fn pour_into(&self, histogram: &mut Histogram) {
        let pairs = self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bucket, &count)| {
            let (low, high) = bounds(bucket);
            let middle = ((low + high) / 2.0).min(self.max as f64);
            (middle as u64, count as u64)
        });
        histogram.record_all_ns(pairs, self.sum as f64);
    }
}

/// Response times by the segment in which they were recorded.
#[derive(Clone, Debug)]
pub(crate) struct SegmentTimes {
    /// Of the segment at hand: in place, since every call comes by.
    now: Times,
    /// Of those that have ended.
    pub(crate) ended: Vec<Times>,
}

impl SegmentTimes {
    pub(crate) fn new() -> Self {
        SegmentTimes { now: Times::new(), ended: Vec::new() }
    }

    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.now.record(nanos);
    }

    /// Ends a segment.
    pub(crate) fn cut(&mut self) {
        self.ended.push(std::mem::replace(&mut self.now, Times::new()));
    }
}

#[inline(always)]
fn bucket(nanos: u64) -> usize {
    let octave = (nanos | 1 << MIN_BITS).ilog2() - SUB_BITS;
    (((octave - (MIN_BITS - SUB_BITS)) as usize) << SUB_BITS) + (nanos >> octave) as usize
}

/// Both ends of a bucket, ns.
fn bounds(bucket: usize) -> (f64, f64) {
    let unit = (1u64 << (MIN_BITS - SUB_BITS)) as f64;
    let octave = bucket >> SUB_BITS;
    let sub = bucket & ((1 << SUB_BITS) - 1);
    if octave == 0 {
        return (sub as f64 * unit, (sub + 1) as f64 * unit);
    }
    let width = unit * libm::exp2(octave as f64 - 1.0);
    let low = ((1 << SUB_BITS) + sub) as f64 * width;
    (low, low + width)
}

/// A count over time: its time average in each segment and, where asked for, in each second.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Gauge {
    value: i64,
    since: u64,
    /// Integral over this segment up to `since`, value times ns: whole numbers, so that nothing is lost.
    area: i64,
    max: i64,
    pub(crate) segments: Vec<GaugeSegment>,
    second_area: i64,
    pub(crate) seconds: Vec<f32>,
    /// The integral over all segments that have ended.
    ended: i64,
    /// The integral over all segments when each reader last took it.
    taken: [i64; 2],
}

/// Those who steer by a gauge, each for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    Autoscaler,
    Ladder,
}

/// A gauge over one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GaugeSegment {
    /// Integral of the value over time, value times ns.
    pub(crate) area: f64,
    pub(crate) max: f64,
}

impl Gauge {
    pub(crate) fn new() -> Self {
        Gauge {
            value: 0,
            since: 0,
            area: 0,
            max: 0,
            segments: Vec::new(),
            second_area: 0,
            seconds: Vec::new(),
            ended: 0,
            taken: [0; 2],
        }
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, now: u64, delta: i64) {
        self.pass(now);
        self.value += delta;
        if delta > 0 {
            self.max = self.max.max(self.value);
        }
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, now: u64, value: i64) {
        self.pass(now);
        self.value = value;
        self.max = self.max.max(value);
    }

    /// Time passes at this value.
    #[inline(always)]
    fn pass(&mut self, now: u64) {
        self.area += self.value * (now - self.since) as i64;
        self.since = now;
    }

    /// The integral so far in this segment, value times ns.
    fn area_now(&self, now: u64) -> i64 {
        self.area + self.value * (now - self.since) as i64
    }

    /// The integral since this reader last took it, value times ns.
    pub(crate) fn take_area(&mut self, now: u64, reader: Reader) -> f64 {
        let total = self.ended + self.area_now(now);
        (total - std::mem::replace(&mut self.taken[reader as usize], total)) as f64
    }

    /// Adds another gauge's finished segments and seconds.
    pub(crate) fn add_record(&mut self, other: &Gauge) {
        self.segments.resize(self.segments.len().max(other.segments.len()), GaugeSegment::default());
        for (mine, theirs) in self.segments.iter_mut().zip(&other.segments) {
            mine.area += theirs.area;
            mine.max += theirs.max;
        }
        self.seconds.resize(self.seconds.len().max(other.seconds.len()), 0.0);
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            *mine += theirs;
        }
    }

    /// Ends a second.
    pub(crate) fn tick(&mut self, now: u64) {
        let area = self.area_now(now);
        self.seconds.push(((area - self.second_area) as f64 / 1e9) as f32);
        self.second_area = area;
    }

    /// Ends a segment.
    pub(crate) fn cut(&mut self, now: u64) {
        let area = self.area_now(now);
        // Seconds count from the end of the warm-up, which is the first cut.
        self.second_area = if self.segments.is_empty() { 0 } else { self.second_area - area };
        self.segments.push(GaugeSegment { area: area as f64, max: self.max as f64 });
        self.ended += area;
        self.area = 0;
        self.since = now;
        self.max = self.value;
    }
}

/// Counts of one component, instance or edge: by segment and, where asked for, by second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    pub(crate) now: Totals,
    pub(crate) segments: Vec<Totals>,
    second: Totals,
    pub(crate) seconds: Vec<Totals>,
}

impl Counter {
    pub(crate) fn tick(&mut self) {
        self.seconds.push(minus(&self.now, &self.second));
        self.second = self.now;
    }

    /// Adds another's counts, segment by segment and second by second.
    pub(crate) fn add(&mut self, other: &Counter) {
        for (mine, theirs) in [(&mut self.segments, &other.segments), (&mut self.seconds, &other.seconds)] {
            mine.resize(mine.len().max(theirs.len()), Totals::default());
            for (sum, totals) in mine.iter_mut().zip(theirs) {
                sum.add(totals);
            }
        }
    }

    pub(crate) fn cut(&mut self) {
        // Seconds count from the end of the warm-up, which is the first cut.
        self.second = if self.segments.is_empty() { Totals::default() } else { minus(&self.second, &self.now) };
        self.segments.push(self.now);
        self.now = Totals::default();
    }
}

/// Wrapping differences: at a cut the second's start lies before the segment's.
fn minus(a: &Totals, b: &Totals) -> Totals {
    Totals {
        offered: a.offered.wrapping_sub(b.offered),
        ok: a.ok.wrapping_sub(b.ok),
        failed: a.failed.wrapping_sub(b.failed),
        rejected: a.rejected.wrapping_sub(b.rejected),
        timed_out: a.timed_out.wrapping_sub(b.timed_out),
        degraded: a.degraded.wrapping_sub(b.degraded),
        retries: a.retries.wrapping_sub(b.retries),
        rescued: a.rescued.wrapping_sub(b.rescued),
        reads: a.reads.wrapping_sub(b.reads),
        replica_reads: a.replica_reads.wrapping_sub(b.replica_reads),
        stale: a.stale.wrapping_sub(b.stale),
        lost: a.lost.wrapping_sub(b.lost),
        duplicates: a.duplicates.wrapping_sub(b.duplicates),
    }
}

/// Requests of everybody, of one client or to one endpoint, split by the segment in which they
/// arrived: the sum of its groups' when the run is over, but for what is no sum.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    /// Its groups, by number.
    groups: Vec<u32>,
    pub(crate) cells: Vec<Cell>,
    /// (p50, p95, p99) in ms, second by second.
    pub(crate) seconds: Vec<[f32; 3]>,
    pub(crate) counter: Counter,
    pub(crate) in_flight: Gauge,
    /// End of the last good answer, ns.
    last_ok: u64,
    /// Longest time without one that has ended in this segment, ns.
    gap: u64,
}

/// Requests of one client to one endpoint: where each is recorded, once.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    cells: Vec<Cell>,
    /// Response times of the requests that ended in the current second.
    second: Times,
    counter: Counter,
    in_flight: Gauge,
}

/// Requests of one segment.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) totals: Totals,
    /// Response times, failures included.
    pub(crate) all: Times,
    /// Response times of failures.
    pub(crate) failed: Times,
    /// Good answers within each of the objectives' and expectations' thresholds.
    pub(crate) within: Vec<u64>,
    /// Longest time without a good answer that ended in this segment, ns; kept by audiences only.
    pub(crate) gap: u64,
    /// Time of the last arrival that did not end well, ns; 0: none.
    pub(crate) last_bad: u64,
}

impl Cell {
    fn new(thresholds: usize) -> Self {
        Cell {
            totals: Totals::default(),
            all: Times::new(),
            failed: Times::new(),
            within: vec![0; thresholds],
            gap: 0,
            last_bad: 0,
        }
    }
}

/// How a client's request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) arrived: u64,
    pub(crate) now: u64,
    pub(crate) ok: bool,
    pub(crate) degraded: bool,
    pub(crate) rejected: bool,
    pub(crate) timed_out: bool,
    pub(crate) retries: u32,
    pub(crate) rescued: bool,
}

impl Group {
    pub(crate) fn new(segments: usize, thresholds: usize) -> Self {
        Group {
            cells: vec![Cell::new(thresholds); segments],
            second: Times::new(),
            counter: Counter::default(),
            in_flight: Gauge::new(),
        }
    }

    #[inline]
    pub(crate) fn arrive(&mut self, now: u64, segment: usize, detail: bool) {
        self.cells[segment].totals.offered += 1;
        if detail {
            self.counter.now.offered += 1;
            self.in_flight.add(now, 1);
        }
    }

    #[inline]
    pub(crate) fn end(&mut self, segment: usize, ended: &Ended, thresholds: &[u64], detail: bool) {
        let took = ended.now - ended.arrived;
        let cell = &mut self.cells[segment];
        cell.all.record(took);
        count(&mut cell.totals, ended);
        if ended.ok {
            for (count, &threshold) in cell.within.iter_mut().zip(thresholds) {
                *count += (took < threshold) as u64;
            }
        } else {
            cell.failed.record(took);
            cell.last_bad = cell.last_bad.max(ended.arrived);
        }
        if detail {
            count(&mut self.counter.now, ended);
            self.in_flight.add(ended.now, -1);
            self.second.record(took);
        }
    }

    /// Ends a second; audiences have read it.
    pub(crate) fn tick(&mut self, now: u64) {
        self.second.clear();
        self.counter.tick();
        self.in_flight.tick(now);
    }

    /// Ends a segment.
    pub(crate) fn cut(&mut self, now: u64) {
        if self.counter.segments.is_empty() {
            self.second.clear();
        }
        self.counter.cut();
        self.in_flight.cut(now);
    }
}

impl Audience {
    pub(crate) fn new(groups: Vec<u32>, segments: usize, thresholds: usize) -> Self {
        Audience {
            groups,
            cells: vec![Cell::new(thresholds); segments],
            seconds: Vec::new(),
            counter: Counter::default(),
            in_flight: Gauge::new(),
            last_ok: 0,
            gap: 0,
        }
    }

    /// A good answer has come.
    #[inline]
    pub(crate) fn good(&mut self, now: u64) {
        self.gap = self.gap.max(now - self.last_ok);
        self.last_ok = now;
    }

    /// Ends a second, of which the groups still know.
    pub(crate) fn tick(&mut self, groups: &[Group], scratch: &mut Times) {
        let own = |group: &u32| &groups[*group as usize].second;
        let times = match &self.groups[..] {
            [only] => own(only),
            several => {
                scratch.clear();
                several.iter().for_each(|group| scratch.add(own(group)));
                scratch
            }
        };
        let ms = |nanos: f64| if nanos.is_nan() { 0.0 } else { (nanos / 1e6) as f32 };
        self.seconds.push(times.percentiles([50.0, 95.0, 99.0]).map(ms));
    }

    /// Ends a segment: a gap that is still open counts where it is.
    pub(crate) fn cut(&mut self, now: u64, segment: usize) {
        self.cells[segment].gap = self.gap.max(now - self.last_ok);
        self.gap = 0;
    }

    /// Sums the groups up when the run is over.
    pub(crate) fn sum_up(&mut self, groups: &[Group]) {
        for group in self.groups.iter().map(|&group| &groups[group as usize]) {
            for (mine, theirs) in self.cells.iter_mut().zip(&group.cells) {
                mine.totals.add(&theirs.totals);
                mine.all.add(&theirs.all);
                mine.failed.add(&theirs.failed);
                for (sum, count) in mine.within.iter_mut().zip(&theirs.within) {
                    *sum += count;
                }
                mine.last_bad = mine.last_bad.max(theirs.last_bad);
            }
            self.counter.add(&group.counter);
            self.in_flight.add_record(&group.in_flight);
        }
    }
}

#[inline]
fn count(totals: &mut Totals, ended: &Ended) {
    totals.retries += ended.retries as u64;
    totals.rescued += ended.rescued as u64;
    if ended.ok {
        totals.ok += 1;
        totals.degraded += ended.degraded as u64;
    } else {
        totals.failed += 1;
        totals.rejected += ended.rejected as u64;
        totals.timed_out += ended.timed_out as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut before = 0;
        for nanos in (0..200_000u64).chain((0..40).map(|i| 1_000_003u64 << (i / 2))) {
            let b = bucket(nanos);
            let (low, high) = bounds(b);
            assert!(low <= nanos as f64 && (nanos as f64) < high, "{nanos}: {low}..{high}");
            assert!(nanos < 1024 || (high - low) / low <= 1.0 / 128.0 + 1e-9);
            assert!(b >= before || nanos >= 1_000_003);
            before = b;
        }
    }

    #[test]
    fn percentiles_of_a_uniform_sample() {
        let mut times = Times::new();
        for i in 1..=100_000u64 {
            times.record(i * 10_000);
        }
        for p in [1.0, 50.0, 95.0, 99.9] {
            let expected = p / 100.0 * 1e9;
            assert!((times.percentile(p) / expected - 1.0).abs() < 1e-3, "{p}: {}", times.percentile(p));
        }
        assert_eq!(times.percentile(100.0), 1e9);
    }

    #[test]
    fn a_gauge_averages_by_segment_and_second() {
        let mut gauge = Gauge::new();
        gauge.cut(0);
        gauge.set(0, 2);
        gauge.set(500_000_000, 4);
        gauge.tick(1_000_000_000);
        gauge.cut(1_500_000_000);
        gauge.tick(2_000_000_000);
        gauge.cut(2_000_000_000);
        assert_eq!(gauge.seconds, [3.0, 4.0]);
        assert_eq!(gauge.segments[1].area, 2.0 * 0.5e9 + 4.0 * 1e9);
        assert_eq!(gauge.segments[2].area, 4.0 * 0.5e9);
    }
}
