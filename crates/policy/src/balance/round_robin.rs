use super::eligible::Candidates;

/// Each endpoint in turn, whatever its weight and load.
///
/// The start is random: balancers that all begin at the first endpoint (one a gateway worker, all
/// restarted by one deployment) send it their first requests together. The turn moves on from the
/// endpoint that was picked, so that the one after an ineligible endpoint does not get its share.
#[derive(Clone, Debug)]
pub(super) struct RoundRobin {
    next: usize,
}

impl RoundRobin {
    pub(super) fn new(start: usize) -> Self {
        RoundRobin { next: start }
    }

    #[inline]
    pub(super) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<usize> {
        let i = candidates.at_or_after(self.next)?;
        self.next = i + 1;
        Some(i)
    }
}
