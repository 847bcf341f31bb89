//! The generic cell rate algorithm (ITU-T I.371): a pure function over one timestamp.
//!
//! The state of a key is its theoretical arrival time: when its quota is full again. So a store can
//! hold it as one number, expire it by itself, and update it in one script.

use std::time::Duration;

use crate::{Time, nanos};

/// The quota as GCRA reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    interval_ns: u64,
    burst: u32,
    tolerance_ns: u64,
}

impl Gcra {
    /// `limit` units for each `per`, at most `burst` at once; all three above zero, which
    /// [`RateLimit::new`](super::RateLimit::new) checks. The interval between units is rounded up
    /// to whole nanoseconds, so the quota is never exceeded by rounding.
    pub fn new(limit: u32, per: Duration, burst: u32) -> Self {
        let interval_ns = nanos(per).div_ceil(u64::from(limit.max(1))).max(1);
        let burst = burst.max(1);
        Gcra { interval_ns, burst, tolerance_ns: interval_ns.saturating_mul(u64::from(burst)) }
    }

    /// Decides on `cost` units at `now` for a key whose state is `tat` ([`Time::ZERO`] for a new
    /// one). Returns the state to keep, and, when the key is over its quota, when to come back:
    /// `None` where the cost exceeds the burst, for which no time is late enough.
    ///
    /// A rejection keeps the state as it is, except after the clock was set back. Under a clock that
    /// only goes forward a state is never further ahead than one burst takes; one that is gets
    /// clamped to that, or the key would stay shut for as long as the step was.
    #[inline]
    pub fn decide(&self, tat: Time, now: Time, cost: u32) -> (Time, Result<(), Option<Time>>) {
        let latest = now.plus_nanos(self.tolerance_ns);
        let tat = tat.min(latest);
        if cost > self.burst {
            return (tat, Err(None));
        }
        let increment = self.interval_ns.saturating_mul(u64::from(cost));
        let new = tat.max(now).plus_nanos(increment);
        if new <= latest { (new, Ok(())) } else { (tat, Err(Some(now.plus_nanos(new.nanos_since(latest))))) }
    }

    /// Nanoseconds between two units at the steady rate.
    pub fn interval_ns(&self) -> u64 {
        self.interval_ns
    }

    /// Units at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How long a used-up burst takes to come back: how long a store must remember a key.
    pub fn recovery_ns(&self) -> u64 {
        self.tolerance_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_burst_then_the_steady_rate() {
        let gcra = Gcra::new(10, Duration::from_secs(1), 3); // one each 100 ms
        let mut tat = Time::ZERO;
        for (now_ms, cost, decision) in [
            (1_000, 1, Ok(())),
            (1_000, 1, Ok(())),
            (1_000, 1, Ok(())),
            (1_000, 1, Err(Some(at(1_100)))),
            (1_099, 1, Err(Some(at(1_100)))),
            (1_100, 1, Ok(())),
            (1_100, 2, Err(Some(at(1_300)))),
            (1_300, 2, Ok(())),
            (9_000, 4, Err(None)), // never: more than the burst
            (9_000, 3, Ok(())),    // idle time earns no more than one burst
            (9_000, 1, Err(Some(at(9_100)))),
        ] {
            let got;
            (tat, got) = gcra.decide(tat, at(now_ms), cost);
            assert_eq!(got, decision, "{cost} at {now_ms} ms");
        }
    }

    #[test]
    fn a_clock_set_back_shuts_a_key_for_one_burst_at_most() {
        let gcra = Gcra::new(1, Duration::from_secs(1), 5);
        let (tat, _) = gcra.decide(Time::ZERO, at(3_600_000), 5);
        let (tat, rejected) = gcra.decide(tat, at(0), 1);
        assert_eq!(rejected, Err(Some(at(1_000))));
        assert_eq!(gcra.decide(tat, at(999), 1).1, Err(Some(at(1_000))));
        assert_eq!(gcra.decide(tat, at(1_000), 1).1, Ok(()));
    }

    #[test]
    fn rounding_never_exceeds_the_quota() {
        let gcra = Gcra::new(3, Duration::from_secs(1), 1);
        assert_eq!(gcra.interval_ns(), SECOND / 3 + 1);
        assert_eq!(Gcra::new(u32::MAX, Duration::from_nanos(1), 1).interval_ns(), 1);
        let endless = Gcra::new(1, Duration::MAX, u32::MAX);
        assert_eq!(endless.decide(Time::ZERO, Time::ZERO, 1), (Time::MAX, Ok(())));
    }
}
