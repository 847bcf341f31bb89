//! `budget: 10%`, within `retry` or `hedge`

use plimsoll_policy::retry_budget::{Config, Rule};
use plimsoll_policy::{RetryBudget, Time};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{DURATION, PERCENT, RATE_OR_ZERO};
use crate::file::table::{Kind, Object, value};

const FINAGLE: &str = "Finagle's and Linkerd's retry budget";

pub(crate) static BUDGET: Object = Object {
    name: "budget",
    doc: "What retries and hedges may cost together: a share of the calls, and a few a second on top. The share \
          alone may stand in place of the mapping.",
    groups: &[
        &[
            value(
                "share",
                Kind::Scalar(&PERCENT),
                "20%",
                FINAGLE,
                "Extra attempts as a share of the calls in the window.",
            ),
            value(
                "min_per_second",
                Kind::Scalar(&RATE_OR_ZERO),
                "10/s",
                FINAGLE,
                "Extra attempts that need no calls, so that a quiet caller may retry at all.",
            ),
            value("window", Kind::Scalar(&DURATION), "10s", FINAGLE, "How long a call counts."),
        ],
        SHADOW,
    ],
};

pub(crate) fn budget(filled: &Filled, report: &mut Report) -> Config {
    let rule = Rule::Share {
        ratio: filled.get("share").number(),
        min_per_second: filled.get("min_per_second").number(),
        window: filled.get("window").duration(),
    };
    let config = Config { rule, mode: mode(filled) };
    refused(RetryBudget::new(config, Time::ZERO), filled, &[("ratio", "share")], report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &BUDGET, budget).unwrap(), Config::default());
    }
}
