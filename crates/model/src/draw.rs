//! Chance: numbers drawn by what they are for. Both worlds draw from here, so that one seed brings the same.

use std::sync::Arc;

use crate::system::{Count, Dist, KeyDist};
use plimsoll_policy::unit;

/// Mixes 64 bits so that every input bit reaches every output bit (the finalizer of SplitMix64,
/// Steele, Lea and Flood, OOPSLA 2014, with Stafford's constants, variant 13).
#[inline(always)]
pub const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A key for draws, from which keys of parts are derived. What is drawn depends on what is asked
/// for, never on what was drawn before: two variants of a system see the same arrivals and service
/// times even where retries shift the order of events (common random numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(
    /// The key itself.
    pub u64,
);

impl Draw {
    /// The key of one replication.
    pub fn root(seed: u64, replication: u32) -> Self {
        Draw(mix(seed ^ mix(replication as u64 ^ 0x5052_4c4c)))
    }

    /// The key of a named part.
    pub fn named(self, name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for byte in name.bytes() {
            hash = (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.part(hash)
    }

    /// The key of a numbered part.
    #[inline(always)]
    pub const fn part(self, number: u64) -> Self {
        Draw(mix(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)))
    }

    /// 64 random bits for a numbered purpose.
    #[inline(always)]
    pub const fn bits(self, purpose: u64) -> u64 {
        self.part(purpose).0
    }

    /// A number in `[0, 1)` for a numbered purpose.
    #[inline(always)]
    pub const fn unit(self, purpose: u64) -> f64 {
        unit(self.bits(purpose))
    }

    /// Whether something of this probability happens.
    #[inline(always)]
    pub fn happens(self, purpose: u64, probability: f64) -> bool {
        probability > 0.0 && self.unit(purpose) < probability
    }
}

/// An exponentially distributed number with mean one, by inversion of the random number that these
/// bits stand for.
///
/// The logarithm is the dearest part of a draw, and this one needs no division: with one minus it as
/// `2^e x m` and `c` the middle of the 128th of `[1, 2)` that `m` lies in, `ln` is `e ln 2 + ln c +
/// ln(m / c)`, the last by its series, whose first term left out is below 2^-59 (P. T. P. Tang,
/// Table-driven implementation of the logarithm function, ACM TOMS 16, 1990). By
/// additions and multiplications alone: the same bits on every platform.
#[inline]
pub fn exponential(bits: u64) -> f64 {
    // One minus `unit`, times 2^53: a whole number, and sooner there than by subtraction.
    let left = (1i64 << 53) - (bits >> 11) as i64;
    let bits = (left as f64).to_bits();
    let exponent = (bits >> 52) as i32 - (1023 + 53);
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let (inverse, log) = LOGARITHMS[(bits >> 45 & 127) as usize];
    let r = mantissa * inverse - 1.0;
    let square = r * r;
    let series = r - square * (0.5 - r * (1.0 / 3.0)) - square * square * (0.25 - r * 0.2 + square * (1.0 / 6.0));
    (-(exponent as f64 * std::f64::consts::LN_2 + log + series)).max(0.0)
}

/// For each 128th of `[1, 2)`: a number close to one over its middle, and minus its logarithm.
const LOGARITHMS: [(f64, f64); 128] = {
    let mut table = [(0.0, 0.0); 128];
    let mut i = 0;
    while i < 128 {
        let inverse = 1.0 / (1.0 + (i as f64 + 0.5) / 128.0);
        // ln x = 2 artanh((x - 1) / (x + 1)); at x between 1/2 and 1 forty terms are enough.
        let t = (inverse - 1.0) / (inverse + 1.0);
        let (mut power, mut sum, mut k) = (t, 0.0, 0);
        while k < 40 {
            sum += power / (2 * k + 1) as f64;
            power *= t * t;
            k += 1;
        }
        table[i] = (inverse, -2.0 * sum);
        i += 1;
    }
    table
};

/// A duration, ns.
#[inline]
pub fn duration(dist: &Dist, bits: u64) -> u64 {
    match dist {
        Dist::Constant(value) => *value,
        Dist::Exponential { mean } => (mean * exponential(bits)) as u64,
        Dist::LogNormal { mu, sigma } => libm::exp(mu + sigma * normal(unit(bits))) as u64,
        Dist::Uniform { low, high } => low + ((high - low + 1) as f64 * unit(bits)) as u64,
        Dist::Pareto { min, alpha } => (min * libm::pow(1.0 - unit(bits), -1.0 / alpha)) as u64,
        Dist::Empirical(steps) => {
            let u = unit(bits);
            let at = steps.partition_point(|&(share, _)| share <= u);
            steps[at.min(steps.len() - 1)].1
        }
    }
}

/// How many rounds.
pub fn count(count: &Count, bits: u64) -> u32 {
    match *count {
        Count::Constant(n) => n,
        Count::Uniform(low, high) => low + ((high - low + 1) as f64 * unit(bits)) as u32,
        Count::Geometric(mean) if mean > 1.0 => 1 + (libm::log(1.0 - unit(bits)) / libm::log(1.0 - 1.0 / mean)) as u32,
        Count::Geometric(_) => 1,
    }
}

/// The standard normal quantile (Wichura, algorithm AS 241, PPND16: relative error about 1e-16).
#[inline]
pub fn normal(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180625 - q * q;
        return q * horner(
            r,
            &[
                2.509_080_928_730_122_7e3,
                3.343_057_558_358_813e4,
                6.726_577_092_700_87e4,
                4.592_195_393_154_987e4,
                1.373_169_376_550_946e4,
                1.971_590_950_306_551_3e3,
                1.331_416_678_917_843_8e2,
                3.387_132_872_796_366_5,
            ],
        ) / horner(
            r,
            &[
                5.226_495_278_852_854e3,
                2.872_908_573_572_194_3e4,
                3.930_789_580_009_271e4,
                2.121_379_430_158_659_7e4,
                5.394_196_021_424_751e3,
                6.871_870_074_920_579e2,
                4.231_333_070_160_091e1,
                1.0,
            ],
        );
    }
    let tail = if q < 0.0 { p } else { 1.0 - p }.max(f64::MIN_POSITIVE);
    let r = (-libm::log(tail)).sqrt();
    let value = if r <= 5.0 {
        let r = r - 1.6;
        horner(
            r,
            &[
                7.745_450_142_783_414e-4,
                2.272_384_498_926_918_4e-2,
                2.417_807_251_774_506e-1,
                1.270_458_252_452_368_4,
                3.647_848_324_763_204_5,
                5.769_497_221_460_691,
                4.630_337_846_156_546,
                1.423_437_110_749_683_5,
            ],
        ) / horner(
            r,
            &[
                1.050_750_071_644_416_9e-9,
                5.475_938_084_995_345e-4,
                1.519_866_656_361_645_7e-2,
                1.481_039_764_274_800_8e-1,
                6.897_673_349_851e-1,
                1.676_384_830_183_803_8,
                2.053_191_626_637_759,
                1.0,
            ],
        )
    } else {
        let r = r - 5.0;
        horner(
            r,
            &[
                2.010_334_399_292_288_1e-7,
                2.711_555_568_743_487_6e-5,
                1.242_660_947_388_078_4e-3,
                2.653_218_952_657_612_4e-2,
                2.965_605_718_285_048_7e-1,
                1.784_826_539_917_291_3,
                5.463_784_911_164_114,
                6.657_904_643_501_103,
            ],
        ) / horner(
            r,
            &[
                2.044_263_103_389_939_8e-15,
                1.421_511_758_316_446e-7,
                1.846_318_317_510_054_8e-5,
                7.868_691_311_456_133e-4,
                1.487_536_129_085_061_5e-2,
                1.369_298_809_227_358e-1,
                5.998_322_065_558_88e-1,
                1.0,
            ],
        )
    };
    if q < 0.0 { -value } else { value }
}

