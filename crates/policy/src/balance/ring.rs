use super::bounded_load::BoundedLoad;
use super::eligible::Candidates;
use super::endpoints::Endpoints;
use crate::hash::mix;

/// A consistent-hash ring (Karger et al. 1997, as in ketama and Envoy's ring hash) with bounded
/// load.
///
/// Each endpoint owns points in proportion to its weight; a key belongs to the first point at or
/// after its hash. Adding or removing one of n endpoints moves about 1/n of the keys, 2/n on a ring that is full. An
/// endpoint
/// that is ineligible for a while keeps its points, and the walk skips them.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    points: Vec<(u64, u32)>,
    /// By the top bits of a hash: the first point at or after them. One step instead of a search.
    starts: Vec<u32>,
    points_min: u32,
    points_max: u32,
    bound: f64,
}

impl Ring {
    pub(super) fn new(endpoints: &Endpoints, points_min: u32, points_max: u32, bound: f64) -> Self {
        let mut ring = Ring { points: Vec::new(), starts: Vec::new(), points_min, points_max, bound };
        ring.rebuild(endpoints);
        ring
    }

    /// The points follow from ids and weights alone, not from the order of events, so that gateways
    /// that started before and after a change agree. Within the range, an endpoint's points are
    /// as many however many others there are: sharing out a fixed total anew would move keys between
    /// those who stay.
    pub(super) fn rebuild(&mut self, endpoints: &Endpoints) {
        let (min, max) = (f64::from(self.points_min), f64::from(self.points_max));
        let heaviest = endpoints.in_use().map(|(_, e)| e.weight).fold(0.0, f64::max);
        // The fleet's size in endpoints as heavy as the heaviest.
        let fleet: f64 = endpoints.in_use().map(|(_, e)| e.weight / heaviest).sum();
        let points_of_heaviest = (min / 2.0).max(min / fleet).min(max / fleet);
        self.points.clear();
        for (i, endpoint) in endpoints.in_use() {
            let count = points_of_heaviest * endpoint.weight / heaviest;
            let count = count.round().max(1.0) as u64;
            let base = mix(endpoint.id);
            self.points.extend((0..count).map(|k| (mix(base.wrapping_add(k)), i as u32)));
        }
        self.points.sort_unstable();
        let buckets = self.points.len().next_power_of_two().max(2);
        let shift = 64 - buckets.trailing_zeros();
        let mut at = 0;
        self.starts.clear();
        self.starts.extend((0..buckets as u64).map(|bucket| {
            while at < self.points.len() && self.points[at].0 >> shift < bucket {
                at += 1;
            }
            at as u32
        }));
    }

    #[inline]
    pub(super) fn pick(&self, key: u64, endpoints: &Endpoints, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.count() == 0 {
            return None;
        }
        let hash = mix(key);
        let shift = 64 - self.starts.len().trailing_zeros();
        let mut at = self.starts[(hash >> shift) as usize] as usize;
        while self.points.get(at).is_some_and(|point| point.0 < hash) {
            at += 1;
        }
        let bound = BoundedLoad::new(self.bound, endpoints, candidates);
        for _ in 0..self.points.len() {
            if at >= self.points.len() {
                at = 0;
            }
            let i = self.points[at].1 as usize;
            if candidates.contains(i) && bound.has_room(endpoints, i) {
                return Some(i);
            }
            at += 1;
        }
        // Candidates hold at most the requests in flight, so one of them is always under its bound.
        candidates.iter().next()
    }
}
