//! `services:` — services, and what gateways share with them.

mod process;
mod protection;

use crate::file::decode::Decoder;
use crate::file::edge;
use crate::file::filled::Filled;
use crate::file::gateway::GATEWAY;
use crate::file::policy::shed;
use crate::file::quantity::{BYTES, CLASS, COUNT, FLAG, NAME, SHARE, TEXT};
use crate::file::serving::AT;
use crate::file::step::STEPS;
use crate::file::table::{Kind, MapKey, Object, Tagged, absent, none, required, value};
use crate::system::{Endpoint, Service, ServiceId};
pub(crate) use process::{PLACE, PROCESS, SCALABILITY, SCALABILITY_LAW};
pub(crate) use protection::PROTECTION;

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
        &[value(
            "kind",
            Kind::Words(&[("service", "runs the steps of its endpoints")]),
            "service",
            "most are",
            "What it is.",
        )],
        PLACE,
        AT,
        &[none(
            "run",
            Kind::Scalar(&TEXT),
            "`plimsoll run` emulates it: a process that does the described steps",
            "The command that starts an instance for `plimsoll run`, by `/bin/sh`, with `{port}` where the port goes that \
             it listens on, and `{instance}` for its number. The simulation takes no notice of it.",
        )],
        &[
            value(
                "workers",
                Kind::Scalar(&COUNT),
                "64",
                "between Puma's 5 and Tomcat's 200 threads: look yours up",
                "Requests that one instance runs at once, held while it waits.",
            )
            .when(|service| !service.get("async").flag(), "where `async` is `false`"),
            value(
                "async",
                Kind::Scalar(&FLAG),
                "false",
                "most services have a pool of threads or processes",
                "Whether a request gives its worker back while it waits; then `workers` limits nothing, `max_in_flight` and `memory` do.",
            ),
            value(
                "max_in_flight",
                Kind::Scalar(&COUNT),
                "10k",
                "sockets and memory end somewhere",
                "Requests that one async instance holds at once; more are refused with 503.",
            )
            .when(|service| service.get("async").flag(), "where `async` is `true`"),
            value(
                "queue",
                Kind::Short(&shed::QUEUE, "size"),
                "128",
                "a small multiple of the workers",
                "Requests that wait for a worker; one more is refused with 503 and Retry-After.",
            )
            .when(|service| !service.get("async").flag(), "where `async` is `false`"),
            value(
                "stops_when_cancelled",
                Kind::Scalar(&FLAG),
                "false",
                "most frameworks finish what nobody waits for",
                "Whether it stops working on a request whose caller has gone or whose deadline has passed.",
            ),
        ],
        PROCESS,
        SCALABILITY,
        &[required(
            "endpoints",
            Kind::Map { key: &ENDPOINT_NAME, value: &Kind::Short(&ENDPOINT, "do") },
            "What it answers, by name.",
        )],
        PROTECTION,
        &[value("calls", CALLS, "{}", "every target has the defaults", "Policies on outgoing calls, by target.")],
    ],
};

pub(crate) static CALLS: Kind = Kind::Map {
    key: &MapKey { what: "the name of a service or store that it calls", scalar: &NAME },
    value: &Kind::Object(&edge::CALL),
};

static ENDPOINT_NAME: MapKey = MapKey { what: "an endpoint's name", scalar: &TEXT };

pub(crate) static ENDPOINT: Object = Object {
    name: "endpoint",
    doc: "Something that a service answers. The list of its steps alone may stand in place of the mapping.",
    groups: &[&[
        required("do", STEPS, "Its steps, in order."),
        absent(
            "idempotent",
            Kind::Scalar(&FLAG),
            "`true` for names that start with GET, HEAD, OPTIONS, PUT or DELETE (RFC 9110, section 9.2.2)",
            "Whether it may be repeated without harm.",
        ),
        absent(
            "class",
            Kind::Scalar(&CLASS),
            "the caller's",
            "Priority class that overrides the caller's: 0 is the most important.",
        ),
        value(
            "errors",
            Kind::Scalar(&SHARE),
            "0%",
            "a service without faults of its own",
            "Share of requests that fail with 500 of themselves.",
        ),
        value(
            "response_size",
            Kind::Scalar(&BYTES),
            "2KiB",
            "a small JSON document",
            "Size of the answer: it takes time where a fault limits bandwidth.",
        ),
    ]],
};

/// Methods that may be repeated without harm (RFC 9110, section 9.2.2).
const IDEMPOTENT: [&str; 5] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];

impl Decoder<'_> {
    /// Services and gateways; consumers add their hidden services behind them.
    pub(in crate::file) fn services(&mut self, root: &Filled) -> Vec<Service> {
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
            } else {
                service.scalability = self.scalability(filled, &service.endpoints);
            }
            self.protect(id, filled, &mut service);
            services.push(service);
        }
        // A gateway's endpoints follow from those of its upstream, which may come later in the file.
        crate::file::gateway::inherit(&self.names, &mut services);
        services
    }

    fn endpoints(&mut self, id: ServiceId, filled: &Filled) -> Vec<Endpoint> {
        let endpoints = filled.get("endpoints");
        if endpoints.map().is_empty() && !endpoints.is_bad() {
            self.report.at(filled.place("endpoints"), "a service needs at least one endpoint".to_owned());
        }
        let decode = |(key, endpoint): &(crate::file::tree::Key, Filled)| {
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
}
