use plimsoll_policy as policy;

use super::{Addresses, Dist, EdgeId, EndpointId, FallbackAnswer, KeyspaceId, Program, ServiceId, Serving, ZoneId};

/// A service or a gateway: instances that run requests.
#[derive(Clone, Debug)]
pub struct Service {
    /// The reader's name for it.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Plain service or gateway.
    pub kind: ServiceKind,
    /// Instances at the start of a run.
    pub instances: u32,
    /// Zones that instances are spread over, in turn; empty: no zone.
    pub zones: Vec<ZoneId>,
    /// Requests that one instance runs at once.
    pub workers: u32,
    /// Whether a request gives its worker back while it waits (`async: true`); then `workers`
    /// limits nothing, and `max_in_flight` and `memory` do.
    pub asynchronous: bool,
    /// Requests that one asynchronous instance holds at once; more are refused with 503.
    pub max_in_flight: u32,
    /// Whether it stops working on a request whose caller has gone or whose deadline has passed;
    /// gateways do, plain services by default don't, and finish what nobody waits for.
    pub stops_when_cancelled: bool,
    /// `work` that one instance does at once.
    pub cores: u32,
    /// Memory of one instance, bytes; a process that needs more is killed and starts again.
    pub memory: Option<u64>,
    /// Memory that a request holds from arrival to answer, bytes.
    pub request_memory: u64,
    /// Requests that wait for a worker, and the order in which they are taken.
    pub queue: policy::shed::Config,
    /// From the start of the process until it is ready, ns.
    pub startup: Dist,
    /// While warming up after its start, an instance's work takes longer.
    pub warmup: Option<Warmup>,
    /// Longest wait for in-flight requests when an instance is stopped, ns.
    pub drain: u64,
    /// How requests that run at once on one instance slow each other down; none: not at all.
    pub scalability: Option<Scalability>,
    /// What it answers.
    pub endpoints: Vec<Endpoint>,
    /// Remembers the answers to repeated requests.
    pub idempotency: Option<policy::idempotency::Config>,
    /// The header that carries a request's key in the real world; empty without `idempotency`.
    pub idempotency_header: String,
    /// Concurrency limit over all endpoints of one instance, found by measurement.
    pub limit: Option<policy::adaptive_limit::Config>,
    /// Quota over requests.
    pub rate_limit: Option<RateLimit>,
    /// Permits that a group of endpoints shares on one instance.
    pub bulkheads: Vec<Bulkhead>,
    /// What is switched off as load rises.
    pub degradation: Option<Degradation>,
    /// Grows and shrinks the number of instances.
    pub autoscale: Option<Autoscale>,
    /// How new versions roll out.
    pub deploy: Deploy,
    /// Where its instances are in the real world, where the file says so.
    pub at: Option<Addresses>,
    /// The command that starts an instance, with `{port}` and perhaps `{instance}`; none: it is emulated.
    pub run: Option<String>,
    /// How a real process serves it, if it is a gateway.
    pub serving: Option<Box<Serving>>,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

impl Service {
    /// Whether it is a gateway.
    pub fn is_gateway(&self) -> bool {
        matches!(self.kind, ServiceKind::Gateway(_))
    }
}

/// What kind of service it is.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceKind {
    /// Runs the steps of its endpoints.
    Service,
    /// Forwards each request to an upstream service: one route for each endpoint, in their order.
    Gateway(Vec<Route>),
}

/// A gateway's route: one of its endpoints and where that goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Position in the gateway's endpoints.
    pub endpoint: u32,
    /// The endpoint upstream.
    pub to: EndpointId,
    /// The edge that carries it, with the gateway's policies.
    pub edge: EdgeId,
    /// Answers kept by the gateway.
    pub cache: Option<RouteCache>,
    /// Whether a static answer is given when the upstream fails; it counts as a success, and as
    /// degraded.
    pub fallback: bool,
    /// What a real gateway answers then.
    pub fallback_answer: Option<FallbackAnswer>,
}

/// A gateway's response cache for a route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteCache {
    /// Freshness, staleness and stampede rules.
    pub freshness: policy::cache::Config,
    /// Answers held by one gateway instance.
    pub capacity: u32,
    /// Keys that it caches by.
    pub keyspace: KeyspaceId,
}

