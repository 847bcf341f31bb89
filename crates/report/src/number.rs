//! Numbers as people read them: two or three significant digits, thousands separated, a unit.

/// What stands in for a value that is not a number.
pub(crate) const NONE: &str = "n/a";

/// `value` to this many significant digits, with thousands separated and no trailing zeros.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if let Some(text) = not_finite(value) {
        return text;
    }
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{:.*e}", digits.saturating_sub(1), value);
    let (_, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    if exponent >= 15 {
        return scientific;
    }
    let rounded: f64 = scientific.parse().expect("it was just written");
    let decimals = (digits as i32 - 1 - exponent).clamp(0, 9) as usize;
    grouped(&trimmed(format!("{rounded:.decimals$}")))
}

/// A rate: `2,910/s`.
pub(crate) fn rate(per_s: f64) -> String {
    if per_s.is_nan() { NONE.into() } else { format!("{}/s", significant(per_s, 3)) }
}

/// A share of 0 to 1 as a percentage. Close to all, it keeps two digits of what is missing, so
/// that 99.95% does not read as 100%.
pub(crate) fn percent(share: f64) -> String {
    if let Some(text) = not_finite(share) {
        return text;
    }
    if share > 0.99 && share < 1.0 {
        let missing = format!("{:.1e}", (1.0 - share) * 100.0);
        let exponent: i32 = missing.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
        let decimals = (1 - exponent).clamp(0, 6) as usize;
        return format!("{}%", trimmed(format!("{:.decimals$}", share * 100.0)));
    }
    format!("{}%", significant(share * 100.0, if share < 0.1 { 2 } else { 3 }))
}

/// A duration given in ms: `0.42 ms`, `132 ms`, `1.32 s`, `3 min`.
pub(crate) fn millis(ms: f64) -> String {
    if let Some(text) = not_finite(ms) {
        return text;
    }
    let magnitude = ms.abs();
    if magnitude < 999.5 {
        format!("{} ms", significant(ms, 3))
    } else if magnitude < 120_000.0 {
        format!("{} s", significant(ms / 1e3, 3))
    } else if magnitude < 3_600_000.0 {
        format!("{} min", significant(ms / 60e3, 3))
    } else {
        format!("{} h", significant(ms / 3_600e3, 3))
    }
}

/// A duration given in ns.
pub(crate) fn nanos(ns: u64) -> String {
    millis(ns as f64 / 1e6)
}

/// How many times something: `9.7x`.
pub(crate) fn times(factor: f64) -> String {
    if factor.is_nan() { NONE.into() } else { format!("{}x", significant(factor, 2)) }
}

/// An amount in US$: `$1,240`, `$0.42`.
pub(crate) fn usd(amount: f64) -> String {
    match not_finite(amount) {
        Some(text) => text,
        None if amount.abs() < 9.995 => format!("${amount:.2}"),
        None => format!("${}", significant(amount, 3)),
    }
}

/// A whole number with thousands separated.
pub(crate) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// `numerator / denominator`; not a number where that means nothing.
pub(crate) fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator > 0.0 { numerator / denominator } else { f64::NAN }
}

fn not_finite(value: f64) -> Option<String> {
    if value.is_nan() {
        Some(NONE.into())
    } else if value.is_infinite() {
        Some(if value > 0.0 { "inf" } else { "-inf" }.into())
    } else {
        None
    }
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

fn grouped(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(w, f)| (w, Some(f)));
    let mut out = String::from(sign);
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        let cases = [
            (significant(2914.3, 3), "2,910"),
            (significant(12_345_678.0, 3), "12,300,000"),
            (significant(0.9996, 3), "1"),
            (significant(-0.04567, 2), "-0.046"),
            (significant(1e20, 3), "1.00e20"),
            (significant(f64::NAN, 3), "n/a"),
            (rate(299.96), "300/s"),
            (percent(0.0004), "0.04%"),
            (percent(0.99953), "99.953%"),
            (percent(0.99), "99%"),
            (percent(1.0), "100%"),
            (percent(0.785), "78.5%"),
            (millis(0.4213), "0.421 ms"),
            (millis(999.7), "1 s"),
            (millis(1320.0), "1.32 s"),
            (millis(180_000.0), "3 min"),
            (times(9.713), "9.7x"),
            (times(12.4), "12x"),
            (usd(0.421), "$0.42"),
            (usd(1243.0), "$1,240"),
            (count(1_234_567), "1,234,567"),
            (millis(f64::INFINITY), "inf"),
        ];
        for (got, wanted) in cases {
            assert_eq!(got, wanted);
        }
    }
}
