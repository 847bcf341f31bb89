//! The scalar types of the tables.

use super::Quantity;
use super::parse::*;
use crate::file::table::{Json, Scalar};
use crate::system::{Count, KeyDist, Load};

/// Regular expressions for the schema are assembled here, so that one change reaches all.
macro_rules! pattern {
    (number) => {
        r"[0-9]+(\.[0-9]+)?"
    };
    (duration) => {
        r"(0|[0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|min|m|h|d|w))"
    };
    (percent) => {
        r"[0-9]+(\.[0-9]+)?%"
    };
    (rate) => {
        r"[0-9]+(\.[0-9]+)?[kMG]?/(ms|s|min|m|h|d)"
    };
    (count) => {
        r"[0-9]+(\.[0-9]+)?[kMG]?"
    };
    (bytes) => {
        r"[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)"
    };
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
    parse: |text| match text.parse::<u8>() {
        Ok(class) if text.len() <= 3 && !text.starts_with('+') => Ok(Quantity::Count(u64::from(class))),
        _ => wrong("it is no whole number up to 255"),
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
    json: Json::NumberOr,
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
    pattern: concat!("^(", pattern!(count), r"(\.\.", pattern!(count), r")?|geometric\(", pattern!(number), r"\))$"),
    json: Json::NumberOr,
    parse: |text| match (call(text), text.split_once("..")) {
        (Some(("geometric", mean)), _) => match number(mean)? {
            mean if mean >= 1.0 => Ok(Quantity::Rounds(Count::Geometric(mean))),
            _ => wrong("the mean must be at least 1"),
        },
        (_, Some((low, high))) => {
            let (low, high) = (count32(low)?, count32(high)?);
            if low > high {
                wrong("the first is above the second")
            } else {
                Ok(Quantity::Rounds(Count::Uniform(low, high)))
            }
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

/// `host:port`.
pub(crate) static ADDRESS: Scalar = Scalar {
    what: "a host and a port",
    example: "10.0.0.7:8080",
    pattern: r"^\S+:[0-9]{1,5}$",
    json: Json::String,
    parse: |text| match text.rsplit_once(':') {
        _ if text.contains(char::is_whitespace) => wrong("it has a space in it"),
        Some((_, port)) if !is_port(port) => wrong("the port is no number from 1 to 65535"),
        Some((host, _)) if !is_host(host) => wrong("the host is neither a name nor an address"),
        Some(_) => Ok(Quantity::Text),
        None => wrong_but("the port is missing", format!("write `{text}:80`")),
    },
};

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    }
}

/// An IP address and a port.
pub(crate) static SOCKET: Scalar = Scalar {
    what: "an IP address and a port",
    example: "0.0.0.0:8080",
    pattern: r"^\S+:[0-9]{1,5}$",
    json: Json::String,
    parse: |text| match text.parse::<std::net::SocketAddr>() {
        Ok(_) => Ok(Quantity::Text),
        Err(_) if text.starts_with(':') => {
            wrong_but("the address is missing", format!("write `0.0.0.0{text}` for all of them"))
        }
        Err(_) => wrong("a name is no IP address"),
    },
};

/// An IP network.
pub(crate) static NETWORK_ADDRESS: Scalar = Scalar {
    what: "a network",
    example: "10.0.0.0/8",
    pattern: r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$",
    json: Json::String,
    parse: |text| match crate::file::serving::network(text) {
        Some(_) => Ok(Quantity::Text),
        None => wrong("it is neither an address nor an address with its leading bits"),
    },
};

/// A header field's name.
pub(crate) static FIELD_NAME: Scalar = Scalar {
    what: "a header field's name",
    example: "X-User-Id",
    pattern: r"^[A-Za-z0-9-]+$",
    json: Json::StringOrNumber,
    parse: |text| {
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if fits && !text.is_empty() {
            Ok(Quantity::Text)
        } else {
            wrong("it has other marks than letters, digits and `-`")
        }
    },
};

/// An HTTP status of a final answer.
pub(crate) static STATUS: Scalar = Scalar {
    what: "a status from 200 to 599",
    example: "200",
    pattern: r"^[2-5][0-9][0-9]$",
    json: Json::NumberOr,
    parse: |text| match text.parse::<u16>() {
        Ok(200..=599) if text.len() == 3 => Ok(Quantity::Text),
        _ => wrong("it is not such a number"),
    },
};
