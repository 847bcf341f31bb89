//! How far a replica is behind, as it changes over time. Both worlds ask here.

use crate::draw::{Draw, duration};
use crate::system::Dist;

/// A lag lasts so long at least, ns.
const LEAST: u64 = 1_000_000_000;
/// And so many times what nine in ten lags are below.
const TIMES: u64 = 10;

// Purposes of draws.
const LENGTH: u64 = 1;
const PHASE: u64 = 2;

/// One replica's lag. It is drawn anew every second, or every ten times its 90th percentile where that is longer, and
/// stays what it is in between. So how often it is drawn has nothing to do with how often the primary commits: were it
/// drawn for each commit, then, as commits become visible in their order, one slow commit would hold up all those after
/// it, and at many commits a second the lag would be the greatest of many draws, far from its distribution.
///
/// A commit at time t is visible at t + [`at`](Lag::at)(t), or with the one before it where that is later: a replica
/// catches up for as long as its lag has become shorter by. A lag lasts much longer than that, so that what readers see
/// has the distribution that the file states (its median is met within a few percent).
#[derive(Clone, Debug)]
pub struct Lag {
    dist: Dist,
    draw: Draw,
    /// How long a drawn value lasts, ns.
    every: u64,
    /// Replicas don't change together.
    phase: u64,
    /// The last that was drawn: its number, and the value.
    drawn: Option<(u64, u64)>,
}

impl Lag {
    /// The lag of a replica whose chance `draw` is.
    pub fn new(dist: &Dist, draw: Draw) -> Lag {
        let nine_in_ten = duration(dist, u64::MAX / 10 * 9);
        let every = nine_in_ten.saturating_mul(TIMES).max(LEAST);
        Lag { dist: dist.clone(), draw: draw.part(LENGTH), every, phase: draw.bits(PHASE) % every, drawn: None }
    }

    /// How long after its commit what is committed at a time arrives, ns.
    #[inline]
    pub fn at(&mut self, now: u64) -> u64 {
        let number = now.saturating_add(self.phase) / self.every;
        match self.drawn {
            Some((last, value)) if last == number => value,
            _ => {
                let value = duration(&self.dist, self.draw.bits(number));
                self.drawn = Some((number, value));
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{exponential, normal};

    const SEED: u64 = 1;
    const MS: f64 = 1e6;

    /// What of a replica's lag, ms, readers see who look at random times: the median and the 99th percentile. The
    /// primary commits so often a second.
    fn seen(dist: &Dist, rate: f64) -> (f64, f64) {
        let draw = Draw(SEED);
        let mut seen = Vec::new();
        for replica in 0..20 {
            let (mut lag, chance) = (Lag::new(dist, draw.part(replica)), draw.part(replica | 1 << 32));
            // Commits that are not visible yet: when they were made, and when they are visible.
            let (mut now, mut visible) = (0.0, 0);
            let gap = 1e9 / rate;
            for commit in 0..(600.0 * rate) as u64 {
                now += gap * exponential(chance.bits(commit));
                visible = visible.max(now as u64 + lag.at(now as u64));
                seen.push((visible - now as u64) as f64 / MS);
            }
        }
        seen.sort_by(f64::total_cmp);
        (seen[seen.len() / 2], seen[seen.len() * 99 / 100])
    }

    #[test]
    fn readers_see_the_stated_lag_at_any_rate_of_commits() {
        let (p50, p99) = (10.0, 200.0);
        let mu = libm::log(p50 * MS);
        let log_normal = Dist::LogNormal { mu, sigma: libm::log(p99 / p50) / normal(0.99) };
        let exponential = Dist::Exponential { mean: 40.0 * MS };
        for (dist, p50, p99) in
            [(log_normal, p50, p99), (exponential, 40.0 * libm::log(0.5).abs(), 40.0 * libm::log(0.01).abs())]
        {
            for rate in [0.5, 10.0, 1_000.0] {
                let (median, high) = seen(&dist, rate);
                let near = |seen: f64, stated: f64, by: f64| (1.0 - by..1.0 + by).contains(&(seen / stated));
                assert!(near(median, p50, 0.1), "{dist:?} at {rate}/s: median {median} ms (seed {SEED})");
                assert!(near(high, p99, 0.25), "{dist:?} at {rate}/s: p99 {high} ms (seed {SEED})");
            }
        }
    }

    #[test]
    fn a_lag_lasts_much_longer_than_it_is_long() {
        for (dist, least) in [(Dist::Constant(1), LEAST), (Dist::Constant(5 * LEAST), 50 * LEAST)] {
            assert_eq!(Lag::new(&dist, Draw(SEED)).every, least);
        }
        // Even where there is no mean.
        let lag = Lag::new(&Dist::Pareto { min: 1e9, alpha: 0.9 }, Draw(SEED));
        assert!(lag.every > 100 * LEAST && lag.every < u64::MAX, "{}", lag.every);
    }
}
