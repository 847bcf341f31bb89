//! Retry: when a failed call is worth another attempt, and when to make it.
//!
//! A retry is granted only if all of this holds: the call may be repeated (an idempotent method, or
//! a request with an idempotency key), the failure may pass by itself, attempts remain, the backoff
//! ends before the deadline, and the [retry budget](crate::retry_budget) pays. A rejection by one
//! of our own policies is never retried: the policy would only have to say no again.
//!
//! Layers multiply. Three layers of three attempts each make 27 calls at the bottom for one at the
//! top, which is why the pipeline reports its amplification and why the default budget is 20%.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::{Counts, InvalidConfig, Mode, Time, nanos};

/// How often and how far apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Attempts in all, the first included. Default 3 (AWS SDKs, standard mode:
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>).
    pub attempts: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// Whether to act.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config { attempts: 3, backoff: Backoff::default(), mode: Mode::Enforce }
    }
}

/// The wait between attempts: exponential, capped, jittered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the second attempt. Default 50 ms (AWS SDKs, standard mode).
    pub base: Duration,
    /// In place of `base` when the target said that it is throttling. Default 1 s (AWS SDKs,
    /// standard mode).
    pub throttled_base: Duration,
    /// Growth from one attempt to the next. Default 2.
    pub multiplier: f64,
    /// The longest wait, jitter included. Default 20 s (AWS SDKs, standard mode).
    pub cap: Duration,
    /// How waits are spread, so that clients that failed together do not return together.
    /// Default full: in "Exponential Backoff And Jitter" it makes the fewest calls
    /// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
    pub jitter: Jitter,
    /// How much longer than its own wait a client heeds `Retry-After`: the hint is clamped to
    /// `[wait, wait + retry_after_slack]`. Default 5 s (AWS SDKs, standard mode).
    pub retry_after_slack: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            base: Duration::from_millis(50),
            throttled_base: Duration::from_secs(1),
            multiplier: 2.0,
            cap: Duration::from_secs(20),
            jitter: Jitter::Full,
            retry_after_slack: Duration::from_secs(5),
        }
    }
}

/// How a wait is drawn from the window that the backoff allows. Names and formulas from AWS's
/// "Exponential Backoff And Jitter".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// The whole window: clients that failed together return together. For comparison.
    None,
    /// Uniform in `[0, window)`.
    #[default]
    Full,
    /// Half the window, and uniform in the other half.
    Equal,
    /// Uniform in `[base, 3 x the previous wait)`; the multiplier plays no part.
    Decorrelated,
}

/// What a failed attempt says about the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The target said that it is throttling (429, or 503 with `Retry-After`).
    pub throttled: bool,
    /// The target's own advice.
    pub retry_after: Option<Duration>,
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stop {
    /// No retry is configured.
    NotConfigured,
    /// The call may not be repeated.
    NotRepeatable,
    /// The failure is one that a retry does not mend.
    NotRetryable,
    /// Every attempt has been made.
    AttemptsExhausted,
    /// The wait would end on or after the deadline.
    DeadlineTooClose,
    /// The retry budget is empty.
    BudgetExhausted,
    /// There would have been a retry, but the policy is in [`Mode::Shadow`].
    Shadowed,
}

/// A call's own memory of its attempts, one after the other; hedges are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Attempts made.
    pub made: u32,
    /// The last wait; decorrelated jitter grows from it.
    pub last_wait_ns: u64,
}

/// Decides on further attempts. It holds no state of a call: that travels with the call.
#[derive(Clone, Debug)]
pub struct Retry {
    config: Config,
    base_ns: u64,
    throttled_base_ns: u64,
    cap_ns: u64,
    slack_ns: u64,
    counts: Counts,
}

impl Retry {
    /// Refuses no attempts at all, more than 100 of them, a multiplier below 1 or above 100, and a
    /// cap below the base.
    pub fn new(config: Config, _now: Time) -> Result<Self, InvalidConfig> {
        validate(&config)?;
        Ok(Retry {
            config,
            base_ns: nanos(config.backoff.base),
            throttled_base_ns: nanos(config.backoff.throttled_base),
            cap_ns: nanos(config.backoff.cap),
            slack_ns: nanos(config.backoff.retry_after_slack),
            counts: Counts::default(),
        })
    }

    /// When to try again after `tries`, the last of which failed at `now`.
    ///
    /// `pay` is asked for a retry once everything else agrees, so that a retry that cannot happen
    /// costs no budget.
    #[inline]
    pub fn next(
        &mut self,
        now: Time,
        tries: &mut Tries,
        deadline: Deadline,
        hint: Hint,
        random: u64,
        pay: impl FnOnce() -> bool,
    ) -> Result<Time, Stop> {
        let decision = if tries.made >= self.config.attempts {
            Err(Stop::AttemptsExhausted)
        } else {
            let retry = tries.made.saturating_sub(1);
            let wait_ns = self.wait_ns(retry, hint, tries.last_wait_ns, random);
            let at = now.plus_nanos(wait_ns);
            if !deadline.allows(at) {
                Err(Stop::DeadlineTooClose)
            } else if self.config.mode == Mode::Shadow {
                Err(Stop::Shadowed)
            } else if !pay() {
                Err(Stop::BudgetExhausted)
            } else {
                tries.last_wait_ns = wait_ns;
                Ok(at)
            }
        };
        match decision {
            Ok(_) => self.counts.admitted += 1,
            Err(Stop::Shadowed) => self.counts.shadowed += 1,
            Err(_) => self.counts.rejected += 1,
        }
        decision
    }

