//! The one mixing function behind every table and hash ring here: fixed, so that runs replay.

/// Spreads 64 bits over 64 bits, one to one.
///
/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014), with Stafford's constants "Mix13".
#[inline]
pub(crate) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Maps 64 random bits to `0..n` without division (Lemire 2019; the bias is below n / 2^64).
#[inline]
pub(crate) const fn below(random: u64, n: usize) -> usize {
    ((random as u128 * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_covers_its_range() {
        assert_eq!(below(0, 7), 0);
        assert_eq!(below(u64::MAX, 7), 6);
        let mut seen = [0u32; 7];
        for i in 0..7_000 {
            seen[below(mix(i), 7)] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
    }
}
