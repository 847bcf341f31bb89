//! Quantities as people write them: `20k`, `300/s`, `2KiB`, `99.9%`, `$0.04/h`, `100ms..2s`.
//!
//! Every scalar type is one [`Scalar`]: its name and example for messages, its pattern for the
//! schema, its parser. Percentages are shifted as decimals, so `99.9%` is the number nearest to
//! 0.999.

use super::table::{Json, Scalar};
use crate::system::{Count, Dist, KeyDist, Load};

/// A scalar's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Quantity {
    /// The text is the value.
    Text,
    Flag(bool),
    Count(u64),
    Number(f64),
    /// Nanoseconds.
    Duration(u64),
    /// Nanoseconds, perhaps negative.
    Offset(i64),
    /// From 0 to 1.
    Share(f64),
    Factor(f64),
    /// A second.
    Rate(f64),
    /// So many in so many nanoseconds.
    Quota(u64, u64),
    Bytes(u64),
    /// Bytes a second.
    Bandwidth(f64),
    Dollars(f64),
    /// From one duration to another, ns.
    Between(u64, u64),
    /// A duration in ns, and the share by which it is spread to either side.
    Spread(u64, f64),
    Dist(Dist),
    /// A recorded distribution in a file.
    Histogram(String),
    Keys(KeyDist),
    Rounds(Count),
    Load(Load),
}

/// Why a text is not a quantity, and what was perhaps meant.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) why: String,
    pub(crate) help: Option<String>,
}

type Parsed<T = Quantity> = Result<T, Wrong>;

fn wrong<T>(why: impl Into<String>) -> Parsed<T> {
    Err(Wrong { why: why.into(), help: None })
}

fn wrong_but<T>(why: impl Into<String>, help: impl Into<String>) -> Parsed<T> {
    Err(Wrong { why: why.into(), help: Some(help.into()) })
}

/// The longest duration: nanoseconds in 64 bits hold 584 years, sums of a few stay well inside.
const DURATION_NS_MAX: f64 = 36_500.0 * 86_400e9;

/// Regular expressions for the schema are assembled here, so that one change reaches all.
macro_rules! pattern {
    (number) => { r"[0-9]+(\.[0-9]+)?" };
    (duration) => { r"(0|[0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|min|m|h|d|w))" };
    (percent) => { r"[0-9]+(\.[0-9]+)?%" };
    (rate) => { r"[0-9]+(\.[0-9]+)?[kMG]?/(ms|s|min|m|h|d)" };
    (count) => { r"[0-9]+(\.[0-9]+)?[kMG]?" };
    (bytes) => { r"[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)" };
}

pub(crate) static TEXT: Scalar = Scalar {
    what: "text",
    example: "Team Notes",
    pattern: "",
    json: Json::Any,
    parse: |text| if text.trim().is_empty() { wrong("it is empty") } else { Ok(Quantity::Text) },
};

pub(crate) static NAME: Scalar = Scalar {
    what: "a name of letters, digits, `-` and `_`",
    example: "db",
    pattern: r"^[A-Za-z0-9_][A-Za-z0-9_-]*$",
    json: Json::StringOrNumber,
    parse: |text| name(text).map(|()| Quantity::Text),
};

pub(crate) static FLAG: Scalar = Scalar {
    what: "`true` or `false`",
    example: "true",
    pattern: "",
    json: Json::Boolean,
    parse: |text| match text {
        "true" | "True" | "TRUE" => Ok(Quantity::Flag(true)),
        "false" | "False" | "FALSE" => Ok(Quantity::Flag(false)),
        "yes" | "on" => wrong_but("YAML 1.2 has only two of these", "write `true`"),
        "no" | "off" => wrong_but("YAML 1.2 has only two of these", "write `false`"),
        _ => wrong("it is neither"),
    },
};

