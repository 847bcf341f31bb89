use super::eligible::{Candidates, Eligible};

/// Fixed-point one for weights: sums of shares stay exact, so that smooth weighted round robin
/// never drifts.
const SHARE_ONE: f64 = (1u64 << 20) as f64;

/// What every algorithm may know of an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Places the endpoint on hash rings, the same in every process that uses the same id.
    pub(super) id: u64,
    /// As configured; zero takes no traffic.
    pub(super) weight: f64,
    /// 0..=1: the part of its weight that an endpoint that has just come back carries.
    slow_start: f64,
    /// 1 / (weight * slow start).
    pub(super) inverse: f64,
    /// weight * slow start, in fixed point.
    pub(super) share: i64,
    pub(super) in_flight: u32,
    pub(super) present: bool,
}

impl Endpoint {
    fn new(id: u64) -> Self {
        let mut endpoint = Endpoint {
            id,
            weight: 1.0,
            slow_start: 1.0,
            inverse: 1.0,
            share: 0,
            in_flight: 0,
            present: true,
        };
        endpoint.refresh();
        endpoint
    }

    fn refresh(&mut self) {
        // A slow start of zero still carries one request in a thousand: an endpoint that gets no
        // traffic at all cannot prove itself.
        let effective = self.weight * self.slow_start.max(0.001);
        self.share = ((effective * SHARE_ONE) as i64).max(1);
        self.inverse = 1.0 / effective.max(f64::MIN_POSITIVE);
    }
}

/// The endpoints of one balancer, by index; a removed one leaves a hole.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    list: Vec<Endpoint>,
    /// Present, and of a weight above zero.
    pub(super) usable: Eligible,
    pub(super) total_in_flight: u64,
    equal_weights: bool,
}

impl Endpoints {
    pub(super) fn new(count: usize) -> Self {
        let mut endpoints = Endpoints {
            list: Vec::new(),
            usable: Eligible::none(0),
            total_in_flight: 0,
            equal_weights: true,
        };
        for i in 0..count {
            endpoints.add(i as u64);
        }
        endpoints
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(super) fn get(&self, i: usize) -> &Endpoint {
        &self.list[i]
    }

    /// The endpoints that take traffic.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        self.usable.iter().map(|i| (i, &self.list[i]))
    }

    /// Puts a new endpoint into a hole whose last request has ended, so that nothing late is
    /// counted against the newcomer, or else at the end.
    pub(super) fn add(&mut self, id: u64) -> usize {
        let hole = self
            .list
            .iter()
            .position(|e| !e.present && e.in_flight == 0);
        let i = hole.unwrap_or(self.list.len());
        if i == self.list.len() {
            self.list.push(Endpoint::new(id));
        } else {
            self.list[i] = Endpoint::new(id);
        }
        self.usable.insert(i);
        self.compare_weights();
        i
    }

    pub(super) fn set_id(&mut self, i: usize, id: u64) {
        self.list[i].id = id;
    }

    pub(super) fn remove(&mut self, i: usize) -> bool {
        let Some(endpoint) = self.list.get_mut(i).filter(|e| e.present) else {
            return false;
        };
        endpoint.present = false;
        self.usable.remove(i);
        self.compare_weights();
        true
    }

    pub(super) fn set_weight(&mut self, i: usize, weight: f64) -> bool {
        let Some(endpoint) = self
            .list
            .get_mut(i)
            .filter(|e| e.present && e.weight != weight)
        else {
            return false;
        };
        endpoint.weight = weight;
        endpoint.refresh();
        if weight > 0.0 {
            self.usable.insert(i);
        } else {
            self.usable.remove(i);
        }
        self.compare_weights();
        true
    }

    pub(super) fn set_slow_start(&mut self, i: usize, factor: f64) {
        if let Some(endpoint) = self.list.get_mut(i) {
            endpoint.slow_start = factor.clamp(0.0, 1.0);
            endpoint.refresh();
        }
    }

    #[inline]
    pub(super) fn started(&mut self, i: usize) {
        if let Some(endpoint) = self.list.get_mut(i) {
            endpoint.in_flight += 1;
            self.total_in_flight += 1;
        }
    }

    /// Whether there was a request to end.
    #[inline]
    pub(super) fn ended(&mut self, i: usize) -> bool {
        let Some(endpoint) = self.list.get_mut(i).filter(|e| e.in_flight > 0) else {
            return false;
        };
        endpoint.in_flight -= 1;
        self.total_in_flight -= 1;
        true
    }

    /// The sum of the candidates' weights: O(1) while all weights are equal.
    #[inline]
    pub(super) fn weight_of(&self, candidates: &Candidates<'_>) -> f64 {
        if self.equal_weights {
            let weight = self
                .usable
                .iter()
                .next()
                .map_or(1.0, |i| self.list[i].weight);
            return candidates.count() as f64 * weight;
        }
        candidates.iter().map(|i| self.list[i].weight).sum()
    }

    fn compare_weights(&mut self) {
        let mut weights = self.usable.iter().map(|i| self.list[i].weight);
        let first = weights.next();
        self.equal_weights = weights.all(|w| Some(w) == first);
    }
}
