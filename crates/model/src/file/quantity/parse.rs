//! The grammar of quantities.

use super::{Quantity, Wrong};
use crate::file::tree::shorten;
use crate::system::Dist;

pub(crate) type Parsed<T = Quantity> = Result<T, Wrong>;

pub(crate) fn wrong<T>(why: impl Into<String>) -> Parsed<T> {
    Err(Wrong { why: why.into(), help: None })
}

pub(crate) fn wrong_but<T>(why: impl Into<String>, help: impl Into<String>) -> Parsed<T> {
    Err(Wrong { why: why.into(), help: Some(help.into()) })
}

/// The longest duration: nanoseconds in 64 bits hold 584 years, sums of a few stay well inside.
pub(crate) const DURATION_NS_MAX: f64 = 36_500.0 * 86_400e9;

/// Checks a name.
pub(crate) fn name(text: &str) -> Parsed<()> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match text.chars().find(|&c| !word(c)) {
        Some(c) => wrong(format!("`{}` is not allowed in a name", c.escape_debug())),
        None if text.is_empty() => wrong("it is empty"),
        None if text.starts_with('-') => wrong("a name does not start with `-`"),
        None if text.len() > 100 => wrong("it is longer than 100 characters"),
        None if matches!(text, "all" | "none") => wrong("the word has a meaning of its own"),
        None => Ok(()),
    }
}

/// `f(x)` as `f` and `x`.
pub(crate) fn call(text: &str) -> Option<(&str, &str)> {
    let (function, rest) = text.split_once('(')?;
    Some((function.trim_end(), rest.strip_suffix(')')?.trim()))
}

/// The leading number of a text and what follows it.
pub(crate) fn leading(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    // `1..3` is a range and not a number.
    let end = text[..end].find("..").unwrap_or(end);
    let digits = &text[..end];
    let plain = digits.len() <= 30
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.matches('.').count() <= 1;
    plain.then(|| digits.parse().ok().map(|number| (number, &text[end..])))?
}

pub(crate) fn not_a_number<T>(text: &str) -> Parsed<T> {
    match text {
        _ if text.starts_with('-') => wrong("it must not be negative"),
        _ if text.contains(',') => wrong("a number has a point and no commas"),
        _ if text.contains('_') && text.replace('_', "").parse::<f64>().is_ok() => {
            wrong_but("a number has no `_`", format!("write `{}`", text.replace('_', "")))
        }
        _ => wrong("it does not start with a number"),
    }
}

pub(crate) fn number(text: &str) -> Parsed<f64> {
    match leading(text) {
        Some((number, "")) => Ok(number),
        Some((_, unit)) => wrong(format!("a number without a unit is needed, not `{}`", unit.escape_debug())),
        None => not_a_number(text),
    }
}

pub(crate) fn scaled(text: &str) -> Parsed<f64> {
    let Some((number, unit)) = leading(text) else { return not_a_number(text) };
    let scale = match unit {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "K" => return wrong_but("thousands are `k`", format!("write `{}k`", &text[..text.len() - 1])),
        "m" => return wrong_but("millions are `M`", format!("write `{}M`", &text[..text.len() - 1])),
        _ => return wrong(format!("a number without a unit is needed, not `{}`", unit.escape_debug())),
    };
    // Decimal fractions such as 1.1k are whole after scaling, but for the last binary digit.
    let exact = number * scale;
    let whole = exact.round();
    Ok(if (exact - whole).abs() <= whole * 1e-12 { whole } else { exact })
}

pub(crate) fn count(text: &str) -> Parsed<u64> {
    let number = scaled(text)?;
    if number.fract() != 0.0 {
        return wrong("it is not whole");
    }
    if number > f64::from(u32::MAX) {
        return wrong("it is above 4,294,967,295");
    }
    Ok(number as u64)
}

pub(crate) fn count32(text: &str) -> Parsed<u32> {
    count(text.trim()).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

/// Nanoseconds.
pub(crate) fn duration(text: &str) -> Parsed<u64> {
    let Some((number, unit)) = leading(text) else { return not_a_number(text) };
    let scale = match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        "d" => 86_400e9,
        "w" => 604_800e9,
        "" if text == "0" => 0.0,
        "" => return wrong_but("the unit is missing", format!("`{text}s` are seconds, `{text}ms` milliseconds")),
        " s" | " ms" | " us" | " min" | " h" | " d" => {
            return wrong_but("there is a space before the unit", format!("write `{}`", text.replace(' ', "")));
        }
        "sec" | "secs" | "second" | "seconds" | "S" => return wrong_but("seconds are `s`", replaced(text, unit, "s")),
        "msec" | "millis" | "MS" => return wrong_but("milliseconds are `ms`", replaced(text, unit, "ms")),
        "mins" | "minute" | "minutes" | "M" => return wrong_but("minutes are `min`", replaced(text, unit, "min")),
        _ => {
            return wrong(format!("`{}` is not a unit of time: ns, us, ms, s, min, h, d or w", shorten(unit)));
        }
    };
    let ns = (number * scale).round();
    if ns > DURATION_NS_MAX {
        return wrong("it is longer than 100 years");
    }
    if ns == 0.0 && number != 0.0 {
        return wrong("it is shorter than a nanosecond");
    }
    Ok(ns as u64)
}

