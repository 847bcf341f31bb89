use super::eligible::Candidates;
use super::endpoints::Endpoints;
use crate::hash::{below, mix};

/// A client sticks to one endpoint: hash of the key over the sum of weights, as in nginx's
/// `ip_hash`.
///
/// While an endpoint is ineligible its clients spread over the others, and the others' clients
/// stay. Adding or removing an endpoint moves nearly every client: that is what the ring and
/// Maglev are for.
#[derive(Clone, Debug)]
pub(super) struct IpHash {
    /// The running sum of weights in shares and the endpoint that ends there.
    ends: Vec<(u64, u32)>,
    equal: bool,
}

impl IpHash {
    pub(super) fn new(endpoints: &Endpoints) -> Self {
        let mut ip_hash = IpHash { ends: Vec::new(), equal: true };
        ip_hash.rebuild(endpoints);
        ip_hash
    }

    pub(super) fn rebuild(&mut self, endpoints: &Endpoints) {
        self.ends.clear();
        let mut sum = 0;
        for (i, endpoint) in endpoints.in_use() {
            // The configured weight: slow start must not move clients to and fro.
            sum += ((endpoint.weight * 1024.0) as u64).max(1);
            self.ends.push((sum, i as u32));
        }
        let first = self.ends.first().map_or(0, |e| e.0);
        self.equal = self.ends.iter().zip(1..).all(|(e, n)| e.0 == first * n);
    }

    #[inline]
    pub(super) fn pick(&self, key: u64, candidates: &Candidates<'_>) -> Option<usize> {
        let hash = mix(key);
        let &(sum, _) = self.ends.last()?;
        let at = if self.equal {
            below(hash, self.ends.len())
        } else {
            let point = below(hash, sum as usize) as u64;
            self.ends.partition_point(|&(end, _)| end <= point)
        };
        let i = self.ends[at].1 as usize;
        if candidates.contains(i) {
            return Some(i);
        }
        let count = candidates.count();
        (count > 0).then(|| candidates.nth(below(mix(hash), count)))
    }
}