#[inline(always)]
fn horner<const N: usize>(x: f64, coefficients: &[f64; N]) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// Draws keys in constant time.
#[derive(Clone)]
pub enum KeySampler {
    /// Every key as often as any other.
    Uniform {
        /// How many.
        keys: u32,
    },
    /// One hot key, the rest uniform.
    Hot {
        /// Share of the hot key, 0 to 1.
        share: f64,
        /// How many keys there are, the hot one included.
        keys: u32,
    },
    /// An alias table (Walker 1977, Vose 1991): (threshold in 2^32, alias).
    Alias(Arc<[(u32, u32)]>),
}

impl KeySampler {
    /// A sampler of this distribution.
    pub fn new(dist: &KeyDist) -> Self {
        match *dist {
            KeyDist::Uniform { keys } => KeySampler::Uniform { keys },
            KeyDist::Hot { share, keys } => KeySampler::Hot { share, keys },
            KeyDist::Zipf { exponent, keys } => {
                let weights: Vec<f64> = (1..=keys).map(|k| libm::pow(k as f64, -exponent)).collect();
                KeySampler::Alias(alias_table(&weights))
            }
        }
    }

    /// The key that these 64 random bits draw.
    #[inline]
    pub fn sample(&self, bits: u64) -> u32 {
        match self {
            KeySampler::Uniform { keys } => scale(bits, *keys),
            KeySampler::Hot { share, keys } => {
                if unit(bits) < *share || *keys == 1 {
                    0
                } else {
                    1 + scale(mix(bits), keys - 1)
                }
            }
            KeySampler::Alias(table) => pick_alias(table, bits),
        }
    }
}

