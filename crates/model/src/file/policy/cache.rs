//! Freshness of cached things: `ttl: 60s ± 10%, stale: 60s, negative: 1s..5s, lock: 5s`

use plimsoll_policy::cache::{Cache, Config, WriteMode};

use super::{SHADOW, mode, refused};
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{BETWEEN, COUNT, DURATION, DURATION_OR_ZERO, NAME, NUMBER_OR_ZERO, SPREAD};
use crate::file::table::{Default, Field, Kind, Object, required, value};

/// The keys that a `cache` step and a gateway's route share.
pub(crate) static FRESHNESS: &[Field] = &[
    value(
        "ttl",
        Kind::Scalar(&SPREAD),
        "60s ± 10%",
        "a minute; spread, so that what was filled together does not expire together",
        "How long an entry is fresh, and by how much that varies.",
    ),
    Field {
        key: "stale",
        kind: Kind::Scalar(&DURATION_OR_ZERO),
        default: Default::Derived {
            from: |cache| {
                let ttl = cache.get("ttl").text();
                let base = ttl.split(['±', '+']).next().unwrap_or_default().trim();
                if base.is_empty() { "0".to_owned() } else { base.to_owned() }
            },
            rule: "one `ttl`",
            source: "RFC 5861, stale-while-revalidate",
        },
        doc: "How long after its `ttl` an entry is still served while one request refreshes it; 0 turns it off.",
        when: None,
    },
    value(
        "negative",
        Kind::Scalar(&BETWEEN),
        "1s..5s",
        "users retry within seconds",
        "How long an absent key is remembered as absent.",
    ),
    value(
        "lock",
        Kind::OrNone(&Kind::Scalar(&DURATION)),
        "5s",
        "nginx, proxy_cache_lock_age",
        "How long one request has the only right to fetch a key; `none` lets everyone fetch: a stampede.",
    ),
    value(
        "early_expiration",
        Kind::Scalar(&NUMBER_OR_ZERO),
        "0",
        "`stale` hides refreshes already",
        "Beta of probabilistic early expiration; 1 is the optimum of Vattani et al. (2015).",
    ),
];

pub(crate) static ROUTE_CACHE: Object = Object {
    name: "route_cache",
    doc: "Answers that each instance of a gateway keeps.",
    groups: &[
        &[
            required(
                "key",
                Kind::Scalar(&NAME),
                "The kind of thing that is cached, a name of your own; routes with the same name share entries.",
            ),
            value(
                "capacity",
                Kind::Scalar(&COUNT),
                "50k",
                "some 100 MB of small answers",
                "Answers held by one instance.",
            ),
        ],
        FRESHNESS,
        SHADOW,
    ],
};

/// Checks with the capacity and write mode that the place gives.
pub(crate) fn freshness(filled: &Filled, capacity: u32, write: WriteMode, report: &mut Report) -> Config {
    let (ttl, ttl_jitter) = filled.get("ttl").spread();
    let (negative_min, negative_max) = filled.get("negative").between();
    let config = Config {
        ttl: std::time::Duration::from_nanos(ttl),
        ttl_jitter,
        stale_while_revalidate: Some(filled.get("stale").duration()),
        negative_ttl_min: std::time::Duration::from_nanos(negative_min),
        negative_ttl_max: std::time::Duration::from_nanos(negative_max),
        lock: filled.get("lock").set().map(Filled::duration),
        early_expiration: filled.get("early_expiration").number(),
        capacity,
        write,
        mode: mode(filled),
    };
    let keys = [
        ("ttl_jitter", "ttl"),
        ("stale_while_revalidate", "stale"),
        ("negative_ttl_min", "negative"),
        ("negative_ttl_max", "negative"),
        ("flush_every", "flush"),
    ];
    refused(Cache::<()>::new(config), filled, &keys, report);
    config
}
