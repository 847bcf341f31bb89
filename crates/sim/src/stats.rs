//! Confidence intervals: of a mean over replications, of a paired difference, and of a share.

/// An estimate with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The estimate; not a number where nothing was measured.
    pub mean: f64,
    /// The interval's lower end; minus infinity where one value says nothing about its spread.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    const UNKNOWN: Interval = Interval { mean: f64::NAN, low: f64::NAN, high: f64::NAN };

    /// The half-width as a share of the estimate: how precise it is. Infinite where the estimate is
    /// zero and the interval is not.
    pub fn relative(&self) -> f64 {
        let half = (self.high - self.low) / 2.0;
        if half == 0.0 { 0.0 } else { half / self.mean.abs() }
    }
}

/// The mean of independent values with its two-sided interval, by Student's t distribution.
///
/// A value that is not a finite number says that its replication measured nothing: it is left out,
/// and the interval rests on the others. With none left, all three numbers are not a number.
pub fn interval(values: &[f64], confidence: f64) -> Interval {
    let sample = Moments::of(values.iter().copied());
    match sample.count {
        0 => Interval::UNKNOWN,
        1 => Interval { mean: sample.mean, low: f64::NEG_INFINITY, high: f64::INFINITY },
        n => {
            let half = student_t(confidence, (n - 1) as f64) * sample.standard_error();
            // A constant has no spread, whatever the quantile.
            let half = if half.is_nan() { 0.0 } else { half };
            Interval { mean: sample.mean, low: sample.mean - half, high: sample.mean + half }
        }
    }
}

/// The mean difference `b - a` of two variants that saw the same arrivals, replication by
/// replication: what both share cancels, so that far smaller differences show than between two
/// intervals side by side. Pairs with a value that is not a finite number are left out.
pub fn paired(a: &[f64], b: &[f64], confidence: f64) -> Interval {
    debug_assert_eq!(a.len(), b.len(), "replications are compared one by one");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    interval(&differences, confidence)
}

/// The standard error of the mean of the finite values: standard deviation over root n.
/// Not a number for fewer than two.
pub fn standard_error(values: &[f64]) -> f64 {
    Moments::of(values.iter().copied()).standard_error()
}

/// The share of successes with its Wilson score interval, which keeps within 0 and 1 and stays
/// honest near them, where the share plus and minus a standard error does not.
///
/// Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927:
/// `(p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)`.
pub fn wilson(successes: u32, trials: u32, confidence: f64) -> Interval {
    if trials == 0 {
        return Interval::UNKNOWN;
    }
    let (n, p) = (trials as f64, successes as f64 / trials as f64);
    let z = student_t(confidence, f64::INFINITY);
    let z2 = z * z / n;
    let half = z * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    let end = |sign: f64| ((p + z2 / 2.0 + sign * half) / (1.0 + z2)).clamp(0.0, 1.0);
    Interval { mean: p, low: end(-1.0), high: end(1.0) }
}

/// The quantile t of Student's distribution with this many degrees of freedom for which
/// `P(|T| <= t) = confidence`. Infinite degrees are the normal distribution.
pub fn student_t(confidence: f64, degrees: f64) -> f64 {
    let outside = 1.0 - confidence;
    if !(degrees > 0.0 && outside > 0.0 && outside <= 1.0) {
        return f64::INFINITY;
    }
    // The tails are convex and fall with t, so Newton's method rises from zero to the quantile and
    // never passes it.
    let mut t = 0.0;
    for _ in 0..200 {
        let (tails, density) = student(t, degrees);
        let step = (tails - outside) / (2.0 * density);
        t += step;
        if step.abs() <= 1e-13 * t {
            break;
        }
    }
    t
}

/// Both tails beyond ±t, and the density at t.
fn student(t: f64, degrees: f64) -> (f64, f64) {
    use std::f64::consts::{PI, SQRT_2};
    // From here on the difference to the normal distribution is below 1e-7 of itself, and less than
    // what the logarithms of gamma lose.
    if degrees > 1e7 {
        return (libm::erfc(t / SQRT_2), libm::exp(-t * t / 2.0) / (2.0 * PI).sqrt());
    }
    let tails = incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5);
    let log = libm::lgamma((degrees + 1.0) / 2.0)
        - libm::lgamma(degrees / 2.0)
        - libm::log(degrees * PI) / 2.0
        - (degrees + 1.0) / 2.0 * libm::log1p(t * t / degrees);
    (tails, libm::exp(log))
}

/// The regularised incomplete beta function I_x(a, b): by the continued fraction of DLMF 8.17.22,
/// evaluated from the front (Lentz), on the side of the mean where it converges fast.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let log_front = a * libm::log(x) + b * libm::log1p(-x) + libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b);
    let nonzero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..1_000 {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / nonzero(1.0 + coefficient * d);
            c = nonzero(1.0 + coefficient / c);
            factor = c * d;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    libm::exp(log_front) * fraction / a
}

