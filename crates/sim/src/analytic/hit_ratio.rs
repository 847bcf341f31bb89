//! How often a cache answers: Che's approximation for room, renewals for age.
//!
//! A key that is asked for at rate `l` stays until it expires (`ttl` after its fill), until it is
//! invalidated (at rate `m`), or until it has not been asked for during the cache's characteristic
//! time `tc`, by then the least recently used. Between fills it answers `1 / (r1 + r2 + r3)` requests,
//! where each risk is the chance that it is gone before the next request, over the chance that it is
//! not: `r1 = 1 / (l ttl)`, `r2 = m / l`, `r3 = 1 / (exp(l tc) - 1)`. Each alone is exact for Poisson
//! requests; together they are an approximation.
//!
//! Che, Tung and Wang, "Hierarchical Web Caching Systems", IEEE JSAC 2002: `tc` solves
//! `sum over keys of (1 - exp(-l tc)) = capacity`.

use plimsoll_model::system::KeyDist;

/// A cache and its load.
#[derive(Clone, Debug)]
pub(super) struct CacheLoad<'s> {
    /// Entries that it holds.
    pub(super) capacity: f64,
    /// How long an entry is fresh, s.
    pub(super) ttl: f64,
    /// How much longer it is served while it is fetched anew, s.
    pub(super) stale: f64,
    /// Those who ask.
    pub(super) askers: Vec<Asker<'s>>,
}

/// Requests with one distribution of keys.
#[derive(Clone, Debug)]
pub(super) struct Asker<'s> {
    /// None: every request has a key of its own.
    pub(super) keys: Option<&'s KeyDist>,
    /// Lookups a second.
    pub(super) lookups: f64,
    /// Invalidations a second.
    pub(super) drops: f64,
}

/// What becomes of a lookup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Misses {
    /// The share of lookups that cause a fetch from the origin.
    pub(super) fetch: f64,
    /// The share that wait for it: the others have a stale answer at once.
    pub(super) wait: f64,
}

impl Misses {
    pub(super) const ALL: Misses = Misses { fetch: 1.0, wait: 1.0 };
}

/// What becomes of each asker's lookups.
pub(super) fn misses(load: &CacheLoad) -> Vec<Misses> {
    let groups = groups(load);
    let unique: f64 = load.askers.iter().filter(|asker| asker.keys.is_none()).map(|asker| asker.lookups).sum();
    let time = characteristic_time(load, &groups, unique);
    let each: Vec<Misses> = groups.iter().map(|group| group.misses(load, time)).collect();
    let of = |at: usize, asker: &Asker| match asker.keys {
        None => Misses::ALL,
        Some(_) => {
            let sum = |what: fn(&Misses) -> f64| -> f64 {
                groups.iter().zip(&each).map(|(group, misses)| group.shares[at] * group.keys * what(misses)).sum()
            };
            Misses { fetch: sum(|m| m.fetch).min(1.0), wait: sum(|m| m.wait).min(1.0) }
        }
    };
    load.askers.iter().enumerate().map(|(at, asker)| of(at, asker)).collect()
}

/// The share of writes that reach the origin, where those to one key within `window` s are one.
pub(super) fn distinct(keys: Option<&KeyDist>, per_second: f64, window: f64) -> f64 {
    let load = CacheLoad {
        capacity: f64::INFINITY,
        ttl: window,
        stale: 0.0,
        askers: vec![Asker { keys, lookups: per_second, drops: 0.0 }],
    };
    misses(&load)[0].fetch
}

/// The share of requests that is about the most popular key.
pub(super) fn top_key(keys: Option<&KeyDist>) -> f64 {
    keys.map_or(0.0, |dist| mass(dist, 0, 1) / mass(dist, 0, dist.keys()))
}

/// Keys that are asked for about equally often.
struct Group {
    keys: f64,
    /// For each asker, the share of its lookups that goes to one of these keys.
    shares: Vec<f64>,
    /// Lookups of one key a second.
    lookups: f64,
    /// Invalidations of one key a second.
    drops: f64,
}

impl Group {
    fn misses(&self, load: &CacheLoad, time: f64) -> Misses {
        if self.lookups <= 0.0 {
            return Misses::ALL;
        }
        let expiry = 1.0 / (self.lookups * load.ttl);
        let gone = self.drops / self.lookups + 1.0 / libm::expm1(self.lookups * time);
        let risk = expiry + gone;
        let fetch = risk / (1.0 + risk);
        if fetch == 0.0 {
            return Misses { fetch, wait: 0.0 };
        }
        // Of entries that expire, some are still there to be served stale.
        let late = libm::exp(-self.lookups * load.stale);
        Misses { fetch, wait: fetch * (gone + expiry * late) / risk }
    }
}

