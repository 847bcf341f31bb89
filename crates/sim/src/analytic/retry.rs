//! What retries do to load: geometric sums.

/// Attempts that a call makes on average, where each fails independently with probability `failure`
/// and at most `attempts` are made: `1 + p + p^2 + ...`.
pub fn attempts(failure: f64, attempts: u32) -> f64 {
    if failure >= 1.0 {
        return attempts as f64;
    }
    (1.0 - libm::pow(failure, attempts as f64)) / (1.0 - failure)
}

/// The share of calls that fail in the end: every attempt has.
pub fn failures(failure: f64, attempts: u32) -> f64 {
    libm::pow(failure, attempts as f64)
}

/// Calls that reach the bottom of a chain for one at its top, when everything at the bottom fails:
/// layers multiply.
pub fn amplification(attempts_by_layer: &[u32]) -> f64 {
    attempts_by_layer.iter().map(|&attempts| attempts as f64).product()
}

/// The load above which a system that fails once for longer than its callers' timeout stays down:
/// every call that times out comes back, until all `attempts` are made, so that the offered load is
/// `attempts` times what is asked for, and must stay below the capacity.
///
/// Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021: `C / (1 + r)` for r
/// retries. Between this load and the capacity the system is vulnerable.
pub fn vulnerable_above(capacity: f64, attempts: u32) -> f64 {
    capacity / attempts.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    #[test]
    fn three_retries_at_even_odds() {
        digits(super::attempts(0.5, 4), 1.875, 9);
        digits(failures(0.5, 4), 0.0625, 9);
        assert_eq!(super::attempts(1.0, 4), 4.0);
        assert_eq!(super::attempts(0.0, 4), 1.0);
    }

    #[test]
    fn layers_multiply() {
        assert_eq!(amplification(&[3, 3, 3]), 27.0);
        assert_eq!(amplification(&[4, 4, 4]), 64.0);
    }

    #[test]
    fn retries_halve_and_third_what_is_safe() {
        assert_eq!(vulnerable_above(300.0, 2), 150.0);
        assert_eq!(vulnerable_above(300.0, 3), 100.0);
    }
}
