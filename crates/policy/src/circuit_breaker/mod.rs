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

mod config;
mod transition;

use crate::window::{Buckets, Tally};
use crate::{Counts, InvalidConfig, Mode, Outcome, Reason, Rejected, Time};
use config::Limits;
use transition::Log;

pub use config::Config;
pub use transition::{State, Transition};

/// The right to make one call.
#[must_use = "a call that is not settled holds a probe slot until its lease expires"]
#[derive(Debug)]
pub struct Permit {
    started: Time,
    /// The generation above, and below a probe's slot or one of the two constants. In one word: two
    /// halves that are written one by one and moved as one stall the processor.
    ticket: u64,
}

/// Not a probe: an ordinary call.
const ORDINARY: u32 = u32::MAX;
/// Let through in shadow mode only: an enforcing breaker would not have seen its outcome.
const UNCOUNTED: u32 = u32::MAX - 1;

impl Permit {
    #[inline]
    const fn new(started: Time, generation: u32, slot: u32) -> Permit {
        Permit { started, ticket: (generation as u64) << 32 | slot as u64 }
    }

    #[inline]
    const fn generation(&self) -> u32 {
        (self.ticket >> 32) as u32
    }

    #[inline]
    const fn slot(&self) -> u32 {
        self.ticket as u32
    }

    /// The permit where no breaker is configured.
    pub(crate) const fn none(now: Time) -> Permit {
        Permit::new(now, 0, UNCOUNTED)
    }

    /// When the call was admitted.
    pub fn started(&self) -> Time {
        self.started
    }

    /// So much of the time since is not the target's latency.
    pub(crate) fn exclude(&mut self, nanos: u64) {
        self.started = self.started.plus_nanos(nanos);
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
    pub(crate) fn with_generation(config: Config, now: Time, generation: u32) -> Result<Self, InvalidConfig> {
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
            return Ok(Permit::new(now, self.generation, ORDINARY));
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
                    return Ok(Permit::new(now, self.generation, ORDINARY));
                }
                None
            }
        };
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Ok(Permit::new(now, self.generation, UNCOUNTED));
        }
        self.counts.rejected += 1;
        Err(Rejected { reason: Reason::BreakerOpen, retry_at })
    }

    /// A free probe slot (`on_wake` has freed those whose lease has expired); otherwise the first
    /// time at which a lease expires.
    fn take_probe(&mut self, now: Time) -> Result<Permit, Option<Time>> {
        let is_free = |probe: &Probe| matches!(probe, Probe::Free);
        let Some(slot) = self.probes.iter().position(is_free) else {
            return Err(self.next_wake());
        };
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let lease_until = now.plus_nanos(self.limits.lease_ns);
        self.probes[slot] = Probe::Out { generation, lease_until };
        Ok(Permit::new(now, generation, slot as u32))
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
        if permit.slot() == ORDINARY {
            if counts && permit.generation() == self.generation {
                self.record(now, call, random);
            }
        } else if permit.slot() != UNCOUNTED {
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
        let Some(probe) = self.probes.get_mut(permit.slot() as usize) else {
            return;
        };
        if !matches!(*probe, Probe::Out { generation, .. } if generation == permit.generation()) {
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
        self.enter(now, Machine::Open { until: now.plus_nanos(open_ns) });
    }

    fn recover(&mut self, now: Time) {
        let next = if self.limits.ramp_ns == 0 {
            Machine::Closed { since: now }
        } else {
            Machine::Ramping { since: now, credit: 1.0 - self.config.ramp_from }
        };
        self.enter(now, next);
    }

    /// Moves to `next`, after which no permit given before counts.
    fn enter(&mut self, now: Time, next: Machine) {
        self.log.push(Transition { at: now, from: self.state.name(), to: next.name() });
        self.state = next;
        self.generation = self.next_generation;
        self.next_generation = self.generation.wrapping_add(1);
        self.window = Buckets::new(self.limits.bucket_ns, now);
        self.probes.clear();
        if let Machine::HalfOpen { .. } = next {
            self.probes.resize(self.config.half_open_probes as usize, Probe::Free);
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
                    self.enter(now, Machine::HalfOpen { done: 0, failed: 0, slow: 0 });
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
                    self.log.push(Transition { at: now, from: State::Ramping, to: State::Closed });
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
            self.probes.resize(config.half_open_probes as usize, Probe::Free);
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
