//! What every process has: services, gateways and consumers.

use crate::file::decode::Decoder;
use crate::file::distribution::DURATIONS;
use crate::file::filled::Filled;
use crate::file::keyspace::inner;
use crate::file::policy::shed;
use crate::file::quantity::{BYTES, COUNT, DURATION, DURATION_OR_ZERO, FACTOR, NAME, SHARE, TEXT};
use crate::file::serving;
use crate::file::table::{Field, Kind, Object, absent, none, required, value};
use crate::system::{Action, Deploy, Endpoint, Program, Scalability, Service, ServiceKind, Warmup};

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

/// What running at once costs, where there is work of its own.
pub(crate) static SCALABILITY: &[Field] = &[none(
    "scalability",
    Kind::Object(&SCALABILITY_LAW),
    "requests share nothing but workers and cores",
    "How requests that run at once on one instance slow each other down.",
)];

pub(crate) static SCALABILITY_LAW: Object = Object {
    name: "scalability",
    doc: "How what runs at once slows each other down, by Gunther's Universal Scalability Law (\"Guerrilla Capacity \
          Planning\", 2007). With N requests running on an instance, each `work` and `wait` takes 1 + contention × (N − 1) \
          + coherency × N × (N − 1) times as long; with N operations running on a store's node, each operation does. N \
          counts what runs when it begins, itself included; what is in a queue does not count. Fit both to throughputs \
          that you measured at several N.",
    groups: &[&[
        value(
            "contention",
            Kind::Scalar(&SHARE),
            "0%",
            "nothing is done one at a time",
            "Sigma: share of the time in something that only one can be in, such as a lock. Throughput levels off at 1 / \
             contention times that of one request at a time (Amdahl's law).",
        ),
        value(
            "coherency",
            Kind::Scalar(&SHARE),
            "0%",
            "nothing is kept in step",
            "Kappa: what each pair of requests adds, to keep what they share in step, such as caches. Throughput falls \
             again past N = √((1 − contention) / coherency).",
        ),
    ]],
};

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
            scalability: None,
            endpoints: Vec::new(),
            idempotency: None,
            idempotency_header: String::new(),
            limit: None,
            rate_limit: None,
            bulkheads: Vec::new(),
            degradation: None,
            autoscale: None,
            deploy: Deploy { batch: 1, surge: true, pause: 0, rollback_at: None },
            at: serving::addresses(filled, self.report),
            run: serving::command(filled, self.report),
            serving: None,
            line,
        }
    }

    /// What running at once costs the steps of these endpoints.
    pub(in crate::file) fn scalability(&mut self, filled: &Filled, endpoints: &[Endpoint]) -> Option<Scalability> {
        let law = self.scalability_law(filled)?;
        if !endpoints.iter().any(|endpoint| takes_time(&endpoint.program)) {
            let message = "it changes nothing: there is no `work` and no `wait` that could take longer";
            self.report.at(filled.get("scalability").at, message.to_owned());
        }
        Some(law)
    }

    /// What a service or store states about running at once.
    pub(in crate::file) fn scalability_law(&mut self, filled: &Filled) -> Option<Scalability> {
        let law = filled.get("scalability").set()?;
        let (contention, coherency) = (law.get("contention"), law.get("coherency"));
        if law.is_bad() || contention.is_bad() || coherency.is_bad() {
            return None;
        }
        let found = Scalability { contention: contention.number(), coherency: coherency.number() };
        if found.contention == 0.0 && found.coherency == 0.0 {
            let message = "it changes nothing: state `contention` or `coherency` above 0%, or leave it out";
            self.report.at(law.at, message.to_owned());
            return None;
        }
        Some(found)
    }
}

/// Whether a program has work or waits of its own.
fn takes_time(program: &Program) -> bool {
    program
        .iter()
        .any(|step| matches!(step.action, Action::Work(_) | Action::Wait(_)) || inner(step).into_iter().any(takes_time))
}
