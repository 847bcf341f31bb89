//! Deadlines: absolute inside a process, a remaining duration on the wire.
//!
//! A deadline is fixed once, when the request arrives, and everything after counts against it: time
//! in a queue, earlier attempts, backoffs, nested calls. A timeout that starts when a call is at
//! last made does not see the queue in front of it, and lets a caller wait for far longer than it
//! asked to. Two hosts' clocks differ, so what travels is the time left.

use std::time::Duration;

use crate::{Counts, InvalidConfig, Mode, Reason, Rejected, Time, nanos};

/// How long a call and each of its attempts may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// From the request's start to its end, queue waits, attempts and backoffs included.
    /// Default: none of our own, only the caller's.
    pub timeout: Option<Duration>,
    /// From one attempt's start to its end. Default: as long as the whole call has.
    pub per_try_timeout: Option<Duration>,
    /// Whether to act.
    pub mode: Mode,
}

/// When an answer stops being of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Time);

impl Deadline {
    /// No deadline.
    pub const NEVER: Deadline = Deadline(Time::MAX);

    /// The deadline at `time`.
    #[inline]
    pub const fn at(time: Time) -> Self {
        Deadline(time)
    }

    /// The deadline of a request that arrives at `now` with `remaining` on its envelope.
    #[inline]
    pub const fn from_wire(now: Time, remaining: Duration) -> Self {
        Deadline(now.plus_nanos(nanos(remaining)))
    }

    /// What to send along with a call made at `now`: the time left. `None` when there is no
    /// deadline to tell; zero when the call should not be made.
    #[inline]
    pub fn to_wire(self, now: Time) -> Option<Duration> {
        (self != Deadline::NEVER).then(|| self.remaining(now))
    }

    /// The point in time.
    #[inline]
    pub const fn time(self) -> Time {
        self.0
    }

    /// Time left at `now`, zero once it has passed.
    #[inline]
    pub const fn remaining(self, now: Time) -> Duration {
        self.0.since(now)
    }

    /// Whether nothing is left at `now`.
    #[inline]
    pub fn has_passed(self, now: Time) -> bool {
        self != Deadline::NEVER && now >= self.0
    }

    /// The earlier of the two: what a nested call inherits.
    #[inline]
    pub fn min(self, other: Deadline) -> Deadline {
        Deadline(self.0.min(other.0))
    }

    /// Whether something that ends at `time` leaves time to use its result: a backoff that ends
    /// on the deadline leaves none.
    #[inline]
    pub fn allows(self, time: Time) -> bool {
        self == Deadline::NEVER || time < self.0
    }
}

/// Sets the deadlines of calls and turns away what comes too late.
#[derive(Clone, Debug)]
pub struct Timeouts {
    config: Config,
    timeout_ns: u64,
    per_try_ns: u64,
    counts: Counts,
}

impl Timeouts {
    /// Refuses a zero duration, with which no call could ever be made.
    pub fn new(config: Config, _now: Time) -> Result<Self, InvalidConfig> {
        let (timeout_ns, per_try_ns) = validate(&config)?;
        Ok(Timeouts { config, timeout_ns, per_try_ns, counts: Counts::default() })
    }

    /// The deadline of a call that starts at `now`: the earlier of the caller's and our own.
    #[inline]
    pub fn start(&self, now: Time, caller: Deadline) -> Deadline {
        caller.min(Deadline::at(now.plus_nanos(self.timeout_ns)))
    }

