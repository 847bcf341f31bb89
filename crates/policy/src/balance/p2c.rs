use std::time::Duration;

use super::config::{CHOICES_MAX, Config};
use super::eligible::Candidates;
use super::endpoints::Endpoints;
use crate::hash::{below, mix};
use crate::{Outcome, Time, nanos};

/// Failures in a row after which an endpoint is taken to be down rather than unlucky. Two happen by
/// chance every 10 s at 1% errors and 1000/s; three do not.
const FAILURES_IN_A_ROW: u32 = 3;

/// A longer `Retry-After` counts as this: the header comes from outside.
const PENALTY_MAX_NS: f64 = 60e9;

/// Of two random candidates, or so many others, the one that will answer sooner (Mitzenmacher, "The
/// Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001), by peak EWMA (Finagle's `p2c/PeakEwma`): expected answer time = estimate x (in flight + 1) / weight.
///
/// The estimate is latency plus penalty:
///
/// - latency jumps up to a slower answer at once and forgets it over `decay`, so that an endpoint that
///   turns slow is left within one answer;
/// - penalty is the share of failures times what a failure counts for (5 s, or its `Retry-After`).
///   Failing fast is no merit: without it, the endpoint that refuses within 0.1 ms wins every
///   comparison and takes most of the traffic. As an average and not a peak, since one failure in a
///   hundred everywhere must not hide all latencies; three failures in a row count in full.
///
/// An endpoint that is not picked teaches nothing, so its estimate drifts over `decay` to what is
/// typical of the fleet. Drifting to zero, as Finagle's does, would send it everything until its
/// first answer.
#[derive(Clone, Debug)]
pub(super) struct P2c {
    estimates: Vec<Estimate>,
    typical: Typical,
    choices: usize,
    seed_ns: f64,
    penalty_ns: f64,
    decay_per_ns: f64,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    latency_ns: f64,
    penalty_ns: f64,
    /// What the latest failures in a row count for, once there are enough of them.
    outage_ns: f64,
    at: Time,
    failures_in_a_row: u32,
}

/// The mean latency of all endpoints' successes.
#[derive(Clone, Copy, Debug)]
struct Typical {
    latency_ns: f64,
    at: Option<Time>,
}

impl P2c {
    pub(super) fn new(endpoints: &Endpoints, config: &Config) -> Self {
        let mut p2c = P2c {
            estimates: Vec::new(),
            typical: Typical { latency_ns: nanos(config.ewma_seed) as f64, at: None },
            choices: 0,
            seed_ns: 0.0,
            penalty_ns: 0.0,
            decay_per_ns: 0.0,
        };
        p2c.configure(config);
        p2c.sync(endpoints);
        p2c
    }

    pub(super) fn configure(&mut self, config: &Config) {
        self.choices = config.choices as usize;
        self.seed_ns = nanos(config.ewma_seed) as f64;
        self.penalty_ns = nanos(config.failure_penalty) as f64;
        self.decay_per_ns = 1.0 / nanos(config.ewma_decay) as f64;
    }

    pub(super) fn sync(&mut self, endpoints: &Endpoints) {
        let fresh = self.fresh(Time::ZERO);
        self.estimates.resize(endpoints.len(), fresh);
    }

    /// Forgets what is known of an endpoint: another process has come in its place.
    pub(super) fn reset(&mut self, i: usize, now: Time) {
        self.estimates[i] = self.fresh(now);
    }

    fn fresh(&self, at: Time) -> Estimate {
        Estimate { latency_ns: self.seed_ns, penalty_ns: 0.0, outage_ns: 0.0, at, failures_in_a_row: 0 }
    }

    #[inline]
    pub(super) fn pick(
        &self,
        now: Time,
        random: u64,
        endpoints: &Endpoints,
        candidates: &Candidates<'_>,
    ) -> Option<usize> {
        let count = candidates.count();
        if count < 2 {
            return candidates.iter().next();
        }
        if self.choices != 2 {
            return Some(self.pick_of(self.choices.min(count), now, random, endpoints, candidates));
        }
        // 32 bits for each choice: the second skips the first, so the two always differ.
        let a = below(random & !0xFFFF_FFFF, count);
        let b = below(random << 32, count - 1);
        let b = b + usize::from(b >= a);
        let (a, b) = (candidates.nth(a), candidates.nth(b));
        Some(if self.cost(b, now, endpoints) < self.cost(a, now, endpoints) { b } else { a })
    }

