//! The Universal Scalability Law: what requests that run at once cost each other.
//!
//! Gunther, "A Simple Capacity Model of Massively Parallel Transaction Systems" (CMG 1993) and
//! "Guerrilla Capacity Planning" (Springer 2007, chapter 4): with N at once the throughput is
//! `N / (1 + sigma (N - 1) + kappa N (N - 1))` times that of one. Without kappa it is Amdahl's law,
//! which levels off at `1 / sigma`; with kappa it has its peak at `sqrt((1 - sigma) / kappa)`.

use plimsoll_model::system::Scalability;

/// Throughput of so many at once, in that of one alone.
pub fn usl(law: Scalability, at_once: f64) -> f64 {
    at_once / law.stretch(at_once)
}

/// How many at once get the most done; infinite without coherency.
pub fn usl_peak(law: Scalability) -> f64 {
    ((1.0 - law.contention) / law.coherency).sqrt()
}

/// A server whose requests slow each other down in part of what they do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaled {
    pub(super) law: Scalability,
    /// Time of a request that the law stretches, s.
    pub(super) own: f64,
    /// Time that it is held besides, waiting for others, s.
    pub(super) rest: f64,
    /// Core time in `own`, s.
    pub(super) work: f64,
    pub(super) cores: f64,
    /// Requests that may be in it at once.
    pub(super) most: f64,
}

impl Scaled {
    /// How many requests at once get the most done, and whether it is the cores that allow no more.
    ///
    /// With n at once throughput is at most `n / (rest + own f(n))` by Little's law, which rises to
    /// its only peak, and at most `cores / (work f(n))`, which falls.
    pub(super) fn best(&self) -> (f64, bool) {
        let slots = |n: f64| n / (self.rest + self.own * self.law.stretch(n));
        let cores = |n: f64| self.cores / (self.work * self.law.stretch(n));
        // rest + own f(n) is a + b n + d n^2, and n over that has its peak at sqrt(a / d).
        let peak =
            ((self.rest + self.own * (1.0 - self.law.contention)) / (self.own * self.law.coherency)).sqrt().max(1.0);
        let (mut low, mut high) = (1.0, if peak < self.most { peak } else { self.most });
        if slots(high) <= cores(high) {
            return (high, false);
        }
        for _ in 0..100 {
            let middle = 0.5 * (low + high);
            if slots(middle) <= cores(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        (high, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;

    fn law(contention: f64, coherency: f64) -> Scalability {
        Scalability { contention, coherency }
    }

    /// The fit of SPEC SDM91 that comes with Gunther's R package usl.
    #[test]
    fn the_published_fit_peaks_where_it_says() {
        let sdm91 = law(0.027_728_5, 0.000_104_37);
        digits(usl_peak(sdm91), 96.52, 2);
        digits(89.995_23 * usl(sdm91, 96.52), 1884.0, 0);
        digits(89.995_23 * usl(law(0.027_728_5, 0.0), 1e12), 3245.59, 2);
    }

    /// Its ray tracer, whose coherency is fitted as zero.
    #[test]
    fn without_coherency_there_is_no_peak() {
        let raytracer = law(0.057_77, 0.0);
        digits(21.849 * usl(raytracer, 96.0), 323.28, 1);
        assert_eq!(usl_peak(raytracer), f64::INFINITY);
    }

    #[test]
    fn amdahl() {
        for (n, speedup) in [(10.0, 6.8966), (100.0, 16.8067), (1e12, 20.0)] {
            digits(usl(law(0.05, 0.0), n), speedup, 4);
        }
    }

    #[test]
    fn the_best_number_is_the_peak_or_what_cores_and_places_allow() {
        let scaled =
            |work: f64, cores: f64, most: f64| Scaled { law: law(0.0, 0.01), own: 1.0, rest: 0.0, work, cores, most };
        assert_eq!(scaled(0.0, 2.0, 1e6).best(), (10.0, false));
        assert_eq!(scaled(0.0, 2.0, 4.0).best(), (4.0, false));
        let (two, cores) = scaled(1.0, 2.0, 1e6).best();
        assert!(cores && (two - 2.0).abs() < 1e-9, "{two}");
    }
}
