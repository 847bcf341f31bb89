//! One state, or one a key with a bound on the keys.

use crate::keyed::Keyed;
use crate::linked::{Handle, List, Slab};

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
                while let Some(key) = old.keys.pop_front(&mut old.order) {
                    if let Some(entry) = old.states.get(key) {
                        *new.get(key) = convert(entry.state);
                    }
                }
                new.evicted += old.evicted;
            }
            _ => {}
        }
    }
}

/// States by key, of which the least recently used is forgotten when there are too many.
///
/// The same keys in the same order leave the same ones in it, on every platform and in every run.
#[derive(Clone, Debug)]
pub(super) struct Table<S> {
    states: Keyed<Entry<S>>,
    /// The keys, least recently used first.
    order: List,
    keys: Slab<u64>,
    max: usize,
    evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry<S> {
    place: Handle,
    state: S,
}

impl<S: Copy + Default> Table<S> {
    fn new(max: u32) -> Self {
        Table { states: Keyed::new(), order: List::EMPTY, keys: Slab::new(), max: max as usize, evicted: 0 }
    }

    /// The state of `key`, a default one if it is new; the key becomes the most recent.
    #[inline]
    fn get(&mut self, key: u64) -> &mut S {
        let at = match self.states.find(key) {
            Some(at) => at,
            None => self.insert(key),
        };
        let entry = self.states.at_mut(at);
        self.keys.remove(&mut self.order, entry.place);
        entry.place = self.keys.push_back(&mut self.order, key);
        &mut entry.state
    }

    #[inline(never)]
    fn insert(&mut self, key: u64) -> usize {
        if self.states.len() >= self.max
            && let Some(oldest) = self.keys.pop_front(&mut self.order)
        {
            self.states.remove(oldest);
            self.evicted += 1;
        }
        let place = self.keys.push_back(&mut self.order, key);
        self.states.insert_new(key, Entry { place, state: S::default() })
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
    fn agrees_with_a_plain_list() {
        // Against the obvious model, over many insertions, evictions and index growths.
        let mut table = Table::<u64>::new(50);
        let mut model: Vec<(u64, u64)> = Vec::new(); // oldest first
        let mut random = 1u64;
        for step in 1..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (random >> 33) % 80;
            let state = match model.iter().position(|&(k, _)| k == key) {
                Some(at) => model.remove(at).1,
                None => 0,
            };
            if model.len() == 50 {
                model.remove(0);
            }
            model.push((key, step));
            let got = table.get(key);
            assert_eq!(*got, state, "key {key} at step {step}");
            *got = step;
        }
        assert_eq!(table.states.len(), 50);
    }
}
