use super::eligible::Candidates;
use super::endpoints::Endpoints;

/// Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018): no endpoint
/// holds more than `bound` times its fair share of the requests in flight; a key whose endpoint is
/// full goes on to the next one in its own order, so that one hot key cannot sink one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoundedLoad {
    /// Requests in flight that one unit of weight may hold.
    per_weight: f64,
}

impl BoundedLoad {
    /// The bound for the next request.
    #[inline]
    pub(super) fn new(bound: f64, endpoints: &Endpoints, candidates: &Candidates<'_>) -> Self {
        if bound.is_infinite() {
            return BoundedLoad { per_weight: f64::INFINITY };
        }
        let expected = (endpoints.total_in_flight + 1) as f64;
        BoundedLoad { per_weight: bound * expected / endpoints.weight_of(candidates) }
    }

    #[inline]
    pub(super) fn has_room(&self, endpoints: &Endpoints, i: usize) -> bool {
        let room = (self.per_weight * endpoints.get(i).weight).ceil();
        f64::from(endpoints.in_flight(i)) < room
    }
}
