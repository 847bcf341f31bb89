//! Hedge: a second attempt for a call that is slower than most, the first answer wins.
//!
//! The delay is the observed 95th percentile, so that about 5% of calls are hedged and the load
//! grows by no more (Dean and Barroso, "The Tail at Scale", CACM 2013). The extra attempt is paid
//! for by the retry budget, holds a permit of the bulkhead like any other, and is only made for
//! calls that may be repeated.

use std::time::Duration;

use crate::{Counts, InvalidConfig, Mode, nanos};

/// When to hedge, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The percentile of the observed latencies at which a call is hedged. Default 0.95 (Dean and
    /// Barroso).
    pub percentile: f64,
    /// Latencies to have seen before the first hedge. Default 100: fewer have no 95th percentile
    /// to speak of.
    pub min_samples: u32,
    /// The shortest delay. Default 1 ms (Finagle `BackupRequestFilter`).
    pub min_delay: Duration,
    /// Extra attempts for one try. Default 1.
    pub max_extra: u32,
    /// Whether to act.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            percentile: 0.95,
            min_samples: 100,
            min_delay: Duration::from_millis(1),
            max_extra: 1,
            mode: Mode::Enforce,
        }
    }
}

/// Observes latencies and says when a call is late enough to be hedged.
#[derive(Clone, Debug)]
pub struct Hedge {
    config: Config,
    min_delay_ns: u64,
    latencies: Latencies,
    /// The delay in force, kept between two looks at the latencies.
    delay_ns: Option<u64>,
    counts: Counts,
}

/// Samples between two computations of the percentile.
const REFRESH: u32 = 64;
/// Samples after which the old ones count half: the percentile follows a target that changes.
const HALF_LIFE: u32 = 2_048;

impl Hedge {
    /// Refuses a percentile outside `[0.5, 1)`, no samples, and no extra attempts or more than 10.
    pub fn new(config: Config) -> Result<Self, InvalidConfig> {
        validate(&config)?;
        Ok(Hedge {
            config,
            min_delay_ns: nanos(config.min_delay),
            latencies: Latencies::default(),
            delay_ns: None,
            counts: Counts::default(),
        })
    }

    /// How long after an attempt's start an extra one is due; `None` until enough is known.
    #[inline]
    pub fn delay(&self) -> Option<Duration> {
        self.delay_ns.map(Duration::from_nanos)
    }

    /// An attempt ended after `latency_ns`, or was cancelled then because another won.
    ///
    /// A cancelled attempt would have taken longer still. Leaving it out would make the observed
    /// tail shorter with every hedge, and the delay with it, until everything is hedged; so it
    /// counts, as long as it had passed the delay already.
    #[inline]
    pub fn observe(&mut self, latency_ns: u64, cancelled: bool) {
        if cancelled && self.delay_ns.is_none_or(|delay| latency_ns < delay) {
            return;
        }
        self.latencies.record(latency_ns);
        let seen = self.latencies.recorded;
        if seen == self.config.min_samples || (seen > self.config.min_samples && seen.is_multiple_of(REFRESH)) {
            self.refresh();
        }
    }

    #[inline(never)]
    fn refresh(&mut self) {
        self.delay_ns = (self.latencies.recorded >= self.config.min_samples)
            .then(|| self.latencies.quantile(self.config.percentile).max(self.min_delay_ns));
    }

