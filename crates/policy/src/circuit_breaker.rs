//! Circuit breaker: stop calling a target that fails, try it with a few probes, return gradually.
//!
//! Differences from the usual, each for a reason:
//! - The window is time, in buckets. A window of the last N calls never slides on a quiet target,
//!   so that a failure of last night trips it this morning.
//! - A permit carries the generation of the state that gave it. The result of a call that was
//!   admitted before the breaker opened says nothing about the target now, and changes nothing.
//! - Half-open admits a fixed number of probes, each with a lease: a probe that is never settled
//!   gives its slot back instead of wedging the breaker.
//! - After the probes the share of admitted calls grows over `ramp`. A target that has just
//!   recovered, with cold caches and pools, does not get the whole load back in one instant.

use std::time::Duration;

use crate::window::{Buckets, Tally};
use crate::{Counts, InvalidConfig, Mode, Outcome, Reason, Rejected, Time, nanos, unit};

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

/// The states, as an observer sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are rejected.
    Open,
    /// A few probes pass.
    HalfOpen,
    /// A growing share of calls passes.
    Ramping,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
}

/// The right to make one call.
#[must_use = "a call that is not settled holds a probe slot until its lease expires"]
#[derive(Debug)]
pub struct Permit {
    started: Time,
    generation: u32,
    /// A probe's slot, or one of the two below.
    slot: u32,
}

/// Not a probe: an ordinary call.
const ORDINARY: u32 = u32::MAX;
/// Let through in shadow mode only: an enforcing breaker would not have seen its outcome.
const UNCOUNTED: u32 = u32::MAX - 1;

impl Permit {
    /// The permit where no breaker is configured.
    pub(crate) const fn none(now: Time) -> Permit {
        Permit {
            started: now,
            generation: 0,
            slot: UNCOUNTED,
        }
    }

    /// When the call was admitted.
    pub fn started(&self) -> Time {
        self.started
    }
}

/// A circuit breaker for one target.
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    state: Machine,
    generation: u32,
    next_generation: u32,
    limits: Limits,
    window: Buckets<Calls, BUCKETS>,
    probes: Vec<Probe>,
    /// Trips in a row without a full recovery between them.
    streak: u32,
    counts: Counts,
    log: Log,
    config: Config,
}

/// Buckets to a window: it slides in tenths.
const BUCKETS: usize = 10;

/// ```text
///             rate >= threshold, calls >= minimum
///   ┌────────┐ ────────────────────────────────────────► ┌──────┐
///   │ Closed │                                           │ Open │ ◄───────────┐
///   └────────┘            rate >= threshold              └──────┘             │
///       ▲        ┌───────────────────────────────────────►   │                │
///       │        │                                           │ time is up,    │ too many
///       │   ┌─────────┐                                      ▼ a call comes   │ probes
///       └── │ Ramping │ ◄──────────────────────────── ┌──────────┐            │ failed
///   share   └─────────┘   every probe settled, enough │ HalfOpen │ ───────────┘
///   is 1                  of them well                └──────────┘
/// ```
///
/// Every arrow into Open and out of it starts a new generation; Ramping -> Closed does not, since
/// calls admitted on the ramp are ordinary calls. With no ramp, HalfOpen goes to Closed.
#[derive(Clone, Copy, Debug)]
enum Machine {
    Closed {
        since: Time,
    },
    Open {
        until: Time,
    },
    HalfOpen {
        done: u32,
        failed: u32,
        slow: u32,
    },
    /// `credit` gathers each call's share; a call that makes it whole passes. So the admitted
    /// calls are spread evenly, and no random number is needed.
    Ramping {
        since: Time,
        credit: f64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    Free,
    Out { generation: u32, lease_until: Time },
    Done,
}

#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    all: u32,
    failed: u32,
    slow: u32,
}

impl Tally for Calls {
    #[inline]
    fn add(&mut self, other: Calls) {
        self.all = self.all.saturating_add(other.all);
        // Most calls are neither.
        if other.failed + other.slow > 0 {
            self.failed = self.failed.saturating_add(other.failed);
            self.slow = self.slow.saturating_add(other.slow);
        }
    }

