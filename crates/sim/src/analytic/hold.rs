//! How long something takes on an idle system: mean, spread, and the chance that it ends well.

/// What a step, a program or a call comes to on average, s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hold {
    pub(super) mean: f64,
    pub(super) variance: f64,
    /// The chance that it ends well.
    pub(super) ok: f64,
}

impl Hold {
    pub(super) const NOTHING: Hold = Hold { mean: 0.0, variance: 0.0, ok: 1.0 };

    pub(super) fn fixed(mean: f64) -> Self {
        Hold { mean, ..Hold::NOTHING }
    }

    /// One after the other: the second only where the first ended well.
    pub(super) fn then(self, next: Hold) -> Self {
        Hold {
            mean: self.mean + likely(self.ok, next.mean),
            variance: self.variance + likely(self.ok, next.variance),
            ok: self.ok * next.ok,
        }
    }

    /// One of several, with weights that add up to 1.
    pub(super) fn mixture(parts: &[(f64, Hold)]) -> Self {
        let sum = |of: fn(&Hold) -> f64| parts.iter().map(|(weight, part)| likely(*weight, of(part))).sum::<f64>();
        let mean = sum(|part| part.mean);
        let between: f64 =
            parts.iter().map(|(weight, part)| likely(*weight, (part.mean - mean) * (part.mean - mean))).sum();
        Hold { mean, variance: sum(|part| part.variance) + between, ok: sum(|part| part.ok) }
    }

    /// Both at once: until the later has ended.
    ///
    /// C. E. Clark, "The Greatest of a Finite Set of Random Variables", Operations Research 1961: the
    /// first two moments of the greater of two normal variables.
    pub(super) fn both(self, other: Hold) -> Self {
        let ok = self.ok * other.ok;
        let spread = (self.variance + other.variance).sqrt();
        if spread == 0.0 || !spread.is_finite() {
            let later = if self.mean >= other.mean { self } else { other };
            return Hold { ok, ..later };
        }
        let a = (self.mean - other.mean) / spread;
        let (first, second) = (normal(a), normal(-a));
        let density = libm::exp(-a * a / 2.0) / (2.0 * std::f64::consts::PI).sqrt();
        let mean = self.mean * first + other.mean * second + spread * density;
        let square = (self.mean * self.mean + self.variance) * first
            + (other.mean * other.mean + other.variance) * second
            + (self.mean + other.mean) * spread * density;
        Hold { mean, variance: (square - mean * mean).max(0.0), ok }
    }

    /// The same a number of times, so many at once: until the last has ended.
    ///
    /// Exact for exponential and for constant times: while more rounds wait than run, one ends every
    /// `mean / limit`, and the last `limit` need their greatest, `mean + sd (1/2 + ... + 1/limit)`.
    pub(super) fn rounds(self, count: f64, limit: u32) -> Self {
        let at_once = (limit as f64).min(count).max(1.0);
        let tail = harmonic(at_once) - 1.0;
        Hold {
            mean: self.mean * count / at_once + if tail > 0.0 { self.variance.sqrt() * tail } else { 0.0 },
            variance: self.variance * count / (at_once * at_once),
            ok: libm::pow(self.ok, count),
        }
    }

    /// `needed` of `count` that were begun together: until so many have ended. By the same formula:
    /// exact for exponential times.
    pub(super) fn needed(self, needed: u32, count: u32) -> Self {
        let reach = harmonic(count as f64) - harmonic(count.saturating_sub(needed) as f64);
        Hold { mean: (self.mean + self.variance.sqrt() * (reach - 1.0)).max(0.0), ..self }
    }
}

/// `weight * value`, where something that never happens takes no time, however long it would.
fn likely(weight: f64, value: f64) -> f64 {
    if weight == 0.0 { 0.0 } else { weight * value }
}

/// `1 + 1/2 + ... + 1/n`, linear between whole numbers.
fn harmonic(n: f64) -> f64 {
    let whole = libm::floor(n);
    (1..=whole as u64).map(|i| 1.0 / i as f64).sum::<f64>() + (n - whole) / (whole + 1.0)
}

fn normal(x: f64) -> f64 {
    libm::erfc(-x / std::f64::consts::SQRT_2) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    fn exponential(mean: f64) -> Hold {
        Hold { mean, variance: mean * mean, ok: 1.0 }
    }

    #[test]
    fn a_failure_ends_a_sequence() {
        let first = Hold { mean: 1.0, variance: 0.0, ok: 0.75 };
        let got = first.then(Hold::fixed(4.0));
        assert_eq!((got.mean, got.ok), (4.0, 0.75));
    }

    #[test]
    fn rounds_are_exact_for_exponential_and_constant_times() {
        digits(exponential(1.0).rounds(4.0, 4).mean, 1.0 + 0.5 + 1.0 / 3.0 + 0.25, 9);
        digits(exponential(1.0).rounds(10.0, 2).mean, 4.0 + 1.5, 9);
        digits(exponential(1.0).rounds(10.0, 1).mean, 10.0, 9);
        digits(Hold::fixed(2.0).rounds(10.0, 5).mean, 4.0, 9);
        assert_eq!(Hold::fixed(2.0).rounds(0.0, 5).mean, 0.0);
    }

    #[test]
    fn the_later_of_two() {
        assert_eq!(Hold::fixed(2.0).both(Hold::fixed(3.0)).mean, 3.0);
        // Two standard normals: 1 / sqrt(pi), variance 1 - 1 / pi.
        let normal = Hold { mean: 0.0, variance: 1.0, ok: 1.0 };
        let got = normal.both(normal);
        digits(got.mean, 0.564_190, 6);
        digits(got.variance, 1.0 - std::f64::consts::FRAC_1_PI, 6);
    }

    #[test]
    fn a_quorum_waits_for_its_slowest() {
        // Two of three exponentials: 1/3 + 1/2.
        digits(exponential(1.0).needed(2, 3).mean, 1.0 / 3.0 + 0.5, 9);
        digits(exponential(1.0).needed(1, 1).mean, 1.0, 9);
        digits(Hold::fixed(5.0).needed(2, 3).mean, 5.0, 9);
    }

    #[test]
    fn a_mixture_has_the_spread_between_its_parts() {
        let got = Hold::mixture(&[(0.5, Hold::fixed(1.0)), (0.5, Hold::fixed(3.0)), (0.0, Hold::fixed(f64::INFINITY))]);
        assert_eq!((got.mean, got.variance), (2.0, 1.0));
    }
}
