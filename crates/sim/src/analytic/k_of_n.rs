//! k of n: independent parts, of which enough must work. The binomial distribution's upper tail.

/// The probability that at least `k` of `n` independent events happen, each with `probability`.
///
/// One of n is a fan-out: a page of n calls meets a slow one with `1 - (1 - p)^n`.
pub fn at_least(k: u32, n: u32, probability: f64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if k > n || probability <= 0.0 {
        return 0.0;
    }
    if probability >= 1.0 {
        return 1.0;
    }
    if k == 1 {
        return -libm::expm1(n as f64 * libm::log1p(-probability));
    }
    (k..=n).map(|i| exactly(i, n, probability)).sum()
}

fn exactly(i: u32, n: u32, probability: f64) -> f64 {
    let (i, n) = (i as f64, n as f64);
    let ways = libm::lgamma(n + 1.0) - libm::lgamma(i + 1.0) - libm::lgamma(n - i + 1.0);
    libm::exp(ways + i * libm::log(probability) + (n - i) * libm::log1p(-probability))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    #[test]
    fn three_of_four() {
        digits(at_least(3, 4, 0.9), 0.9477, 9);
    }

    #[test]
    fn a_page_of_many_calls_meets_the_tail() {
        digits(at_least(1, 100, 0.01), 0.634, 3);
        digits(at_least(1, 20, 0.05), 0.64, 2);
    }

    #[test]
    fn edges() {
        assert_eq!(at_least(0, 5, 0.1), 1.0);
        assert_eq!(at_least(6, 5, 0.9), 0.0);
        assert_eq!(at_least(2, 5, 0.0), 0.0);
        assert_eq!(at_least(5, 5, 1.0), 1.0);
        digits(at_least(2, 3, 0.5), 0.5, 9);
    }
}