/// An alias table for these weights.
pub fn alias_table(weights: &[f64]) -> Arc<[(u32, u32)]> {
    let n = weights.len();
    let total: f64 = weights.iter().sum();
    let mut scaled: Vec<f64> = weights.iter().map(|w| w * n as f64 / total).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| scaled[i] < 1.0);
    let mut table = vec![(u32::MAX, 0u32); n];
    for (i, entry) in table.iter_mut().enumerate() {
        entry.1 = i as u32;
    }
    while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
        small.pop();
        table[s] = ((scaled[s] * 4_294_967_296.0) as u32, l as u32);
        scaled[l] -= 1.0 - scaled[s];
        if scaled[l] < 1.0 {
            large.pop();
            small.push(l);
        }
    }
    table.into()
}

/// Draws from an alias table.
#[inline]
pub fn pick_alias(table: &[(u32, u32)], bits: u64) -> u32 {
    let slot = scale(bits, table.len() as u32);
    let (threshold, alias) = table[slot as usize];
    // Which of the two it is, nobody can foretell, and a wrong guess would wait for the table.
    std::hint::select_unpredictable((bits as u32) < threshold, slot, alias)
}

/// Maps the high 32 bits to `0..n`.
#[inline(always)]
pub fn scale(bits: u64, n: u32) -> u32 {
    (((bits >> 32) * n as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_mean_and_scv(dist: &Dist) -> (f64, f64) {
        let n = 400_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..n {
            let v = duration(dist, Draw::root(7, 0).bits(i)) as f64;
            sum += v;
            squares += v * v;
        }
        let mean = sum / n as f64;
        (mean, squares / n as f64 / (mean * mean) - 1.0)
    }

    #[test]
    fn the_exponential_is_minus_a_logarithm() {
        let edges = [0, 1 << 11, 1 << 63, (1 << 63) + (1 << 11), u64::MAX - (1 << 11), u64::MAX];
        let draws = (0..200_000).map(|i| Draw::root(1, 0).bits(i));
        for bits in edges.into_iter().chain(draws) {
            let (got, truth) = (exponential(bits), -libm::log(1.0 - unit(bits)));
            assert!((got - truth).abs() <= 4.0 * f64::EPSILON * truth.max(0.5), "{bits}: {got} for {truth}");
        }
    }

    #[test]
    fn samples_have_the_stated_moments() {
        for dist in [
            Dist::Constant(5_000_000),
            Dist::Uniform { low: 1_000_000, high: 3_000_000 },
            Dist::Exponential { mean: 5e6 },
            Dist::lognormal_mean_cv(5e6, 0.5),
            Dist::lognormal_through(4e6, 12e6),
            Dist::Pareto { min: 1e6, alpha: 5.0 },
            Dist::Empirical([(0.25, 1_000_000), (1.0, 3_000_000)].into()),
        ] {
            let (mean, scv) = sample_mean_and_scv(&dist);
            let error = 5.0 * (dist.scv() / 400_000.0).sqrt() + 1e-6;
            assert!((mean / dist.mean() - 1.0).abs() < error, "{dist:?}: {mean} for {}", dist.mean());
            assert!((scv - dist.scv()).abs() < 0.05 * (1.0 + dist.scv()), "{dist:?}: {scv}");
        }
    }

    #[test]
    fn the_normal_quantile_is_right() {
        assert!((normal(0.99) - Dist::Z99).abs() < 1e-12);
        assert!((normal(0.025) + 1.959_963_984_540_054).abs() < 1e-12);
        assert!((normal(1e-12) + 7.034_483_825_301_131).abs() < 1e-9);
        assert_eq!(normal(0.5), 0.0);
    }

    #[test]
    fn popular_keys_are_popular() {
        let keys = KeySampler::new(&KeyDist::Zipf { exponent: 1.0, keys: 1000 });
        let n = 200_000u64;
        let mut counts = vec![0u32; 1000];
        for i in 0..n {
            counts[keys.sample(Draw::root(3, 1).bits(i)) as usize] += 1;
        }
        let harmonic: f64 = (1..=1000).map(|k| 1.0 / k as f64).sum();
        for k in [1usize, 2, 10] {
            let expected = n as f64 / (k as f64 * harmonic);
            assert!((counts[k - 1] as f64 - expected).abs() < 5.0 * expected.sqrt());
        }
        let hot = KeySampler::new(&KeyDist::Hot { share: 0.3, keys: 10 });
        let hits = (0..n).filter(|&i| hot.sample(Draw::root(4, 0).bits(i)) == 0).count();
        assert!((hits as f64 / n as f64 - 0.3).abs() < 0.01);
    }
}
