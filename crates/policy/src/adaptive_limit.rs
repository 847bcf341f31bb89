//! Adaptive limit: calls in flight, limited by what their latency says about the target.
//!
//! A fixed bulkhead must be sized for a capacity that changes with every deployment. A gradient
//! limit compares the latency now with the latency of the last while: as long as they agree the
//! target does not queue, and the limit grows; when the latency rises the target queues, and the
//! limit shrinks in proportion.
//!
//! What it cannot see is a queue that builds up over several times the long window: that looks like
//! a target that became slower, and is allowed for. `max` is the answer to that, so set it.

use std::time::Duration;

use crate::{Counts, InvalidConfig, Mode, Outcome, Reason, Rejected, Time, nanos};

/// The rule and its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How the limit moves.
    pub algorithm: Algorithm,
    /// The limit before the first sample. Default 20 (Netflix concurrency-limits).
    pub initial: u32,
    /// Never below. Default 20 (Netflix concurrency-limits, `Gradient2Limit` and `AIMDLimit`).
    pub min: u32,
    /// Never above. Default 200 (the same).
    pub max: u32,
    /// Whether to act.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config { algorithm: Algorithm::GRADIENT2, initial: 20, min: 20, max: 200, mode: Mode::Enforce }
    }
}

/// How the limit moves. Constants from Netflix concurrency-limits
/// (<https://github.com/Netflix/concurrency-limits>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// `limit = (1 - smoothing) x limit + smoothing x (gradient x limit + queue)` with
    /// `gradient = clamp(tolerance x long / current latency, 0.5, 1)`.
    Gradient2 {
        /// Weight of the new limit. Default 0.2.
        smoothing: f64,
        /// Calls that may queue at the target: what the limit grows by. Default 4.
        queue: f64,
        /// When `queue` is added. Default only at gradient 1.
        queue_when: QueueWhen,
        /// How much slower than usual is still usual. Default 1.5.
        tolerance: f64,
        /// Samples that the usual latency is averaged over, exponentially. Default 600.
        long_window: u32,
    },
    /// One more for each success, times `backoff` for each failure or slow call.
    Aimd {
        /// What remains of the limit. Default 0.9.
        backoff: f64,
        /// A call that takes longer counts as failed. Default 5 s.
        timeout: Duration,
    },
}

/// When [`Algorithm::Gradient2`] adds its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueWhen {
    /// Only while the latency is as usual: a small limit then shrinks too when the target slows.
    Unqueued,
    /// Always, as the original does: a limit below 8 cannot shrink at all.
    Always,
}

impl Algorithm {
    /// Gradient2 with its defaults.
    pub const GRADIENT2: Algorithm = Algorithm::Gradient2 {
        smoothing: 0.2,
        queue: 4.0,
        queue_when: QueueWhen::Unqueued,
        tolerance: 1.5,
        long_window: 600,
    };

    /// AIMD with its defaults.
    pub const AIMD: Algorithm = Algorithm::Aimd { backoff: 0.9, timeout: Duration::from_secs(5) };
}

/// The right to make one call.
#[must_use = "a permit that is not settled is never given to another call"]
#[derive(Debug)]
pub struct Permit {
    started: Time,
    /// Calls in flight when this one was admitted, itself included; zero for one that is not
    /// counted.
    in_flight: u32,
    generation: u32,
}

impl Permit {
    /// The permit where no limit is configured.
    pub(crate) const fn none() -> Permit {
        Permit { started: Time::ZERO, in_flight: 0, generation: 0 }
    }

    /// The call is made only now: it waited elsewhere, and that wait is not the target's latency.
    pub(crate) fn restart(&mut self, now: Time) {
        self.started = now;
    }

    /// So much of the time since the start is not the target's latency, but what the caller took to take
    /// its answer in.
    pub fn exclude(&mut self, nanos: u64) {
        self.started = self.started.plus_nanos(nanos);
    }
}

/// Limits the calls in flight by their latency.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    limit: f64,
    in_flight: u32,
    generation: u32,
    usual: Usual,
    counts: Counts,
    config: Config,
}

/// The usual latency in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    latency_ns: f64,
    samples: u32,
}

/// Samples averaged plainly before the exponential average starts (Netflix concurrency-limits).
const WARM_UP_SAMPLES: u32 = 10;

impl AdaptiveLimit {
    /// Refuses bounds out of order and factors outside their range.
    pub fn new(config: Config, now: Time) -> Result<Self, InvalidConfig> {
        Self::with_generation(config, now, 0)
    }

    /// As `new`, but permits of a limit with other generations are stale here.
    pub(crate) fn with_generation(config: Config, _now: Time, generation: u32) -> Result<Self, InvalidConfig> {
        validate(&config)?;
        Ok(AdaptiveLimit {
            limit: f64::from(config.initial),
            in_flight: 0,
            generation,
            usual: Usual::default(),
            counts: Counts::default(),
            config,
        })
    }

