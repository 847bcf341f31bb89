//! `breaker: { failure_rate: 50%, window: 10s, min_calls: 20, open_for: 30s }`

use plimsoll_policy::circuit_breaker::Config;
use plimsoll_policy::{CircuitBreaker, Time};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, DURATION, DURATION_OR_ZERO, SHARE, SHARE_POSITIVE};
use crate::file::table::{Default, Field, Kind, Object, value};

const RESILIENCE4J: &str = "resilience4j";
const HYSTRIX: &str = "Hystrix";

pub(crate) static BREAKER: Object = Object {
    name: "breaker",
    doc: "Circuit breaker: stops calling a target that fails, tries it again with a few probes, and then lets the \
          load grow back.",
    groups: &[
        &[
            value(
                "failure_rate",
                Kind::Scalar(&SHARE_POSITIVE),
                "50%",
                RESILIENCE4J,
                "Share of failed calls at which it opens. A 4xx other than 408 and 429 is no failure.",
            ),
            value("window", Kind::Scalar(&DURATION), "10s", HYSTRIX, "How far back calls count."),
            value(
                "min_calls",
                Kind::Scalar(&COUNT),
                "20",
                "Hystrix; a rule of thumb",
                "Calls in the window below which it never opens.",
            ),
            value("open_for", Kind::Scalar(&DURATION), "5s", HYSTRIX, "How long it stays open the first time."),
            Field {
                key: "open_for_max",
                kind: Kind::Scalar(&DURATION),
                default: Default::Derived {
                    from: |breaker| {
                        let open_for = breaker.get("open_for");
                        if open_for.nanos() > 60_000_000_000 { open_for.text().to_owned() } else { "60s".to_owned() }
                    },
                    rule: "60s, or `open_for` if that is longer",
                    source: RESILIENCE4J,
                },
                doc: "How long it stays open at most; the time doubles with every trip without a recovery between.",
                when: None,
            },
            value(
                "open_jitter",
                Kind::Scalar(&SHARE),
                "20%",
                "Linkerd's breaker backs off with jitter",
                "How much longer it may stay open, so that a fleet does not probe at the same instant.",
            ),
            value(
                "probes",
                Kind::Scalar(&COUNT),
                "3",
                "one proves little, ten are a load",
                "Calls that try the target again; at most 1000.",
            ),
            value(
                "probe_lease",
                Kind::Scalar(&DURATION),
                "30s",
                "longer than a call should take",
                "A probe that has not ended after this time loses its place.",
            ),
            value(
                "slow_call",
                Kind::Scalar(&DURATION),
                "60s",
                RESILIENCE4J,
                "A call that takes at least this long is slow.",
            ),
            value(
                "slow_call_rate",
                Kind::Scalar(&SHARE_POSITIVE),
                "100%",
                RESILIENCE4J,
                "Share of slow calls at which it opens.",
            ),
            value(
                "ramp",
                Kind::Scalar(&DURATION_OR_ZERO),
                "10s",
                "one window",
                "How long after the probes the admitted share takes to grow to all; 0 admits all at once.",
            ),
            value(
                "ramp_from",
                Kind::Scalar(&SHARE_POSITIVE),
                "10%",
                "Envoy's slow start",
                "The share at which that growth begins.",
            ),
        ],
        SHADOW,
    ],
};

pub(crate) fn breaker(filled: &Filled, report: &mut Report) -> Config {
    let config = Config {
        failure_rate: filled.get("failure_rate").number(),
        minimum_calls: filled.get("min_calls").count(),
        window: filled.get("window").duration(),
        open_for: filled.get("open_for").duration(),
        open_for_max: filled.get("open_for_max").duration(),
        open_jitter: filled.get("open_jitter").number(),
        half_open_probes: filled.get("probes").count(),
        probe_lease: filled.get("probe_lease").duration(),
        slow_call: filled.get("slow_call").duration(),
        slow_call_rate: filled.get("slow_call_rate").number(),
        ramp: filled.get("ramp").duration(),
        ramp_from: filled.get("ramp_from").number(),
        mode: mode(filled),
    };
    let keys = [
        ("minimum_calls", "min_calls"),
        ("half_open_probes", "probes"),
        ("open_for_max", "open_for_max"),
        ("open_for", "open_for"),
    ];
    refused(CircuitBreaker::new(config, Time::ZERO), filled, &keys, report);
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &BREAKER, breaker).unwrap(), Config::default());
    }

    #[test]
    fn a_long_open_time_lifts_its_maximum() {
        let config = decode("{ open_for: 2min }", &BREAKER, breaker).unwrap();
        assert_eq!(config.open_for_max, std::time::Duration::from_secs(120));
        assert!(decode("{ open_for: 2min, open_for_max: 1min }", &BREAKER, breaker).is_err());
    }
}