/// From 1.
pub(crate) static COUNT: Scalar = Scalar {
    what: "a whole number from 1",
    example: "3",
    pattern: concat!(r"^", pattern!(count), "$"),
    json: Json::NumberOr,
    parse: |text| match count(text)? {
        0 => wrong("it must be at least 1"),
        n => Ok(Quantity::Count(n)),
    },
};

/// From 0.
pub(crate) static COUNT_OR_ZERO: Scalar = Scalar {
    what: "a whole number from 0",
    example: "0",
    pattern: concat!("^", pattern!(count), "$"),
    json: Json::NumberOr,
    parse: |text| count(text).map(Quantity::Count),
};

/// A priority class, 0 to 255.
pub(crate) static CLASS: Scalar = Scalar {
    what: "a priority class from 0 (the most important) to 255",
    example: "0",
    pattern: r"^[0-9]{1,3}$",
    json: Json::NumberOr,
    parse: |text| match count(text)? {
        n @ 0..=255 => Ok(Quantity::Count(n)),
        _ => wrong("it is above 255"),
    },
};

pub(crate) static NUMBER_POSITIVE: Scalar = Scalar {
    what: "a number above 0",
    example: "1.5",
    pattern: concat!(r"^", pattern!(number), "$"),
    json: Json::NumberOr,
    parse: |text| match number(text)? {
        0.0 => wrong("it must be above 0"),
        n => Ok(Quantity::Number(n)),
    },
};

pub(crate) static NUMBER_OR_ZERO: Scalar = Scalar {
    what: "a number from 0",
    example: "0.99",
    pattern: concat!("^", pattern!(number), "$"),
    json: Json::NumberOr,
    parse: |text| number(text).map(Quantity::Number),
};

pub(crate) static DURATION: Scalar = Scalar {
    what: "a duration above 0",
    example: "5s",
    pattern: concat!(r"^", pattern!(duration), "$"),
    json: Json::String,
    parse: |text| match duration(text)? {
        0 => wrong("it must be above 0"),
        ns => Ok(Quantity::Duration(ns)),
    },
};

pub(crate) static DURATION_OR_ZERO: Scalar = Scalar {
    what: "a duration",
    example: "5s",
    pattern: concat!("^", pattern!(duration), "$"),
    json: Json::NumberOr,
    parse: |text| duration(text).map(Quantity::Duration),
};

pub(crate) static OFFSET: Scalar = Scalar {
    what: "a duration, perhaps negative",
    example: "-3s",
    pattern: concat!("^[+-]?", pattern!(duration), "$"),
    json: Json::NumberOr,
    parse: |text| {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        Ok(Quantity::Offset(sign * duration(rest)? as i64))
    },
};

pub(crate) static SHARE: Scalar = Scalar {
    what: "a percentage from 0% to 100%",
    example: "10%",
    pattern: concat!("^", pattern!(percent), "$"),
    json: Json::String,
    parse: |text| share(text).map(Quantity::Share),
};

pub(crate) static SHARE_POSITIVE: Scalar = Scalar {
    what: "a percentage above 0%, up to 100%",
    example: "10%",
    pattern: concat!("^", pattern!(percent), "$"),
    json: Json::String,
    parse: |text| match share(text)? {
        0.0 => wrong("it must be above 0%"),
        share => Ok(Quantity::Share(share)),
    },
};

/// 100% itself leaves no room: targets of objectives.
pub(crate) static TARGET: Scalar = Scalar {
    what: "a percentage above 0% and below 100%",
    example: "99.9%",
    pattern: concat!("^", pattern!(percent), "$"),
    json: Json::String,
    parse: |text| match share(text)? {
        0.0 => wrong("it must be above 0%"),
        1.0 => wrong("100% leaves no error budget, and no system meets it"),
        share => Ok(Quantity::Share(share)),
    },
};

/// Such as the retry budget, which may exceed the requests themselves.
pub(crate) static PERCENT: Scalar = Scalar {
    what: "a percentage",
    example: "20%",
    pattern: concat!("^", pattern!(percent), "$"),
    json: Json::String,
    parse: |text| percent(text).map(Quantity::Share),
};

