//! A fixed window, for comparison: cheap, well known, and admits twice its limit around a
//! boundary.

use std::time::Duration;

use crate::{Time, nanos};

#[derive(Clone, Copy, Debug)]
pub(super) struct FixedWindow {
    limit: u32,
    per_ns: u64,
}

/// One key's calls in the window numbered `index`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    index: u64,
    used: u32,
}

impl FixedWindow {
    pub(super) fn new(limit: u32, per: Duration) -> Self {
        FixedWindow { limit, per_ns: nanos(per).max(1) }
    }

    pub(super) fn decide(&self, cell: &mut Cell, now: Time, cost: u32) -> Result<(), Option<Time>> {
        let index = now.as_nanos() / self.per_ns;
        if index > cell.index {
            cell.used = 0;
        }
        // A clock that was set back finds the count in its window.
        cell.index = index;
        if u64::from(cell.used) + u64::from(cost) <= u64::from(self.limit) {
            cell.used += cost;
            return Ok(());
        }
        let next = Time::from_nanos((index + 1).saturating_mul(self.per_ns));
        Err((cost <= self.limit).then_some(next))
    }

    /// A cell counted under `before`, in terms of this window.
    pub(super) fn adopt(&self, cell: Cell, before: &FixedWindow) -> Cell {
        let start_ns = u128::from(cell.index) * u128::from(before.per_ns);
        Cell { index: (start_ns / u128::from(self.per_ns)) as u64, ..cell }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_limit_around_a_boundary() {
        let window = FixedWindow::new(10, Duration::from_secs(1));
        let mut cell = Cell::default();
        let at = |ms: u64| Time::from_nanos(ms * 1_000_000);
        for (now_ms, cost, decision) in [
            (990, 10, Ok(())),
            (999, 1, Err(Some(at(1_000)))),
            (1_000, 10, Ok(())), // twenty within 10 ms
            (1_001, 1, Err(Some(at(2_000)))),
            (500, 1, Err(Some(at(1_000)))), // the clock was set back
            (1_000, 1, Ok(())),
            (1_000, 11, Err(None)),
        ] {
            assert_eq!(window.decide(&mut cell, at(now_ms), cost), decision, "at {now_ms} ms");
        }
    }
}