    /// The best of `choices` different candidates, of which there are at least so many; the first drawn of
    /// equals.
    fn pick_of(
        &self,
        choices: usize,
        now: Time,
        random: u64,
        endpoints: &Endpoints,
        candidates: &Candidates<'_>,
    ) -> usize {
        if choices == 1 {
            return candidates.nth(below(random, candidates.count()));
        }
        let mut ranks = [0; CHOICES_MAX as usize];
        let mut bits = random;
        let mut best = (f64::INFINITY, 0);
        for drawn in 0..choices {
            // Among those that are left: each that was drawn before, in rising order, is skipped.
            let mut rank = below(bits, candidates.count() - drawn);
            let before = ranks[..drawn].iter().take_while(|&&other| {
                let skips = other <= rank;
                rank += usize::from(skips);
                skips
            });
            let at = before.count();
            ranks.copy_within(at..drawn, at + 1);
            ranks[at] = rank;
            bits = mix(bits);
            let i = candidates.nth(rank);
            let cost = self.cost(i, now, endpoints);
            if drawn == 0 || cost < best.0 {
                best = (cost, i);
            }
        }
        best.1
    }

    #[inline]
    fn cost(&self, i: usize, now: Time, endpoints: &Endpoints) -> f64 {
        let estimate = self.at(i, now);
        (estimate.latency_ns + estimate.penalty_ns.max(estimate.outage_ns))
            * f64::from(endpoints.in_flight(i) + 1)
            * endpoints.inverse(i)
    }

    /// The estimate as it has aged until now.
    #[inline]
    fn at(&self, i: usize, now: Time) -> Estimate {
        let old = &self.estimates[i];
        let keep = exp_minus(now.nanos_since(old.at) as f64 * self.decay_per_ns);
        Estimate {
            latency_ns: self.typical.latency_ns + (old.latency_ns - self.typical.latency_ns) * keep,
            penalty_ns: old.penalty_ns * keep,
            outage_ns: old.outage_ns * keep,
            at: now,
            failures_in_a_row: old.failures_in_a_row,
        }
    }

    pub(super) fn done(
        &mut self,
        i: usize,
        now: Time,
        latency_ns: u64,
        outcome: Outcome,
        retry_after: Option<Duration>,
    ) {
        if i >= self.estimates.len() || outcome == Outcome::Ignored {
            return;
        }
        let latency_ns = latency_ns as f64;
        let keep = exp_minus(now.nanos_since(self.estimates[i].at) as f64 * self.decay_per_ns);
        // Failures teach a penalty, and their latency only if it is worse than what was known: the
        // same goes for a cancelled call, which would have taken at least this long.
        let mut new = self.estimates[i];
        match outcome {
            Outcome::Success => {
                new.penalty_ns *= keep;
                new.outage_ns = 0.0;
                new.failures_in_a_row = 0;
                new.latency_ns = if latency_ns > new.latency_ns {
                    latency_ns
                } else {
                    latency_ns + (new.latency_ns - latency_ns) * keep
                };
                self.learn_typical(now, latency_ns);
            }
            Outcome::Failure => {
                let counts_for = retry_after.map_or(self.penalty_ns, |after| (nanos(after) as f64).min(PENALTY_MAX_NS));
                new.penalty_ns = counts_for + (new.penalty_ns - counts_for) * keep;
                new.failures_in_a_row = new.failures_in_a_row.saturating_add(1);
                if new.failures_in_a_row >= FAILURES_IN_A_ROW {
                    new.outage_ns = counts_for;
                }
                new.latency_ns = new.latency_ns.max(latency_ns);
            }
            Outcome::Cancelled | Outcome::Ignored => {
                // What was known has aged meanwhile: a hedge that loses again after as long as before says anew
                // that the endpoint is no quicker, or it would draw load again while nothing has changed.
                if latency_ns <= self.at(i, now).latency_ns {
                    return;
                }
                new.penalty_ns *= keep;
                new.outage_ns *= keep;
                new.latency_ns = latency_ns;
            }
        }
        new.at = now;
        self.estimates[i] = new;
    }

    fn learn_typical(&mut self, now: Time, latency_ns: f64) {
        let typical = &mut self.typical;
        let Some(at) = typical.at.replace(now) else {
            typical.latency_ns = latency_ns;
            return;
        };
        let keep = exp_minus(now.nanos_since(at) as f64 * self.decay_per_ns);
        typical.latency_ns = latency_ns + (typical.latency_ns - latency_ns) * keep;
    }
}

/// `exp(-x)` for `x >= 0`. Between two requests `x` is tiny, where five terms of the series are
/// exact to 1e-8 at a fraction of the cost.
#[inline]
fn exp_minus(x: f64) -> f64 {
    if x < 0.0625 { 1.0 - x * (1.0 - x / 2.0 * (1.0 - x / 3.0 * (1.0 - x / 4.0))) } else { libm::exp(-x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_meets_the_exponential() {
        for k in 0..2_000 {
            let x = f64::from(k) / 10_000.0;
            assert!((exp_minus(x) - libm::exp(-x)).abs() < 1e-8, "{x}");
        }
    }
}