    /// Whether another extra attempt may be made for a try that has had `extra` of them: counts
    /// the decision. `pay` is asked last.
    pub(crate) fn decide(&mut self, extra: u32, pay: impl FnOnce() -> bool) -> bool {
        if extra >= self.config.max_extra {
            self.counts.rejected += 1;
            false
        } else if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            false
        } else if pay() {
            self.counts.admitted += 1;
            true
        } else {
            self.counts.rejected += 1;
            false
        }
    }

    /// Replaces the configuration; the observed latencies stay.
    pub fn set_config(&mut self, config: Config) -> Result<(), InvalidConfig> {
        validate(&config)?;
        self.config = config;
        self.min_delay_ns = nanos(config.min_delay);
        self.refresh();
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Extra attempts made and refused.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn validate(config: &Config) -> Result<(), InvalidConfig> {
    let refuse = |field, expected| Err(InvalidConfig { field, expected });
    if !(0.5..1.0).contains(&config.percentile) {
        return refuse("percentile", "at least 0.5, below 1");
    }
    if config.min_samples == 0 {
        return refuse("min_samples", "at least 1");
    }
    if !(1..=10).contains(&config.max_extra) {
        return refuse("max_extra", "from 1 to 10");
    }
    Ok(())
}

/// Buckets to an octave: a bucket is at most 1/16 wider than it starts, so a quantile is at most
/// 6.3% too long.
const PER_OCTAVE_BITS: u32 = 4;
/// From 1 us (everything shorter is in the first bucket) to over an hour.
const LOWEST_BIT: u32 = 10;
const OCTAVES: u32 = 32;
const BUCKETS: usize = (OCTAVES << PER_OCTAVE_BITS) as usize;

/// A histogram with logarithmic buckets whose old samples fade.
#[derive(Clone, Debug)]
struct Latencies {
    buckets: Box<[u32; BUCKETS]>,
    /// The sum of the buckets.
    total: u32,
    /// Samples ever recorded.
    recorded: u32,
    until_fade: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        let buckets = Box::new([0; BUCKETS]);
        Latencies { buckets, total: 0, recorded: 0, until_fade: HALF_LIFE }
    }
}

impl Latencies {
    #[inline]
    fn record(&mut self, latency_ns: u64) {
        self.buckets[bucket(latency_ns)] += 1;
        self.total += 1;
        // Wraps to a multiple of the refresh interval above any minimum.
        self.recorded = match self.recorded {
            u32::MAX => u32::MAX - (REFRESH - 1),
            recorded => recorded + 1,
        };
        self.until_fade -= 1;
        if self.until_fade == 0 {
            self.fade();
        }
    }

    #[inline(never)]
    fn fade(&mut self) {
        self.until_fade = HALF_LIFE;
        self.total = 0;
        for count in self.buckets.iter_mut() {
            *count /= 2;
            self.total += *count;
        }
    }

    /// The upper end of the bucket that holds the quantile.
    fn quantile(&self, q: f64) -> u64 {
        let rank = (q * f64::from(self.total)).ceil() as u32;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return upper_end(index);
            }
        }
        upper_end(BUCKETS - 1)
    }
}

#[inline]
fn bucket(latency_ns: u64) -> usize {
    let value = latency_ns.max(1 << LOWEST_BIT);
    let octave = 63 - value.leading_zeros();
    let step = (value >> (octave - PER_OCTAVE_BITS)) & ((1 << PER_OCTAVE_BITS) - 1);
    let index = (u64::from(octave - LOWEST_BIT) << PER_OCTAVE_BITS) + step;
    (index as usize).min(BUCKETS - 1)
}

