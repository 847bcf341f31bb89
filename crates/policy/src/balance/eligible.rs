/// Words kept in place: 128 endpoints without a heap allocation.
const INLINE: usize = 2;

/// The endpoints that may be picked now, as a bit set.
///
/// Copying one is cheap (no allocation up to 128 endpoints), so that a retry can work on a copy
/// from which it has [excluded](Eligible::exclude) the endpoints that it tried before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    inline: [u64; INLINE],
    /// Holds every word, once there are more than fit in place.
    spill: Vec<u64>,
    len: usize,
    count: usize,
}

impl Eligible {
    /// `len` endpoints, all of them eligible.
    pub fn all(len: usize) -> Self {
        let mut set = Eligible::none(len);
        for i in 0..len {
            set.insert(i);
        }
        set
    }

    /// `len` endpoints, none of them eligible.
    pub fn none(len: usize) -> Self {
        let mut set = Eligible::default();
        set.grow(len);
        set
    }

    /// How many endpoints the set speaks of, eligible or not.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many endpoints are eligible.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether no endpoint is eligible.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether endpoint `i` is eligible; one past the end is not.
    #[inline]
    pub fn contains(&self, i: usize) -> bool {
        self.words().get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    /// Makes endpoint `i` eligible, growing the set if need be. Whether that changed anything.
    pub fn insert(&mut self, i: usize) -> bool {
        if i >= self.len {
            self.grow(i + 1);
        }
        let word = &mut self.words_mut()[i / 64];
        let changed = *word >> (i % 64) & 1 == 0;
        *word |= 1 << (i % 64);
        self.count += usize::from(changed);
        changed
    }

    /// Makes endpoint `i` ineligible. Whether that changed anything.
    pub fn remove(&mut self, i: usize) -> bool {
        let changed = self.contains(i);
        if changed {
            self.words_mut()[i / 64] &= !(1 << (i % 64));
            self.count -= 1;
        }
        changed
    }

    /// Makes endpoint `i` ineligible unless it is the only one left: a retry prefers an endpoint
    /// that it has not tried, but one tried before is better than none.
    pub fn exclude(&mut self, i: usize) -> bool {
        self.count > 1 && self.remove(i)
    }

    /// Speaks of `len` endpoints from now on; added ones are not eligible.
    pub fn grow(&mut self, len: usize) {
        if len <= self.len {
            return;
        }
        let words = len.div_ceil(64);
        if words > INLINE {
            if self.spill.is_empty() {
                self.spill.extend_from_slice(&self.inline);
                self.inline = [0; INLINE];
            }
            self.spill.resize(words.max(self.spill.len()), 0);
        }
        self.len = len;
    }

    /// The eligible endpoints, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words().iter().enumerate().flat_map(|(at, &word)| Bits(word).map(move |bit| at * 64 + bit))
    }

    #[inline]
    pub(super) fn words(&self) -> &[u64] {
        // Most sets are small: one word is looked at then, not two.
        match self.len {
            0..=64 => &self.inline[..1],
            _ if self.spill.is_empty() => &self.inline,
            _ => &self.spill,
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        if self.spill.is_empty() { &mut self.inline } else { &mut self.spill }
    }
}

/// The set bits of a word, lowest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// What an algorithm chooses from: eligible for the caller and usable for the balancer.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'a> {
    eligible: &'a [u64],
    usable: &'a [u64],
}

impl<'a> Candidates<'a> {
    #[inline]
    pub(super) fn new(eligible: &'a Eligible, usable: &'a Eligible) -> Self {
        let (eligible, usable) = (eligible.words(), usable.words());
        let words = eligible.len().min(usable.len());
        let (eligible, usable) = (&eligible[..words], &usable[..words]);
        Candidates { eligible, usable }
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.eligible.iter().zip(self.usable).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    #[inline]
    fn word(&self, at: usize) -> u64 {
        self.eligible[at] & self.usable[at]
    }

    #[inline]
    pub(super) fn contains(&self, i: usize) -> bool {
        i / 64 < self.eligible.len() && self.word(i / 64) >> (i % 64) & 1 == 1
    }

    #[inline]
    pub(super) fn iter(self) -> impl Iterator<Item = usize> + 'a {
        (0..self.eligible.len()).flat_map(move |at| Bits(self.word(at)).map(move |bit| at * 64 + bit))
    }

