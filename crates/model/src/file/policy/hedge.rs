//! `hedge: { percentile: 95%, max_extra: 1, budget: 5% }`

use plimsoll_policy::Hedge;
use plimsoll_policy::hedge::Config;

use super::{SHADOW, mode, refused, retry_budget};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, DURATION, SHARE_POSITIVE};
use crate::file::table::{Kind, Object, none, value};

pub(crate) static HEDGE: Object = Object {
    name: "hedge",
    doc: "Hedging: where an answer takes longer than usual, the same request is sent once more and the first answer \
          counts. Only idempotent requests are hedged.",
    groups: &[
        &[
            value(
                "percentile",
                Kind::Scalar(&SHARE_POSITIVE),
                "95%",
                "Dean and Barroso, The Tail at Scale",
                "Percentile of the observed latencies at which the extra attempt is sent, from 50%.",
            ),
            value(
                "min_samples",
                Kind::Scalar(&COUNT),
                "100",
                "fewer have no 95th percentile to speak of",
                "Latencies to have seen before the first extra attempt.",
            ),
            value(
                "min_delay",
                Kind::Scalar(&DURATION),
                "1ms",
                "Finagle, BackupRequestFilter",
                "The shortest wait before it.",
            ),
            value(
                "max_extra",
                Kind::Scalar(&COUNT),
                "1",
                "The Tail at Scale: one is enough",
                "Extra attempts for one try, at most 10.",
            ),
            none(
                "budget",
                Kind::Short(&retry_budget::BUDGET, "share"),
                "that of `retry`, if there is one",
                "What hedges and retries may cost together, where `retry` does not say it.",
            ),
        ],
        SHADOW,
    ],
};

pub(crate) fn hedge(filled: &Filled, report: &mut Report) -> Config {
    let config = Config {
        percentile: filled.get("percentile").number(),
        min_samples: filled.get("min_samples").count(),
        min_delay: filled.get("min_delay").duration(),
        max_extra: filled.get("max_extra").count(),
        mode: mode(filled),
    };
    refused(Hedge::new(config), filled, &[], report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &HEDGE, hedge).unwrap(), Config::default());
    }

    #[test]
    fn speaks_the_files_words() {
        let problem = decode("{ percentile: 20% }", &HEDGE, hedge).unwrap_err();
        assert_eq!(problem, ":1:15: percentile: expected `percentile` to be at least 0.5, below 1, found `20%`");
    }
}
