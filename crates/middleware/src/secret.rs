//! Hashes whose collisions a stranger cannot look for, and random bits.

#![allow(clippy::disallowed_types, reason = "its keys are the point: nothing is iterated in their order")]

use std::hash::{BuildHasher, Hash, RandomState};

/// A keyed hash with a key of its own.
#[derive(Clone, Debug)]
pub(crate) struct Secret(RandomState);

impl Secret {
    pub(crate) fn new() -> Secret {
        Secret(RandomState::new())
    }

    pub(crate) fn hash(&self, value: impl Hash) -> u64 {
        self.0.hash_one(value)
    }
}

/// Random bits for jitter (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        Random(Secret::new().hash(0))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}
