//! A hash table from `u64` keys, dense and deterministic, shared by the policies that remember
//! something per key.
//!
//! Entries lie in one vector without holes, so that a random entry is one index away (sampled
//! eviction), and an open-addressing index finds them: linear probing at a load of at most one
//! half, deletion by shifting back, no tombstones. The hash is fixed; a driver whose keys come
//! from strangers hashes them with a secret first.

use crate::hash::mix;

const EMPTY: u32 = u32::MAX;

/// An index cell: the entry's position and half of its hash, so that most misses end here.
#[derive(Clone, Copy, Debug)]
struct Cell {
    at: u32,
    tag: u32,
}

const VACANT: Cell = Cell { at: EMPTY, tag: 0 };

#[derive(Clone, Debug)]
pub(crate) struct Keyed<V> {
    entries: Vec<(u64, V)>,
    /// Always a power of two long, and more than half vacant.
    index: Vec<Cell>,
}

impl<V> Keyed<V> {
    pub(crate) fn new() -> Self {
        Keyed { entries: Vec::new(), index: vec![VACANT; 16] }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The position of `key`, good until the next insertion or removal.
    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<usize> {
        let mask = self.index.len() - 1;
        let hash = mix(key);
        let tag = (hash >> 32) as u32;
        let mut cell = hash as usize & mask;
        loop {
            let Cell { at, tag: found } = self.index[cell];
            if at == EMPTY {
                return None;
            }
            if found == tag && self.entries[at as usize].0 == key {
                return Some(at as usize);
            }
            cell = (cell + 1) & mask;
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        self.find(key).map(|at| &self.entries[at].1)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let at = self.find(key)?;
        Some(&mut self.entries[at].1)
    }

    /// The entry at a position below `len`.
    #[inline]
    pub(crate) fn at(&self, at: usize) -> (u64, &V) {
        let (key, value) = &self.entries[at];
        (*key, value)
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, at: usize) -> &mut V {
        &mut self.entries[at].1
    }

    /// Puts a key that is not in the table.
    pub(crate) fn insert_new(&mut self, key: u64, value: V) -> usize {
        debug_assert!(self.find(key).is_none());
        if (self.entries.len() + 1) * 2 > self.index.len() {
            self.grow();
        }
        let at = self.entries.len();
        self.entries.push((key, value));
        self.link(key, at as u32);
        at
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        self.find(key).map(|at| self.remove_at(at).1)
    }

    /// Removes the entry at a position; the last entry takes its place.
    pub(crate) fn remove_at(&mut self, at: usize) -> (u64, V) {
        let cell = self.cell_of(at);
        self.unlink(cell);
        let last = self.entries.len() - 1;
        if at != last {
            let moved = self.cell_of(last);
            self.index[moved].at = at as u32;
        }
        self.entries.swap_remove(at)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.index.fill(VACANT);
    }

    fn cell_of(&self, at: usize) -> usize {
        let mask = self.index.len() - 1;
        let mut cell = mix(self.entries[at].0) as usize & mask;
        while self.index[cell].at != at as u32 {
            cell = (cell + 1) & mask;
        }
        cell
    }

    fn link(&mut self, key: u64, at: u32) {
        let mask = self.index.len() - 1;
        let hash = mix(key);
        let mut cell = hash as usize & mask;
        while self.index[cell].at != EMPTY {
            cell = (cell + 1) & mask;
        }
        self.index[cell] = Cell { at, tag: (hash >> 32) as u32 };
    }

    /// Empties a cell and moves back whatever had to probe past it.
    fn unlink(&mut self, mut hole: usize) {
        let mask = self.index.len() - 1;
        let mut cell = hole;
        loop {
            cell = (cell + 1) & mask;
            let at = self.index[cell].at;
            if at == EMPTY {
                break;
            }
            let home = mix(self.entries[at as usize].0) as usize & mask;
            // Only an entry whose home is not between the hole and its cell may move back.
            if cell.wrapping_sub(home) & mask >= cell.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[cell];
                hole = cell;
            }
        }
        self.index[hole] = VACANT;
    }

    fn grow(&mut self) {
        let size = self.index.len() * 2;
        self.index.clear();
        self.index.resize(size, VACANT);
        for at in 0..self.entries.len() {
            self.link(self.entries[at].0, at as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_as_an_ordered_map_does() {
        let mut table = Keyed::new();
        let mut model = BTreeMap::new();
        for step in 0..20_000u64 {
            let random = mix(step);
            let key = (random >> 8) % 300;
            match random % 3 {
                0 => assert_eq!(table.remove(key), model.remove(&key)),
                1 if !model.is_empty() => {
                    let (key, value) = table.remove_at(random as usize % table.len());
                    assert_eq!(model.remove(&key), Some(value));
                }
                _ => {
                    if let Some(value) = table.get_mut(key) {
                        *value = step;
                    } else {
                        table.insert_new(key, step);
                    }
                    model.insert(key, step);
                }
            }
            assert_eq!(table.len(), model.len());
            assert_eq!(table.get(key), model.get(&key));
        }
        for (key, value) in &model {
            assert_eq!(table.get(*key), Some(value));
        }
        table.clear();
        assert!(table.is_empty() && table.get(1).is_none());
    }
}
