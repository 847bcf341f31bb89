use std::sync::Arc;

use crate::run::Histogram;
use crate::system::Dist;

/// The shares at which a measured distribution is kept, with the keys that they have on file.
pub const SHARES: [(&str, f64); 11] = [
    ("min", 0.0),
    ("p5", 0.05),
    ("p10", 0.1),
    ("p25", 0.25),
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
    ("max", 1.0),
];

/// Equally likely parts that a distribution through percentiles is cut into below its 99th, and above it.
const PARTS: usize = 495;
const PARTS_ABOVE: usize = 500;

/// How long something took, in ns at each of [`SHARES`], in rising order.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// How often it was measured.
    pub samples: u64,
    /// At each of [`SHARES`], ns.
    pub at: [u64; SHARES.len()],
}

impl Times {
    /// Those of a histogram; none of an empty one.
    pub fn of(histogram: &Histogram) -> Option<Times> {
        Times::moved(histogram, 0.0, 1.0)
    }

    /// Those of a histogram whose distances from its mean are multiplied by `spread`, `less` ns less; what would fall
    /// below zero is zero.
    pub fn moved(histogram: &Histogram, less: f64, spread: f64) -> Option<Times> {
        let samples = histogram.count();
        if samples == 0 {
            return None;
        }
        let mean = histogram.mean_ms() * 1e6;
        let at = SHARES.map(|(_, share)| {
            let value = histogram.percentile_ms(share * 100.0) * 1e6;
            (mean - less + (value - mean) * spread).max(0.0).round() as u64
        });
        Some(Times { samples, at })
    }

    /// Always the same.
    pub fn constant(nanos: u64, samples: u64) -> Times {
        Times { samples, at: [nanos; SHARES.len()] }
    }

    /// The distribution through these percentiles. Between two of them logarithms are interpolated, as most durations
    /// are nearer to lognormal than to uniform, above the median along the nines; from zero, the values themselves.
    pub fn dist(&self) -> Dist {
        if self.at.iter().all(|value| *value == self.at[0]) {
            return Dist::Constant(self.at[0]);
        }
        // The tail is cut finer, for the percentiles that people ask for lie there.
        let below = (0..PARTS).map(|part| (part as f64 + 0.5, (part as f64 + 1.0), PARTS as f64, 0.0, 0.99));
        let above = (0..PARTS_ABOVE).map(|part| (part as f64 + 0.5, part as f64 + 1.0, PARTS_ABOVE as f64, 0.99, 0.01));
        let steps = below.chain(above).map(|(middle, end, parts, from, width)| {
            (from + end / parts * width, self.value(from + middle / parts * width).round() as u64)
        });
        Dist::Empirical(Arc::from(steps.collect::<Vec<_>>()))
    }

    /// The mean of [`dist`](Times::dist), ns.
    pub fn mean(&self) -> f64 {
        self.dist().mean()
    }

    /// The value at a share, ns.
    pub fn value(&self, share: f64) -> f64 {
        let above = SHARES.partition_point(|(_, of)| *of < share).clamp(1, SHARES.len() - 1);
        let (from, to) = (SHARES[above - 1].1, SHARES[above].1);
        let (low, high) = (self.at[above - 1] as f64, self.at[above] as f64);
        // Of a tail as many nines lie between two values as there are steps between them, not as many requests.
        let nines = low > 0.0 && from >= 0.5 && to < 1.0;
        let along = |share: f64| if nines { -libm::log(1.0 - share) } else { share };
        let part = ((along(share) - along(from)) / (along(to) - along(from))).clamp(0.0, 1.0);
        if low > 0.0 { low * libm::pow(high / low, part) } else { low + (high - low) * part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{duration, mix};

    #[test]
    fn what_is_drawn_has_the_percentiles_that_were_measured() {
        let described = Dist::lognormal_through(1e6, 8e6);
        let mut measured = Histogram::new();
        (0..100_000u64).for_each(|i| measured.record_ns(duration(&described, mix(i))));
        let times = Times::of(&measured).unwrap();
        assert_eq!(times.samples, 100_000);
        let dist = times.dist();
        let mut again = Histogram::new();
        (0..100_000u64).for_each(|i| again.record_ns(duration(&dist, mix(i ^ 0x5555_5555))));
        for p in [10.0, 50.0, 75.0, 95.0, 99.0, 99.5] {
            let (a, b) = (measured.percentile_ms(p), again.percentile_ms(p));
            assert!((a / b - 1.0).abs() < 0.05, "p{p}: {a} and {b}");
        }
        assert!((measured.mean_ms() / again.mean_ms() - 1.0).abs() < 0.03);
    }

    #[test]
    fn moved_times_keep_their_order_and_stay_above_zero() {
        let mut histogram = Histogram::new();
        for us in [100, 200, 300, 1000] {
            histogram.record_ns(us * 1000);
        }
        let moved = Times::moved(&histogram, 350_000.0, 0.5).unwrap();
        assert!(moved.at.is_sorted());
        assert_eq!(moved.at[0], 0);
        assert_eq!(Times::of(&Histogram::new()), None);
        assert_eq!(Times::constant(5, 1).dist(), Dist::Constant(5));
    }
}
