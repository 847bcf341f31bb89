use super::eligible::{Candidates, Eligible};

/// Fixed-point one for weights: sums of shares stay exact, so that smooth weighted round robin
/// never drifts.
const SHARE_ONE: f64 = (1u64 << 20) as f64;

/// What changes rarely about an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Places the endpoint on hash rings, the same in every process that uses the same id.
    pub(super) id: u64,
    /// As configured; zero takes no traffic.
    pub(super) weight: f64,
    /// 0..=1: the part of its weight that an endpoint that has just come back carries.
    slow_start: f64,
    pub(super) present: bool,
}

/// The endpoints of one balancer, by index; a removed one leaves a hole.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    list: Vec<Endpoint>,
    // What a pick compares lies apart, one array each: a scan then reads a few cache lines.
    /// weight * slow start, in fixed point.
    shares: Vec<i64>,
    /// 1 / (weight * slow start).
    inverses: Vec<f64>,
    in_flight: Vec<u32>,
    /// Present, and of a weight above zero.
    pub(super) usable: Eligible,
    pub(super) total_in_flight: u64,
    equal_weights: bool,
    equal_shares: bool,
}

impl Endpoints {
    pub(super) fn new(ids: impl Iterator<Item = u64>) -> Self {
        let mut endpoints = Endpoints {
            list: Vec::new(),
            shares: Vec::new(),
            inverses: Vec::new(),
            in_flight: Vec::new(),
            usable: Eligible::none(0),
            total_in_flight: 0,
            equal_weights: true,
            equal_shares: true,
        };
        for (i, id) in ids.enumerate() {
            endpoints.put(i, id);
        }
        endpoints.compare();
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

    #[inline]
    pub(super) fn share(&self, i: usize) -> i64 {
        self.shares[i]
    }

    #[inline]
    pub(super) fn inverse(&self, i: usize) -> f64 {
        self.inverses[i]
    }

    #[inline]
    pub(super) fn in_flight(&self, i: usize) -> u32 {
        self.in_flight[i]
    }

    /// Whether all usable endpoints count alike, slow starts included.
    #[inline]
    pub(super) fn equal_shares(&self) -> bool {
        self.equal_shares
    }

    /// The endpoints that take traffic.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        self.usable.iter().map(|i| (i, &self.list[i]))
    }

    /// Puts a new endpoint into a hole whose last request has ended, so that nothing late is
    /// counted against the newcomer, or else at the end. Without an id, its index is its id.
    pub(super) fn add(&mut self, id: Option<u64>) -> usize {
        let hole = (0..self.list.len()).find(|&i| !self.list[i].present && self.in_flight[i] == 0);
        let i = hole.unwrap_or(self.list.len());
        self.put(i, id.unwrap_or(i as u64));
        self.compare();
        i
    }

    pub(super) fn remove(&mut self, i: usize) -> bool {
        let Some(endpoint) = self.list.get_mut(i).filter(|e| e.present) else {
            return false;
        };
        endpoint.present = false;
        self.usable.remove(i);
        self.compare();
        true
    }

    pub(super) fn set_weight(&mut self, i: usize, weight: f64) -> bool {
        let Some(endpoint) = self.list.get_mut(i).filter(|e| e.present && e.weight != weight) else {
            return false;
        };
        endpoint.weight = weight;
        if weight > 0.0 {
            self.usable.insert(i);
        } else {
            self.usable.remove(i);
        }
        self.weigh(i);
        self.compare();
        true
    }

    pub(super) fn set_slow_start(&mut self, i: usize, factor: f64) {
        if let Some(endpoint) = self.list.get_mut(i) {
            endpoint.slow_start = factor.clamp(0.0, 1.0);
            self.weigh(i);
            self.compare();
        }
    }

    #[inline]
    pub(super) fn started(&mut self, i: usize) {
        if let Some(in_flight) = self.in_flight.get_mut(i) {
            *in_flight += 1;
            self.total_in_flight += 1;
        }
    }

    /// Whether there was a request to end.
    #[inline]
    pub(super) fn ended(&mut self, i: usize) -> bool {
        let Some(in_flight) = self.in_flight.get_mut(i).filter(|n| **n > 0) else {
            return false;
        };
        *in_flight -= 1;
        self.total_in_flight -= 1;
        true
    }

    /// The sum of the candidates' weights: O(1) while all weights are equal.
    #[inline]
    pub(super) fn weight_of(&self, candidates: &Candidates<'_>) -> f64 {
        if self.equal_weights {
            let weight = self.usable.iter().next().map_or(1.0, |i| self.list[i].weight);
            return candidates.count() as f64 * weight;
        }
        candidates.iter().map(|i| self.list[i].weight).sum()
    }

    fn put(&mut self, i: usize, id: u64) {
        let endpoint = Endpoint { id, weight: 1.0, slow_start: 1.0, present: true };
        if i == self.list.len() {
            self.list.push(endpoint);
            self.shares.push(0);
            self.inverses.push(0.0);
            self.in_flight.push(0);
        } else {
            self.list[i] = endpoint;
        }
        self.usable.insert(i);
        self.weigh(i);
    }

    fn weigh(&mut self, i: usize) {
        let endpoint = &self.list[i];
        // A slow start of zero still carries one request in a thousand: an endpoint that gets no
        // traffic at all cannot prove itself.
        let effective = endpoint.weight * endpoint.slow_start.max(0.001);
        self.shares[i] = ((effective * SHARE_ONE) as i64).max(1);
        self.inverses[i] = 1.0 / effective.max(f64::MIN_POSITIVE);
    }

    fn compare(&mut self) {
        let mut weights = self.usable.iter().map(|i| self.list[i].weight);
        let first = weights.next();
        self.equal_weights = weights.all(|w| Some(w) == first);
        let mut shares = self.usable.iter().map(|i| self.shares[i]);
        let first = shares.next();
        self.equal_shares = shares.all(|s| Some(s) == first);
    }
}
