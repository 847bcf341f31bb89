//! `limit: { algorithm: gradient, min: 20, max: 200 }`

use plimsoll_policy::adaptive_limit::{Algorithm, Config, QueueWhen};
use plimsoll_policy::{AdaptiveLimit, Time};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, DURATION, NUMBER_POSITIVE, SHARE_POSITIVE};
use crate::file::table::{Kind, Object, value};

const NETFLIX: &str = "Netflix concurrency-limits";

pub(crate) static LIMIT: Object = Object {
    name: "limit",
    doc: "Adaptive limit on the requests at once, found by measuring how latency changes with them. The algorithm \
          alone may stand in place of the mapping.",
    groups: &[
        &[
            value(
                "algorithm",
                Kind::Words(&[
                    ("gradient", "Gradient2: shrinks as latency rises above its own long average"),
                    ("aimd", "grows by one with each success, shrinks by a factor with each failure"),
                ]),
                "gradient",
                NETFLIX,
                "How the limit moves.",
            ),
            value("initial", Kind::Scalar(&COUNT), "20", NETFLIX, "The limit before the first sample."),
            value("min", Kind::Scalar(&COUNT), "20", NETFLIX, "Never below."),
            value("max", Kind::Scalar(&COUNT), "200", NETFLIX, "Never above."),
            value("smoothing", Kind::Scalar(&SHARE_POSITIVE), "20%", NETFLIX, "Gradient: weight of the new limit.")
                .when(gradient, "where `algorithm` is `gradient`"),
            value(
                "queue",
                Kind::Scalar(&NUMBER_POSITIVE),
                "4",
                NETFLIX,
                "Gradient: requests that may wait in the target; the limit grows by it.",
            )
            .when(gradient, "where `algorithm` is `gradient`"),
            value(
                "tolerance",
                Kind::Scalar(&NUMBER_POSITIVE),
                "1.5",
                NETFLIX,
                "Gradient: how much slower than usual is still usual, from 1.",
            )
            .when(gradient, "where `algorithm` is `gradient`"),
            value(
                "long_window",
                Kind::Scalar(&COUNT),
                "600",
                NETFLIX,
                "Gradient: samples that the usual latency is averaged over.",
            )
            .when(gradient, "where `algorithm` is `gradient`"),
            value(
                "backoff",
                Kind::Scalar(&SHARE_POSITIVE),
                "90%",
                NETFLIX,
                "AIMD: what remains of the limit after a failure, from 50%.",
            )
            .when(aimd, "where `algorithm` is `aimd`"),
            value("timeout", Kind::Scalar(&DURATION), "5s", NETFLIX, "AIMD: a longer request counts as failed.")
                .when(aimd, "where `algorithm` is `aimd`"),
        ],
        SHADOW,
    ],
};

fn aimd(limit: &Filled) -> bool {
    limit.get("algorithm").text() == "aimd"
}

fn gradient(limit: &Filled) -> bool {
    !aimd(limit)
}

pub(crate) fn limit(filled: &Filled, report: &mut Report) -> Config {
    let algorithm = if aimd(filled) {
        Algorithm::Aimd { backoff: filled.get("backoff").number(), timeout: filled.get("timeout").duration() }
    } else {
        Algorithm::Gradient2 {
            smoothing: filled.get("smoothing").number(),
            queue: filled.get("queue").number(),
            queue_when: QueueWhen::Unqueued,
            tolerance: filled.get("tolerance").number(),
            long_window: filled.get("long_window").count(),
        }
    };
    let config = Config {
        algorithm,
        initial: filled.get("initial").count(),
        min: filled.get("min").count(),
        max: filled.get("max").count(),
        mode: mode(filled),
    };
    refused(AdaptiveLimit::new(config, Time::ZERO), filled, &[], report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &LIMIT, limit).unwrap(), Config::default());
    }

    #[test]
    fn a_key_of_the_other_algorithm_is_refused() {
        let problem = decode("{ algorithm: aimd, tolerance: 2 }", &LIMIT, limit).unwrap_err();
        assert_eq!(problem, ":1:20: tolerance: `tolerance` plays a part only where `algorithm` is `gradient`");
    }
}