    /// Admits a call while fewer than the limit are in flight.
    #[inline]
    pub fn admit(&mut self, now: Time) -> Result<Permit, Rejected> {
        if self.in_flight < self.limit as u32 {
            self.in_flight += 1;
            self.counts.admitted += 1;
            let in_flight = self.in_flight;
            return Ok(Permit { started: now, in_flight, generation: self.generation });
        }
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Ok(Permit { started: now, in_flight: 0, generation: self.generation });
        }
        self.counts.rejected += 1;
        Err(Rejected::new(Reason::LimitReached))
    }

    /// Ends a call, and moves the limit if its outcome says something: [`Outcome::Ignored`] and
    /// [`Outcome::Cancelled`] calls were cut short or never made, so their time is no latency.
    #[inline]
    pub fn settle(&mut self, now: Time, permit: Permit, outcome: Outcome) {
        if permit.in_flight == 0 || permit.generation != self.generation {
            return;
        }
        self.in_flight -= 1;
        let latency_ns = now.nanos_since(permit.started);
        match outcome {
            Outcome::Success => self.sample(latency_ns, permit.in_flight, false),
            Outcome::Failure => self.sample(latency_ns, permit.in_flight, true),
            Outcome::Ignored | Outcome::Cancelled => {}
        }
    }

    fn sample(&mut self, latency_ns: u64, in_flight: u32, failed: bool) {
        // Less than half used: how the target would fare at the limit, nobody has tried.
        let app_limited = f64::from(in_flight) < self.limit / 2.0;
        let limit = match self.config.algorithm {
            Algorithm::Gradient2 { smoothing, queue, queue_when, tolerance, long_window } => {
                let current = latency_ns.max(1) as f64;
                if !failed {
                    self.usual.add(current, long_window);
                }
                if app_limited || self.usual.samples == 0 {
                    return;
                }
                let gradient = (tolerance * self.usual.latency_ns / current).clamp(0.5, 1.0);
                let grow = !failed && (gradient == 1.0 || queue_when == QueueWhen::Always);
                let target = gradient * self.limit + if grow { queue } else { 0.0 };
                let moved = (1.0 - smoothing) * self.limit + smoothing * target;
                // A failure may be quick because the target refuses work: it lowers the limit when
                // it was slow, and never raises it.
                if failed { moved.min(self.limit) } else { moved }
            }
            Algorithm::Aimd { backoff, timeout } => {
                if failed || latency_ns > nanos(timeout) {
                    self.limit * backoff
                } else if app_limited {
                    return;
                } else {
                    self.limit + 1.0
                }
            }
        };
        self.limit = limit.clamp(f64::from(self.config.min), f64::from(self.config.max));
    }

    /// The limit, not rounded; whole calls are admitted up to its floor.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Calls that hold a permit.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Forgets every call in flight, as when the target's process is gone; permits given before
    /// change nothing any more. The limit and the usual latency stay.
    pub fn reset(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
    }

    /// Replaces the configuration. The limit stays, within the new bounds, and so does the usual
    /// latency.
    pub fn set_config(&mut self, config: Config, _now: Time) -> Result<(), InvalidConfig> {
        validate(&config)?;
        self.limit = self.limit.clamp(f64::from(config.min), f64::from(config.max));
        self.config = config;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Calls let through and turned away.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl Usual {
    fn add(&mut self, latency_ns: f64, window: u32) {
        if self.samples < WARM_UP_SAMPLES {
            let sum = self.latency_ns * f64::from(self.samples) + latency_ns;
            self.samples += 1;
            self.latency_ns = sum / f64::from(self.samples);
        } else {
            let weight = 2.0 / (f64::from(window) + 1.0);
            self.latency_ns += weight * (latency_ns - self.latency_ns);
        }
        // After an overload the average holds the overload's latencies, and everything looks
        // quick: it must not take another window to forget them (Gradient2Limit does the same).
        if self.latency_ns > 2.0 * latency_ns {
            self.latency_ns *= 0.95;
        }
    }
}

fn validate(config: &Config) -> Result<(), InvalidConfig> {
    let refuse = |field, expected| Err(InvalidConfig { field, expected });
    if config.min == 0 {
        return refuse("min", "at least 1");
    }
    if config.max < config.min {
        return refuse("max", "at least min");
    }
    if !(config.min..=config.max).contains(&config.initial) {
        return refuse("initial", "from min to max");
    }
    match config.algorithm {
        Algorithm::Gradient2 { smoothing, .. } if !(smoothing > 0.0 && smoothing <= 1.0) => {
            refuse("smoothing", "above 0, at most 1")
        }
        Algorithm::Gradient2 { queue, .. } if !(queue.is_finite() && queue > 0.0) => refuse("queue", "above 0"),
        Algorithm::Gradient2 { tolerance, .. } if !(tolerance.is_finite() && tolerance >= 1.0) => {
            refuse("tolerance", "at least 1")
        }
        Algorithm::Gradient2 { long_window: 0, .. } => refuse("long_window", "at least 1"),
        Algorithm::Aimd { backoff, .. } if !(0.5..1.0).contains(&backoff) => refuse("backoff", "at least 0.5, below 1"),
        Algorithm::Aimd { timeout, .. } if timeout.is_zero() => refuse("timeout", "a duration above zero"),
        _ => Ok(()),
    }
}
