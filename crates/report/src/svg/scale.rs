/// From values to a length, linear or logarithmic, with ticks at round values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) log: bool,
}

impl Scale {
    /// From zero to a little above `high`, ending at a tick.
    pub(crate) fn from_zero(high: f64) -> Self {
        let high = if high.is_finite() && high > 0.0 { high.min(1e15) } else { 1.0 };
        let step = round_step(high / 3.0);
        Scale { low: 0.0, high: (high / step).ceil() * step, log: false }
    }

    /// Logarithmic over whole decades, or halves of them, around the two.
    pub(crate) fn decades(low: f64, high: f64) -> Self {
        let low = if low.is_finite() && low > 0.0 { low.max(1e-9) } else { 1.0 };
        let high = if high.is_finite() && high > low { high.min(1e15) } else { low * 10.0 };
        Scale { low: power10(libm::floor(libm::log10(low))), high: power10(libm::ceil(libm::log10(high))), log: true }
    }

    /// Logarithmic from `low` to `high`, as far as they are positive and of this world.
    pub(crate) fn logarithmic(low: f64, high: f64) -> Self {
        let low = if low.is_nan() { 1.0 } else { low.clamp(1e-9, 1e15) };
        let high = if high.is_nan() { low * 10.0 } else { high.clamp(low * 1.001, 1e16) };
        Scale { low, high, log: true }
    }

    /// Where `value` lies between the ends, 0 to 1; values outside are moved to the ends.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let share = if self.log {
            libm::log10((value / self.low).max(1e-12)) / libm::log10(self.high / self.low)
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Round values between the ends.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.log { self.log_ticks() } else { self.linear_ticks() }
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let step = round_step((self.high - self.low) / 3.0);
        let mut ticks = Vec::new();
        let mut tick = (self.low / step).ceil();
        while tick * step <= self.high * (1.0 + 1e-9) && ticks.len() < 12 {
            ticks.push(tick * step);
            tick += 1.0;
        }
        ticks
    }

    /// 1, 2 and 5 in each decade, or as many of them as do not crowd.
    fn log_ticks(&self) -> Vec<f64> {
        let decades = libm::log10(self.high / self.low);
        let within: &[f64] = match decades {
            d if d <= 1.5 => &[1.0, 2.0, 3.0, 5.0],
            d if d <= 2.6 => &[1.0, 2.0, 5.0],
            d if d <= 4.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let skip = if decades > 8.0 { 2 } else { 1 };
        let first = libm::floor(libm::log10(self.low)) as i32;
        let last = libm::ceil(libm::log10(self.high)) as i32;
        (first..=last)
            .step_by(skip)
            .flat_map(|decade| within.iter().map(move |digit| digit * power10(f64::from(decade))))
            .filter(|tick| *tick >= self.low * (1.0 - 1e-9) && *tick <= self.high * (1.0 + 1e-9))
            .collect()
    }
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = power10(libm::floor(libm::log10(step.max(1e-12))));
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|s| *s >= step * 0.999_999)
        .unwrap_or(power * 10.0)
}

/// Steps on a time axis of this many seconds: at most seven, at values that clocks have.
pub(crate) fn time_step(seconds: f64) -> f64 {
    const STEPS: [f64; 17] =
        [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0];
    STEPS.into_iter().find(|step| seconds / step <= 7.0).unwrap_or_else(|| round_step(seconds / 7.0))
}

fn power10(exponent: f64) -> f64 {
    libm::pow(10.0, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_scales_end_at_a_tick() {
        let scale = Scale::from_zero(2914.0);
        assert_eq!((scale.high, scale.ticks()), (3000.0, vec![0.0, 1000.0, 2000.0, 3000.0]));
        assert_eq!(scale.share(1500.0), 0.5);
        assert_eq!(Scale::from_zero(f64::NAN).high, 1.0);
    }

    #[test]
    fn logarithmic_scales_have_round_ticks() {
        let scale = Scale::decades(3.0, 800.0);
        assert_eq!((scale.low, scale.high), (1.0, 1000.0));
        assert!((scale.share(31.622_776_6) - 0.5).abs() < 1e-6);
        let ticks: Vec<f64> = Scale::logarithmic(90.0, 600.0).ticks().iter().map(|t| t.round()).collect();
        assert_eq!(ticks, [100.0, 200.0, 300.0, 500.0]);
    }

    #[test]
    fn odd_values_stay_on_the_scale() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
            for scale in [
                Scale::from_zero(10.0),
                Scale::decades(1.0, 10.0),
                Scale::decades(f64::NAN, f64::INFINITY),
                Scale::logarithmic(1e-300, f64::INFINITY),
            ] {
                assert!((0.0..=1.0).contains(&scale.share(value)));
                assert!(scale.ticks().len() < 40);
            }
        }
    }

    #[test]
    fn time_axes_have_few_ticks() {
        assert_eq!(time_step(120.0), 20.0);
        assert_eq!(time_step(3600.0), 600.0);
        assert_eq!(time_step(1e6), 200_000.0);
    }
}
