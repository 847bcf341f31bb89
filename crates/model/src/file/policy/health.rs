//! `health: { path: /health/readiness, every: 5s, unhealthy_after: 3, healthy_after: 2 }`

use plimsoll_policy::health::Config;
use plimsoll_policy::{HealthCheck, Time};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, DURATION, SHARE, TEXT};
use crate::file::table::{Default, Field, Kind, Object, value};
use crate::system::Health;

pub(crate) static HEALTH: Object = Object {
    name: "health",
    doc: "Active health checks of the target's instances. They take no worker, but a stopped or dead instance fails \
          them.",
    groups: &[
        &[
            value("path", Kind::Scalar(&TEXT), "/health", "the usual name", "The path asked for."),
            value(
                "every",
                Kind::Scalar(&DURATION),
                "5s",
                "NGINX Plus, health_check interval",
                "From one check to the next.",
            ),
            Field {
                key: "timeout",
                kind: Kind::Scalar(&DURATION),
                default: Default::Derived {
                    from: |health| {
                        let every = health.get("every");
                        if every.nanos() < 1_000_000_000 { every.text().to_owned() } else { "1s".to_owned() }
                    },
                    rule: "1s, or `every` if that is shorter",
                    source: "Kubernetes, timeoutSeconds",
                },
                doc: "How long a check may take; at most `every`.",
                when: None,
            },
            value(
                "unhealthy_after",
                Kind::Scalar(&COUNT),
                "3",
                "HAProxy, fall",
                "Failures in a row that take an instance out.",
            ),
            value("healthy_after", Kind::Scalar(&COUNT), "2", "HAProxy, rise", "Passes in a row that bring it back."),
            value(
                "jitter",
                Kind::Scalar(&SHARE),
                "10%",
                "so that checkers do not march in step",
                "How much each wait varies, up or down; below 100%.",
            ),
        ],
        SHADOW,
    ],
};

pub(crate) fn health(filled: &Filled, report: &mut Report) -> Health {
    let path = filled.get("path");
    if !path.is_bad() && !path.text().starts_with('/') {
        report.mismatch(filled.place("path"), "a path that starts with `/`", &format!("`{}`", path.text()), None);
    }
    let config = Config {
        every: filled.get("every").duration(),
        timeout: filled.get("timeout").duration(),
        unhealthy_after: filled.get("unhealthy_after").count(),
        healthy_after: filled.get("healthy_after").count(),
        jitter: filled.get("jitter").number(),
        mode: mode(filled),
    };
    refused(HealthCheck::new(config, true, Time::ZERO, 0), filled, &[("every", "every")], report);
    Health { path: path.text().to_owned(), config }
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        let health = decode("{}", &HEALTH, health).unwrap();
        assert_eq!(health.config, Config::default());
    }
}