    /// The wait in nanoseconds before retry number `retry` (0 is the first).
    ///
    /// The cap holds after jitter, whatever the jitter: it bounds the window that a wait is drawn
    /// from. Clamping the drawn wait instead would bound it as well, but then every late retry
    /// waits for exactly the cap, and the herd is back. Only a `Retry-After` goes past the cap, by
    /// the slack at most.
    pub fn wait_ns(&self, retry: u32, hint: Hint, last_wait_ns: u64, random: u64) -> u64 {
        let base = if hint.throttled { self.throttled_base_ns } else { self.base_ns };
        let wait = match self.config.backoff.jitter {
            Jitter::None => self.window_ns(base, retry),
            Jitter::Full => below(self.window_ns(base, retry), random),
            Jitter::Equal => {
                let window = self.window_ns(base, retry);
                window / 2 + below(window - window / 2, random)
            }
            Jitter::Decorrelated => {
                // sleep = min(cap, random_between(base, sleep * 3))
                let low = base.min(self.cap_ns);
                let high = last_wait_ns.max(low).saturating_mul(3);
                (low + below(high - low, random)).min(self.cap_ns)
            }
        };
        match hint.retry_after {
            Some(hint) => nanos(hint).clamp(wait, wait.saturating_add(self.slack_ns)),
            None => wait,
        }
    }

    /// `min(cap, base x multiplier^retry)`, without overflow.
    fn window_ns(&self, base_ns: u64, retry: u32) -> u64 {
        let cap = self.cap_ns as f64;
        let mut window = base_ns as f64;
        for _ in 0..retry {
            let next = window * self.config.backoff.multiplier;
            if window >= cap || next == window {
                break;
            }
            window = next;
        }
        if window >= cap { self.cap_ns } else { window as u64 }
    }