pub(crate) static FACTOR: Scalar = Scalar {
    what: "a factor above 0",
    example: "5x",
    pattern: concat!("^", pattern!(number), "x$"),
    json: Json::String,
    parse: |text| factor(text).map(Quantity::Factor),
};

/// `5x`, or `+500ms` on top.
pub(crate) static SLOWDOWN: Scalar = Scalar {
    what: "a factor or an added delay",
    example: "5x` or `+500ms",
    pattern: concat!("^(", pattern!(number), r"x|\+.+)$"),
    json: Json::String,
    parse: |text| match text.strip_prefix('+') {
        Some(delay) => dist(delay.trim_start()),
        None if text.ends_with('x') => factor(text).map(Quantity::Factor),
        None if dist(text).is_ok() => wrong_but("the sign is missing", format!("an added delay is written `+{text}`")),
        None => wrong("it is neither"),
    },
};

pub(crate) static RATE: Scalar = Scalar {
    what: "a rate above 0",
    example: "300/s",
    pattern: concat!(r"^", pattern!(rate), "$"),
    json: Json::String,
    parse: |text| rate(text).map(Quantity::Rate),
};

pub(crate) static RATE_OR_ZERO: Scalar = Scalar {
    what: "a rate",
    example: "10/s",
    pattern: concat!("^", pattern!(rate), "$"),
    json: Json::String,
    parse: |text| rate_or_zero(text).map(Quantity::Rate),
};

pub(crate) static QUOTA: Scalar = Scalar {
    what: "a quota",
    example: "100/min",
    pattern: concat!(r"^", pattern!(rate), "$"),
    json: Json::String,
    parse: |text| {
        let (amount, period) = split_rate(text)?;
        match count(amount)? {
            0 => wrong("it must be above 0"),
            amount => Ok(Quantity::Quota(amount, period)),
        }
    },
};

pub(crate) static BYTES: Scalar = Scalar {
    what: "a size",
    example: "2KiB",
    pattern: concat!("^", pattern!(bytes), "$"),
    json: Json::String,
    parse: |text| bytes(text).map(Quantity::Bytes),
};

pub(crate) static BANDWIDTH: Scalar = Scalar {
    what: "a bandwidth above 0",
    example: "1MiB/s",
    pattern: concat!("^", pattern!(bytes), "/s$"),
    json: Json::String,
    parse: |text| match text.strip_suffix("/s") {
        Some(amount) => match bytes(amount)? {
            0 => wrong("it must be above 0"),
            bytes => Ok(Quantity::Bandwidth(bytes as f64)),
        },
        None => wrong("the unit `/s` is missing"),
    },
};

/// One scalar a unit, so that a price by the wrong unit is refused.
macro_rules! price {
    ($name:ident, $unit:literal) => {
        pub(crate) static $name: Scalar = Scalar {
            what: concat!("a price in US$ `/", $unit, "`"),
            example: concat!("$0.04/", $unit),
            pattern: concat!(r"^\$", pattern!(number), "/", $unit, "$"),
            json: Json::String,
            parse: |text| price(text, $unit),
        };
    };
}
price!(PRICE_HOUR, "h");
price!(PRICE_GB_HOUR, "GB-h");
price!(PRICE_GB_MONTH, "GB-month");
price!(PRICE_MILLION, "million");
price!(PRICE_MONTH, "month");

/// `100ms..2s`
pub(crate) static BETWEEN: Scalar = Scalar {
    what: "a duration, or a first and a longest one",
    example: "100ms..2s",
    pattern: concat!(r"^", pattern!(duration), r"(\.\.", pattern!(duration), ")?$"),
    json: Json::String,
    parse: |text| match text.split_once("..") {
        Some((low, high)) => {
            let (low, high) = (duration(low.trim())?, duration(high.trim())?);
            if low > high { wrong("the first is longer than the second") } else { Ok(Quantity::Between(low, high)) }
        }
        None => duration(text).map(|ns| Quantity::Between(ns, ns)),
    },
};

