//! Quantities as people write them: `20k`, `300/s`, `2KiB`, `99.9%`, `$0.04/h`, `100ms..2s`.
//!
//! Every scalar type is one [`Scalar`]: its name and example for messages, its pattern for the
//! schema, its parser. Percentages are shifted as decimals, so `99.9%` is the number nearest to
//! 0.999.

mod parse;
mod scalars;

pub(crate) use parse::{call, duration, number, share};
pub(crate) use scalars::*;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::file::table::{Json, Scalar};

    fn read(scalar: &Scalar, text: &str) -> Result<Quantity, String> {
        (scalar.parse)(text).map_err(|wrong| wrong.why)
    }

    #[test]
    fn reads_what_people_write() {
        let ok = |scalar: &Scalar, text: &str, expected: Quantity| {
            assert_eq!(read(scalar, text), Ok(expected), "{text}");
        };
        ok(&COUNT, "20k", Quantity::Count(20_000));
        ok(&COUNT, "1.1k", Quantity::Count(1_100));
        ok(&COUNT, "4294967295", Quantity::Count(u64::from(u32::MAX)));
        ok(&COUNT_OR_ZERO, "0", Quantity::Count(0));
        ok(&NUMBER_OR_ZERO, "0.99", Quantity::Number(0.99));
        ok(&DURATION, "0.3ms", Quantity::Duration(300_000));
        ok(&DURATION, "1.5s", Quantity::Duration(1_500_000_000));
        ok(&DURATION, "10min", Quantity::Duration(600_000_000_000));
        ok(&DURATION, "7d", Quantity::Duration(604_800_000_000_000));
        ok(&DURATION, "5µs", Quantity::Duration(5_000));
        ok(&DURATION_OR_ZERO, "0", Quantity::Duration(0));
        ok(&OFFSET, "-3s", Quantity::Offset(-3_000_000_000));
        ok(&OFFSET, "+3s", Quantity::Offset(3_000_000_000));
        ok(&FACTOR, "2.5x", Quantity::Factor(2.5));
        ok(&RATE, "300/s", Quantity::Rate(300.0));
        ok(&RATE, "6k/min", Quantity::Rate(100.0));
        ok(&QUOTA, "100/min", Quantity::Quota(100, 60_000_000_000));
        ok(&BYTES, "2KiB", Quantity::Bytes(2_048));
        ok(&BYTES, "1.5MB", Quantity::Bytes(1_500_000));
        ok(&BANDWIDTH, "1MiB/s", Quantity::Bandwidth(1_048_576.0));
        ok(&PRICE_HOUR, "$0.0405/h", Quantity::Dollars(0.0405));
        ok(&BETWEEN, "100ms..2s", Quantity::Between(100_000_000, 2_000_000_000));
        ok(&BETWEEN, "1s", Quantity::Between(1_000_000_000, 1_000_000_000));
        ok(&SPREAD, "60s ± 10%", Quantity::Spread(60_000_000_000, 0.1));
        ok(&SPREAD, "60s+-10%", Quantity::Spread(60_000_000_000, 0.1));
        ok(&LOAD, "100/s..600/s", Quantity::Load(Load::Ramp(100.0, 600.0)));
        ok(&ROUNDS, "geometric(8)", Quantity::Rounds(Count::Geometric(8.0)));
        ok(&KEYS, "uniform(100k)", Quantity::Keys(KeyDist::Uniform { keys: 100_000 }));
    }

    #[test]
    fn percentages_are_shifted_as_decimals() {
        for (text, share) in [("99.9%", 0.999), ("99.99%", 0.9999), ("0.1%", 0.001), ("29%", 0.29), ("100%", 1.0)] {
            assert_eq!(read(&SHARE, text), Ok(Quantity::Share(share)), "{text}");
        }
        assert_eq!(read(&SHARE, "100.1%"), Err("it is above 100%".to_owned()));
    }

    #[test]
    fn refuses_what_is_ambiguous_or_out_of_bounds() {
        for (scalar, text) in [
            (&COUNT, "0"),
            (&COUNT, "1.5"),
            (&COUNT, "5G"),
            (&COUNT, "1e3"),
            (&COUNT, "٣"),
            (&COUNT, ".5k"),
            (&COUNT, "5."),
            (&DURATION, "1h30min"),
            (&DURATION, "5"),
            (&DURATION, "37000d"),
            (&RATE, "2000000k/ms"),
            (&RATE, "/s"),
            (&QUOTA, "0.5/s"),
            (&BYTES, "2K"),
            (&PRICE_HOUR, "$1/month"),
            (&PRICE_HOUR, "1/h"),
            (&BETWEEN, "2s..1s"),
            (&ROUNDS, "geometric(0.5)"),
            (&ROUNDS, "5..2"),
            (&NAME, "a b"),
            (&NAME, "all"),
            (&NAME, "-a"),
            (&NAME, ""),
            (&CLASS, "256"),
            (&TARGET, "100%"),
        ] {
            assert!(read(scalar, text).is_err(), "{text}: {:?}", read(scalar, text));
        }
    }

    static ALL: [&Scalar; 41] = [
        &TEXT,
        &NAME,
        &FLAG,
        &COUNT,
        &COUNT_OR_ZERO,
        &CLASS,
        &NUMBER_POSITIVE,
        &NUMBER_OR_ZERO,
        &DURATION,
        &DURATION_OR_ZERO,
        &OFFSET,
        &SHARE,
        &SHARE_POSITIVE,
        &TARGET,
        &PERCENT,
        &FACTOR,
        &SLOWDOWN,
        &RATE,
        &RATE_OR_ZERO,
        &QUOTA,
        &BYTES,
        &BANDWIDTH,
        &PRICE_HOUR,
        &PRICE_GB_HOUR,
        &PRICE_GB_MONTH,
        &PRICE_MILLION,
        &PRICE_MONTH,
        &BETWEEN,
        &SPREAD,
        &DIST,
        &KEYS,
        &ROUNDS,
        &LOAD,
        &ADDRESS,
        &SOCKET,
        &NETWORK_ADDRESS,
        &FIELD_NAME,
        &STATUS,
        &crate::file::arrivals::ARRIVALS,
        &crate::file::objective::INDICATOR,
        &crate::file::expectation::EXPECTATION,
    ];

    /// The schema may let pass what the parser refuses, never the reverse.
    fn fits(scalar: &Scalar, text: &str) -> bool {
        let number = matches!(scalar.json, Json::NumberOr | Json::StringOrNumber) && text.parse::<f64>().is_ok();
        scalar.pattern.is_empty() || number || regex_lite::Regex::new(scalar.pattern).unwrap().is_match(text)
    }

    #[test]
    fn examples_are_read_and_fit_the_schema() {
        for scalar in ALL {
            for example in scalar.example.split('`').step_by(2).filter(|example| !example.starts_with(['{', '['])) {
                if example.contains("users: ") || scalar.json == Json::Boolean {
                    continue;
                }
                assert!(read(scalar, example).is_ok(), "{}: {example}: {:?}", scalar.what, read(scalar, example));
                assert!(fits(scalar, example), "{}: {example}", scalar.what);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_fits_the_schema(
            // The last one, an expectation, is read where its names are known.
            which in 0..ALL.len() - 1,
            text in "[0-9]{1,4}(\\.[0-9]{1,3})?(ns|us|µs|ms|s|min|m|h|d|w|%|x|k|M|/s|/min|/h|B|KiB|MB|/)?(\\.\\.[0-9]{1,3}(ms|s|/s)?| ?(±|\\+-) ?[0-9]{1,2}%)?",
        ) {
            if read(ALL[which], &text).is_ok() {
                prop_assert!(fits(ALL[which], &text), "{}: {text}", ALL[which].what);
            }
        }

        #[test]
        fn no_text_panics(which in 0..ALL.len(), text in "\\PC{0,20}") {
            let _ = read(ALL[which], &text);
        }
    }
}
