//! `retry: { attempts: 3, backoff: 100ms..2s, jitter: full, when: [503], budget: 10% }`

use plimsoll_policy::retry::{Backoff, Config, Jitter};
use plimsoll_policy::{Retry, Time};

use super::{SHADOW, mode, refused, retry_budget};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{BETWEEN, COUNT, DURATION, DURATION_OR_ZERO, NUMBER_POSITIVE};
use crate::file::table::{Kind, Object, none, value};
use crate::system::RetryWhen;

const AWS: &str = "AWS SDKs, standard mode";

pub(crate) static RETRY: Object = Object {
    name: "retry",
    doc: "Further attempts after a failure: of idempotent requests, and of those with an idempotency key. \
          What a policy of the caller itself turned away is not tried again.",
    groups: &[
        &[
            value("attempts", Kind::Scalar(&COUNT), "3", AWS, "Attempts in all, the first included; at most 100."),
            value(
                "backoff",
                Kind::Scalar(&BETWEEN),
                "50ms..20s",
                AWS,
                "The wait before the second attempt, and the longest wait, jitter included.",
            ),
            value(
                "multiplier",
                Kind::Scalar(&NUMBER_POSITIVE),
                "2",
                "exponential backoff doubles",
                "Growth of the wait from one attempt to the next, from 1 to 100.",
            ),
            value(
                "throttled",
                Kind::Scalar(&DURATION),
                "1s",
                AWS,
                "The first wait after a 429, in place of the first of `backoff`.",
            ),
            value(
                "jitter",
                Kind::Words(&[
                    ("none", "the whole wait: those who failed together return together"),
                    ("full", "uniform from nothing to the whole wait"),
                    ("equal", "half the wait, and uniform in the other half"),
                    ("decorrelated", "uniform from the first wait to three times the one before"),
                ]),
                "full",
                "the fewest calls in AWS's \"Exponential Backoff And Jitter\"",
                "How waits are spread.",
            ),
            value(
                "retry_after_slack",
                Kind::Scalar(&DURATION_OR_ZERO),
                "5s",
                AWS,
                "How much longer than its own wait the caller heeds `Retry-After`.",
            ),
            value(
                "when",
                Kind::List(&Kind::Words(WHEN)),
                "[connect_error, reset, timeout, 503]",
                "Envoy's retry_on: connect-failure, reset, gateway-error",
                "Results that are worth another attempt.",
            ),
            none(
                "budget",
                Kind::Short(&retry_budget::BUDGET, "share"),
                "few client libraries have one; Finagle and Linkerd have 20%",
                "What retries and hedges may cost together. Without one they are limited a call, not in all: \
                 then retries multiply an overload.",
            ),
        ],
        SHADOW,
    ],
};

const WHEN: &[(&str, &str)] = &[
    ("connect_error", "the connection was refused or could not be made: nothing was sent"),
    ("reset", "the connection broke"),
    ("timeout", "no answer in time"),
    ("429", "too many requests"),
    ("500", "internal error"),
    ("503", "unavailable: a full queue, a shed request, a draining instance"),
];

pub(crate) fn retry(filled: &Filled, report: &mut Report) -> Config {
    let (base, cap) = filled.get("backoff").between();
    let backoff = Backoff {
        base: std::time::Duration::from_nanos(base),
        throttled_base: filled.get("throttled").duration(),
        multiplier: filled.get("multiplier").number(),
        cap: std::time::Duration::from_nanos(cap),
        jitter: match filled.get("jitter").text() {
            "none" => Jitter::None,
            "equal" => Jitter::Equal,
            "decorrelated" => Jitter::Decorrelated,
            _ => Jitter::Full,
        },
        retry_after_slack: filled.get("retry_after_slack").duration(),
    };
    let config = Config { attempts: filled.get("attempts").count(), backoff, mode: mode(filled) };
    refused(Retry::new(config, Time::ZERO), filled, &[("backoff.base", "backoff"), ("backoff.cap", "backoff")], report);
    config
}

pub(crate) fn when(filled: &Filled) -> RetryWhen {
    let has = |word: &str| filled.list().iter().any(|item| item.text() == word);
    RetryWhen {
        connect_error: has("connect_error"),
        reset: has("reset"),
        timeout: has("timeout"),
        too_many_requests: has("429"),
        internal_error: has("500"),
        unavailable: has("503"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &RETRY, retry).unwrap(), Config::default());
    }

    #[test]
    fn refuses_what_the_policy_refuses() {
        let problem = decode("{ attempts: 101 }", &RETRY, retry).unwrap_err();
        assert_eq!(problem, ":1:13: attempts: expected `attempts` to be from 1 to 100, found `101`");
    }
}
