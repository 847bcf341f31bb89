//! A sliding window that never admits more than its limit in any stretch of its length.
//!
//! The usual approximation weighs the previous window's count by its overlap, which assumes that
//! the calls in it were spread evenly, and exceeds the limit when they were not. Here the current
//! tenth and the ten before it count in full: a little stricter, never laxer.

use std::time::Duration;

use crate::{Time, nanos};

const SLOTS: usize = 11;

#[derive(Clone, Copy, Debug)]
pub(super) struct SlidingWindow {
    limit: u32,
    slot_ns: u64,
}

/// One key's calls. `newest` numbers the tenth that `used[0]` counts; older ones follow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    newest: u64,
    used: [u32; SLOTS],
}

impl SlidingWindow {
    pub(super) fn new(limit: u32, per: Duration) -> Self {
        SlidingWindow { limit, slot_ns: nanos(per).div_ceil(SLOTS as u64 - 1).max(1) }
    }

    pub(super) fn decide(&self, cell: &mut Cell, now: Time, cost: u32) -> Result<(), Option<Time>> {
        cell.slide(now.as_nanos() / self.slot_ns);
        let used: u64 = cell.used.iter().map(|&used| u64::from(used)).sum();
        let wanted = used + u64::from(cost);
        if wanted <= u64::from(self.limit) {
            cell.used[0] += cost;
            return Ok(());
        }
        if cost > self.limit {
            return Err(None);
        }
        // The oldest tenths leave first: come back when enough of them have.
        let mut excess = wanted - u64::from(self.limit);
        let mut age = SLOTS;
        while excess > 0 && age > 0 {
            age -= 1;
            excess = excess.saturating_sub(u64::from(cell.used[age]));
        }
        let leaves = cell.newest + (SLOTS - age) as u64;
        Err(Some(Time::from_nanos(leaves.saturating_mul(self.slot_ns))))
    }

    /// A cell counted under `before`, in terms of this window.
    pub(super) fn adopt(&self, cell: Cell, before: &SlidingWindow) -> Cell {
        let newest_ns = u128::from(cell.newest) * u128::from(before.slot_ns);
        Cell { newest: (newest_ns / u128::from(self.slot_ns)) as u64, ..cell }
    }
}

impl Cell {
    fn slide(&mut self, index: u64) {
        // A clock that was set back finds the counts where it is: they leave within one window of
        // the new time, however large the step.
        let steps = index.saturating_sub(self.newest);
        self.newest = index;
        if steps >= SLOTS as u64 {
            self.used = [0; SLOTS];
        } else if steps > 0 {
            let steps = steps as usize;
            self.used.copy_within(..SLOTS - steps, steps);
            self.used[..steps].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn no_burst_at_a_boundary() {
        let window = SlidingWindow::new(10, Duration::from_secs(1));
        let mut cell = Cell::default();
        for (now_ms, cost, decision) in [
            (950, 10, Ok(())),
            (1_000, 1, Err(Some(at(2_000)))), // a fixed window would admit ten more
            (1_999, 1, Err(Some(at(2_000)))),
            (2_000, 4, Ok(())),
            (2_500, 6, Ok(())),
            (2_600, 5, Err(Some(at(3_600)))), // four leave at 3.1 s, the fifth only at 3.6 s
            (3_100, 4, Ok(())),
            (3_100, 11, Err(None)),
        ] {
            assert_eq!(window.decide(&mut cell, at(now_ms), cost), decision, "at {now_ms} ms");
        }
    }

    #[test]
    fn a_clock_set_back_costs_one_window_at_most() {
        let window = SlidingWindow::new(2, Duration::from_secs(1));
        let mut cell = Cell::default();
        window.decide(&mut cell, at(3_600_000), 2).unwrap();
        assert_eq!(window.decide(&mut cell, at(50), 1), Err(Some(at(1_100))));
        assert_eq!(window.decide(&mut cell, at(1_100), 1), Ok(()));
    }
}
