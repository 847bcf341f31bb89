use super::eligible::Candidates;
use super::endpoints::Endpoints;
use super::weighted::Weighted;
use crate::hash::below;

/// The endpoint with the fewest requests in flight for its weight.
///
/// Ties, which are the rule at low load, go round in proportion to weight (as in nginx's
/// `least_conn`): always taking the first would give an idle system's whole traffic to one
/// endpoint. O(endpoints) a pick.
#[derive(Clone, Debug)]
pub(super) struct LeastConnections {
    /// Whose turn it is among equals, while all weights are equal.
    next: usize,
    ties: Weighted,
}

impl LeastConnections {
    pub(super) fn new(endpoints: &Endpoints, seed: u64) -> Self {
        LeastConnections { next: below(seed, endpoints.len().max(1)), ties: Weighted::new(endpoints, seed) }
    }

    pub(super) fn sync(&mut self, endpoints: &Endpoints) {
        self.ties.sync(endpoints);
    }

    #[inline]
    pub(super) fn pick(&mut self, endpoints: &Endpoints, candidates: &Candidates<'_>) -> Option<usize> {
        if endpoints.equal_shares() {
            self.pick_equal(endpoints, candidates)
        } else {
            self.pick_weighted(endpoints, candidates)
        }
    }

    /// One pass over integers: in flight above, distance from whose turn it is below.
    fn pick_equal(&mut self, endpoints: &Endpoints, candidates: &Candidates<'_>) -> Option<usize> {
        let len = endpoints.len();
        let next = if self.next < len { self.next } else { 0 };
        let mut least = u64::MAX;
        candidates.for_each(|i| {
            let distance = if i >= next { i - next } else { i + len - next };
            least = least.min(u64::from(endpoints.in_flight(i)) << 32 | distance as u64);
        });
        if least == u64::MAX {
            return None;
        }
        let i = next + (least & 0xFFFF_FFFF) as usize;
        let i = if i >= len { i - len } else { i };
        self.next = i + 1;
        Some(i)
    }

    fn pick_weighted(&mut self, endpoints: &Endpoints, candidates: &Candidates<'_>) -> Option<usize> {
        let load = |i: usize| f64::from(endpoints.in_flight(i)) * endpoints.inverse(i);
        let mut least = f64::INFINITY;
        candidates.for_each(|i| least = least.min(load(i)));
        self.ties.pick_among(endpoints, candidates, |i| load(i) == least)
    }
}
