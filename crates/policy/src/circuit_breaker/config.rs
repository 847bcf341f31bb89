//! The breaker's configuration, as it is written and as the hot path reads it.

use std::time::Duration;

use super::BUCKETS;
use crate::{InvalidConfig, Mode, nanos, unit};

/// When to open, for how long, and how to come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Share of failed calls at which it opens. Default 0.5 (resilience4j
    /// `failureRateThreshold`: <https://resilience4j.readme.io/docs/circuitbreaker>).
    pub failure_rate: f64,
    /// Calls in the window below which it never opens. Default 20 (Hystrix
    /// `requestVolumeThreshold`: <https://github.com/Netflix/Hystrix/wiki/Configuration>). It is a
    /// rule of thumb: at fewer calls a rate says little.
    pub minimum_calls: u32,
    /// How far back calls count. Default 10 s (Hystrix `rollingStats.timeInMilliseconds`).
    pub window: Duration,
    /// How long it stays open the first time. Default 5 s (Hystrix `sleepWindowInMilliseconds`).
    pub open_for: Duration,
    /// How long it stays open at most; the time doubles with every trip that follows without a
    /// recovery. Default 60 s (resilience4j `waitDurationInOpenState`).
    pub open_for_max: Duration,
    /// Spread of the open time, 0.2 for up to 20% longer, so that a fleet's breakers do not
    /// probe at the same instant. Default 0.2 (linkerd2's consecutive-failure breaker backs off
    /// with a jitter ratio too: <https://linkerd.io/2/reference/circuit-breaking/>). At
    /// `open_for_max` the spread goes below it, not above; it never goes below `open_for`.
    pub open_jitter: f64,
    /// Calls that try a target again. Default 3: one proves little, ten are a load.
    pub half_open_probes: u32,
    /// A probe that is not settled for so long loses its slot. Default 30 s. It should exceed the
    /// longest time that a call may take.
    pub probe_lease: Duration,
    /// A call that took at least this long is slow. Default 60 s (resilience4j
    /// `slowCallDurationThreshold`).
    pub slow_call: Duration,
    /// Share of slow calls at which it opens. Default 1 (resilience4j `slowCallRateThreshold`).
    pub slow_call_rate: f64,
    /// How long after the probes the admitted share takes to grow to all. Default 10 s, one
    /// window. Zero admits everything at once.
    pub ramp: Duration,
    /// The share at which that growth starts. Default 0.1 (Envoy's slow start,
    /// `min_weight_percent` 10%).
    pub ramp_from: f64,
    /// Whether to act.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            failure_rate: 0.5,
            minimum_calls: 20,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            open_for_max: Duration::from_secs(60),
            open_jitter: 0.2,
            half_open_probes: 3,
            probe_lease: Duration::from_secs(30),
            slow_call: Duration::from_secs(60),
            slow_call_rate: 1.0,
            ramp: Duration::from_secs(10),
            ramp_from: 0.1,
            mode: Mode::Enforce,
        }
    }
}

/// The configuration as the hot path reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) failure_rate: f64,
    pub(super) slow_rate: f64,
    pub(super) minimum_calls: u32,
    pub(super) slow_ns: u64,
    pub(super) bucket_ns: u64,
    pub(super) window_ns: u64,
    pub(super) lease_ns: u64,
    pub(super) ramp_ns: u64,
    pub(super) ramp_from: f64,
    pub(super) open_ns: u64,
    pub(super) open_max_ns: u64,
    pub(super) open_jitter: f64,
}

impl Limits {
    pub(super) fn new(config: &Config) -> Result<Limits, InvalidConfig> {
        let rate = |field, value: f64| {
            let valid = value > 0.0 && value <= 1.0;
            valid.then_some(value).ok_or(InvalidConfig { field, expected: "above 0, at most 1" })
        };
        let some = |field, value: Duration| {
            let expected = "a duration above zero";
            (!value.is_zero()).then(|| nanos(value)).ok_or(InvalidConfig { field, expected })
        };
        if config.minimum_calls == 0 {
            return Err(InvalidConfig { field: "minimum_calls", expected: "at least 1" });
        }
        if !(1..=1000).contains(&config.half_open_probes) {
            return Err(InvalidConfig { field: "half_open_probes", expected: "from 1 to 1000" });
        }
        if config.open_for_max < config.open_for {
            return Err(InvalidConfig { field: "open_for_max", expected: "at least open_for" });
        }
        if !(0.0..=1.0).contains(&config.open_jitter) {
            return Err(InvalidConfig { field: "open_jitter", expected: "from 0 to 1" });
        }
        let window_ns = some("window", config.window)?;
        Ok(Limits {
            failure_rate: rate("failure_rate", config.failure_rate)?,
            slow_rate: rate("slow_call_rate", config.slow_call_rate)?,
            minimum_calls: config.minimum_calls,
            slow_ns: some("slow_call", config.slow_call)?,
            bucket_ns: window_ns / BUCKETS as u64,
            window_ns,
            lease_ns: some("probe_lease", config.probe_lease)?,
            ramp_ns: nanos(config.ramp),
            ramp_from: rate("ramp_from", config.ramp_from)?,
            open_ns: some("open_for", config.open_for)?,
            open_max_ns: nanos(config.open_for_max),
            open_jitter: config.open_jitter,
        })
    }

    /// Whether a rate reaches its threshold.
    #[inline]
    pub(super) fn too_many(&self, failed: u32, slow: u32, all: u32) -> bool {
        let all = f64::from(all);
        (failed > 0 && f64::from(failed) >= self.failure_rate * all)
            || (slow > 0 && f64::from(slow) >= self.slow_rate * all)
    }

    /// The admitted share `elapsed_ns` into the ramp: a straight line from `ramp_from` to 1.
    pub(super) fn share(&self, elapsed_ns: u64) -> f64 {
        let progress = elapsed_ns as f64 / self.ramp_ns as f64;
        self.ramp_from + (1.0 - self.ramp_from) * progress.min(1.0)
    }

    /// The open time of the trip that follows `streak` others: doubled for each, jittered, and
    /// within `[open_for, open_for_max]` unless the two leave no room for jitter.
    pub(super) fn open_ns(&self, streak: u32, random: u64) -> u64 {
        let (first, longest) = (self.open_ns as f64, self.open_max_ns as f64);
        let doubled = first * (1u64 << streak.min(62)) as f64;
        let spread = 1.0 + self.open_jitter;
        let high = (doubled * spread).min(longest.max(first * spread));
        let low = (high / spread).max(first);
        (low + (high - low) * unit(random)) as u64
    }
}