/// `60s ± 10%`
pub(crate) static SPREAD: Scalar = Scalar {
    what: "a duration above 0, perhaps spread",
    example: "60s ± 10%",
    pattern: concat!(r"^", pattern!(duration), r"( ?(±|\+-) ?", pattern!(percent), ")?$"),
    json: Json::String,
    parse: |text| {
        let (base, spread) = spread(text)?;
        if base == 0 { wrong("it must be above 0") } else { Ok(Quantity::Spread(base, spread)) }
    },
};

/// The one-line forms of a distribution.
pub(crate) static DIST: Scalar = Scalar {
    what: "a duration or a distribution of durations",
    example: "5ms`, `1ms..3ms`, `exp(5ms)`, `60s ± 10%` or `{ p50: 4ms, p99: 40ms }",
    pattern: concat!(
        "^(",
        pattern!(duration),
        r"(\.\.",
        pattern!(duration),
        r"| ?(±|\+-) ?",
        pattern!(percent),
        r")?|exp\(",
        pattern!(duration),
        r"\)|histogram\([^()]+\))$"
    ),
    json: Json::NumberOr,
    parse: dist,
};

/// The one-line form of a distribution of keys.
pub(crate) static KEYS: Scalar = Scalar {
    what: "a distribution of keys",
    example: "uniform(100k)`, `{ zipf: 0.99, of: 100k }` or `{ hot: 10%, of: 100k }",
    pattern: concat!(r"^uniform\(", pattern!(count), r"\)$"),
    json: Json::String,
    parse: |text| match call(text) {
        Some(("uniform", keys)) => match count32(keys)? {
            0 => wrong("there must be at least 1 key"),
            keys => Ok(Quantity::Keys(KeyDist::Uniform { keys })),
        },
        _ => wrong("it is none of these"),
    },
};

/// How many rounds a `for_each` makes.
pub(crate) static ROUNDS: Scalar = Scalar {
    what: "a number of rounds",
    example: "20`, `5..50` or `geometric(8)",
    pattern: concat!(r"^([0-9]+(\.\.[0-9]+)?|geometric\(", pattern!(number), r"\))$"),
    json: Json::NumberOr,
    parse: |text| match (call(text), text.split_once("..")) {
        (Some(("geometric", mean)), _) => match number(mean)? {
            mean if mean >= 1.0 => Ok(Quantity::Rounds(Count::Geometric(mean))),
            _ => wrong("the mean must be at least 1"),
        },
        (_, Some((low, high))) => {
            let (low, high) = (count32(low)?, count32(high)?);
            if low > high { wrong("the first is above the second") } else { Ok(Quantity::Rounds(Count::Uniform(low, high))) }
        }
        _ => count32(text).map(|n| Quantity::Rounds(Count::Constant(n))),
    },
};