/// Something that a service answers.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name, such as `GET /notes/:id`.
    pub name: String,
    /// What it does.
    pub program: Program,
    /// Whether it may be repeated without harm: by default GET, HEAD, OPTIONS, PUT and DELETE.
    pub idempotent: bool,
    /// Priority class that overrides the caller's: 0 is the most important.
    pub class: Option<u8>,
    /// Share of requests that fail with 500 of themselves, 0 to 1.
    pub errors: f64,
    /// Size of the answer, bytes: it takes time where a fault limits bandwidth.
    pub response_size: u64,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

/// A service's quota.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Quota, burst and algorithm.
    pub config: policy::rate_limit::Config,
    /// What a quota belongs to.
    pub per: RateLimitKey,
    /// Whether instances share their counts in a store (a Redis by the name in the file), or
    /// each count for themselves.
    pub store: Option<(super::StoreId, EdgeId)>,
}

/// What a quota belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitKey {
    /// One quota for each user of each client.
    User,
    /// One quota for each client.
    Client,
    /// One quota for each endpoint.
    Endpoint,
    /// One quota for all requests.
    All,
}

/// Permits that a group of endpoints shares on one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Bulkhead {
    /// The reader's name for it.
    pub name: String,
    /// Positions in the service's endpoints.
    pub endpoints: Vec<u32>,
    /// Permits and queue.
    pub config: policy::bulkhead::Config,
}

/// Levels of degradation, driven by the utilization of an instance's workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Degradation {
    /// Thresholds (as utilization from 0 to 1) and hysteresis.
    pub ladder: policy::degradation::Config,
    /// For each level, what it switches off.
    pub levels: Vec<DegradationLevel>,
}

/// What one level of degradation switches off.
#[derive(Clone, Debug, PartialEq)]
pub struct DegradationLevel {
    /// The reader's name for it.
    pub name: String,
    /// Endpoints that answer 503 at once, by position.
    pub reject: Vec<u32>,
    /// Optional steps (`optional: NAME`) that are skipped, by name.
    pub skip: Vec<String>,
}

/// While warming up, an instance's work takes longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// From ready to warm, ns.
    pub duration: u64,
    /// Work takes this many times as long at first, falling to once linearly.
    pub factor: f64,
}

/// How requests or operations that run at once slow each other down, by the Universal Scalability Law (Gunther,
/// "Guerrilla Capacity Planning", Springer 2007, chapter 4): with N of them, each takes
/// `1 + contention (N - 1) + coherency N (N - 1)` times as long as one alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalability {
    /// Sigma: share of the time that is spent in one place at a time, 0 to 1.
    pub contention: f64,
    /// Kappa: share of the time that each pair of requests costs, to agree on what they share, 0
    /// to 1.
    pub coherency: f64,
}

impl Scalability {
    /// How many times as long each takes when so many run at once.
    #[inline]
    pub fn stretch(self, at_once: f64) -> f64 {
        1.0 + (at_once - 1.0) * (self.contention + self.coherency * at_once)
    }
}

/// Grows and shrinks the number of instances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Autoscale {
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// Utilization that it steers to, 0 to 1: busy cores, or held workers if those are busier.
    pub target: f64,
    /// Between two decisions, ns.
    pub every: u64,
    /// From the decision to grow until the new process starts, ns (its startup comes on top).
    pub delay: u64,
    /// Quiet time after a change before it shrinks, ns.
    pub cooldown: u64,
}

impl Autoscale {
    /// The policy's settings: what is decided, where the rest is when.
    pub fn policy(&self) -> policy::autoscale::Config {
        policy::autoscale::Config {
            min: self.min,
            max: self.max,
            target: self.target,
            cooldown: std::time::Duration::from_nanos(self.cooldown),
        }
    }
}

/// How new versions roll out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deploy {
    /// Instances replaced at once.
    pub batch: u32,
    /// Whether the replacement is ready before the old instance drains.
    pub surge: bool,
    /// Pause between batches, ns.
    pub pause: u64,
    /// Share of failed requests on new instances, 0 to 1, at which the deploy rolls back.
    pub rollback_at: Option<f64>,
}

/// The service that an endpoint id belongs to, for readers of tables.
impl EndpointId {
    /// The endpoint at `index` of `service`.
    pub const fn new(service: ServiceId, index: u32) -> Self {
        EndpointId { service, index }
    }
}