    /// The deadline of an attempt made at `now` for a call that ends at `total`, or a refusal when
    /// nothing is left.
    #[inline]
    pub fn attempt(&mut self, now: Time, total: Deadline) -> Result<Deadline, Rejected> {
        if !total.has_passed(now) {
            self.counts.admitted += 1;
        } else if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
        } else {
            self.counts.rejected += 1;
            return Err(Rejected::new(Reason::DeadlineExceeded));
        }
        Ok(self.per_try(now, total))
    }

    /// The deadline of an attempt that was let through before and starts at `now`.
    #[inline]
    pub(crate) fn per_try(&self, now: Time, total: Deadline) -> Deadline {
        self.enforced(total.min(Deadline::at(now.plus_nanos(self.per_try_ns))))
    }

    /// The deadline to act on. In shadow mode nothing is aborted: a driver that sets a timer sets
    /// none.
    #[inline]
    pub(crate) fn enforced(&self, deadline: Deadline) -> Deadline {
        match self.config.mode {
            Mode::Enforce => deadline,
            Mode::Shadow => Deadline::NEVER,
        }
    }

    /// Replaces the configuration; the deadlines of calls that have started stay as they are.
    pub fn set_config(&mut self, config: Config, _now: Time) -> Result<(), InvalidConfig> {
        (self.timeout_ns, self.per_try_ns) = validate(&config)?;
        self.config = config;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Attempts let through in time and refused for being late.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn validate(config: &Config) -> Result<(u64, u64), InvalidConfig> {
    let ns = |field, value: Option<Duration>| match value.map(nanos) {
        Some(0) => Err(InvalidConfig { field, expected: "a duration above zero" }),
        other => Ok(other.unwrap_or(u64::MAX)),
    };
    Ok((ns("timeout", config.timeout)?, ns("per_try_timeout", config.per_try_timeout)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Time = |ms| Time::from_nanos(ms * 1_000_000);

    fn timeouts(timeout_ms: u64, per_try_ms: Option<u64>, mode: Mode) -> Timeouts {
        let config = Config {
            timeout: Some(Duration::from_millis(timeout_ms)),
            per_try_timeout: per_try_ms.map(Duration::from_millis),
            mode,
        };
        Timeouts::new(config, Time::ZERO).unwrap()
    }

    #[test]
    fn an_attempt_gets_the_lesser_of_the_total_and_its_own() {
        let mut timeouts = timeouts(1_000, Some(300), Mode::Enforce);
        let total = timeouts.start(MS(0), Deadline::NEVER);
        for (now, deadline) in [(0, Ok(300)), (650, Ok(950)), (900, Ok(1_000)), (999, Ok(1_000)), (1_000, Err(()))] {
            let got = timeouts.attempt(MS(now), total).map(Deadline::time).map_err(drop);
            assert_eq!(got, deadline.map(MS), "at {now} ms");
        }
        assert_eq!(timeouts.counts(), Counts { admitted: 4, rejected: 1, shadowed: 0 });
    }

    #[test]
    fn time_in_a_queue_counts() {
        let mut timeouts = timeouts(100, None, Mode::Enforce);
        let total = timeouts.start(MS(0), Deadline::NEVER);
        // The call waited 150 ms for a worker: it is dead on arrival.
        let late = timeouts.attempt(MS(150), total).unwrap_err();
        assert_eq!(late, Rejected::new(Reason::DeadlineExceeded));
    }

    #[test]
    fn a_nested_call_inherits_what_is_left() {
        let outer = timeouts(1_000, None, Mode::Enforce);
        let inner = timeouts(5_000, None, Mode::Enforce);
        let total = outer.start(MS(0), Deadline::NEVER);
        // 400 ms later the call goes to another host whose clock reads something else.
        let wire = total.to_wire(MS(400)).unwrap();
        assert_eq!(wire, Duration::from_millis(600));
        let theirs = inner.start(MS(7_000), Deadline::from_wire(MS(7_000), wire));
        assert_eq!(theirs.time(), MS(7_600));
        assert_eq!(Deadline::NEVER.to_wire(MS(0)), None);
        assert_eq!(total.to_wire(MS(2_000)), Some(Duration::ZERO));
    }

    #[test]
    fn a_wait_must_end_before_the_deadline() {
        let deadline = Deadline::at(MS(100));
        assert!(deadline.allows(MS(99)));
        assert!(!deadline.allows(MS(100)));
        assert!(Deadline::NEVER.allows(Time::MAX));
        assert!(!Deadline::NEVER.has_passed(Time::MAX));
    }

    #[test]
    fn shadow_counts_and_aborts_nothing() {
        let mut timeouts = timeouts(100, Some(10), Mode::Shadow);
        let total = timeouts.start(MS(0), Deadline::NEVER);
        assert_eq!(timeouts.attempt(MS(0), total), Ok(Deadline::NEVER));
        assert_eq!(timeouts.attempt(MS(500), total), Ok(Deadline::NEVER));
        assert_eq!(timeouts.counts(), Counts { admitted: 1, rejected: 0, shadowed: 1 });
    }

    #[test]
    fn zero_is_refused_and_a_new_timeout_spares_running_calls() {
        let zero = Config { timeout: Some(Duration::ZERO), ..Config::default() };
        assert_eq!(Timeouts::new(zero, Time::ZERO).unwrap_err().field, "timeout");
        let mut timeouts = timeouts(1_000, None, Mode::Enforce);
        let running = timeouts.start(MS(0), Deadline::NEVER);
        let tight = Config { timeout: Some(Duration::from_millis(10)), ..Config::default() };
        timeouts.set_config(tight, MS(5)).unwrap();
        assert_eq!(running.time(), MS(1_000));
        assert_eq!(timeouts.start(MS(5), Deadline::NEVER).time(), MS(15));
        assert!(timeouts.set_config(zero, MS(6)).is_err());
        assert_eq!(timeouts.config(), &tight);
    }
}
