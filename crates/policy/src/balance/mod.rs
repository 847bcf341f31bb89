//! Load balancing: which endpoint takes the next request.
//!
//! A [`Balancer`] knows its endpoints by index. [`Eligible`] says which of them may be used now;
//! health checks, outlier ejection and draining maintain it (see [`crate::members`]), and a retry
//! excludes what it has tried. The driver reports every start and end, since in-flight counts are
//! kept for all algorithms: bounded load, least connections and P2C read them, and an algorithm
//! can be changed at run time without starting from nothing.
//!
//! A second algorithm can run in the shadow: it is asked for every pick, its answer is counted and
//! not used. It sees the loads that the active algorithm causes, not those it would cause itself.

use std::time::Duration;

use crate::hash::{below, mix};
use crate::{InvalidConfig, Outcome, Time};

mod bounded_load;
mod config;
mod eligible;
mod endpoints;
mod ip_hash;
mod least_connections;
mod maglev;
mod p2c;
mod ring;
mod round_robin;
mod weighted;

pub use config::{Algorithm, Config, Counts};
pub use eligible::Eligible;

use eligible::Candidates;
use endpoints::Endpoints;

/// Chooses endpoints.
#[derive(Clone, Debug)]
pub struct Balancer {
    endpoints: Endpoints,
    picker: Picker,
    shadow: Option<Picker>,
    counts: Counts,
    config: Config,
    seed: u64,
}

impl Balancer {
    /// A balancer over `endpoints` endpoints of weight 1. `seed_random` decides where turns start.
    pub fn new(config: Config, endpoints: usize, seed_random: u64) -> Result<Self, InvalidConfig> {
        Balancer::over(config, Endpoints::new(0..endpoints as u64), seed_random)
    }

    /// A balancer over endpoints whose places on hash rings follow from these ids; see
    /// [`add_with_id`](Self::add_with_id).
    pub fn with_ids(config: Config, ids: &[u64], seed_random: u64) -> Result<Self, InvalidConfig> {
        Balancer::over(config, Endpoints::new(ids.iter().copied()), seed_random)
    }

    /// Chooses an endpoint for a request, or none if no eligible one takes traffic.
    ///
    /// `key` is the hash of what the request sticks to (the client's address, a cache key); only the
    /// hashing algorithms read it. `random` is 64 fresh random bits. Report the request with
    /// [`on_start`](Self::on_start) if it is sent.
    #[inline]
    pub fn pick(&mut self, now: Time, key: u64, random: u64, eligible: &Eligible) -> Option<usize> {
        if self.endpoints.len() == 1 && self.shadow.is_none() {
            // No algorithm has a choice.
            let there = eligible.contains(0) && self.endpoints.usable.contains(0);
            *(if there { &mut self.counts.picked } else { &mut self.counts.no_target }) += 1;
            return there.then_some(0);
        }
        self.pick_among(now, key, random, eligible)
    }

    fn pick_among(&mut self, now: Time, key: u64, random: u64, eligible: &Eligible) -> Option<usize> {
        let candidates = Candidates::new(eligible, &self.endpoints.usable);
        let picked = self.picker.pick(now, key, random, &self.endpoints, &candidates);
        match picked {
            Some(_) => self.counts.picked += 1,
            None => self.counts.no_target += 1,
        }
        if let (Some(shadow), Some(i)) = (&mut self.shadow, picked) {
            // Other random bits, or two P2C pickers would always compare the same pair.
            if let Some(other) = shadow.pick(now, key, mix(random), &self.endpoints, &candidates) {
                self.counts.shadow_differed += u64::from(other != i);
                self.counts.shadow_picks[other] += 1;
            }
        }
        picked
    }

    /// A request to endpoint `i` starts.
    #[inline]
    pub fn on_start(&mut self, i: usize, _now: Time) {
        self.endpoints.started(i);
    }