/// Ranks that stand alone; beyond, a group grows by a fiftieth.
const ALONE: u32 = 256;

fn groups(load: &CacheLoad) -> Vec<Group> {
    let dists: Vec<Option<&KeyDist>> = load.askers.iter().map(|asker| asker.keys).collect();
    let most = dists.iter().flatten().map(|dist| dist.keys()).max().unwrap_or(0);
    let mut ends: Vec<u32> = (1..=most.min(ALONE)).collect();
    while let Some(&last) = ends.last()
        && last < most
    {
        let next = last + (last / 50).max(1);
        // Where one distribution ends, so does a group.
        let cut = dists.iter().flatten().map(|dist| dist.keys()).filter(|&end| end > last).min();
        ends.push(next.min(cut.unwrap_or(most)));
    }
    let norms: Vec<f64> = dists.iter().map(|dist| dist.map_or(1.0, |dist| mass(dist, 0, dist.keys()))).collect();
    let mut start = 0;
    let mut groups = Vec::with_capacity(ends.len());
    for end in ends {
        let keys = (end - start) as f64;
        let shares: Vec<f64> = dists
            .iter()
            .zip(&norms)
            .map(|(dist, norm)| dist.map_or(0.0, |dist| mass(dist, start, end) / norm / keys))
            .collect();
        let sum = |of: fn(&Asker) -> f64| load.askers.iter().zip(&shares).map(|(asker, share)| of(asker) * share).sum();
        groups.push(Group { keys, lookups: sum(|asker| asker.lookups), drops: sum(|asker| asker.drops), shares });
        start = end;
    }
    groups
}

/// The weight of the ranks after `start` up to `end`.
fn mass(dist: &KeyDist, start: u32, end: u32) -> f64 {
    let end = end.min(dist.keys());
    if end <= start {
        return 0.0;
    }
    match *dist {
        KeyDist::Uniform { keys } => (end - start) as f64 / keys as f64,
        KeyDist::Hot { share, keys } => {
            let rest = (1.0 - share) / (keys - 1).max(1) as f64;
            let hot = if start == 0 { share } else { 0.0 };
            hot + rest * (end - start.max(1)) as f64
        }
        KeyDist::Zipf { exponent, .. } => {
            let alone = |rank: u32| libm::pow(rank as f64, -exponent);
            let near = (start + 1..=end.min(ALONE)).map(alone).sum::<f64>();
            let (from, to) = (start.max(ALONE) as f64 + 0.5, end as f64 + 0.5);
            if to <= from {
                near
            } else if (exponent - 1.0).abs() < 1e-9 {
                near + libm::log(to / from)
            } else {
                let power = 1.0 - exponent;
                near + (libm::pow(to, power) - libm::pow(from, power)) / power
            }
        }
    }
}

