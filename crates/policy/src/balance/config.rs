use std::time::Duration;

use super::maglev::is_prime;
use crate::{InvalidConfig, nanos};

/// The most endpoints that P2C compares: more cost more than they gain.
pub(super) const CHOICES_MAX: u32 = 10;

/// How a balancer chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Each in turn, from a random start.
    #[default]
    RoundRobin,
    /// Smooth weighted round robin.
    Weighted,
    /// The fewest requests in flight for its weight, ties in turn.
    LeastConnections,
    /// The key's hash over the sum of weights; most keys move when an endpoint comes or goes.
    IpHash,
    /// A consistent-hash ring with bounded load.
    Ring,
    /// Maglev's table with bounded load.
    Maglev,
    /// The better of two random ones, or the best of more, by peak EWMA latency and requests in flight.
    P2c,
}

impl Algorithm {
    /// Whether the same key goes to the same endpoint, so that a driver has to find one.
    pub const fn uses_key(self) -> bool {
        matches!(self, Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev)
    }
}

/// A balancer's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The algorithm that decides. Default: round robin, as in nginx, Envoy and HAProxy.
    pub algorithm: Algorithm,
    /// An algorithm that is asked and counted but not obeyed. Default: none.
    pub shadow: Option<Algorithm>,
    /// The fewest points on a ring. Each of 2 or more equal endpoints has half as many. Default: 1024
    /// (Envoy, `minimum_ring_size`), so that shares are even to about 1 / sqrt(512) = 4%.
    pub ring_points_min: u32,
    /// The most points on a ring, unless there are more endpoints. Default: 4096. A fleet of more
    /// than 2 x `ring_points_max` / `ring_points_min` endpoints (8) shares them out, which about
    /// doubles the keys that a change moves: raise it there.
    pub ring_points_max: u32,
    /// Slots of Maglev's table, a prime. Default: 65,537 (the Maglev paper's small table; Envoy's
    /// `table_size`).
    pub maglev_slots: u32,
    /// A hashed endpoint holds at most this many times its fair share of the requests in flight;
    /// infinity turns the bound off. Default: 1.25 (Vimeo's and HAProxy's `hash-balance-factor 125`).
    pub bounded_load: f64,
    /// Endpoints that P2C draws and compares, from 1 (at random) to 10. Default: 2; a third gains little
    /// (Mitzenmacher 2001), and the more there are, the more those who know the same agree on one.
    pub choices: u32,
    /// The latency that P2C assumes of an endpoint that has not answered yet. Default: 30 ms
    /// (linkerd2-proxy, `default_rtt`).
    pub ewma_seed: Duration,
    /// The time over which P2C forgets. Default: 10 s (Finagle's and linkerd2-proxy's peak EWMA).
    pub ewma_decay: Duration,
    /// What a failure without `Retry-After` counts for in P2C. Default: 5 s (linkerd2-proxy's
    /// load biaser).
    pub failure_penalty: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            algorithm: Algorithm::RoundRobin,
            shadow: None,
            ring_points_min: 1024,
            ring_points_max: 4096,
            maglev_slots: 65_537,
            bounded_load: 1.25,
            choices: 2,
            ewma_seed: Duration::from_millis(30),
            ewma_decay: Duration::from_secs(10),
            failure_penalty: Duration::from_secs(5),
        }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if self.ring_points_min == 0 {
            return refuse("ring_points_min", "at least 1");
        }
        if self.ring_points_max < self.ring_points_min || self.ring_points_max > 1 << 23 {
            return refuse("ring_points_max", "from ring_points_min to 8388608");
        }
        if !(3..=5_000_011).contains(&self.maglev_slots) || !is_prime(self.maglev_slots) {
            return refuse("maglev_slots", "a prime from 3 to 5000011");
        }
        // At 1 or below, requests can find every endpoint full.
        if self.bounded_load.is_nan() || self.bounded_load <= 1.0 {
            return refuse("bounded_load", "above 1, or infinity for none");
        }
        if !(1..=CHOICES_MAX).contains(&self.choices) {
            return refuse("choices", "from 1 to 10");
        }
        if nanos(self.ewma_seed) == 0 {
            return refuse("ewma_seed", "above zero");
        }
        if nanos(self.ewma_decay) == 0 {
            return refuse("ewma_decay", "above zero");
        }
        Ok(())
    }
}

/// What a balancer has decided since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Picks that found an endpoint.
    pub picked: u64,
    /// Picks that found none eligible.
    pub no_target: u64,
    /// Picks on which the shadow algorithm chose another endpoint.
    pub shadow_differed: u64,
    /// By endpoint: how often the shadow algorithm chose it. Empty without one.
    pub shadow_picks: Vec<u64>,
}