fn upper_end(index: usize) -> u64 {
    let octave = (index as u32 >> PER_OCTAVE_BITS) + LOWEST_BIT;
    let step = index as u64 & ((1 << PER_OCTAVE_BITS) - 1);
    (((1 << PER_OCTAVE_BITS) + step + 1) << (octave - PER_OCTAVE_BITS)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn hedge() -> Hedge {
        Hedge::new(Config::default()).unwrap()
    }

    fn delay_ms(hedge: &Hedge) -> f64 {
        hedge.delay().expect("enough samples").as_secs_f64() * 1_000.0
    }

    #[test]
    fn the_delay_is_the_95th_percentile_of_enough_samples() {
        let mut hedge = hedge();
        for i in 1..100 {
            hedge.observe(i * MS, false);
            assert_eq!(hedge.delay(), None, "after {i} samples");
        }
        hedge.observe(100 * MS, false);
        let delay = delay_ms(&hedge);
        assert!((95.0..=95.0 * 17.0 / 16.0).contains(&delay), "{delay} ms");
    }

    #[test]
    fn it_is_never_below_the_minimum() {
        let mut hedge = hedge();
        for _ in 0..100 {
            hedge.observe(20_000, false);
        }
        assert_eq!(hedge.delay(), Some(Duration::from_millis(1)));
    }

    #[test]
    fn it_follows_a_target_that_slows_down() {
        let mut hedge = hedge();
        for _ in 0..100_000 {
            hedge.observe(10 * MS, false);
        }
        assert!(delay_ms(&hedge) < 11.0);
        for _ in 0..2 * HALF_LIFE {
            hedge.observe(50 * MS, false);
        }
        assert!(delay_ms(&hedge) >= 50.0);
    }

    #[test]
    fn cancelled_attempts_keep_the_tail_in_sight() {
        // One call in twenty takes 200 ms, but is cancelled soon after the delay, when its hedge
        // has answered. Without them the tail would be 10 ms, and then every call hedged.
        let mut hedge = hedge();
        for i in 0..200_000u64 {
            let slow = i % 20 == 0;
            match hedge.delay() {
                Some(delay) if slow => hedge.observe(nanos(delay) + 10 * MS, true),
                _ => hedge.observe(if slow { 200 } else { 5 + i % 6 } * MS, false),
            }
        }
        let delay = delay_ms(&hedge);
        assert!((9.5..200.0).contains(&delay), "{delay} ms");
        // A caller who leaves early says nothing.
        let before = format!("{hedge:?}");
        hedge.observe(2 * MS, true);
        assert_eq!(before, format!("{hedge:?}"));
    }

    #[test]
    fn decisions_are_counted_and_only_a_due_one_is_paid_for() {
        let mut hedge = hedge();
        let unpaid = || panic!("not due");
        assert!(hedge.decide(0, || true));
        assert!(!hedge.decide(0, || false));
        assert!(!hedge.decide(1, unpaid));
        assert_eq!(hedge.counts(), Counts { admitted: 1, rejected: 2, shadowed: 0 });
        hedge.set_config(Config { mode: Mode::Shadow, ..Config::default() }).unwrap();
        assert!(!hedge.decide(0, unpaid));
        assert_eq!(hedge.counts().shadowed, 1);
    }

    #[test]
    fn buckets_hold_what_is_put_into_them() {
        for exponent in 0..64 {
            for latency in [1u64 << exponent, (1 << exponent) + (1 << exponent) / 3] {
                let upper = upper_end(bucket(latency));
                let top = upper_end(BUCKETS - 1);
                assert!(upper >= latency.min(top), "{latency} in a bucket up to {upper}");
                if (1 << LOWEST_BIT..top).contains(&latency) {
                    assert!(upper as f64 <= latency as f64 * 17.0 / 16.0);
                }
            }
        }
    }

    #[test]
    fn a_new_configuration_keeps_the_latencies() {
        let mut hedge = hedge();
        for i in 1..=100 {
            hedge.observe(i * MS, false);
        }
        hedge.set_config(Config { percentile: 0.5, ..Config::default() }).unwrap();
        assert!((50.0..54.0).contains(&delay_ms(&hedge)));
        hedge.set_config(Config { min_samples: 1_000, ..Config::default() }).unwrap();
        assert_eq!(hedge.delay(), None);
        for (config, field) in [
            (Config { percentile: 1.0, ..Config::default() }, "percentile"),
            (Config { min_samples: 0, ..Config::default() }, "min_samples"),
            (Config { max_extra: 0, ..Config::default() }, "max_extra"),
        ] {
            assert_eq!(hedge.set_config(config).unwrap_err().field, field);
        }
    }
}