    /// As [`iter`](Self::iter), in a form that compiles to a plain loop where no one is missing.
    #[inline]
    pub(super) fn for_each(&self, mut f: impl FnMut(usize)) {
        for at in 0..self.eligible.len() {
            let word = self.word(at);
            if word & word.wrapping_add(1) == 0 {
                (at * 64..at * 64 + word.count_ones() as usize).for_each(&mut f);
            } else {
                Bits(word).for_each(|bit| f(at * 64 + bit));
            }
        }
    }

    /// The candidate of rank `rank`, which is below `count`.
    #[inline]
    pub(super) fn nth(&self, rank: usize) -> usize {
        let mut rank = rank;
        for at in 0..self.eligible.len() {
            let mut word = self.word(at);
            let ones = word.count_ones() as usize;
            if rank < ones {
                // Without holes, rank and position are the same.
                if word & word.wrapping_add(1) == 0 {
                    return at * 64 + rank;
                }
                for _ in 0..rank {
                    word &= word - 1;
                }
                return at * 64 + word.trailing_zeros() as usize;
            }
            rank -= ones;
        }
        unreachable!("the rank is below the count")
    }

    /// The first candidate at or after `from`, around the end.
    #[inline]
    pub(super) fn at_or_after(&self, from: usize) -> Option<usize> {
        if let ([eligible], [usable]) = (self.eligible, self.usable) {
            let word = eligible & usable;
            let after = if from < 64 { word & (!0 << from) } else { 0 };
            let first = if after != 0 { after } else { word };
            return (first != 0).then(|| first.trailing_zeros() as usize);
        }
        let words = self.eligible.len();
        let first = from / 64;
        if first < words {
            let word = self.word(first) & (!0 << (from % 64));
            if word != 0 {
                return Some(first * 64 + word.trailing_zeros() as usize);
            }
        }
        (first + 1..words).chain(0..words.min(first + 1)).find_map(|at| {
            let word = self.word(at);
            (word != 0).then(|| at * 64 + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_holds_at_every_size() {
        for len in [0, 1, 63, 64, 65, 128, 129, 300] {
            let mut set = Eligible::all(len);
            assert_eq!((set.len(), set.count()), (len, len));
            assert!(!set.contains(len));
            assert!(set.iter().eq(0..len));
            for i in (0..len).step_by(2) {
                assert!(set.remove(i) && !set.remove(i));
            }
            assert_eq!(set.count(), len / 2);
            assert!(set.iter().all(|i| i % 2 == 1));
        }
    }

    #[test]
    fn excluding_never_empties() {
        let mut set = Eligible::all(2);
        assert!(set.exclude(0));
        assert!(!set.exclude(1));
        assert_eq!(set.iter().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn growing_keeps_members_and_adds_none() {
        let mut set = Eligible::all(100);
        set.remove(7);
        set.grow(500);
        assert_eq!((set.len(), set.count()), (500, 99));
        assert!(!set.contains(7) && set.contains(99) && !set.contains(100));
        assert!(set.insert(499) && set.contains(499));
    }

    #[test]
    fn candidates_rank_and_wrap() {
        let mut eligible = Eligible::all(200);
        for i in 0..150 {
            eligible.remove(i);
        }
        eligible.insert(3);
        let mut usable = Eligible::all(200);
        usable.remove(160);
        let candidates = Candidates::new(&eligible, &usable);
        let list: Vec<_> = candidates.iter().collect();
        assert_eq!(candidates.count(), list.len());
        for (rank, &i) in list.iter().enumerate() {
            assert_eq!(candidates.nth(rank), i);
            assert!(candidates.contains(i));
        }
        assert_eq!(candidates.at_or_after(0), Some(3));
        assert_eq!(candidates.at_or_after(4), Some(150));
        assert_eq!(candidates.at_or_after(160), Some(161));
        assert_eq!(candidates.at_or_after(200), Some(3));
        let none = Eligible::none(200);
        assert_eq!(Candidates::new(&none, &usable).at_or_after(5), None);
    }
}