/// A client's load in an experiment, but for steps.
pub(crate) static LOAD: Scalar = Scalar {
    what: "a load",
    example: "300/s`, `100/s..600/s`, `[100/s, 200/s]` or `users: 500",
    pattern: concat!("^", pattern!(rate), r"(\.\.", pattern!(rate), ")?$"),
    json: Json::String,
    parse: |text| match text.split_once("..") {
        Some((from, to)) => Ok(Quantity::Load(Load::Ramp(rate_or_zero(from.trim())?, rate(to.trim())?))),
        None => Ok(Quantity::Load(Load::Rate(rate(text)?))),
    },
};

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
fn leading(text: &str) -> Option<(f64, &str)> {
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

fn not_a_number<T>(text: &str) -> Parsed<T> {
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

fn scaled(text: &str) -> Parsed<f64> {
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

fn count32(text: &str) -> Parsed<u32> {
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
        "" if number == 0.0 => 0.0,
        "" => return wrong_but("the unit is missing", format!("`{text}s` are seconds, `{text}ms` milliseconds")),
        " s" | " ms" | " us" | " min" | " h" | " d" => {
            return wrong_but("there is a space before the unit", format!("write `{}`", text.replace(' ', "")));
        }
        "sec" | "secs" | "second" | "seconds" | "S" => return wrong_but("seconds are `s`", replaced(text, unit, "s")),
        "msec" | "millis" | "MS" => return wrong_but("milliseconds are `ms`", replaced(text, unit, "ms")),
        "mins" | "minute" | "minutes" | "M" => return wrong_but("minutes are `min`", replaced(text, unit, "min")),
        _ => {
            return wrong(format!(
                "`{}` is not a unit of time: ns, us, ms, s, min, h, d or w",
                super::tree::shorten(unit)
            ));
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

fn replaced(text: &str, unit: &str, by: &str) -> String {
    format!("write `{}{by}`", &text[..text.len() - unit.len()])
}

fn percent(text: &str) -> Parsed<f64> {
    match leading(text) {
        Some((_, "%")) => {}
        Some((_, "")) => return wrong_but("the sign `%` is missing", format!("write `{text}%`")),
        Some((_, " %")) => return wrong_but("there is a space before `%`", format!("write `{}`", text.replace(' ', ""))),
        Some((_, unit)) => return wrong(format!("a percentage ends in `%`, not in `{}`", super::tree::shorten(unit))),
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

fn factor(text: &str) -> Parsed<f64> {
    match leading(text) {
        Some((0.0, "x")) => wrong("it must be above 0"),
        Some((factor, "x")) => Ok(factor),
        Some((_, "")) => wrong_but("the `x` is missing", format!("write `{text}x`")),
        Some(_) => wrong("a factor ends in `x`"),
        None => not_a_number(text),
    }
}

fn split_rate(text: &str) -> Parsed<(&str, u64)> {
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
        _ => return wrong(format!("`/{}` is not a unit: /s, /min, /h or /d", super::tree::shorten(unit))),
    };
    Ok((amount.trim_end(), period))
}

fn rate_or_zero(text: &str) -> Parsed<f64> {
    let (amount, period) = split_rate(text)?;
    let rate = scaled(amount)? / (period as f64 / 1e9);
    if rate > 1e9 { wrong("it is above a billion a second") } else { Ok(rate) }
}

fn rate(text: &str) -> Parsed<f64> {
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
        _ => return wrong(format!("`{}` is not a unit of size: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB", super::tree::shorten(unit))),
    };
    let bytes = (number * scale).round();
    if bytes > 1e18 { wrong("it is above 10^18 bytes") } else { Ok(bytes as u64) }
}

fn price(text: &str, unit: &str) -> Parsed {
    let Some(rest) = text.strip_prefix('$') else { return wrong("it does not start with `$`") };
    match leading(rest) {
        Some((dollars, per)) if per.strip_prefix('/') == Some(unit) => Ok(Quantity::Dollars(dollars)),
        Some(_) => wrong(format!("it does not end in `/{unit}`")),
        None => not_a_number(rest),
    }
}

/// `60s ± 10%` or `60s`.
fn spread(text: &str) -> Parsed<(u64, f64)> {
    match text.split_once('±').or_else(|| text.split_once("+-")) {
        Some((base, spread)) => Ok((duration(base.trim())?, share(spread.trim())?)),
        None => Ok((duration(text)?, 0.0)),
    }
}

fn dist(text: &str) -> Parsed {
    if let Some((function, argument)) = call(text) {
        return match function {
            "exp" => match duration(argument)? {
                0 => wrong("the mean must be above 0"),
                mean => Ok(Quantity::Dist(Dist::Exponential { mean: mean as f64 })),
            },
            "histogram" if !argument.is_empty() => Ok(Quantity::Histogram(argument.to_owned())),
            "histogram" => wrong("the file's name is missing"),
            other => wrong(format!("`{}` is not a distribution: exp or histogram", super::tree::shorten(other))),
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