pub(crate) fn replaced(text: &str, unit: &str, by: &str) -> String {
    format!("write `{}{by}`", &text[..text.len() - unit.len()])
}

pub(crate) fn percent(text: &str) -> Parsed<f64> {
    match leading(text) {
        Some((_, "%")) => {}
        Some((_, "")) => return wrong_but("the sign `%` is missing", format!("write `{text}%`")),
        Some((_, " %")) => {
            return wrong_but("there is a space before `%`", format!("write `{}`", text.replace(' ', "")));
        }
        Some((_, unit)) => return wrong(format!("a percentage ends in `%`, not in `{}`", shorten(unit))),
        None => return not_a_number(text),
    }
    // The decimal is shifted as text: 99.9 / 100 would be off by the last binary digit.
    match format!("{}e-2", &text[..text.len() - 1]).parse::<f64>() {
        Ok(share) => Ok(share),
        Err(_) => not_a_number(text),
    }
}

pub(crate) fn share(text: &str) -> Parsed<f64> {
    match percent(text)? {
        share if share > 1.0 => wrong("it is above 100%"),
        share => Ok(share),
    }
}

pub(crate) fn factor(text: &str) -> Parsed<f64> {
    match leading(text) {
        Some((0.0, "x")) => wrong("it must be above 0"),
        Some((factor, "x")) => Ok(factor),
        Some((_, "")) => wrong_but("the `x` is missing", format!("write `{text}x`")),
        Some(_) => wrong("a factor ends in `x`"),
        None => not_a_number(text),
    }
}

pub(crate) fn split_rate(text: &str) -> Parsed<(&str, u64)> {
    let Some((amount, unit)) = text.split_once('/') else {
        return match leading(text) {
            Some((_, "")) => wrong_but("the unit is missing", format!("`{text}/s` is by the second")),
            _ => wrong("it has no `/`, as in `/s`"),
        };
    };
    let period = match unit.trim() {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return wrong(format!("`/{}` is not a unit: /s, /min, /h or /d", shorten(unit))),
    };
    Ok((amount.trim_end(), period))
}

pub(crate) fn rate_or_zero(text: &str) -> Parsed<f64> {
    let (amount, period) = split_rate(text)?;
    let rate = scaled(amount)? / (period as f64 / 1e9);
    if rate > 1e9 { wrong("it is above a billion a second") } else { Ok(rate) }
}

pub(crate) fn rate(text: &str) -> Parsed<f64> {
    match rate_or_zero(text)? {
        0.0 => wrong("it must be above 0"),
        rate => Ok(rate),
    }
}

pub(crate) fn bytes(text: &str) -> Parsed<u64> {
    let Some((number, unit)) = leading(text) else { return not_a_number(text) };
    let scale = match unit {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        "" => return wrong_but("the unit is missing", format!("`{text}B` are bytes, `{text}KiB` 1024 of them")),
        _ => {
            return wrong(format!(
                "`{}` is not a unit of size: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB",
                shorten(unit)
            ));
        }
    };
    let bytes = (number * scale).round();
    if bytes > 1e18 { wrong("it is above 10^18 bytes") } else { Ok(bytes as u64) }
}

pub(crate) fn price(text: &str, unit: &str) -> Parsed {
    let Some(rest) = text.strip_prefix('$') else { return wrong("it does not start with `$`") };
    match leading(rest) {
        Some((dollars, per)) if per.strip_prefix('/') == Some(unit) => Ok(Quantity::Dollars(dollars)),
        Some(_) => wrong(format!("it does not end in `/{unit}`")),
        None => not_a_number(rest),
    }
}

/// `60s ± 10%` or `60s`.
pub(crate) fn spread(text: &str) -> Parsed<(u64, f64)> {
    match text.split_once('±').or_else(|| text.split_once("+-")) {
        Some((base, spread)) => Ok((duration(base.trim())?, share(spread.trim())?)),
        None => Ok((duration(text)?, 0.0)),
    }
}

pub(crate) fn dist(text: &str) -> Parsed {
    if let Some((function, argument)) = call(text) {
        return match function {
            "exp" => match duration(argument)? {
                0 => wrong("the mean must be above 0"),
                mean => Ok(Quantity::Dist(Dist::Exponential { mean: mean as f64 })),
            },
            "histogram" if !argument.is_empty() => Ok(Quantity::Histogram(argument.to_owned())),
            "histogram" => wrong("the file's name is missing"),
            other => wrong(format!("`{}` is not a distribution: exp or histogram", shorten(other))),
        };
    }
    if let Some((low, high)) = text.split_once("..") {
        let (low, high) = (duration(low.trim())?, duration(high.trim())?);
        return match low.cmp(&high) {
            std::cmp::Ordering::Less => Ok(Quantity::Dist(Dist::Uniform { low, high })),
            std::cmp::Ordering::Equal => Ok(Quantity::Dist(Dist::Constant(low))),
            std::cmp::Ordering::Greater => wrong("the first is longer than the second"),
        };
    }
    let (base, spread) = spread(text)?;
    if spread == 0.0 {
        return Ok(Quantity::Dist(Dist::Constant(base)));
    }
    let width = (base as f64 * spread).round() as u64;
    Ok(Quantity::Dist(Dist::Uniform { low: base - width.min(base), high: base + width }))
}