/// Count, mean and sum of squared deviations of the finite values (Welford's update).
struct Moments {
    count: usize,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut moments = Moments { count: 0, mean: 0.0, squares: 0.0 };
        for value in values.filter(|value| value.is_finite()) {
            moments.count += 1;
            let before = value - moments.mean;
            moments.mean += before / moments.count as f64;
            moments.squares += before * (value - moments.mean);
        }
        moments
    }

    fn standard_error(&self) -> f64 {
        if self.count < 2 {
            return f64::NAN;
        }
        (self.squares / (self.count - 1) as f64 / self.count as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expect: f64, digits: i32) {
        let tolerance = 0.5 * 10f64.powi(-digits);
        assert!((got - expect).abs() <= tolerance, "{got} is not {expect} to {digits} digits");
    }

    /// NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2: upper critical values.
    #[test]
    fn quantiles_are_those_of_the_published_table() {
        let table = [
            (1.0, [6.314, 12.706, 63.657, 636.6]),
            (2.0, [2.920, 4.303, 9.925, 31.60]),
            (3.0, [2.353, 3.182, 5.841, 12.92]),
            (4.0, [2.132, 2.776, 4.604, 8.610]),
            (9.0, [1.833, 2.262, 3.250, 4.781]),
            (10.0, [1.812, 2.228, 3.169, 4.587]),
            (29.0, [1.699, 2.045, 2.756, 3.659]),
            (60.0, [1.671, 2.000, 2.660, 3.460]),
            (100.0, [1.660, 1.984, 2.626, 3.390]),
            (f64::INFINITY, [1.645, 1.960, 2.576, 3.291]),
        ];
        for (degrees, row) in table {
            for (confidence, expect) in [0.90, 0.95, 0.99].into_iter().zip(row) {
                close(student_t(confidence, degrees), expect, 3);
            }
            let far = student_t(0.999, degrees);
            assert!((far / row[3] - 1.0).abs() < 5e-4, "{degrees}: {far}");
        }
    }

    /// With one and two degrees of freedom the quantile has a closed form.
    #[test]
    fn quantiles_are_exact_where_they_can_be_written_down() {
        for confidence in [0.001, 0.5, 0.9, 0.99, 0.9999, 0.999_999] {
            let one = libm::tan(std::f64::consts::FRAC_PI_2 * confidence);
            assert!((student_t(confidence, 1.0) / one - 1.0).abs() < 1e-8, "{confidence}");
            let two = confidence * (2.0 / (1.0 - confidence * confidence)).sqrt();
            assert!((student_t(confidence, 2.0) / two - 1.0).abs() < 1e-8, "{confidence}");
        }
    }

    #[test]
    fn quantiles_fall_to_the_normal_ones() {
        for confidence in [0.5, 0.95, 0.999] {
            let mut before = f64::INFINITY;
            for degrees in [1.0, 1.5, 2.0, 5.0, 30.0, 1e3, 1e5, 1e7, f64::INFINITY] {
                let t = student_t(confidence, degrees);
                assert!(t < before, "{confidence} {degrees}: {t} after {before}");
                before = t;
            }
        }
        assert_eq!(student_t(0.0, 5.0), 0.0);
        assert_eq!(student_t(0.95, 0.0), f64::INFINITY);
        assert_eq!(student_t(1.0, 5.0), f64::INFINITY);
    }

    #[test]
    fn an_interval_of_known_values() {
        // Variance 2.5, t(4) = 2.776445: half-width 2.776445 x sqrt(2.5 / 5) = 1.963243.
        let got = interval(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.95);
        assert_eq!(got.mean, 3.0);
        close(got.low, 3.0 - 1.963_243, 6);
        close(got.high, 3.0 + 1.963_243, 6);
        close(got.relative(), 1.963_243 / 3.0, 6);
        close(standard_error(&[1.0, 2.0, 3.0, 4.0, 5.0]), 0.5f64.sqrt(), 12);
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let clean = interval(&[1.0, 2.0, 4.0], 0.99);
        assert_eq!(interval(&[1.0, f64::NAN, 2.0, f64::INFINITY, 4.0], 0.99), clean);
        assert!(interval(&[], 0.95).mean.is_nan());
        assert!(interval(&[f64::NAN], 0.95).low.is_nan());
        let one = interval(&[7.0], 0.95);
        assert_eq!((one.mean, one.low, one.high), (7.0, f64::NEG_INFINITY, f64::INFINITY));
        assert_eq!(one.relative(), f64::INFINITY);
        assert!(standard_error(&[7.0]).is_nan());
        let same = interval(&[5.0; 4], 0.95);
        assert_eq!((same.low, same.high, same.relative()), (5.0, 5.0, 0.0));
    }

    #[test]
    fn pairs_cancel_what_both_share() {
        let a = [10.0, 20.0, 30.0, 40.0];
        let b = [11.0, 21.5, 30.5, 41.0];
        let got = paired(&a, &b, 0.95);
        assert_eq!(got.mean, 1.0);
        // Differences 1, 1.5, .5, 1: variance 1/6, t(3) = 3.182446.
        close(got.high - got.mean, 3.182_446 * (1.0f64 / 24.0).sqrt(), 6);
        assert!(paired(&[1.0, f64::NAN], &[2.0, 3.0], 0.95).high.is_infinite());
    }

    /// Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine
    /// 1998, table I, score method without continuity correction.
    #[test]
    fn shares_near_the_ends_keep_honest_intervals() {
        let table =
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)];
        for (successes, trials, low, high) in table {
            let got = wilson(successes, trials, 0.95);
            close(got.low, low, 4);
            close(got.high, high, 4);
        }
        assert_eq!(wilson(20, 20, 0.95).high, 1.0);
        assert!(wilson(0, 0, 0.95).mean.is_nan());
    }
}
