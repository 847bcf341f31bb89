//! Policies on calls: those of a client and a gateway, which stand on the caller itself, and those
//! of a service and a consumer, which stand under `calls:` by target.

use plimsoll_policy as policy;

use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::filled::Filled;
use super::policy::{
    adaptive_limit, balance, bulkhead, circuit_breaker, health, hedge, outlier_ejection, rate_limit, retry,
    retry_budget,
};
use super::quantity::{COUNT, COUNT_OR_ZERO, DURATION, FLAG};
use super::table::{Field, Kind, Object, absent, none, value};
use crate::system::{Component, EdgePolicies};

pub(crate) static CLIENT_TIMEOUT: &[Field] = &[value(
    "timeout",
    Kind::OrNone(&Kind::Scalar(&DURATION)),
    "30s",
    "Heroku's router and reqwest's blocking client give up after 30 s",
    "From when a request is due until its client gives up, retries included.",
)];

pub(crate) static GATEWAY_TIMEOUT: &[Field] = &[value(
    "timeout",
    Kind::OrNone(&Kind::Scalar(&DURATION)),
    "60s",
    "nginx, proxy_read_timeout",
    "From the arrival of a request until the gateway answers 504, retries included.",
)];

pub(crate) static CALL_TIMEOUT: &[Field] = &[none(
    "timeout",
    Kind::Scalar(&DURATION),
    "Go's http.Client, Python's requests, fetch, libpq and redis-py wait for ever unless told otherwise",
    "From the start of a call until the caller gives up, retries and waits for a pooled connection included.",
)];

/// Policies of a caller towards one target.
pub(crate) static TRIES: &[Field] = &[
    none(
        "per_try_timeout",
        Kind::Scalar(&DURATION),
        "one try may take as long as the whole call",
        "From the start of one try to its end.",
    ),
    none("retry", Kind::Object(&retry::RETRY), "few clients retry of themselves", "Further attempts after a failure."),
    none(
        "breaker",
        Kind::Object(&circuit_breaker::BREAKER),
        "a breaker is a library to add",
        "Stops calling a target that fails.",
    ),
    none(
        "bulkhead",
        Kind::Short(&bulkhead::BULKHEAD, "permits"),
        "nothing limits the calls but the workers",
        "Calls at once from one instance to the target.",
    ),
    none("hedge", Kind::Object(&hedge::HEDGE), "a request is sent once", "An extra attempt for a slow call."),
];

/// Limits that a caller puts on itself.
pub(crate) static LIMITS: &[Field] = &[
    none(
        "rate_limit",
        Kind::Object(&rate_limit::CALL_RATE_LIMIT),
        "nothing limits the rate",
        "Calls of one instance to the target in a stretch of time.",
    ),
    none(
        "limit",
        Kind::Short(&adaptive_limit::LIMIT, "algorithm"),
        "nothing limits the calls but the workers",
        "Calls of one instance at once, found by measurement.",
    ),
];

/// How the instances of a target are chosen and reached.
pub(crate) static TARGET: &[Field] = &[
    value(
        "balance",
        Kind::Short(&balance::BALANCE, "algorithm"),
        "round_robin",
        "nginx, Envoy and HAProxy",
        "Which instance of the target is asked.",
    ),
    none(
        "health",
        Kind::Object(&health::HEALTH),
        "open-source nginx has none",
        "Active health checks of the target's instances. Without them a dead instance is asked again and again.",
    ),
    none(
        "outliers",
        Kind::Object(&outlier_ejection::OUTLIERS),
        "nginx's max_fails aside, proxies have none by default",
        "Leaves out an instance that keeps failing.",
    ),
    none(
        "max_connections",
        Kind::Scalar(&COUNT),
        "keep-alive pools grow as needed",
        "Requests that one caller has in flight to one instance at once, as HAProxy's `maxconn` and Envoy's \
         `max_connections` bound them. Full instances are passed over; where all are full, requests wait.",
    ),
    absent(
        "max_pending",
        Kind::Scalar(&COUNT_OR_ZERO),
        "1,024 (Envoy's max_pending_requests)",
        "Requests of one caller that wait for a connection, as long as their timeouts let them; more are refused, as all are by \
         nginx's `max_conns`. Only with `max_connections`.",
    ),
];

/// Of callers that are processes: a client stands for many users, who share nothing.
pub(crate) static SHARING: &[Field] = &[value(
    "coalesce",
    Kind::Scalar(&FLAG),
    "false",
    "each request is a call of its own",
    "Whether reads that want the same key at once share one call and its answer, errors included: `GET` and `HEAD` of \
     services, reads of stores outside of transactions. Each instance of the caller shares its own; at most 1,000 calls \
     share one.",
)];

