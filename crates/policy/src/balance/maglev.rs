use super::bounded_load::BoundedLoad;
use super::eligible::Candidates;
use super::endpoints::Endpoints;
use crate::hash::{below, mix};

/// Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) with bounded load.
///
/// Each endpoint has its own permutation of a prime number of slots and the endpoints take turns
/// in claiming their next free one, so that shares are even to a fraction of a percent and a pick is one
/// look-up. A change moves 1/n of the keys and a little more. An ineligible endpoint keeps its
/// slots; its keys hash on to others. (Not to the slots after them: there, in two arithmetic
/// progressions, the same neighbour follows again and again and would inherit most of the keys.)
#[derive(Clone, Debug)]
pub(super) struct Maglev {
    slots: Vec<u32>,
    size: u32,
    bound: f64,
}

const FREE: u32 = u32::MAX;

/// Slots tried before the candidates are searched: with half of the endpoints out, one key in a
/// million gets that far.
const REHASHES: u32 = 20;

impl Maglev {
    pub(super) fn new(endpoints: &Endpoints, size: u32, bound: f64) -> Self {
        let mut maglev = Maglev { slots: Vec::new(), size, bound };
        maglev.rebuild(endpoints);
        maglev
    }

    pub(super) fn rebuild(&mut self, endpoints: &Endpoints) {
        struct Turn {
            i: u32,
            position: u64,
            skip: u64,
            /// Turns are taken in proportion to weight: this one's next is due at `due`.
            due: f64,
            step: f64,
        }
        let size = u64::from(self.size);
        let heaviest = endpoints.in_use().map(|(_, e)| e.weight).fold(0.0, f64::max);
        let mut turns: Vec<Turn> = endpoints
            .in_use()
            .map(|(i, endpoint)| {
                let hash = mix(endpoint.id);
                Turn {
                    i: i as u32,
                    position: hash % size,
                    skip: mix(hash) % (size - 1) + 1,
                    due: 0.0,
                    step: heaviest / endpoint.weight,
                }
            })
            .collect();
        self.slots.clear();
        if turns.is_empty() {
            return;
        }
        self.slots.resize(self.size as usize, FREE);
        let mut left = self.size;
        let mut round = 0.0;
        loop {
            for turn in &mut turns {
                if turn.due > round {
                    continue;
                }
                turn.due += turn.step;
                while self.slots[turn.position as usize] != FREE {
                    turn.position = (turn.position + turn.skip) % size;
                }
                self.slots[turn.position as usize] = turn.i;
                left -= 1;
                if left == 0 {
                    return;
                }
            }
            round += 1.0;
        }
    }

    #[inline]
    pub(super) fn pick(&self, key: u64, endpoints: &Endpoints, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.count() == 0 || self.slots.is_empty() {
            return None;
        }
        let bound = BoundedLoad::new(self.bound, endpoints, candidates);
        let mut hash = mix(key);
        for _ in 0..REHASHES {
            let i = self.slots[below(hash, self.slots.len())] as usize;
            if candidates.contains(i) && bound.has_room(endpoints, i) {
                return Some(i);
            }
            hash = mix(hash);
        }
        // Few candidates among many endpoints, or one so light that it owns next to no slots: choose
        // among the candidates themselves.
        let count = candidates.count();
        let first = below(hash, count);
        (0..count).map(|k| candidates.nth((first + k) % count)).find(|&i| bound.has_room(endpoints, i))
    }
}

/// Whether Maglev's permutations reach every slot.
pub(super) fn is_prime(n: u32) -> bool {
    let n = u64::from(n);
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| n % d != 0)
}
