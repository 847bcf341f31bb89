//! Metrics' values as people read them.

use crate::system::{Bound, Metric, Subject};

/// What a metric's value is measured in.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Unit {
    Share,
    Time,
    PerSecond,
    Number,
}

impl Unit {
    /// The unit of a metric.
    pub fn of(metric: &Metric) -> Self {
        match metric {
            Metric::Percentile(..) | Metric::Mean(_) | Metric::Gap(_) => Unit::Time,
            Metric::Goodput(_) => Unit::PerSecond,
            Metric::Errors(_)
            | Metric::Success(_)
            | Metric::Share(..)
            | Metric::Utilization(_)
            | Metric::Rejected(_)
            | Metric::StaleReads(_)
            | Metric::Hits(_)
            | Metric::Degraded(_) => Unit::Share,
            _ => Unit::Number,
        }
    }

    /// The metrics that a result has of everybody who asks somebody, by the figure's name, with what makes the figure of
    /// the metric's value.
    pub fn audience(who: Subject) -> [(&'static str, Metric, f64); 8] {
        [
            ("goodput_per_s", Metric::Goodput(who), 1.0),
            ("errors", Metric::Errors(who), 1.0),
            ("latency_ms_mean", Metric::Mean(who), 1e-6),
            ("latency_ms_p50", Metric::Percentile(50.0, who), 1e-6),
            ("latency_ms_p95", Metric::Percentile(95.0, who), 1e-6),
            ("latency_ms_p99", Metric::Percentile(99.0, who), 1e-6),
            ("latency_ms_p999", Metric::Percentile(99.9, who), 1e-6),
            ("latency_ms_max", Metric::Percentile(100.0, who), 1e-6),
        ]
    }

    /// The value as verdicts hold it: shares from 0 to 1, durations in ms, rates a second.
    pub fn plain(self, value: f64) -> f64 {
        if self == Unit::Time { value / 1e6 } else { value }
    }

    /// The value as people read it.
    pub fn words(self, value: f64) -> String {
        if !value.is_finite() {
            return "nothing measured".to_owned();
        }
        match self {
            Unit::Share => format!("{}%", digits(value * 100.0)),
            Unit::Time if value >= 1e9 => format!("{} s", digits(value / 1e9)),
            Unit::Time => format!("{} ms", digits(value / 1e6)),
            Unit::PerSecond => format!("{}/s", digits(value)),
            Unit::Number => digits(value),
        }
    }
}

/// Three significant digits, without an exponent.
fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = libm::floor(libm::log10(value.abs())) as i32;
    let decimals = (2 - magnitude).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What a value must be, in words.
pub fn bound_words(bound: Bound, unit: Unit) -> String {
    match bound {
        Bound::Below(limit) => format!("below {}", unit.words(limit)),
        Bound::AtMost(limit) => format!("at most {}", unit.words(limit)),
        Bound::Above(limit) => format!("above {}", unit.words(limit)),
        Bound::AtLeast(limit) => format!("at least {}", unit.words(limit)),
        Bound::Equal(limit) => unit.words(limit),
        Bound::Between(low, high) => format!("between {} and {}", unit.words(low), unit.words(high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        let cases = [(0.0, "0"), (0.04, "0.04"), (123.456, "123"), (9.876, "9.88"), (100.0, "100"), (0.5, "0.5")];
        for (value, expect) in cases {
            assert_eq!(digits(value), expect);
        }
        assert_eq!(Unit::Time.words(1.5e9), "1.5 s");
    }
}
