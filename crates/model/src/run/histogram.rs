use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Durations in microseconds to three significant digits, from 1 microsecond to over an hour.
///
/// An HDR histogram with an exact sum beside it, so that means carry no rounding.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: hdrhistogram::Histogram<u64>,
    sum_us: f64,
}

/// The greatest duration that is told apart, in microseconds: an hour and a bit.
const MAX_US: u64 = 1 << 32;

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        let mut counts = hdrhistogram::Histogram::new_with_bounds(1, 4, 3).expect("these bounds are valid");
        counts.auto(true);
        Histogram { counts, sum_us: 0.0 }
    }

    /// Records a duration in nanoseconds.
    #[inline]
    pub fn record_ns(&mut self, nanos: u64) {
        self.record_n_us(nanos.div_ceil(1000), 1);
        self.sum_us += nanos as f64 / 1000.0 - nanos.div_ceil(1000) as f64;
    }

    fn record_n_us(&mut self, micros: u64, count: u64) {
        // Not `saturating_record_n`: that clamps to the bounds of the moment instead of growing them.
        self.counts.record_n(micros.min(MAX_US), count).expect("it grows to fit");
        self.sum_us += micros as f64 * count as f64;
    }

    /// Records durations with their counts, whose exact sum is known, all in nanoseconds.
    pub fn record_all_ns(&mut self, durations: impl IntoIterator<Item = (u64, u64)>, sum_ns: f64) {
        let before = self.sum_us;
        for (nanos, count) in durations {
            self.record_n_us(nanos.div_ceil(1000), count);
        }
        self.sum_us = before + sum_ns / 1000.0;
    }

    /// Adds another histogram's durations.
    pub fn add(&mut self, other: &Histogram) {
        self.counts.add(&other.counts).expect("it grows to fit");
        self.sum_us += other.sum_us;
    }

    /// How many durations it holds.
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// The mean in ms; zero when empty.
    pub fn mean_ms(&self) -> f64 {
        if self.counts.is_empty() { 0.0 } else { self.sum_us / self.counts.len() as f64 / 1000.0 }
    }

    /// The duration in ms that `percentile` (0 to 100) of them are at or below; zero when empty.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.counts.value_at_percentile(percentile) as f64 / 1000.0
    }

    /// The longest duration in ms; zero when empty.
    pub fn max_ms(&self) -> f64 {
        if self.counts.is_empty() { 0.0 } else { self.counts.max() as f64 / 1000.0 }
    }

    /// The share at or below a duration in nanoseconds; 1 when empty.
    pub fn share_at_or_below(&self, nanos: u64) -> f64 {
        self.counts.quantile_below(nanos / 1000)
    }

    /// The histogram in microseconds, for exports.
    pub fn as_hdr(&self) -> &hdrhistogram::Histogram<u64> {
        &self.counts
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.counts == other.counts
    }
}

/// On file: pairs of (microseconds, count) for the values that occur, and the exact sum.
#[derive(Serialize, Deserialize)]
struct OnFile {
    sum_us: f64,
    counts_us: Vec<(u64, u64)>,
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts_us = self.counts.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
        OnFile { sum_us: self.sum_us, counts_us }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = OnFile::deserialize(deserializer)?;
        let mut histogram = Histogram::new();
        for (micros, count) in file.counts_us {
            histogram.record_n_us(micros, count);
        }
        histogram.sum_us = file.sum_us;
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_exact_and_percentiles_close() {
        let mut histogram = Histogram::new();
        for ms in 1..=1000u64 {
            histogram.record_ns(ms * 1_000_000 + 1);
        }
        assert!((histogram.mean_ms() - 500.500001).abs() < 1e-6);
        assert!((histogram.percentile_ms(99.0) - 990.0).abs() < 1.0);
        assert_eq!(histogram.count(), 1000);
    }

    #[test]
    fn an_empty_one_reads_as_zero() {
        let histogram = Histogram::new();
        assert_eq!((histogram.mean_ms(), histogram.percentile_ms(99.0), histogram.max_ms()), (0.0, 0.0, 0.0));
    }
}