/// After how long without a request a key is evicted; infinite where there is room for all that live.
fn characteristic_time(load: &CacheLoad, groups: &[Group], unique: f64) -> f64 {
    let life = load.ttl + load.stale;
    let living = unique * life
        + groups
            .iter()
            .map(|g| if g.lookups > 0.0 { g.keys / (1.0 + 1.0 / (g.lookups * life)) } else { 0.0 })
            .sum::<f64>();
    if living <= load.capacity {
        return f64::INFINITY;
    }
    let held = |time: f64| unique * time + groups.iter().map(|g| -g.keys * libm::expm1(-g.lookups * time)).sum::<f64>();
    let (mut low, mut high) = (0.0, life.min(1e9));
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if held(middle) < load.capacity { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    fn one(keys: &KeyDist, lookups: f64, capacity: f64, ttl: f64, stale: f64) -> Misses {
        misses(&CacheLoad { capacity, ttl, stale, askers: vec![Asker { keys: Some(keys), lookups, drops: 0.0 }] })[0]
    }

    #[test]
    fn with_room_for_all_only_age_counts() {
        // 10 lookups a second a key, 6 s: one fill for 60 hits.
        let got = one(&KeyDist::Uniform { keys: 100 }, 1_000.0, 1e9, 6.0, 0.0);
        digits(got.fetch, 1.0 / 61.0, 9);
        digits(got.wait, 1.0 / 61.0, 9);
    }

    #[test]
    fn a_stale_answer_spares_the_wait_and_not_the_fetch() {
        let got = one(&KeyDist::Uniform { keys: 100 }, 100.0, 1e9, 4.0, 1.0);
        digits(got.fetch, 0.2, 9);
        digits(got.wait, 0.2 * libm::exp(-1.0), 9);
    }

    #[test]
    fn with_room_for_half_of_equal_keys_half_hit() {
        let got = one(&KeyDist::Uniform { keys: 10_000 }, 1_000.0, 5_000.0, 1e12, 0.0);
        digits(1.0 - got.fetch, 0.5, 3);
    }

    /// Fricker, Robert and Roberts, "A Versatile and Accurate Approximation for LRU Cache Performance"
    /// (2012): Che's approximation is close to exact; here it is checked against a simulated LRU.
    #[test]
    fn a_skewed_cache_hits_as_often_as_a_simulated_one() {
        let keys = KeyDist::Zipf { exponent: 0.9, keys: 2_000 };
        let expect = 1.0 - one(&keys, 1.0, 200.0, 1e15, 0.0).fetch;
        let weights: Vec<f64> = (1..=2_000u32).map(|k| libm::pow(k as f64, -0.9)).collect();
        let total: f64 = weights.iter().sum();
        let mut cumulative = Vec::new();
        weights.iter().fold(0.0, |sum, w| {
            cumulative.push((sum + w) / total);
            sum + w
        });
        let mut last_used = vec![0u64; 2_000];
        let mut order = std::collections::BTreeMap::new();
        let (mut hits, mut state, n) = (0u64, 0x9e37_79b9_7f4a_7c15u64, 300_000u64);
        for now in 1..=n {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let u = (state >> 11) as f64 / (1u64 << 53) as f64;
            let key = cumulative.partition_point(|&c| c < u).min(1_999);
            let hit = order.remove(&last_used[key]) == Some(key);
            hits += u64::from(hit && now > 20_000);
            last_used[key] = now;
            order.insert(now, key);
            if order.len() > 200 {
                order.pop_first();
            }
        }
        let got = hits as f64 / (n - 20_000) as f64;
        assert!((got - expect).abs() < 0.01, "simulated {got}, expected {expect}");
    }

    #[test]
    fn groups_hold_all_of_a_distribution() {
        for dist in [
            KeyDist::Zipf { exponent: 0.99, keys: 100_000 },
            KeyDist::Zipf { exponent: 1.0, keys: 50_000 },
            KeyDist::Hot { share: 0.1, keys: 1_000 },
            KeyDist::Uniform { keys: 300 },
        ] {
            let askers = vec![
                Asker { keys: Some(&dist), lookups: 1.0, drops: 0.0 },
                Asker { keys: Some(&KeyDist::Uniform { keys: 777 }), lookups: 1.0, drops: 0.0 },
            ];
            let load = CacheLoad { capacity: 1.0, ttl: 1.0, stale: 0.0, askers };
            let groups = groups(&load);
            for at in 0..2 {
                let total: f64 = groups.iter().map(|group| group.keys * group.shares[at]).sum();
                digits(total, 1.0, 9);
            }
            assert_eq!(groups.iter().map(|group| group.keys).sum::<f64>(), dist.keys().max(777) as f64);
        }
        digits(top_key(Some(&KeyDist::Hot { share: 0.25, keys: 9 })), 0.25, 9);
        digits(top_key(Some(&KeyDist::Uniform { keys: 50 })), 0.02, 9);
        assert_eq!(top_key(None), 0.0);
        // The integral beyond the first ranks is close to the sum.
        let zipf = KeyDist::Zipf { exponent: 0.99, keys: 10_000 };
        let exact: f64 = (1..=10_000u32).map(|k| libm::pow(k as f64, -0.99)).sum();
        assert!((mass(&zipf, 0, 10_000) / exact - 1.0).abs() < 1e-6);
    }

    #[test]
    fn writes_to_one_key_merge() {
        digits(distinct(Some(&KeyDist::Uniform { keys: 10 }), 100.0, 1.0), 1.0 / 11.0, 9);
        assert_eq!(distinct(None, 100.0, 1.0), 1.0);
    }

    #[test]
    fn invalidation_and_single_use_keys_cost_hits() {
        let keys = KeyDist::Uniform { keys: 100 };
        let asker = |lookups, drops| Asker { keys: Some(&keys), lookups, drops };
        let load = |askers| CacheLoad { capacity: 1_000.0, ttl: 1e12, stale: 0.0, askers };
        // As many invalidations as lookups: every other lookup misses.
        digits(misses(&load(vec![asker(100.0, 100.0)]))[0].fetch, 0.5, 6);
        let crowd = Asker { keys: None, lookups: 1e5, drops: 0.0 };
        let crowded = misses(&load(vec![asker(100.0, 0.0), crowd]));
        assert!(crowded[0].fetch > 0.9, "{crowded:?}");
        assert_eq!(crowded[1], Misses::ALL);
    }
}