    #[inline]
    fn subtract(&mut self, other: Calls) {
        self.all = self.all.saturating_sub(other.all);
        self.failed = self.failed.saturating_sub(other.failed);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

impl CircuitBreaker {
    /// A closed breaker. Refuses rates outside `(0, 1]`, no probes or more than 1000, zero
    /// durations, and a longest open time below the first.
    pub fn new(config: Config, now: Time) -> Result<Self, InvalidConfig> {
        Self::with_generation(config, now, 0)
    }

    /// As `new`, but permits of a breaker with other generations are stale here.
    pub(crate) fn with_generation(
        config: Config,
        now: Time,
        generation: u32,
    ) -> Result<Self, InvalidConfig> {
        let limits = Limits::new(&config)?;
        Ok(CircuitBreaker {
            state: Machine::Closed { since: now },
            generation,
            next_generation: generation.wrapping_add(1),
            window: Buckets::new(limits.bucket_ns, now),
            limits,
            probes: Vec::new(),
            streak: 0,
            counts: Counts::default(),
            log: Log::default(),
            config,
        })
    }

    /// Admits a call, or says until when it will not.
    #[inline]
    pub fn admit(&mut self, now: Time) -> Result<Permit, Rejected> {
        if let Machine::Closed { .. } = self.state {
            self.counts.admitted += 1;
            return Ok(Permit {
                started: now,
                generation: self.generation,
                slot: ORDINARY,
            });
        }
        self.admit_guarded(now)
    }

    #[inline(never)]
    fn admit_guarded(&mut self, now: Time) -> Result<Permit, Rejected> {
        self.on_wake(now);
        let retry_at = match &mut self.state {
            Machine::Closed { .. } => return self.admit(now),
            Machine::Open { until } => Some(*until),
            Machine::HalfOpen { .. } => match self.take_probe(now) {
                Ok(permit) => {
                    self.counts.admitted += 1;
                    return Ok(permit);
                }
                Err(retry_at) => retry_at,
            },
            Machine::Ramping { since, credit } => {
                *credit += self.limits.share(now.nanos_since(*since));
                if *credit >= 1.0 {
                    *credit -= 1.0;
                    self.counts.admitted += 1;
                    return Ok(Permit {
                        started: now,
                        generation: self.generation,
                        slot: ORDINARY,
                    });
                }
                None
            }
        };
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Ok(Permit {
                started: now,
                generation: self.generation,
                slot: UNCOUNTED,
            });
        }
        self.counts.rejected += 1;
        Err(Rejected {
            reason: Reason::BreakerOpen,
            retry_at,
        })
    }

    /// A free probe slot, or one whose lease has expired; otherwise the first time at which a
    /// lease expires.
    fn take_probe(&mut self, now: Time) -> Result<Permit, Option<Time>> {
        let mut next_lease: Option<Time> = None;
        for (slot, probe) in self.probes.iter_mut().enumerate() {
            match *probe {
                Probe::Done => continue,
                Probe::Out { lease_until, .. } if now < lease_until => {
                    next_lease = Some(next_lease.map_or(lease_until, |t| t.min(lease_until)));
                    continue;
                }
                Probe::Out { .. } | Probe::Free => {}
            }
            let generation = self.next_generation;
            self.next_generation = generation.wrapping_add(1);
            let lease_until = now.plus_nanos(self.limits.lease_ns);
            *probe = Probe::Out {
                generation,
                lease_until,
            };
            return Ok(Permit {
                started: now,
                generation,
                slot: slot as u32,
            });
        }
        Err(next_lease)
    }

    /// Ends a call. `random` spreads the open time if this outcome trips the breaker.
    ///
    /// Only [`Outcome::Success`] and [`Outcome::Failure`] count. A probe that ends otherwise gives
    /// its slot to another.
    #[inline]
    pub fn settle(&mut self, now: Time, permit: Permit, outcome: Outcome, random: u64) {
        let counts = matches!(outcome, Outcome::Success | Outcome::Failure);
        let call = Calls {
            all: 1,
            failed: u32::from(outcome == Outcome::Failure),
            slow: u32::from(now.nanos_since(permit.started) >= self.limits.slow_ns),
        };
        if permit.slot == ORDINARY {
            if counts && permit.generation == self.generation {
                self.record(now, call, random);
            }
        } else if permit.slot != UNCOUNTED {
            self.settle_probe(now, &permit, counts.then_some(call), random);
        }
    }

    #[inline]
    fn record(&mut self, now: Time, call: Calls, random: u64) {
        self.window.advance(now);
        self.window.record(call);
        let total = self.window.total();
        if total.all >= self.limits.minimum_calls
            && total.failed + total.slow > 0
            && self.limits.too_many(total.failed, total.slow, total.all)
        {
            self.trip(now, random);
        }
    }

    #[inline(never)]
    fn settle_probe(&mut self, now: Time, permit: &Permit, call: Option<Calls>, random: u64) {
        let Machine::HalfOpen { done, failed, slow } = &mut self.state else {
            return;
        };
        let Some(probe) = self.probes.get_mut(permit.slot as usize) else {
            return;
        };
        if !matches!(*probe, Probe::Out { generation, .. } if generation == permit.generation) {
            return;
        }
        let Some(call) = call else {
            *probe = Probe::Free;
            return;
        };
        *probe = Probe::Done;
        *done += 1;
        *failed += call.failed;
        *slow += call.slow;
        let (done, failed, slow) = (*done, *failed, *slow);
        let probes = self.probes.len() as u32;
        // Judged against all probes: two bad ones of three decide before the third is back.
        if failed + slow > 0 && self.limits.too_many(failed, slow, probes) {
            self.trip(now, random);
        } else if done == probes {
            self.recover(now);
        }
    }

    #[cold]
    fn trip(&mut self, now: Time, random: u64) {
        if let Machine::Closed { since } = self.state
            && now.nanos_since(since) >= self.limits.window_ns
        {
            self.streak = 0;
        }
        let open_ns = self.limits.open_ns(self.streak, random);
        self.streak = self.streak.saturating_add(1);
        self.enter(
            now,
            Machine::Open {
                until: now.plus_nanos(open_ns),
            },
        );
    }

    fn recover(&mut self, now: Time) {
        let next = if self.limits.ramp_ns == 0 {
            Machine::Closed { since: now }
        } else {
            Machine::Ramping {
                since: now,
                credit: 1.0 - self.config.ramp_from,
            }
        };
        self.enter(now, next);
    }

    /// Moves to `next`, after which no permit given before counts.
    fn enter(&mut self, now: Time, next: Machine) {
        self.log.push(Transition {
            at: now,
            from: self.state.name(),
            to: next.name(),
        });
        self.state = next;
        self.generation = self.next_generation;
        self.next_generation = self.generation.wrapping_add(1);
        self.window = Buckets::new(self.limits.bucket_ns, now);
        self.probes.clear();
        if let Machine::HalfOpen { .. } = next {
            self.probes
                .resize(self.config.half_open_probes as usize, Probe::Free);
        }
    }

    /// When time alone next changes something: the open time is up, a probe's lease expires, the
    /// ramp ends.
    pub fn next_wake(&self) -> Option<Time> {
        match self.state {
            Machine::Closed { .. } => None,
            Machine::Open { until } => Some(until),
            Machine::HalfOpen { .. } => {
                let leases = self.probes.iter().filter_map(|probe| match probe {
                    Probe::Out { lease_until, .. } => Some(*lease_until),
                    _ => None,
                });
                leases.min()
            }
            Machine::Ramping { since, .. } => Some(since.plus_nanos(self.limits.ramp_ns)),
        }
    }

    /// Does what time alone does; [`admit`](Self::admit) does the same first. Calling it again
    /// changes nothing.
    pub fn on_wake(&mut self, now: Time) {
        match self.state {
            Machine::Closed { .. } => {}
            Machine::Open { until } => {
                if now >= until {
                    self.enter(
                        now,
                        Machine::HalfOpen {
                            done: 0,
                            failed: 0,
                            slow: 0,
                        },
                    );
                }
            }
            Machine::HalfOpen { .. } => {
                for probe in &mut self.probes {
                    if matches!(*probe, Probe::Out { lease_until, .. } if now >= lease_until) {
                        *probe = Probe::Free;
                    }
                }
            }
            Machine::Ramping { since, .. } => {
                if now.nanos_since(since) >= self.limits.ramp_ns {
                    // Calls admitted on the ramp are ordinary calls: same generation and window.
                    self.log.push(Transition {
                        at: now,
                        from: State::Ramping,
                        to: State::Closed,
                    });
                    self.state = Machine::Closed { since: now };
                }
            }
        }
    }

    /// The state after the last event. Open stays open until a call or
    /// [`on_wake`](Self::on_wake) comes after its time.
    pub fn state(&self) -> State {
        self.state.name()
    }

    /// The oldest transition not yet polled. The last eight are kept.
    #[inline]
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.log.pop()
    }

