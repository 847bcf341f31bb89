//! Counts over the last stretch of time, in `N` equal buckets: O(1) to record, no allocation.

use crate::Time;

/// What one bucket holds.
pub(crate) trait Tally: Copy + Default {
    fn add(&mut self, other: Self);
    fn subtract(&mut self, other: Self);
}

/// The last `N` buckets, the newest still filling.
///
/// So the total covers between `N - 1` and `N` bucket widths: a user who must not count too much
/// takes `N` buckets to a window, one who must not count too little takes one more.
#[derive(Clone, Debug)]
pub(crate) struct Buckets<T, const N: usize> {
    width_ns: u64,
    /// When the newest bucket is full.
    end: Time,
    newest: usize,
    slots: [T; N],
    total: T,
}

impl<T: Tally, const N: usize> Buckets<T, N> {
    pub(crate) fn new(width_ns: u64, now: Time) -> Self {
        let width_ns = width_ns.max(1);
        Buckets { width_ns, end: now.plus_nanos(width_ns), newest: 0, slots: [T::default(); N], total: T::default() }
    }

    /// Drops what is too old to count. Never more than `N` steps, however long nothing happened.
    #[inline]
    pub(crate) fn advance(&mut self, now: Time) {
        if now >= self.end {
            self.rotate(now);
        }
    }

    #[inline(never)]
    fn rotate(&mut self, now: Time) {
        let steps = 1 + now.nanos_since(self.end) / self.width_ns;
        if steps >= N as u64 {
            self.slots = [T::default(); N];
            self.total = T::default();
        } else {
            for _ in 0..steps {
                self.newest = (self.newest + 1) % N;
                self.total.subtract(self.slots[self.newest]);
                self.slots[self.newest] = T::default();
            }
        }
        self.end = self.end.plus_nanos(steps.saturating_mul(self.width_ns));
    }

    /// Adds to the newest bucket. `advance` to `now` first.
    #[inline]
    pub(crate) fn record(&mut self, tally: T) {
        self.slots[self.newest].add(tally);
        self.total.add(tally);
    }

    /// The sum of all buckets. By reference: to copy fields that were just written one by one
    /// stalls the processor.
    #[inline]
    pub(crate) fn total(&self) -> &T {
        &self.total
    }

    /// The oldest bucket, the next to be dropped.
    #[inline]
    pub(crate) fn oldest(&self) -> &T {
        let oldest = if self.newest + 1 == N { 0 } else { self.newest + 1 };
        &self.slots[oldest]
    }

    /// When the oldest bucket is dropped.
    pub(crate) fn end(&self) -> Time {
        self.end
    }

    pub(crate) fn width_ns(&self) -> u64 {
        self.width_ns
    }

    /// Changes the bucket width and keeps the counts: each bucket keeps its rank, so what it holds
    /// ages at the new pace.
    pub(crate) fn set_width(&mut self, width_ns: u64, now: Time) {
        let width_ns = width_ns.max(1);
        if width_ns != self.width_ns {
            self.advance(now);
            self.width_ns = width_ns;
            self.end = now.plus_nanos(width_ns);
        }
    }
}

impl Tally for u32 {
    fn add(&mut self, other: u32) {
        *self = self.saturating_add(other);
    }

    fn subtract(&mut self, other: u32) {
        *self = self.saturating_sub(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_expire_one_by_one() {
        let mut buckets = Buckets::<u32, 4>::new(10, Time::ZERO);
        let at = Time::from_nanos;
        for (now, record, total) in [
            (at(0), 1, 1),
            (at(9), 2, 3),
            (at(10), 4, 7),
            (at(39), 8, 15),
            (at(40), 0, 12), // the first bucket, 0..10, left
            (at(50), 0, 8),
            (at(69), 0, 8),
            (at(70), 0, 0),
            (at(1_000_000), 16, 16), // a long silence is one step
            (at(999_000), 0, 16),    // a clock that steps back changes nothing
        ] {
            buckets.advance(now);
            buckets.record(record);
            assert_eq!(*buckets.total(), total, "at {now:?}");
        }
    }

    #[test]
    fn a_new_width_keeps_the_counts() {
        let mut buckets = Buckets::<u32, 4>::new(10, Time::ZERO);
        buckets.record(7);
        buckets.set_width(100, Time::from_nanos(5));
        buckets.advance(Time::from_nanos(300));
        assert_eq!(*buckets.total(), 7);
        buckets.advance(Time::from_nanos(405));
        assert_eq!(*buckets.total(), 0);
    }
}
