//! `outliers: { consecutive_failures: 5, eject_for: 30s, max_ejected: 50% }`

use plimsoll_policy::outlier_ejection::Config;
use plimsoll_policy::{OutlierEjection, Time};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, COUNT_OR_ZERO, DURATION, DURATION_OR_ZERO, NUMBER_OR_ZERO, SHARE, SHARE_POSITIVE};
use crate::file::table::{Default, Field, Kind, Object, value};

const ENVOY: &str = "Envoy, outlier detection";

pub(crate) static OUTLIERS: Object = Object {
    name: "outliers",
    doc: "Outlier ejection: an instance that keeps failing is left out for a while, judged by the requests it gets.",
    groups: &[
        &[
            value(
                "consecutive_failures",
                Kind::Scalar(&COUNT_OR_ZERO),
                "5",
                ENVOY,
                "Failures in a row that eject; 0 turns the rule off.",
            ),
            value(
                "eject_for",
                Kind::Scalar(&DURATION),
                "30s",
                ENVOY,
                "The first ejection; the n-th in a row is n times as long.",
            ),
            Field {
                key: "eject_for_max",
                kind: Kind::Scalar(&DURATION),
                default: Default::Derived {
                    from: |outliers| {
                        let eject_for = outliers.get("eject_for");
                        if eject_for.nanos() > 300_000_000_000 {
                            eject_for.text().to_owned()
                        } else {
                            "300s".to_owned()
                        }
                    },
                    rule: "300s, or `eject_for` if that is longer",
                    source: ENVOY,
                },
                doc: "The longest ejection.",
                when: None,
            },
            value(
                "max_ejected",
                Kind::Scalar(&SHARE),
                "10%",
                ENVOY,
                "The largest share of instances that is ejected at once, rounded down: at 10%, fewer than 10 instances \
                 never lose one.",
            ),
            value(
                "every",
                Kind::Scalar(&DURATION),
                "10s",
                ENVOY,
                "How often success rates are compared and ejections forgiven.",
            ),
            value(
                "success_rate_sigmas",
                Kind::Scalar(&NUMBER_OR_ZERO),
                "1.9",
                ENVOY,
                "Standard deviations below the mean success rate that eject; 0 turns the rule off.",
            ),
            value(
                "min_hosts",
                Kind::Scalar(&COUNT),
                "5",
                ENVOY,
                "Instances with enough requests that this comparison needs, from 2.",
            ),
            value(
                "min_requests",
                Kind::Scalar(&COUNT),
                "100",
                ENVOY,
                "Requests between two sweeps that make an instance comparable.",
            ),
            value(
                "panic_below",
                Kind::Scalar(&SHARE),
                "50%",
                "Envoy, healthy_panic_threshold",
                "With a smaller share of instances left, all are asked again; 0% turns that off.",
            ),
            value(
                "slow_start",
                Kind::Scalar(&DURATION_OR_ZERO),
                "30s",
                "nginx's and Envoy's examples",
                "Time over which an instance that comes back reaches its full weight; 0 turns it off.",
            ),
            value(
                "slow_start_from",
                Kind::Scalar(&SHARE_POSITIVE),
                "10%",
                "Envoy, min_weight_percent",
                "The weight at which that begins.",
            ),
        ],
        SHADOW,
    ],
};

pub(crate) fn outliers(filled: &Filled, report: &mut Report) -> Config {
    let config = Config {
        sweep_every: filled.get("every").duration(),
        consecutive_failures: filled.get("consecutive_failures").count(),
        success_rate_sigmas: filled.get("success_rate_sigmas").number(),
        success_rate_hosts_min: filled.get("min_hosts").count(),
        success_rate_requests_min: filled.get("min_requests").count(),
        base_ejection: filled.get("eject_for").duration(),
        max_ejection: filled.get("eject_for_max").duration(),
        max_ejected: filled.get("max_ejected").number(),
        panic_below: filled.get("panic_below").number(),
        slow_start: filled.get("slow_start").duration(),
        slow_start_min: filled.get("slow_start_from").number(),
        mode: mode(filled),
    };
    let keys = [
        ("sweep_every", "every"),
        ("success_rate_hosts_min", "min_hosts"),
        ("success_rate_requests_min", "min_requests"),
        ("base_ejection", "eject_for"),
        ("max_ejection", "eject_for_max"),
        ("slow_start_min", "slow_start_from"),
    ];
    refused(OutlierEjection::new(config.clone(), 1, Time::ZERO), filled, &keys, report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &OUTLIERS, outliers).unwrap(), Config::default());
    }

    #[test]
    fn speaks_the_files_words() {
        let problem = decode("{ min_hosts: 1 }", &OUTLIERS, outliers).unwrap_err();
        assert_eq!(problem, ":1:14: min_hosts: expected `min_hosts` to be at least 2, found `1`");
    }
}
