//! Gateways: `kind: gateway` with `upstream:`, or with `routes:`.

use std::collections::BTreeMap;

use plimsoll_policy::cache::WriteMode;

use super::decode::Decoder;
use super::edge::{GATEWAY_TIMEOUT, LATENCY, SHARING, TARGET, TRIES};
use super::filled::Filled;
use super::names::Names;
use super::policy::{cache, retry, shed};
use super::quantity::{COUNT, DURATION, FLAG, NAME, TEXT};
use super::service::{CALLS, PLACE, PROCESS, PROTECTION};
use super::serving::{self, AT, FALLBACK_ANSWER, SERVING};
use super::table::{Kind, Object, absent, none, required, value};
use crate::system::{Component, Edge, EdgeId, Endpoint, Route, RouteCache, Service, ServiceId, ServiceKind};

pub(crate) static GATEWAY: Object = Object {
    name: "gateway",
    doc: "Forwards each request to an upstream service, whose endpoints are its own. Policies towards the upstream stand \
          directly on it; `rate_limit`, `limit` and `bulkheads` are about the requests it gets. It never holds a worker \
          while it waits.",
    groups: &[
        &[
            required("kind", Kind::Words(&[("gateway", "forwards requests")]), "What it is."),
            absent(
                "upstream",
                Kind::Scalar(&NAME),
                "only what `routes` say",
                "The service behind it: all its endpoints, but for those that `routes` send elsewhere.",
            ),
            value(
                "routes",
                Kind::List(&Kind::Object(&ROUTE)),
                "[]",
                "everything goes to `upstream`",
                "Where requests go, by the first route that matches.",
            ),
            value(
                "max_in_flight",
                Kind::Scalar(&COUNT),
                "10k",
                "sockets and memory end somewhere",
                "Requests that one instance holds at once; more wait in `queue`, or are refused with 503.",
            ),
            value(
                "queue",
                Kind::Short(&shed::QUEUE, "size"),
                "0",
                "nginx and Envoy queue nothing",
                "Requests that wait while `max_in_flight` are held, the most important class first.",
            ),
            value(
                "stops_when_cancelled",
                Kind::Scalar(&FLAG),
                "true",
                "proxies close the upstream connection",
                "Whether it stops working on a request whose caller has gone or whose deadline has passed.",
            ),
        ],
        PLACE,
        AT,
        SERVING,
        GATEWAY_TIMEOUT,
        TRIES,
        TARGET,
        SHARING,
        LATENCY,
        PROCESS,
        PROTECTION,
        &[value(
            "calls",
            CALLS,
            "{}",
            "every store has the defaults",
            "Policies on calls to stores, such as that of `rate_limit`, by name.",
        )],
    ],
};

static ROUTE: Object = Object {
    name: "route",
    doc: "Where a gateway sends some of its requests. A policy that it states replaces the gateway's on this route, which \
          then has breaker, bulkhead and balancing state of its own.",
    groups: &[&[
        value(
            "match",
            Kind::Scalar(&TEXT),
            "*",
            "all of them",
            "Endpoints of `to`, where `*` stands for any text, as in `GET /notes*`.",
        ),
        required("to", Kind::Scalar(&NAME), "The service that answers."),
        absent(
            "timeout",
            Kind::OrNone(&Kind::Scalar(&DURATION)),
            "the gateway's",
            "From the arrival of a request until 504.",
        ),
        absent(
            "retry",
            Kind::OrNone(&Kind::Object(&retry::RETRY)),
            "the gateway's",
            "Further attempts after a failure.",
        ),
        absent(
            "coalesce",
            Kind::Scalar(&FLAG),
            "the gateway's",
            "Whether reads that want the same key at once share one call.",
        ),
        none(
            "cache",
            Kind::Object(&cache::ROUTE_CACHE),
            "every request is forwarded",
            "Answers to `GET` and `HEAD` that each instance keeps.",
        ),
        value(
            "fallback",
            Kind::Scalar(&FLAG),
            "false",
            "an error is an error",
            "Whether a static answer is given where the upstream fails; it counts as a success, and as degraded.",
        ),
        value("fallback_answer", Kind::Object(&FALLBACK_ANSWER), "{}", "see there", "What that answer is.")
            .when(|route| route.get("fallback").flag(), "where `fallback` is `true`"),
    ]],
};

