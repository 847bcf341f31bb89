use super::eligible::Candidates;
use super::endpoints::Endpoints;
use super::weighted::Weighted;

/// The endpoint with the fewest requests in flight for its weight.
///
/// Ties, which are the rule at low load, go round in proportion to weight (as in nginx's
/// `least_conn`): always taking the first would give an idle system's whole traffic to one
/// endpoint. O(endpoints) a pick.
#[derive(Clone, Debug)]
pub(super) struct LeastConnections {
    ties: Weighted,
}

impl LeastConnections {
    pub(super) fn new(endpoints: &Endpoints, seed: u64) -> Self {
        LeastConnections {
            ties: Weighted::new(endpoints, seed),
        }
    }

    pub(super) fn sync(&mut self, endpoints: &Endpoints) {
        self.ties.sync(endpoints);
    }

    #[inline]
    pub(super) fn pick(
        &mut self,
        endpoints: &Endpoints,
        candidates: &Candidates<'_>,
    ) -> Option<usize> {
        let load = |i: usize| {
            let endpoint = endpoints.get(i);
            f64::from(endpoint.in_flight) * endpoint.inverse
        };
        let mut least = f64::INFINITY;
        let mut first = None;
        let mut tied = 0u32;
        for i in candidates.iter() {
            let load = load(i);
            if load < least {
                (least, first, tied) = (load, Some(i), 1);
            } else if load == least {
                tied += 1;
            }
        }
        if tied > 1 {
            return self
                .ties
                .pick_among(endpoints, candidates.iter().filter(|&i| load(i) == least));
        }
        first
    }
}
