//! `services:` — services, and what gateways share with them.

use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::edge;
use super::filled::Filled;
use super::gateway::GATEWAY;
use super::names::unknown;
use super::policy::{SHADOW, adaptive_limit, bulkhead, degradation, idempotency, rate_limit, shed};
use super::quantity::{
    BYTES, CLASS, COUNT, DURATION, DURATION_OR_ZERO, FACTOR, FLAG, NAME, SHARE, SHARE_POSITIVE, TEXT,
};
use super::step::STEPS;
use super::table::{Field, Kind, MapKey, Object, Tagged, absent, none, required, value};
use crate::system::{
    Autoscale, Bulkhead, Component, Degradation, DegradationLevel, Deploy, Endpoint, Program, RateLimit, Service,
    ServiceId, ServiceKind, Warmup,
};

pub(crate) static SERVICE_OR_GATEWAY: Tagged = Tagged {
    name: "service or gateway",
    what: "a service",
    default: Some("service"),
    options: &[("service", &SERVICE), ("gateway", &GATEWAY)],
};

pub(crate) static SERVICE: Object = Object {
    name: "service",
    doc: "Instances that run the steps of their endpoints. A request holds a worker from its start to its end, also while \
          it waits for others, unless the service is `async`.",
    groups: &[
        &[value("kind", Kind::Words(&[("service", "runs the steps of its endpoints")]), "service", "most are", "What it is.")],
        PLACE,
        &[
            value("workers", Kind::Scalar(&COUNT), "64", "between Puma's 5 and Tomcat's 200 threads: look yours up", "Requests that one instance runs at once, held while it waits.").when(|service| !service.get("async").flag(), "where `async` is `false`"),
            value("async", Kind::Scalar(&FLAG), "false", "most services have a pool of threads or processes", "Whether a request gives its worker back while it waits; then `workers` limits nothing, `max_in_flight` and `memory` do."),
            value("max_in_flight", Kind::Scalar(&COUNT), "10k", "sockets and memory end somewhere", "Requests that one async instance holds at once; more are refused with 503.").when(|service| service.get("async").flag(), "where `async` is `true`"),
            value("queue", Kind::Short(&shed::QUEUE, "size"), "128", "a small multiple of the workers", "Requests that wait for a worker; one more is refused with 503 and Retry-After.").when(|service| !service.get("async").flag(), "where `async` is `false`"),
            value("stops_when_cancelled", Kind::Scalar(&FLAG), "false", "most frameworks finish what nobody waits for", "Whether it stops working on a request whose caller has gone or whose deadline has passed."),
        ],
        PROCESS,
        &[required("endpoints", Kind::Map { key: &ENDPOINT_NAME, value: &Kind::Short(&ENDPOINT, "do") }, "What it answers, by name.")],
        PROTECTION,
        &[value("calls", CALLS, "{}", "every target has the defaults", "Policies on outgoing calls, by target.")],
    ],
};

pub(crate) static CALLS: Kind = Kind::Map {
    key: &MapKey { what: "the name of a service or store that it calls", scalar: &NAME },
    value: &Kind::Object(&edge::CALL),
};

static ENDPOINT_NAME: MapKey = MapKey { what: "an endpoint's name", scalar: &TEXT };

/// Where it runs and who answers for it.
pub(crate) static PLACE: &[Field] = &[
    absent("owner", Kind::Scalar(&TEXT), "the system's owner", "Who answers for it."),
    value("instances", Kind::Scalar(&COUNT), "1", "the least there can be", "Instances at the start of a run."),
    value("zones", Kind::List(&Kind::Scalar(&NAME)), "[]", "one place without a name", "Zones that instances are spread over, in turn."),
];

/// An instance as a process.
pub(crate) static PROCESS: &[Field] = &[
    value("cores", Kind::Scalar(&COUNT), "2", "a common size of container", "`work` that one instance does at once."),
    none("memory", Kind::Scalar(&BYTES), "memory is no limit", "Memory of one instance; a process that needs more is killed and starts again."),
    value("request_memory", Kind::Scalar(&BYTES), "64KiB", "a guess: buffers and a parsed body", "Memory that a request holds from arrival to answer."),
    value("startup", DURATIONS, "2s", "a small process; a JVM or a cold cache takes ten times as long", "From the start of the process until it is ready."),
    none("warmup", Kind::Object(&WARMUP), "as fast at once as ever", "While warming up after its start, an instance's work takes longer."),
    value("drain", Kind::Scalar(&DURATION_OR_ZERO), "30s", "Kubernetes, terminationGracePeriodSeconds", "Longest wait for in-flight requests when an instance is stopped; 0 cuts them off."),
];