    /// Replaces the configuration; calls in progress follow it from their next attempt.
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<(), InvalidConfig> {
        *self = Retry { counts: self.counts, ..Retry::new(config, now)? };
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Retries granted (admitted) and refused (rejected).
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Uniform in `[0, range)`, zero for an empty range: the high half of a 128-bit product, exact on
/// every platform.
#[inline]
fn below(range: u64, random: u64) -> u64 {
    ((u128::from(range) * u128::from(random)) >> 64) as u64
}

fn validate(config: &Config) -> Result<(), InvalidConfig> {
    let refuse = |field, expected| Err(InvalidConfig { field, expected });
    let backoff = &config.backoff;
    if !(1..=100).contains(&config.attempts) {
        return refuse("attempts", "from 1 to 100");
    }
    if !(1.0..=100.0).contains(&backoff.multiplier) {
        return refuse("backoff.multiplier", "from 1 to 100");
    }
    if backoff.cap < backoff.base {
        return refuse("backoff.cap", "at least backoff.base");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = 1 << 63;

    fn retry(backoff: Backoff) -> Retry {
        Retry::new(Config { backoff, ..Config::default() }, Time::ZERO).unwrap()
    }

    fn waits_ms(backoff: Backoff, random: u64, retries: u32) -> Vec<u64> {
        let retry = retry(backoff);
        let wait = |n| retry.wait_ns(n, Hint::default(), 0, random);
        (0..retries).map(|n| wait(n) / 1_000_000).collect()
    }

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_stays_below_it() {
        let with = |jitter| Backoff { jitter, cap: Duration::from_millis(300), ..Backoff::default() };
        assert_eq!(waits_ms(with(Jitter::None), 0, 5), [50, 100, 200, 300, 300]);
        assert_eq!(waits_ms(with(Jitter::Full), HALF, 5), [25, 50, 100, 150, 150]);
        assert_eq!(waits_ms(with(Jitter::Equal), HALF, 5), [37, 75, 150, 225, 225]);
        for jitter in [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
            let retry = retry(with(jitter));
            for n in 0..200 {
                let wait = retry.wait_ns(n, Hint::default(), u64::MAX, u64::MAX);
                assert!(wait <= 300_000_000, "{jitter:?}: {wait} ns before retry {n}");
            }
        }
    }

    #[test]
    fn jitter_is_not_lost_at_the_cap() {
        let retry = retry(Backoff::default());
        let wait = |random| retry.wait_ns(60, Hint::default(), 0, random);
        assert!(wait(HALF / 2) < wait(HALF) && wait(HALF) < wait(u64::MAX));
    }

    #[test]
    fn nothing_overflows() {
        let backoff = Backoff { base: Duration::MAX, cap: Duration::MAX, jitter: Jitter::None, ..Backoff::default() };
        let hint = Hint { throttled: false, retry_after: Some(Duration::MAX) };
        assert_eq!(retry(backoff).wait_ns(u32::MAX, hint, u64::MAX, u64::MAX), u64::MAX);
        let backoff = Backoff { jitter: Jitter::Decorrelated, ..backoff };
        assert_eq!(retry(backoff).wait_ns(u32::MAX, hint, u64::MAX, u64::MAX), u64::MAX);
        let one = Backoff { multiplier: 1.0, jitter: Jitter::None, ..Backoff::default() };
        assert_eq!(retry(one).wait_ns(u32::MAX, Hint::default(), 0, 0), 50_000_000);
    }

    #[test]
    fn decorrelated_grows_from_the_previous_wait() {
        let backoff = Backoff { jitter: Jitter::Decorrelated, ..Backoff::default() };
        let retry = retry(backoff);
        let ms = |previous: u64, random| retry.wait_ns(0, Hint::default(), previous * 1_000_000, random) / 1_000_000;
        assert_eq!((ms(0, 0), ms(0, HALF)), (50, 100)); // [50, 150)
        assert_eq!((ms(100, 0), ms(100, HALF)), (50, 175)); // [50, 300)
    }

    #[test]
    fn throttling_waits_longer_and_hints_are_clamped() {
        let retry = retry(Backoff { jitter: Jitter::None, ..Backoff::default() });
        let ms = |throttled, hint_ms: Option<u64>| {
            let hint = Hint { throttled, retry_after: hint_ms.map(Duration::from_millis) };
            retry.wait_ns(0, hint, 0, 0) / 1_000_000
        };
        assert_eq!(ms(false, None), 50);
        assert_eq!(ms(true, None), 1_000);
        assert_eq!(ms(false, Some(10)), 50); // not sooner than our own wait
        assert_eq!(ms(false, Some(700)), 700);
        assert_eq!(ms(false, Some(60_000)), 5_050); // nor later than 5 s past it
        assert_eq!(ms(true, Some(60_000)), 6_000);
    }

    #[test]
    fn every_reason_to_stop_and_none_of_them_costs_budget() {
        let no_jitter = Backoff { jitter: Jitter::None, ..Backoff::default() };
        let mut retry = retry(no_jitter);
        let at = |ms: u64| Time::from_nanos(ms * 1_000_000);
        let late_hint = Hint { throttled: false, retry_after: Some(Duration::from_secs(3)) };
        // (attempts made, deadline in ms, hint, budget pays) -> decision, budget asked
        let table = [
            (1, 1_000, Hint::default(), true, Ok(at(50)), true),
            (2, 1_000, Hint::default(), true, Ok(at(100)), true),
            (3, 1_000, Hint::default(), true, Err(Stop::AttemptsExhausted), false),
            (1, 50, Hint::default(), true, Err(Stop::DeadlineTooClose), false),
            (1, 51, Hint::default(), true, Ok(at(50)), true),
            (1, 2_000, late_hint, true, Err(Stop::DeadlineTooClose), false),
            (1, 3_001, late_hint, true, Ok(at(3_000)), true),
            (1, 1_000, Hint::default(), false, Err(Stop::BudgetExhausted), true),
        ];
        for (made, deadline, hint, pays, decision, asked) in table {
            let mut was_asked = false;
            let pay = || {
                was_asked = true;
                pays
            };
            let deadline = Deadline::at(at(deadline));
            let mut tries = Tries { made, last_wait_ns: 0 };
            let got = retry.next(Time::ZERO, &mut tries, deadline, hint, 0, pay);
            assert_eq!((got, was_asked), (decision, asked));
        }
        assert_eq!(retry.counts(), Counts { admitted: 4, rejected: 4, shadowed: 0 });

        let shadow = Config { mode: Mode::Shadow, backoff: no_jitter, ..Config::default() };
        retry.set_config(shadow, Time::ZERO).unwrap();
        let unpaid = || panic!("a shadow retry costs no budget");
        let mut tries = Tries { made: 1, last_wait_ns: 0 };
        let hint = Hint::default();
        let got = retry.next(Time::ZERO, &mut tries, Deadline::NEVER, hint, 0, unpaid);
        assert_eq!(got, Err(Stop::Shadowed));
        assert_eq!(retry.counts().shadowed, 1);
    }

    #[test]
    fn bad_configurations_are_refused() {
        let with = |backoff, attempts| Config { attempts, backoff, mode: Mode::Enforce };
        let default = Backoff::default();
        for (config, field) in [
            (with(default, 0), "attempts"),
            (with(default, 101), "attempts"),
            (with(Backoff { multiplier: 0.5, ..default }, 3), "backoff.multiplier"),
            (with(Backoff { multiplier: f64::NAN, ..default }, 3), "backoff.multiplier"),
            (with(Backoff { cap: Duration::ZERO, ..default }, 3), "backoff.cap"),
        ] {
            assert_eq!(Retry::new(config, Time::ZERO).unwrap_err().field, field);
        }
    }
}
