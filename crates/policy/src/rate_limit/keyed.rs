//! One state, or one a key with a bound on the keys.

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
            Cells::PerKey(table) => table.entries.len(),
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
    pub(super) fn take_over(&mut self, old: &Cells<S>, convert: impl Fn(S) -> S) {
        match (self, old) {
            (Cells::Shared(new), Cells::Shared(old)) => *new = convert(*old),
            (Cells::PerKey(new), Cells::PerKey(old)) => {
                let mut slot = old.oldest;
                while let Some(entry) = old.entries.get(slot as usize) {
                    *new.get(entry.key) = convert(entry.state);
                    slot = entry.newer;
                }
                new.evicted += old.evicted;
            }
            _ => {}
        }
    }
}

/// A hash table that forgets the least recently used key when it is full.
///
/// The same keys in the same order leave the same ones in it, on every platform and in every run:
/// the hash is fixed and iteration follows the order of use.
#[derive(Clone, Debug)]
pub(super) struct Table<S> {
    /// Open addressing with linear probing; the size is a power of two, at most half full.
    index: Vec<u32>,
    entries: Vec<Entry<S>>,
    newest: u32,
    oldest: u32,
    max: u32,
    evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry<S> {
    key: u64,
    newer: u32,
    older: u32,
    state: S,
}

const NIL: u32 = u32::MAX;

impl<S: Copy + Default> Table<S> {
    fn new(max: u32) -> Self {
        Table {
            index: vec![NIL; 16],
            entries: Vec::new(),
            newest: NIL,
            oldest: NIL,
            max,
            evicted: 0,
        }
    }

    /// The state of `key`, a default one if it is new; the key becomes the most recent.
    #[inline]
    fn get(&mut self, key: u64) -> &mut S {
        let slot = match self.find(key) {
            Ok(slot) => slot,
            Err(_) => self.insert(key),
        };
        if slot != self.newest {
            self.unlink(slot);
            self.link_newest(slot);
        }
        &mut self.entries[slot as usize].state
    }

    /// The entry of `key`, or the place in the index where it would go.
    #[inline]
    fn find(&self, key: u64) -> Result<u32, usize> {
        let mask = self.index.len() - 1;
        let mut at = hash(key) as usize & mask;
        loop {
            match self.index[at] {
                NIL => return Err(at),
                slot if self.entries[slot as usize].key == key => return Ok(slot),
                _ => at = (at + 1) & mask,
            }
        }
    }

    #[inline(never)]
    fn insert(&mut self, key: u64) -> u32 {
        let entry = Entry {
            key,
            newer: NIL,
            older: NIL,
            state: S::default(),
        };
        let slot = if self.entries.len() < self.max as usize {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let slot = self.oldest;
            self.evicted += 1;
            self.unlink(slot);
            self.forget(self.entries[slot as usize].key);
            self.entries[slot as usize] = entry;
            slot
        };
        self.link_newest(slot);
        if self.entries.len() * 2 > self.index.len() {
            self.index = vec![NIL; self.index.len() * 2];
            for slot in 0..self.entries.len() as u32 {
                self.place(slot);
            }
        } else {
            self.place(slot);
        }
        slot
    }

    fn place(&mut self, slot: u32) {
        if let Err(at) = self.find(self.entries[slot as usize].key) {
            self.index[at] = slot;
        }
    }

    /// Takes `key` out of the index and closes the gap, so that no later probe stops short.
    fn forget(&mut self, key: u64) {
        let mask = self.index.len() - 1;
        let mut gap = hash(key) as usize & mask;
        while self.index[gap] == NIL || self.entries[self.index[gap] as usize].key != key {
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let slot = self.index[at];
            if slot == NIL {
                break;
            }
            let home = hash(self.entries[slot as usize].key) as usize & mask;
            // It may fill the gap unless its home lies between the gap and where it is.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.index[gap] = slot;
                gap = at;
            }
        }
        self.index[gap] = NIL;
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { newer, older, .. } = self.entries[slot as usize];
        match newer {
            NIL => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let older = self.newest;
        let entry = &mut self.entries[slot as usize];
        (entry.newer, entry.older) = (NIL, older);
        match older {
            NIL => self.oldest = slot,
            older => self.entries[older as usize].newer = slot,
        }
        self.newest = slot;
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
/// Generators"): every bit of the key reaches every bit of the hash.
#[inline]
fn hash(key: u64) -> u64 {
    let z = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
        assert_eq!((table.evicted, table.entries.len()), (1, 3));
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
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
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
        assert_eq!(table.entries.len(), 50);
    }
}