/// Policies on what it gets, and how its instances change.
pub(crate) static PROTECTION: &[Field] = &[
    none("rate_limit", Kind::Object(&rate_limit::RATE_LIMIT), "nothing limits the rate", "Quota over the requests it gets."),
    none("limit", Kind::Short(&adaptive_limit::LIMIT, "algorithm"), "workers and queue are the limit", "Limit on the requests of one instance at once, found by measurement."),
    value("bulkheads", Kind::Map { key: &MapKey { what: "a bulkhead's name", scalar: &NAME }, value: &Kind::Object(&BULKHEAD_GROUP) }, "{}", "endpoints share all workers", "Permits that groups of endpoints share on one instance."),
    none("idempotency", Kind::Object(&idempotency::IDEMPOTENCY), "a repeated request has a second effect", "Remembers the answers to repeated requests."),
    none("degradation", Kind::Object(&degradation::DEGRADATION), "all or nothing", "What is switched off as load rises."),
    none("autoscale", Kind::Object(&AUTOSCALE), "a fixed number of instances", "Grows and shrinks the number of instances."),
    value("deploy", Kind::Object(&DEPLOY), "{}", "one at a time", "How new versions roll out."),
];

pub(crate) static ENDPOINT: Object = Object {
    name: "endpoint",
    doc: "Something that a service answers. The list of its steps alone may stand in place of the mapping.",
    groups: &[&[
        required("do", STEPS, "Its steps, in order."),
        absent("idempotent", Kind::Scalar(&FLAG), "`true` for names that start with GET, HEAD, OPTIONS, PUT or DELETE (RFC 9110, section 9.2.2)", "Whether it may be repeated without harm."),
        absent("class", Kind::Scalar(&CLASS), "the caller's", "Priority class that overrides the caller's: 0 is the most important."),
        value("errors", Kind::Scalar(&SHARE), "0%", "a service without faults of its own", "Share of requests that fail with 500 of themselves."),
        value("response_size", Kind::Scalar(&BYTES), "2KiB", "a small JSON document", "Size of the answer: it takes time where a fault limits bandwidth."),
    ]],
};

static WARMUP: Object = Object {
    name: "warmup",
    doc: "A slow start of an instance: caches fill, code is compiled.",
    groups: &[&[
        required("for", Kind::Scalar(&DURATION), "From ready to warm."),
        value("factor", Kind::Scalar(&FACTOR), "3x", "a JVM before its compiler", "How much longer work takes at first; it falls to once linearly."),
    ]],
};

static BULKHEAD_GROUP: Object = Object {
    name: "bulkhead_group",
    doc: "Permits that a group of endpoints shares on one instance.",
    groups: &[
        &[required("endpoints", Kind::List(&Kind::Scalar(&TEXT)), "The endpoints.")],
        bulkhead::PERMITS,
        SHADOW,
    ],
};

static AUTOSCALE: Object = Object {
    name: "autoscale",
    doc: "Steers the number of instances by their utilization, as Kubernetes' HorizontalPodAutoscaler does.",
    groups: &[&[
        value("min", Kind::Scalar(&COUNT), "1", "Kubernetes, minReplicas", "Fewest instances."),
        required("max", Kind::Scalar(&COUNT), "Most instances."),
        value("target", Kind::Scalar(&SHARE_POSITIVE), "70%", "a common headroom", "Utilization that it steers to: busy cores, or held workers if those are busier."),
        value("every", Kind::Scalar(&DURATION), "15s", "Kubernetes, horizontal-pod-autoscaler-sync-period", "Between two decisions."),
        value("delay", Kind::Scalar(&DURATION_OR_ZERO), "30s", "a guess: metrics lag, a node with room, an image to pull", "From the decision to grow until the new process starts; its startup comes on top."),
        value("cooldown", Kind::Scalar(&DURATION_OR_ZERO), "5min", "Kubernetes, downscale-stabilization", "Quiet time after a change before it shrinks."),
    ]],
};

static DEPLOY: Object = Object {
    name: "rollout",
    doc: "How new versions roll out.",
    groups: &[&[
        value("batch", Kind::Scalar(&COUNT), "1", "one at a time", "Instances replaced at once."),
        value("surge", Kind::Scalar(&FLAG), "true", "Kubernetes, maxSurge", "Whether the replacement is ready before the old instance drains."),
        value("pause", Kind::Scalar(&DURATION_OR_ZERO), "0s", "Kubernetes, minReadySeconds", "Pause between batches."),
        none("rollback_at", Kind::Scalar(&SHARE_POSITIVE), "nobody looks", "Share of failed requests on new instances at which the deploy rolls back."),
    ]],
};

