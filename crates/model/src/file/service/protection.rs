//! Policies on what a service or gateway gets, and how its instances change.

use crate::file::decode::Decoder;
use crate::file::filled::Filled;
use crate::file::names::unknown;
use crate::file::policy::{SHADOW, adaptive_limit, bulkhead, degradation, idempotency, rate_limit};
use crate::file::quantity::{COUNT, DURATION, DURATION_OR_ZERO, FLAG, NAME, SHARE_POSITIVE, TEXT};
use crate::file::table::{Field, Kind, MapKey, Object, none, required, value};
use crate::system::{
    Autoscale, Bulkhead, Component, Degradation, DegradationLevel, Deploy, Program, RateLimit, Service, ServiceId,
};

/// Policies on what it gets, and how its instances change.
pub(crate) static PROTECTION: &[Field] = &[
    none(
        "rate_limit",
        Kind::Object(&rate_limit::RATE_LIMIT),
        "nothing limits the rate",
        "Quota over the requests it gets.",
    ),
    none(
        "limit",
        Kind::Short(&adaptive_limit::LIMIT, "algorithm"),
        "workers and queue are the limit",
        "Limit on the requests of one instance at once, found by measurement.",
    ),
    value(
        "bulkheads",
        Kind::Map { key: &MapKey { what: "a bulkhead's name", scalar: &NAME }, value: &Kind::Object(&BULKHEAD_GROUP) },
        "{}",
        "endpoints share all workers",
        "Permits that groups of endpoints share on one instance.",
    ),
    none(
        "idempotency",
        Kind::Object(&idempotency::IDEMPOTENCY),
        "a repeated request has a second effect",
        "Remembers the answers to repeated requests.",
    ),
    none(
        "degradation",
        Kind::Object(&degradation::DEGRADATION),
        "all or nothing",
        "What is switched off as load rises.",
    ),
    none(
        "autoscale",
        Kind::Object(&AUTOSCALE),
        "a fixed number of instances",
        "Grows and shrinks the number of instances.",
    ),
    value("deploy", Kind::Object(&DEPLOY), "{}", "one at a time", "How new versions roll out."),
];

static BULKHEAD_GROUP: Object = Object {
    name: "bulkhead_group",
    doc: "Permits that a group of endpoints shares on one instance.",
    groups: &[&[required("endpoints", Kind::List(&Kind::Scalar(&TEXT)), "The endpoints.")], bulkhead::PERMITS, SHADOW],
};

static AUTOSCALE: Object = Object {
    name: "autoscale",
    doc: "Steers the number of instances by their utilization, as Kubernetes' HorizontalPodAutoscaler does.",
    groups: &[&[
        value("min", Kind::Scalar(&COUNT), "1", "Kubernetes, minReplicas", "Fewest instances."),
        required("max", Kind::Scalar(&COUNT), "Most instances."),
        value(
            "target",
            Kind::Scalar(&SHARE_POSITIVE),
            "70%",
            "a common headroom",
            "Utilization that it steers to: busy cores, or held workers if those are busier.",
        ),
        value(
            "every",
            Kind::Scalar(&DURATION),
            "15s",
            "Kubernetes, horizontal-pod-autoscaler-sync-period",
            "Between two decisions.",
        ),
        value(
            "delay",
            Kind::Scalar(&DURATION_OR_ZERO),
            "30s",
            "a guess: metrics lag, a node with room, an image to pull",
            "From the decision to grow until the new process starts; its startup comes on top.",
        ),
        value(
            "cooldown",
            Kind::Scalar(&DURATION_OR_ZERO),
            "5min",
            "Kubernetes, downscale-stabilization",
            "Quiet time after a change before it shrinks.",
        ),
    ]],
};

static DEPLOY: Object = Object {
    name: "rollout",
    doc: "How new versions roll out.",
    groups: &[&[
        value("batch", Kind::Scalar(&COUNT), "1", "one at a time", "Instances replaced at once."),
        value(
            "surge",
            Kind::Scalar(&FLAG),
            "true",
            "Kubernetes, maxSurge",
            "Whether the replacement is ready before the old instance drains.",
        ),
        value("pause", Kind::Scalar(&DURATION_OR_ZERO), "0s", "Kubernetes, minReadySeconds", "Pause between batches."),
        none(
            "rollback_at",
            Kind::Scalar(&SHARE_POSITIVE),
            "nobody looks",
            "Share of failed requests on new instances at which the deploy rolls back.",
        ),
    ]],
};

impl Decoder<'_> {
    /// The policies on what a service or gateway gets.
    pub(super) fn protect(&mut self, id: ServiceId, filled: &Filled, service: &mut Service) {
        service.idempotency =
            filled.get("idempotency").set().map(|filled| idempotency::idempotency(filled, self.report));
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
                let message =
                    format!("`instances` must be from {} to {}, as `autoscale` says", min.count(), max.count());
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
        crate::file::keyspace::inner(step).into_iter().for_each(|inner| optional_steps(inner, names));
    }
}
