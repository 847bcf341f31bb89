use std::ops::{Index, IndexMut};

/// A place in a [`Slab`], valid until its value is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ref {
    pub(crate) index: u32,
    generation: u32,
}

impl Ref {
    /// Refers to nothing.
    pub(crate) const NONE: Ref = Ref { index: u32::MAX, generation: 0 };

    pub(crate) fn is_none(self) -> bool {
        self.index == u32::MAX
    }
}

/// Values at stable places that are used again. An old [`Ref`] to a place that was used again is
/// known as old.
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

struct Entry<T> {
    /// Even while the place is free, odd while it is used.
    generation: u32,
    value: T,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Slab { entries: Vec::new(), free: Vec::new() }
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Ref {
        match self.free.pop() {
            Some(index) => {
                let entry = &mut self.entries[index as usize];
                entry.generation = entry.generation.wrapping_add(1);
                entry.value = value;
                Ref { index, generation: entry.generation }
            }
            None => self.push(value).0,
        }
    }

    /// A place for a new value, in which the last one still lies, or else what `blank` makes. All of
    /// it has to be set: to set fields one by one saves building the whole elsewhere and copying it,
    /// which costs more than all the rest of a call.
    #[inline(always)]
    pub(crate) fn place(&mut self, blank: impl FnOnce() -> T) -> (Ref, &mut T) {
        let Some(index) = self.free.pop() else { return self.push(blank()) };
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        (Ref { index, generation: entry.generation }, &mut entry.value)
    }

    #[cold]
    fn push(&mut self, value: T) -> (Ref, &mut T) {
        self.entries.push(Entry { generation: 1, value });
        let index = self.entries.len() as u32 - 1;
        (Ref { index, generation: 1 }, &mut self.entries[index as usize].value)
    }

    /// Frees a place; its value stays in memory until the place is used again.
    #[inline]
    pub(crate) fn remove(&mut self, at: Ref) {
        let entry = &mut self.entries[at.index as usize];
        debug_assert_eq!(entry.generation, at.generation, "removed twice");
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(at.index);
    }

    #[inline]
    pub(crate) fn contains(&self, at: Ref) -> bool {
        self.entries.get(at.index as usize).is_some_and(|entry| entry.generation == at.generation)
    }

    #[inline]
    pub(crate) fn get(&self, at: Ref) -> Option<&T> {
        self.entries.get(at.index as usize).filter(|entry| entry.generation == at.generation).map(|e| &e.value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: Ref) -> Option<&mut T> {
        self.entries.get_mut(at.index as usize).filter(|e| e.generation == at.generation).map(|e| &mut e.value)
    }

    /// Every used place, in order of place.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Ref> + '_ {
        self.entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.generation % 2 == 1)
            .map(|(index, entry)| Ref { index: index as u32, generation: entry.generation })
    }
}

impl<T> Index<Ref> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: Ref) -> &T {
        let entry = &self.entries[at.index as usize];
        debug_assert_eq!(entry.generation, at.generation, "used after removal");
        &entry.value
    }
}

impl<T> IndexMut<Ref> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, at: Ref) -> &mut T {
        let entry = &mut self.entries[at.index as usize];
        debug_assert_eq!(entry.generation, at.generation, "used after removal");
        &mut entry.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_ref_is_known() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        slab.remove(a);
        let b = slab.insert('b');
        assert_eq!(a.index, b.index);
        assert!(!slab.contains(a) && slab.get(a).is_none());
        assert_eq!(slab[b], 'b');
        assert_eq!(slab.refs().collect::<Vec<_>>(), [b]);
    }
}
