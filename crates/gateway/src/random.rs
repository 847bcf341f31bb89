//! Random bits, a generator a core.

use std::cell::Cell;
use std::hash::Hasher;

/// A generator (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// A generator that starts at a seed.
    pub fn new(seed: u64) -> Random {
        Random(Cell::new(seed))
    }

    /// 64 fresh bits.
    #[inline]
    pub fn bits(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        mix(state)
    }
}

/// Spreads a number over 64 bits.
#[inline]
pub fn mix(state: u64) -> u64 {
    let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// Bits that nobody can guess: from the system, or, where it has none, from the clock.
pub fn seed(clock: crate::clock::Clock) -> u64 {
    use std::io::Read;
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    let wall = clock.wall(clock.now()).as_nanos() as u64;
    u64::from_le_bytes(bytes) ^ if read.is_ok() { 0 } else { mix(wall ^ u64::from(std::process::id())) }
}

/// A hash whose collisions a stranger cannot look for, since it starts with a secret.
pub fn secret_hash(secret: u64, bytes: &[u8]) -> u64 {
    let mut hasher = secret_hasher(secret);
    hasher.write(bytes);
    hasher.finish()
}

/// The same for what comes in pieces: the hash is that of their concatenation.
pub fn secret_hasher(secret: u64) -> std::hash::DefaultHasher {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u64(secret);
    hasher
}

/// A hash that is the same in every gateway (FNV-1a, then mixed): all agree on where a key belongs.
pub fn agreed_hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    mix(bytes.iter().fold(0xCBF2_9CE4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_depend_on_all_that_they_should() {
        assert_ne!(secret_hash(1, b"a"), secret_hash(2, b"a"));
        assert_ne!(secret_hash(1, b"a"), secret_hash(1, b"b"));
        assert_eq!(agreed_hash(b"10.0.0.1:80"), agreed_hash(b"10.0.0.1:80"));
        assert_ne!(agreed_hash(b"10.0.0.1:80"), agreed_hash(b"10.0.0.2:80"));
        let random = Random::new(1);
        assert_ne!(random.bits(), random.bits());
    }
}