    /// Share of failed calls in the window, `None` without calls.
    pub fn failure_rate(&mut self, now: Time) -> Option<f64> {
        self.window.advance(now);
        let total = self.window.total();
        (total.all > 0).then(|| f64::from(total.failed) / f64::from(total.all))
    }

    /// Replaces the configuration; state, window and permits stay. The time of an open breaker is
    /// not redrawn. A changed number of probes restarts the trial.
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<(), InvalidConfig> {
        self.limits = Limits::new(&config)?;
        self.window.set_width(self.limits.bucket_ns, now);
        let probes_change = config.half_open_probes != self.config.half_open_probes;
        self.config = config;
        if let Machine::HalfOpen { done, failed, slow } = &mut self.state
            && probes_change
        {
            (*done, *failed, *slow) = (0, 0, 0);
            self.probes.clear();
            self.probes
                .resize(config.half_open_probes as usize, Probe::Free);
        }
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

impl Machine {
    fn name(&self) -> State {
        match self {
            Machine::Closed { .. } => State::Closed,
            Machine::Open { .. } => State::Open,
            Machine::HalfOpen { .. } => State::HalfOpen,
            Machine::Ramping { .. } => State::Ramping,
        }
    }
}

/// The configuration as the hot path reads it.
#[derive(Clone, Copy, Debug)]
struct Limits {
    failure_rate: f64,
    slow_rate: f64,
    minimum_calls: u32,
    slow_ns: u64,
    bucket_ns: u64,
    window_ns: u64,
    lease_ns: u64,
    ramp_ns: u64,
    ramp_from: f64,
    open_ns: u64,
    open_max_ns: u64,
    open_jitter: f64,
}

impl Limits {
    fn new(config: &Config) -> Result<Limits, InvalidConfig> {
        let rate = |field, value: f64| {
            let valid = value > 0.0 && value <= 1.0;
            valid.then_some(value).ok_or(InvalidConfig {
                field,
                expected: "above 0, at most 1",
            })
        };
        let some = |field, value: Duration| {
            let expected = "a duration above zero";
            (!value.is_zero())
                .then(|| nanos(value))
                .ok_or(InvalidConfig { field, expected })
        };
        if config.minimum_calls == 0 {
            return Err(InvalidConfig {
                field: "minimum_calls",
                expected: "at least 1",
            });
        }
        if !(1..=1000).contains(&config.half_open_probes) {
            return Err(InvalidConfig {
                field: "half_open_probes",
                expected: "from 1 to 1000",
            });
        }
        if config.open_for_max < config.open_for {
            return Err(InvalidConfig {
                field: "open_for_max",
                expected: "at least open_for",
            });
        }
        if !(0.0..=1.0).contains(&config.open_jitter) {
            return Err(InvalidConfig {
                field: "open_jitter",
                expected: "from 0 to 1",
            });
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
    fn too_many(&self, failed: u32, slow: u32, all: u32) -> bool {
        let all = f64::from(all);
        (failed > 0 && f64::from(failed) >= self.failure_rate * all)
            || (slow > 0 && f64::from(slow) >= self.slow_rate * all)
    }

    /// The admitted share `elapsed_ns` into the ramp: a straight line from `ramp_from` to 1.
    fn share(&self, elapsed_ns: u64) -> f64 {
        let progress = elapsed_ns as f64 / self.ramp_ns as f64;
        self.ramp_from + (1.0 - self.ramp_from) * progress.min(1.0)
    }

    /// The open time of the trip that follows `streak` others: doubled for each, jittered, and
    /// within `[open_for, open_for_max]` unless the two leave no room for jitter.
    fn open_ns(&self, streak: u32, random: u64) -> u64 {
        let (first, longest) = (self.open_ns as f64, self.open_max_ns as f64);
        let doubled = first * (1u64 << streak.min(62)) as f64;
        let spread = 1.0 + self.open_jitter;
        let high = (doubled * spread).min(longest.max(first * spread));
        let low = (high / spread).max(first);
        (low + (high - low) * unit(random)) as u64
    }
}

/// The last transitions that nobody has polled yet.
#[derive(Clone, Debug, Default)]
struct Log {
    entries: [Option<Transition>; 8],
    first: u8,
    len: u8,
}

impl Log {
    fn push(&mut self, transition: Transition) {
        if self.len == 8 {
            self.pop();
        }
        self.entries[(self.first + self.len) as usize % 8] = Some(transition);
        self.len += 1;
    }

    #[inline]
    fn pop(&mut self) -> Option<Transition> {
        if self.len == 0 {
            return None;
        }
        let popped = self.entries[self.first as usize].take();
        self.first = (self.first + 1) % 8;
        self.len -= 1;
        popped
    }
}
