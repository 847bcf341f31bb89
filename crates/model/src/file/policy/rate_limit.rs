//! `rate_limit: { quota: 100/min, per: user, burst: 20, store: sessions }`

use plimsoll_policy::rate_limit::{Algorithm, Config, Scope, StoreDown};
use plimsoll_policy::{RateLimit, Time};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, NAME, QUOTA};
use crate::file::table::{Field, Kind, Object, absent, none, required, value};
use crate::system::RateLimitKey;

const QUOTA_KEYS: &[Field] = &[
    required("quota", Kind::Scalar(&QUOTA), "Requests in a stretch of time, such as `100/min`."),
    value(
        "algorithm",
        Kind::Words(&[
            ("gcra", "a steady rate, and `burst` at once after a pause"),
            ("sliding_window", "at most the quota in any stretch of time"),
            (
                "fixed_window",
                "at most the quota from one full minute to the next: up to twice as much around the boundary",
            ),
        ]),
        "gcra",
        "Redis-cell, Stripe, Cloudflare: no boundary to exploit",
        "How requests are counted.",
    ),
    absent("burst", Kind::Scalar(&COUNT), "a tenth of the quota, at least 1", "Requests at once after a pause.")
        .when(|limit| limit.get("algorithm").text() == "gcra", "where `algorithm` is `gcra`"),
];

pub(crate) static RATE_LIMIT: Object = Object {
    name: "rate_limit",
    doc: "Quota over the requests that a service gets; past it: 429 with Retry-After. Health checks are exempt.",
    groups: &[
        QUOTA_KEYS,
        &[
            value(
                "per",
                Kind::Words(&[
                    ("user", "one quota for each user of each client"),
                    ("client", "one quota for each client"),
                    ("endpoint", "one quota for each endpoint"),
                    ("all", "one quota for all requests"),
                ]),
                "all",
                "nginx's limit_req needs a key; without one there is one quota",
                "What a quota belongs to.",
            ),
            none(
                "store",
                Kind::Scalar(&NAME),
                "each instance counts for itself",
                "The Redis in which instances share their counts.",
            ),
            value(
                "store_down",
                Kind::Words(&[
                    ("open", "let requests through: no limit for a while"),
                    ("closed", "refuse requests: no service for a while"),
                ]),
                "open",
                "Envoy, failure_mode_deny: false",
                "What happens while that Redis does not answer.",
            )
            .when(|limit| limit.get("store").is_set(), "beside `store`"),
            value(
                "max_keys",
                Kind::Scalar(&COUNT),
                "100k",
                "some 10 MB a process",
                "Keys remembered by one instance; past it the least recently seen of a sample is forgotten.",
            )
            .when(|limit| limit.get("per").text() != "all", "where a quota is `per` something"),
        ],
        SHADOW,
    ],
};

/// The same on an outgoing edge, where the calls of one instance are limited.
pub(crate) static CALL_RATE_LIMIT: Object = Object {
    name: "call_rate_limit",
    doc: "Quota over the calls that one instance makes to one target, such as the target's own quota.",
    groups: &[QUOTA_KEYS, SHADOW],
};

pub(crate) fn per(filled: &Filled) -> RateLimitKey {
    match filled.maybe("per").map_or("all", Filled::text) {
        "user" => RateLimitKey::User,
        "client" => RateLimitKey::Client,
        "endpoint" => RateLimitKey::Endpoint,
        _ => RateLimitKey::All,
    }
}

pub(crate) fn rate_limit(filled: &Filled, report: &mut Report) -> Config {
    let (store_down, max_keys) = if filled.object().is_some_and(|object| object.name == RATE_LIMIT.name) {
        let closed = filled.get("store_down").text() == "closed";
        (if closed { StoreDown::FailClosed } else { StoreDown::FailOpen }, filled.get("max_keys").count())
    } else {
        (StoreDown::FailOpen, 1)
    };
    let burst = filled.get("burst");
    let algorithm = match filled.get("algorithm").text() {
        "sliding_window" => Algorithm::SlidingWindow,
        "fixed_window" => Algorithm::FixedWindow,
        _ => Algorithm::Gcra { burst: burst.set().map(Filled::count) },
    };
    let (limit, period) = filled.get("quota").quota();
    let scope = match (filled.object().map(|object| object.name), per(filled)) {
        (Some("rate_limit"), RateLimitKey::User | RateLimitKey::Client | RateLimitKey::Endpoint) => {
            Scope::PerKey { max_keys }
        }
        _ => Scope::Shared,
    };
    let config = Config {
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        per: std::time::Duration::from_nanos(period),
        algorithm,
        scope,
        store_down,
        mode: mode(filled),
    };
    refused(
        RateLimit::new(config, Time::ZERO),
        filled,
        &[("limit", "quota"), ("per", "quota"), ("scope.max_keys", "max_keys")],
        report,
    );
    config
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn a_quota_alone_is_one_for_all() {
        let config = decode("{ quota: 100/min }", &RATE_LIMIT, rate_limit).unwrap();
        let default = Config::new(100, std::time::Duration::from_secs(60));
        assert_eq!(config, default);
    }

    #[test]
    fn keys_that_would_do_nothing_are_refused() {
        let problem = decode("{ quota: 1/s, algorithm: fixed_window, burst: 2 }", &RATE_LIMIT, rate_limit).unwrap_err();
        assert_eq!(problem, ":1:40: burst: `burst` plays a part only where `algorithm` is `gcra`");
        assert!(decode("{ quota: 1/s, store_down: closed }", &RATE_LIMIT, rate_limit).is_err());
    }
}
