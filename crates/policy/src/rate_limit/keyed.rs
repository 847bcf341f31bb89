//! One state, or one a key with a bound on the keys.

use crate::hash::{below, mix};
use crate::keyed::Keyed;

/// Keys compared when one has to go (Redis, `maxmemory-samples` 5, is close to true LRU; ten is
/// "very close", says its `redis.conf`). An exact order would cost every call three more cache misses.
const EVICTION_SAMPLES: usize = 10;

/// The states of a limit.
#[derive(Clone, Debug)]
pub(super) enum Cells<S> {
    Shared(S),
    PerKey(Table<S>),
}

impl<S: Copy + Default> Cells<S> {
    pub(super) fn new(max_keys: Option<u32>) -> Self {
        match max_keys {
            None => Cells::Shared(S::default()),
            Some(max) => Cells::PerKey(Table::new(max)),
        }
    }

    #[inline]
    pub(super) fn get(&mut self, key: u64) -> &mut S {
        match self {
            Cells::Shared(state) => state,
            Cells::PerKey(table) => table.get(key),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Cells::Shared(_) => 1,
            Cells::PerKey(table) => table.states.len(),
        }
    }

    pub(super) fn evicted(&self) -> u64 {
        match self {
            Cells::Shared(_) => 0,
            Cells::PerKey(table) => table.evicted,
        }
    }

    /// Moves the states of `old` here, converted; those least recently seen are left out where
    /// there are too many.
    pub(super) fn take_over(&mut self, old: &mut Cells<S>, convert: impl Fn(S) -> S) {
        match (self, old) {
            (Cells::Shared(new), Cells::Shared(old)) => *new = convert(*old),
            (Cells::PerKey(new), Cells::PerKey(old)) => {
                let mut states: Vec<(u64, Entry<S>)> = (0..old.states.len())
                    .map(|at| {
                        let (key, entry) = old.states.at(at);
                        (key, *entry)
                    })
                    .collect();
                states.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.seen));
                new.evicted += old.evicted + states.len().saturating_sub(new.max) as u64;
                states.truncate(new.max);
                for (key, entry) in states.into_iter().rev() {
                    *new.get(key) = convert(entry.state);
                }
            }
            _ => {}
        }
    }
}

/// States by key. When there are too many, the least recently seen of a sample is forgotten.
///
/// The same keys in the same order leave the same ones in it, on every platform and in every run.
#[derive(Clone, Debug)]
pub(super) struct Table<S> {
    states: Keyed<Entry<S>>,
    max: usize,
    /// Counts calls: the time that entries are seen at.
    calls: u64,
    evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry<S> {
    seen: u64,
    state: S,
}

impl<S: Copy + Default> Table<S> {
    fn new(max: u32) -> Self {
        Table { states: Keyed::new(), max: max as usize, calls: 0, evicted: 0 }
    }

    /// The state of `key`, a default one if it is new; the key becomes the most recent.
    #[inline]
    fn get(&mut self, key: u64) -> &mut S {
        self.calls += 1;
        let at = match self.states.find(key) {
            Some(at) => at,
            None => self.insert(key),
        };
        let entry = self.states.at_mut(at);
        entry.seen = self.calls;
        &mut entry.state
    }

    #[inline(never)]
    fn insert(&mut self, key: u64) -> usize {
        if self.states.len() >= self.max {
            self.evict();
        }
        self.states.insert_new(key, Entry { seen: self.calls, state: S::default() })
    }

    fn evict(&mut self) {
        let len = self.states.len();
        let seen = |at: &usize| self.states.at(*at).1.seen;
        let oldest = if len <= EVICTION_SAMPLES {
            (0..len).min_by_key(seen)
        } else {
            let mut random = self.calls;
            let sample = (0..EVICTION_SAMPLES).map(|_| {
                random = mix(random);
                below(random, len)
            });
            sample.min_by_key(seen)
        };
        if let Some(at) = oldest {
            self.states.remove_at(at);
            self.evicted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_key_goes() {
        let mut table = Table::<u32>::new(3);
        for key in [1, 2, 3] {
            *table.get(key) = key as u32;
        }
        table.get(1);
        table.get(4); // 2 has been unused the longest
        assert_eq!((table.evicted, table.states.len()), (1, 3));
        assert_eq!([1, 3, 4].map(|key| *table.get(key)), [1, 3, 0]);
        assert_eq!(*table.get(2), 0, "a forgotten key starts afresh");
    }

    #[test]
    fn keys_that_come_often_stay() {
        // Twenty keys come every other time, among a stream of ones that never come again.
        let mut table = Table::<u64>::new(500);
        let mut forgotten = 0;
        for step in 0..50_000u64 {
            let often = mix(step) % 20;
            let state = table.get(often);
            forgotten += u64::from(*state == 0);
            *state = 1;
            table.get(1_000 + step);
            assert!(table.states.len() <= 500);
        }
        // Of ten entries of five hundred, nearly always one is older than a key that comes so often.
        assert!(forgotten <= 40, "{forgotten} times a key that comes often was new");
        assert!(table.evicted >= 49_000);
    }
}
