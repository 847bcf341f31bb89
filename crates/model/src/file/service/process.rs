//! What every process has: services, gateways and consumers.

use crate::file::decode::Decoder;
use crate::file::distribution::DURATIONS;
use crate::file::filled::Filled;
use crate::file::policy::shed;
use crate::file::quantity::{BYTES, COUNT, DURATION, DURATION_OR_ZERO, FACTOR, NAME, TEXT};
use crate::file::table::{Field, Kind, Object, absent, none, required, value};
use crate::system::{Deploy, Service, ServiceKind, Warmup};

/// Where it runs and who answers for it.
pub(crate) static PLACE: &[Field] = &[
    absent("owner", Kind::Scalar(&TEXT), "the system's owner", "Who answers for it."),
    value("instances", Kind::Scalar(&COUNT), "1", "the least there can be", "Instances at the start of a run."),
    value(
        "zones",
        Kind::List(&Kind::Scalar(&NAME)),
        "[]",
        "one place without a name",
        "Zones that instances are spread over, in turn.",
    ),
];

/// An instance as a process.
pub(crate) static PROCESS: &[Field] = &[
    value("cores", Kind::Scalar(&COUNT), "2", "a common size of container", "`work` that one instance does at once."),
    none(
        "memory",
        Kind::Scalar(&BYTES),
        "memory is no limit",
        "Memory of one instance; a process that needs more is killed and starts again.",
    ),
    value(
        "request_memory",
        Kind::Scalar(&BYTES),
        "64KiB",
        "a guess: buffers and a parsed body",
        "Memory that a request holds from arrival to answer.",
    ),
    value(
        "startup",
        DURATIONS,
        "2s",
        "a small process; a JVM or a cold cache takes ten times as long",
        "From the start of the process until it is ready.",
    ),
    none(
        "warmup",
        Kind::Object(&WARMUP),
        "as fast at once as ever",
        "While warming up after its start, an instance's work takes longer.",
    ),
    value(
        "drain",
        Kind::Scalar(&DURATION_OR_ZERO),
        "30s",
        "Kubernetes, terminationGracePeriodSeconds",
        "Longest wait for in-flight requests when an instance is stopped; 0 cuts them off.",
    ),
];

static WARMUP: Object = Object {
    name: "warmup",
    doc: "A slow start of an instance: caches fill, code is compiled.",
    groups: &[&[
        required("for", Kind::Scalar(&DURATION), "From ready to warm."),
        value(
            "factor",
            Kind::Scalar(&FACTOR),
            "3x",
            "a JVM before its compiler",
            "How much longer work takes at first; it falls to once linearly.",
        ),
    ]],
};

impl Decoder<'_> {
    /// What every process has, a consumer's too.
    pub(in crate::file) fn process(&mut self, filled: &Filled, name: String, line: u32) -> Service {
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
            warmup: filled
                .get("warmup")
                .set()
                .map(|warmup| Warmup { duration: warmup.get("for").nanos(), factor: warmup.get("factor").number() }),
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
}
