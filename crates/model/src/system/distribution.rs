use std::sync::Arc;

/// A distribution of durations, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Dist {
    /// `5ms`
    Constant(u64),
    /// `1ms..3ms`, both ends included.
    Uniform {
        /// Least value, ns.
        low: u64,
        /// Greatest value, ns.
        high: u64,
    },
    /// `exp(5ms)`
    Exponential {
        /// Mean, ns.
        mean: f64,
    },
    /// `{ p50: 4ms, p99: 40ms }` or `{ mean: 5ms, cv: 0.4 }`
    LogNormal {
        /// Mean of the logarithm of nanoseconds.
        mu: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// `{ pareto: 1ms, alpha: 1.5 }`
    Pareto {
        /// Least value, ns.
        min: f64,
        /// Tail index; the mean is infinite at 1 or less.
        alpha: f64,
    },
    /// `histogram(file.hlog)`: each value with its cumulative share, in rising order.
    Empirical(Arc<[(f64, u64)]>),
}

impl Dist {
    /// The 99th percentile of the standard normal distribution, which ties `p99` to `sigma`.
    pub const Z99: f64 = 2.326_347_874_040_841;

    /// The lognormal distribution with this median and 99th percentile, both in ns.
    pub fn lognormal_through(p50: f64, p99: f64) -> Self {
        Dist::LogNormal { mu: libm::log(p50), sigma: libm::log(p99 / p50) / Self::Z99 }
    }

    /// The lognormal distribution with this mean (ns) and coefficient of variation.
    pub fn lognormal_mean_cv(mean: f64, cv: f64) -> Self {
        let sigma2 = libm::log(1.0 + cv * cv);
        Dist::LogNormal { mu: libm::log(mean) - sigma2 / 2.0, sigma: sigma2.sqrt() }
    }

    /// The mean, ns; infinite for a Pareto distribution with `alpha` of 1 or less.
    pub fn mean(&self) -> f64 {
        match self {
            Dist::Constant(v) => *v as f64,
            Dist::Uniform { low, high } => (*low as f64 + *high as f64) / 2.0,
            Dist::Exponential { mean } => *mean,
            Dist::LogNormal { mu, sigma } => libm::exp(mu + sigma * sigma / 2.0),
            Dist::Pareto { min, alpha } if *alpha > 1.0 => min * alpha / (alpha - 1.0),
            Dist::Pareto { .. } => f64::INFINITY,
            Dist::Empirical(steps) => {
                let mut before = 0.0;
                steps.iter().fold(0.0, |sum, &(share, value)| {
                    let weight = share - before;
                    before = share;
                    sum + weight * value as f64
                })
            }
        }
    }

    /// The squared coefficient of variation, variance over squared mean.
    pub fn scv(&self) -> f64 {
        match self {
            Dist::Constant(_) => 0.0,
            Dist::Uniform { low, high } => {
                let width = *high as f64 - *low as f64;
                let mean = self.mean();
                if mean == 0.0 { 0.0 } else { width * width / 12.0 / (mean * mean) }
            }
            Dist::Exponential { .. } => 1.0,
            Dist::LogNormal { sigma, .. } => libm::expm1(sigma * sigma),
            Dist::Pareto { alpha, .. } if *alpha > 2.0 => 1.0 / (alpha * (alpha - 2.0)),
            Dist::Pareto { .. } => f64::INFINITY,
            Dist::Empirical(steps) => {
                let mean = self.mean();
                let mut before = 0.0;
                let second = steps.iter().fold(0.0, |sum, &(share, value)| {
                    let weight = share - before;
                    before = share;
                    sum + weight * (value as f64) * (value as f64)
                });
                if mean == 0.0 { 0.0 } else { second / (mean * mean) - 1.0 }
            }
        }
    }
}

/// Which key a request is about.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyDist {
    /// `uniform(100k)`
    Uniform {
        /// Number of keys.
        keys: u32,
    },
    /// `{ zipf: 0.99, of: 100k }`: the k-th most popular key has weight `1 / k^exponent`.
    Zipf {
        /// Skew; 0 is uniform.
        exponent: f64,
        /// Number of keys.
        keys: u32,
    },
    /// `{ hot: 10%, of: 100k }`: one key takes this share of the requests, the rest is uniform.
    Hot {
        /// Share of the hot key, 0 to 1.
        share: f64,
        /// Number of keys, the hot one included.
        keys: u32,
    },
}

impl KeyDist {
    /// How many keys there are.
    pub fn keys(&self) -> u32 {
        match self {
            KeyDist::Uniform { keys } | KeyDist::Zipf { keys, .. } | KeyDist::Hot { keys, .. } => *keys,
        }
    }
}