    /// A request to endpoint `i` ends after `latency_ns`, with the `Retry-After` of its answer, if
    /// any. An end without a start changes nothing.
    #[inline]
    pub fn on_done(&mut self, i: usize, now: Time, latency_ns: u64, outcome: Outcome, retry_after: Option<Duration>) {
        if !self.endpoints.ended(i) || !self.endpoints.get(i).present {
            return;
        }
        for picker in [Some(&mut self.picker), self.shadow.as_mut()].into_iter().flatten() {
            if let Picker::P2c(p2c) = picker {
                p2c.done(i, now, latency_ns, outcome, retry_after);
            }
        }
    }

    /// Requests in flight at endpoint `i`.
    pub fn in_flight(&self, i: usize) -> u32 {
        if i < self.endpoints.len() { self.endpoints.in_flight(i) } else { 0 }
    }

    /// How many indices there are, holes of removed endpoints included.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there has never been an endpoint.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an endpoint of weight 1 and returns its index: a hole left by a removed endpoint, once
    /// its last request has ended, or else a new one. Its place on hash rings follows from the index.
    pub fn add(&mut self, now: Time) -> usize {
        let i = self.endpoints.add(None);
        self.after_add(i, now);
        i
    }

    /// Adds an endpoint whose place on hash rings follows from `id`, a hash of its address: several
    /// gateways that list the same endpoints in different orders then agree on every key.
    pub fn add_with_id(&mut self, now: Time, id: u64) -> usize {
        let i = self.endpoints.add(Some(id));
        self.after_add(i, now);
        i
    }

    /// Removes endpoint `i`; the others keep their indices and their state. Whether it was there.
    pub fn remove(&mut self, i: usize) -> bool {
        let removed = self.endpoints.remove(i);
        if removed {
            self.rebuild();
        }
        removed
    }

    /// Gives endpoint `i` a weight of 0 or more; 0 keeps new requests away under every algorithm.
    /// Round robin otherwise ignores weights.
    pub fn set_weight(&mut self, i: usize, weight: f64) -> Result<(), InvalidConfig> {
        if !(0.0..=1e6).contains(&weight) {
            return Err(InvalidConfig { field: "weight", expected: "from 0 to 1000000" });
        }
        if self.endpoints.set_weight(i, weight) {
            self.rebuild();
        }
        Ok(())
    }

    /// Scales the weight of an endpoint that warms up by a factor in `[0, 1]`. Weighted round robin,
    /// least connections and P2C follow it; the hashing algorithms do not, since keys that
    /// wander during every warm-up would cost more than they spare.
    pub fn set_slow_start(&mut self, i: usize, factor: f64) {
        self.endpoints.set_slow_start(i, factor);
    }

