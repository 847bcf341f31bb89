use super::eligible::Candidates;
use super::endpoints::Endpoints;
use crate::hash::mix;

/// Smooth weighted round robin.
///
/// Each candidate gains its weight, the one with the most is picked and pays the sum. Weights 5, 1, 1
/// give a a b a c a a, not a a a a a b c: exact shares without bursts (nginx,
/// `ngx_http_upstream_get_peer`, 2012). O(endpoints) a pick.
#[derive(Clone, Debug)]
pub(super) struct Weighted {
    /// What each endpoint has gained and not paid, in shares.
    credit: Vec<i64>,
    seed: u64,
}

impl Weighted {
    pub(super) fn new(endpoints: &Endpoints, seed: u64) -> Self {
        let mut weighted = Weighted { credit: Vec::new(), seed };
        weighted.sync(endpoints);
        weighted
    }

    /// Gives endpoints that have come a random credit below one share, for a random start.
    pub(super) fn sync(&mut self, endpoints: &Endpoints) {
        for i in self.credit.len()..endpoints.len() {
            let share = endpoints.share(i) as u64;
            self.credit.push((mix(self.seed ^ i as u64) % share) as i64);
        }
    }

    #[inline]
    pub(super) fn pick(&mut self, endpoints: &Endpoints, candidates: &Candidates<'_>) -> Option<usize> {
        self.pick_among(endpoints, candidates, |_| true)
    }

    /// Picks among some of the candidates; only they gain and pay.
    #[inline]
    pub(super) fn pick_among(
        &mut self,
        endpoints: &Endpoints,
        candidates: &Candidates<'_>,
        among: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        let mut best = usize::MAX;
        let mut most = i64::MIN;
        candidates.for_each(|i| {
            if !among(i) {
                return;
            }
            let share = endpoints.share(i);
            let credit = self.credit[i] + share;
            self.credit[i] = credit;
            total += share;
            if credit > most {
                (best, most) = (i, credit);
            }
        });
        *self.credit.get_mut(best)? -= total;
        Some(best)
    }
}