pub(crate) static LATENCY: &[Field] =
    &[none("latency", DURATIONS, "as `network` says for the two zones", "One-way network delay to the target.")];

/// Keys that mean something towards services only.
pub(crate) const SERVICES_ONLY: &[&str] = &["balance", "health", "outliers", "max_connections", "max_pending"];

/// Envoy's default of `max_pending_requests`.
const MAX_PENDING: u32 = 1024;

pub(crate) static CALL: Object = Object {
    name: "call_policies",
    doc: "Policies of a caller towards one target. Each instance of the caller has its own state. Their order is fixed: \
          timeout, retry, breaker, rate limit, adaptive limit, bulkhead, hedge, per-try timeout.",
    groups: &[CALL_TIMEOUT, TRIES, LIMITS, TARGET, SHARING, LATENCY],
};

impl Decoder<'_> {
    /// The policies that a mapping states towards a target.
    pub(super) fn policies(&mut self, filled: &Filled, to: Component) -> EdgePolicies {
        if matches!(to, Component::Store(_)) {
            for key in SERVICES_ONLY {
                if filled.object().is_some_and(|object| object.name == CALL.name) && filled.get(key).is_stated() {
                    self.report
                        .at(filled.place(key), format!("`{key}` plays no part in calls to a store"))
                        .help("a store's connections are bounded by its `pool`".to_owned());
                }
            }
        }
        let report = &mut *self.report;
        let of = |key: &str| filled.object().and_then(|object| object.field(key)).and_then(|_| filled.get(key).set());
        let retry = of("retry");
        let hedge = of("hedge");
        let budgets = [retry, hedge].map(|policy| policy.and_then(|policy| policy.get("budget").set()));
        if let [Some(_), Some(second)] = budgets {
            report.at(second.at, "retries and hedges share one budget: state it in `retry`".to_owned());
        }
        let budget = budgets.into_iter().flatten().next();
        let retry_when = match retry {
            Some(retry) => retry::when(retry.get("when")),
            None => {
                *self.default_when.get_or_insert_with(|| retry::when(super::check::defaults(&retry::RETRY).get("when")))
            }
        };
        let pipeline = policy::PipelineConfig {
            timeout: of("timeout").map(Filled::duration),
            per_try_timeout: of("per_try_timeout").map(Filled::duration),
            timeout_mode: policy::Mode::Enforce,
            retry: retry.map(|filled| retry::retry(filled, report)),
            budget: budget.map(|filled| retry_budget::budget(filled, report)),
            breaker: of("breaker").map(|filled| circuit_breaker::breaker(filled, report)),
            // On a gateway the keys `rate_limit` and `limit` are about what it gets, not what it sends.
            rate_limit: of("rate_limit")
                .filter(|_| !is_gateway(filled))
                .map(|filled| rate_limit::rate_limit(filled, report)),
            adaptive_limit: of("limit")
                .filter(|_| !is_gateway(filled))
                .map(|filled| adaptive_limit::limit(filled, report)),
            bulkhead: of("bulkhead").map(|filled| bulkhead::bulkhead(filled, report)),
            hedge: hedge.map(|filled| hedge::hedge(filled, report)),
        };
        if let (Some(timeout), Some(per_try)) = (of("timeout"), of("per_try_timeout"))
            && !timeout.is_bad()
            && !per_try.is_bad()
            && per_try.nanos() > timeout.nanos()
        {
            report.at(per_try.at, "`per_try_timeout` is longer than `timeout`, and so never acts".to_owned());
        }
        let balance = of("balance").map(|filled| balance::balance(filled, report)).unwrap_or_default();
        let weights = match (of("balance"), to) {
            (Some(filled), Component::Service(id)) => {
                let target = &self.names.services[id.index()];
                balance::weights(filled, target.name, target.filled.get("instances").count(), report)
            }
            _ => Vec::new(),
        };
        let health = of("health").map(|filled| health::health(filled, report));
        let outliers = of("outliers").map(|filled| outlier_ejection::outliers(filled, report));
        let max_connections = of("max_connections").map(Filled::count);
        if let (Some(pending), None) = (of("max_pending"), max_connections) {
            report
                .at(pending.at, "nothing waits for a connection where none is bounded".to_owned())
                .help("state `max_connections` too".to_owned());
        }
        EdgePolicies {
            latency: of("latency").map(|filled| self.dist(filled)),
            overhead: None,
            pipeline,
            retry_when,
            balance,
            weights,
            health,
            outliers,
            max_connections,
            coalesce: of("coalesce").is_some_and(Filled::flag),
            max_pending: of("max_pending").map_or(MAX_PENDING, Filled::count),
        }
    }
}

fn is_gateway(filled: &Filled) -> bool {
    filled.object().is_some_and(|object| object.name == "gateway")
}