/// Methods that may be repeated without harm (RFC 9110, section 9.2.2).
const IDEMPOTENT: [&str; 5] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];

impl Decoder<'_> {
    /// Services and gateways; consumers add their hidden services behind them.
    pub(super) fn services(&mut self, root: &Filled) -> Vec<Service> {
        let owners = root.get("owners").map();
        let mut services = Vec::new();
        for (index, (key, filled)) in root.get("services").map().iter().enumerate() {
            let id = ServiceId::from(index);
            let gateway = filled.is_a(&GATEWAY);
            let owner = self.owner(filled, owners);
            let endpoints = if gateway { Vec::new() } else { self.endpoints(id, filled) };
            let mut service = self.process(filled, key.text.clone(), key.at.line);
            service.owner = owner;
            service.zones = self.zones(filled.get("zones"));
            service.endpoints = endpoints;
            if gateway {
                self.gateway(id, &mut service);
            }
            self.protect(id, filled, &mut service);
            services.push(service);
        }
        // A gateway's endpoints follow from those of its upstream, which may come later in the file.
        super::gateway::inherit(&self.names, &mut services);
        services
    }

    /// What every process has, a consumer's too.
    pub(super) fn process(&mut self, filled: &Filled, name: String, line: u32) -> Service {
        let number = |key: &str, other: u32| filled.maybe(key).map_or(other, Filled::count);
        let max_in_flight = number("max_in_flight", 1);
        let asynchronous = filled.maybe("async").is_some_and(Filled::flag);
        Service {
            name,
            owner: None,
            kind: ServiceKind::Service,
            instances: filled.get("instances").count(),
            zones: Vec::new(),
            workers: number("workers", number("concurrency", 1)),
            asynchronous,
            max_in_flight,
            stops_when_cancelled: filled.maybe("stops_when_cancelled").is_some_and(Filled::flag),
            cores: filled.get("cores").count(),
            memory: filled.get("memory").set().map(Filled::bytes),
            request_memory: filled.get("request_memory").bytes(),
            queue: match filled.maybe("queue") {
                Some(queue) => shed::queue(queue, self.report),
                None => plimsoll_policy::shed::Config { capacity: 0, ..plimsoll_policy::shed::Config::default() },
            },
            startup: self.dist(filled.get("startup")),
            warmup: filled.get("warmup").set().map(|warmup| Warmup {
                duration: warmup.get("for").nanos(),
                factor: warmup.get("factor").number(),
            }),
            drain: filled.get("drain").nanos(),
            endpoints: Vec::new(),
            idempotency: None,
            idempotency_header: String::new(),
            limit: None,
            rate_limit: None,
            bulkheads: Vec::new(),
            degradation: None,
            autoscale: None,
            deploy: Deploy { batch: 1, surge: true, pause: 0, rollback_at: None },
            line,
        }
    }

    fn endpoints(&mut self, id: ServiceId, filled: &Filled) -> Vec<Endpoint> {
        let endpoints = filled.get("endpoints");
        if endpoints.map().is_empty() && !endpoints.is_bad() {
            self.report.at(filled.place("endpoints"), "a service needs at least one endpoint".to_owned());
        }
        let decode = |(key, endpoint): &(super::tree::Key, Filled)| {
            let method = key.text.split_whitespace().next().unwrap_or_default();
            let idempotent = endpoint.get("idempotent");
            Endpoint {
                name: key.text.clone(),
                program: self.program(id, endpoint.get("do")),
                idempotent: if idempotent.is_set() { idempotent.flag() } else { IDEMPOTENT.contains(&method) },
                class: endpoint.get("class").set().map(|class| u8::try_from(class.count()).unwrap_or(u8::MAX)),
                errors: endpoint.get("errors").number(),
                response_size: endpoint.get("response_size").bytes(),
                line: key.at.line,
            }
        };
        endpoints.map().iter().map(decode).collect()
    }

    /// The policies on what a service or gateway gets.
    fn protect(&mut self, id: ServiceId, filled: &Filled, service: &mut Service) {
        service.idempotency = filled.get("idempotency").set().map(|filled| idempotency::idempotency(filled, self.report));
        service.idempotency_header = match filled.get("idempotency").set() {
            Some(idempotency) => idempotency.get("header").text().to_owned(),
            None => String::new(),
        };
        service.limit = filled.get("limit").set().map(|filled| adaptive_limit::limit(filled, self.report));
        service.rate_limit = filled.get("rate_limit").set().and_then(|filled| self.rate_limit(id, filled));
        let groups = filled.get("bulkheads").map().iter();
        service.bulkheads = groups
            .map(|(key, group)| Bulkhead {
                name: key.text.clone(),
                endpoints: self.own_endpoints(id, group.get("endpoints")),
                config: bulkhead::bulkhead(group, self.report),
            })
            .collect();
        service.degradation = filled.get("degradation").set().map(|filled| self.degradation(id, filled, service));
        service.autoscale = filled.get("autoscale").set().map(|autoscale| self.autoscale(autoscale, filled));
        let deploy = filled.get("deploy");
        service.deploy = Deploy {
            batch: deploy.get("batch").count(),
            surge: deploy.get("surge").flag(),
            pause: deploy.get("pause").nanos(),
            rollback_at: deploy.get("rollback_at").set().map(Filled::number),
        };
    }

    fn rate_limit(&mut self, id: ServiceId, filled: &Filled) -> Option<RateLimit> {
        let config = rate_limit::rate_limit(filled, self.report);
        let store = match filled.get("store").set() {
            None => None,
            Some(name) => {
                let store = self.store(name)?;
                if !self.is_redis(store) {
                    let message = format!("`{}` cannot share counts: it is not a Redis", name.text());
                    self.report.at(name.at, message);
                }
                Some((store, self.edge(Component::Service(id), Component::Store(store))))
            }
        };
        Some(RateLimit { config, per: rate_limit::per(filled), store })
    }

    /// Positions of endpoints by name.
    fn own_endpoints(&mut self, id: ServiceId, list: &Filled) -> Vec<u32> {
        let mut found = Vec::new();
        for name in list.list() {
            match self.names.services[id.index()].position(name.text()) {
                Some(position) => found.push(position),
                None if name.is_bad() => {}
                None => {
                    let known = self.names.services[id.index()].endpoints.iter().map(String::as_str);
                    unknown(name.at, "endpoint", name.text(), known, self.report);
                }
            }
        }
        found
    }

    fn degradation(&mut self, id: ServiceId, filled: &Filled, service: &Service) -> Degradation {
        let mut optional = Vec::new();
        service.endpoints.iter().for_each(|endpoint| optional_steps(&endpoint.program, &mut optional));
        let mut levels = Vec::new();
        for level in filled.get("levels").list() {
            for skip in level.get("skip").list() {
                if !skip.is_bad() && !optional.iter().any(|name| name == skip.text()) {
                    unknown(skip.at, "optional step", skip.text(), optional.iter().map(String::as_str), self.report);
                }
            }
            levels.push(DegradationLevel {
                name: level.get("name").text().to_owned(),
                reject: self.own_endpoints(id, level.get("reject")),
                skip: level.get("skip").list().iter().map(|skip| skip.text().to_owned()).collect(),
            });
        }
        let rejected: Vec<Vec<u32>> = levels.iter().map(|level| level.reject.clone()).collect();
        Degradation { ladder: degradation::ladder(filled, &rejected, self.report), levels }
    }

    fn autoscale(&mut self, autoscale: &Filled, service: &Filled) -> Autoscale {
        let (min, max) = (autoscale.get("min"), autoscale.get("max"));
        let instances = service.get("instances");
        if !min.is_bad() && !max.is_bad() {
            if min.count() > max.count() {
                self.report.at(autoscale.place("min"), "`min` is above `max`".to_owned());
            } else if !instances.is_bad() && !(min.count()..=max.count()).contains(&instances.count()) {
                let message = format!("`instances` must be from {} to {}, as `autoscale` says", min.count(), max.count());
                self.report.at(service.place("instances"), message);
            }
        }
        Autoscale {
            min: min.count(),
            max: max.count(),
            target: autoscale.get("target").number(),
            every: autoscale.get("every").nanos(),
            delay: autoscale.get("delay").nanos(),
            cooldown: autoscale.get("cooldown").nanos(),
        }
    }
}

fn optional_steps(program: &Program, names: &mut Vec<String>) {
    for step in program {
        if let Some(name) = step.optional.as_ref().filter(|name| !names.contains(name)) {
            names.push(name.clone());
        }
        super::keyspace::inner(step).into_iter().for_each(|inner| optional_steps(inner, names));
    }
}