impl Decoder<'_> {
    pub(super) fn gateway(&mut self, id: ServiceId, service: &mut Service) {
        service.asynchronous = true;
        service.serving = Some(Box::new(serving::serving(self.names.services[id.index()].filled, self.report)));
        let found = self.names.services[id.index()].routes.clone();
        // Endpoints of one route share its edge.
        let mut own: BTreeMap<*const Filled, EdgeId> = BTreeMap::new();
        let mut routes = Vec::with_capacity(found.len());
        for (position, (to, route)) in found.into_iter().enumerate() {
            let target = Component::Service(to.service);
            let shared = self.edge(Component::Service(id), target);
            let overrides = route.filter(|route| overrides(route));
            let edge = match overrides {
                None => shared,
                Some(route) => match own.get(&std::ptr::from_ref(route)) {
                    Some(edge) => *edge,
                    None => {
                        let edge = self.route_edge(id, target, route);
                        own.insert(route, edge);
                        edge
                    }
                },
            };
            let cache = route.and_then(|route| route.get("cache").set());
            routes.push(Route {
                endpoint: position as u32,
                to,
                edge,
                cache: cache.filter(|cache| !cache.is_bad()).map(|filled| {
                    let capacity = filled.get("capacity").count();
                    RouteCache {
                        freshness: cache::freshness(filled, capacity, WriteMode::Aside, self.report),
                        capacity,
                        keyspace: self.keyspace(filled.get("key"), None),
                    }
                }),
                fallback: route.is_some_and(|route| route.get("fallback").flag()),
                fallback_answer: route.and_then(serving::fallback_answer),
            });
        }
        service.kind = ServiceKind::Gateway(routes);
        service.endpoints = self.names.services[id.index()]
            .endpoints
            .iter()
            .map(|name| forwarded(name.clone(), service.line))
            .collect();
    }

    /// The gateway's policies with those that a route states in their place.
    fn route_edge(&mut self, id: ServiceId, to: Component, route: &Filled) -> EdgeId {
        let gateway = self.names.services[id.index()].filled;
        let mut merged = gateway.clone();
        if let super::filled::Value::Object(fields) = &mut merged.value {
            for entry in &mut fields.entries {
                if matches!(entry.key, "timeout" | "retry" | "coalesce") && stated(route, entry.key) {
                    entry.value = route.get(entry.key).clone();
                }
            }
        }
        let policies = self.policies(&merged, to);
        self.push_edge(Edge { from: Component::Service(id), to, policies, line: route.at.line })
    }
}

fn overrides(route: &Filled) -> bool {
    stated(route, "timeout") || stated(route, "retry") || stated(route, "coalesce")
}

/// Whether a route says something about a policy, be it `none`.
fn stated(route: &Filled, key: &str) -> bool {
    !matches!(route.get(key).value, super::filled::Value::Absent(_) | super::filled::Value::Bad)
}

fn forwarded(name: String, line: u32) -> Endpoint {
    Endpoint { name, program: Vec::new(), idempotent: false, class: None, errors: 0.0, response_size: 0, line }
}

/// Gives each gateway's endpoints the properties of those behind them.
pub(crate) fn inherit(names: &Names, services: &mut [Service]) {
    for index in 0..services.len() {
        for position in 0..names.services[index].routes.len() {
            let mut origin = names.services[index].routes[position].0;
            // Behind a gateway may stand another; circles were refused with their routes.
            for _ in 0..names.services.len() {
                match names.services[origin.service.index()].routes.get(origin.index as usize) {
                    Some((next, _)) => origin = *next,
                    None => break,
                }
            }
            let Some(behind) =
                services.get(origin.service.index()).and_then(|s| s.endpoints.get(origin.index as usize))
            else {
                continue;
            };
            let (idempotent, size) = (behind.idempotent, behind.response_size);
            // An idempotency key makes every request to its keeper repeatable.
            let keyed = services[origin.service.index()].idempotency.is_some();
            if let Some(endpoint) = services[index].endpoints.get_mut(position) {
                endpoint.idempotent = idempotent || keyed;
                endpoint.response_size = size;
            }
        }
    }
}