    /// Changes the settings. In-flight counts, weights and, where the algorithm stays, its state
    /// are kept; a shadow algorithm starts again.
    pub fn set_config(&mut self, config: Config, _now: Time) -> Result<(), InvalidConfig> {
        config.check()?;
        let old = std::mem::replace(&mut self.config, config);
        let hashing = |c: &Config| (c.ring_points_min, c.ring_points_max, c.maglev_slots, c.bounded_load);
        let same = self.config.algorithm == old.algorithm;
        match &mut self.picker {
            Picker::P2c(p2c) if same => {
                p2c.configure(&self.config);
            }
            Picker::IpHash(_) | Picker::Ring(_) | Picker::Maglev(_)
                if same && hashing(&self.config) == hashing(&old) => {}
            Picker::RoundRobin(_) | Picker::Weighted(_) | Picker::LeastConnections(_) if same => {}
            _ => {
                self.picker = Picker::new(self.config.algorithm, &self.config, &self.endpoints, self.seed);
            }
        }
        if self.config != old {
            self.renew_shadow();
        }
        Ok(())
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was decided so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn over(config: Config, endpoints: Endpoints, seed: u64) -> Result<Self, InvalidConfig> {
        config.check()?;
        let picker = Picker::new(config.algorithm, &config, &endpoints, seed);
        let mut balancer = Balancer { endpoints, picker, shadow: None, counts: Counts::default(), config, seed };
        balancer.renew_shadow();
        Ok(balancer)
    }

    fn after_add(&mut self, i: usize, now: Time) {
        self.rebuild();
        for picker in [Some(&mut self.picker), self.shadow.as_mut()].into_iter().flatten() {
            if let Picker::P2c(p2c) = picker {
                p2c.reset(i, now);
            }
        }
    }

    fn renew_shadow(&mut self) {
        self.shadow = self.config.shadow.map(|a| Picker::new(a, &self.config, &self.endpoints, mix(self.seed)));
        self.counts.shadow_differed = 0;
        self.counts.shadow_picks.clear();
        if self.shadow.is_some() {
            self.counts.shadow_picks.resize(self.endpoints.len(), 0);
        }
    }

    fn rebuild(&mut self) {
        self.picker.rebuild(&self.endpoints);
        if let Some(shadow) = &mut self.shadow {
            shadow.rebuild(&self.endpoints);
            self.counts.shadow_picks.resize(self.endpoints.len(), 0);
        }
    }
}

#[derive(Clone, Debug)]
enum Picker {
    RoundRobin(round_robin::RoundRobin),
    Weighted(weighted::Weighted),
    LeastConnections(least_connections::LeastConnections),
    IpHash(ip_hash::IpHash),
    Ring(ring::Ring),
    Maglev(maglev::Maglev),
    P2c(p2c::P2c),
}

impl Picker {
    fn new(algorithm: Algorithm, config: &Config, endpoints: &Endpoints, seed: u64) -> Self {
        match algorithm {
            Algorithm::RoundRobin => {
                Picker::RoundRobin(round_robin::RoundRobin::new(below(seed, endpoints.len().max(1))))
            }
            Algorithm::Weighted => Picker::Weighted(weighted::Weighted::new(endpoints, seed)),
            Algorithm::LeastConnections => {
                Picker::LeastConnections(least_connections::LeastConnections::new(endpoints, seed))
            }
            Algorithm::IpHash => Picker::IpHash(ip_hash::IpHash::new(endpoints)),
            Algorithm::Ring => Picker::Ring(ring::Ring::new(
                endpoints,
                config.ring_points_min,
                config.ring_points_max,
                config.bounded_load,
            )),
            Algorithm::Maglev => {
                Picker::Maglev(maglev::Maglev::new(endpoints, config.maglev_slots, config.bounded_load))
            }
            Algorithm::P2c => Picker::P2c(p2c::P2c::new(endpoints, config)),
        }
    }

    #[inline]
    fn pick(
        &mut self,
        now: Time,
        key: u64,
        random: u64,
        endpoints: &Endpoints,
        candidates: &Candidates<'_>,
    ) -> Option<usize> {
        match self {
            Picker::RoundRobin(picker) => picker.pick(candidates),
            Picker::Weighted(picker) => picker.pick(endpoints, candidates),
            Picker::LeastConnections(picker) => picker.pick(endpoints, candidates),
            Picker::IpHash(picker) => picker.pick(key, candidates),
            Picker::Ring(picker) => picker.pick(key, endpoints, candidates),
            Picker::Maglev(picker) => picker.pick(key, endpoints, candidates),
            Picker::P2c(picker) => picker.pick(now, random, endpoints, candidates),
        }
    }

    /// Follows a change of endpoints or weights.
    fn rebuild(&mut self, endpoints: &Endpoints) {
        match self {
            Picker::RoundRobin(_) => {}
            Picker::Weighted(picker) => picker.sync(endpoints),
            Picker::LeastConnections(picker) => picker.sync(endpoints),
            Picker::IpHash(picker) => picker.rebuild(endpoints),
            Picker::Ring(picker) => picker.rebuild(endpoints),
            Picker::Maglev(picker) => picker.rebuild(endpoints),
            Picker::P2c(picker) => picker.sync(endpoints),
        }
    }
}
