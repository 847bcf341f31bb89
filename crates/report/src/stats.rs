//! The little statistics that a comparison needs.

/// A mean with its 95% confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// From independent values; none for fewer than two, which say nothing about their spread.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (n - 1.0);
        let half = t95(values.len() - 1) * (variance / n).sqrt();
        Some(Estimate { mean, low: mean - half, high: mean + half })
    }
}

/// The 97.5th percentile of Student's t distribution, for a two-sided interval of 95%.
///
/// Up to 30 degrees of freedom from the usual table; above, the expansion in 1/df about the
/// normal quantile z: z + (z^3 + z)/4df + (5z^5 + 16z^3 + 3z)/96df^2 (Abramowitz and Stegun
/// 26.7.5), within 0.0001 from there on.
pub(crate) fn t95(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    const Z: f64 = 1.959_963_984_540_054;
    if let Some(value) = degrees.checked_sub(1).and_then(|at| TABLE.get(at)) {
        return *value;
    }
    if degrees == 0 {
        return f64::INFINITY;
    }
    let df = degrees as f64;
    let z3 = Z * Z * Z;
    Z + (z3 + Z) / (4.0 * df) + (5.0 * z3 * Z * Z + 16.0 * z3 + 3.0 * Z) / (96.0 * df * df)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_join_the_table_smoothly() {
        assert!((t95(31) - 2.0395).abs() < 1e-4);
        assert!((t95(60) - 2.0003).abs() < 5e-5);
        assert!((t95(1_000_000) - 1.95996).abs() < 1e-4);
        assert!((1..200).all(|df| t95(df) > t95(df + 1)));
    }

    #[test]
    fn an_interval_of_known_values() {
        // mean 3, variance 2.5, t(4) 2.776: half-width 2.776 * sqrt(2.5 / 5) = 1.96293
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((estimate.low - (3.0 - 1.962_928)).abs() < 1e-5);
        assert_eq!(Estimate::of(&[1.0]), None);
        assert_eq!(Estimate::of(&[1.0, f64::NAN]), None);
    }
}
