//! What a gateway is to do: the system file's words, checked for what only a real gateway needs.

pub mod router;

use plimsoll_model::system::{
    Addresses, Degradation, EdgePolicies, FallbackAnswer, RateLimit, Route as ModelRoute, Service, ServiceKind,
    Serving, StoreKind, System,
};
use plimsoll_policy::{self as policy, Time};
use router::Router;

use crate::redis::StoredQuota;

/// Why a system file cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CannotServe {
    /// The line of the component that it is about, from 1; 0 where it is about the whole file.
    pub line: u32,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// What a gateway is to do.
#[derive(Debug)]
pub struct Plan {
    /// The gateway's name.
    pub name: String,
    /// The system file with every default, for those who ask what is in force.
    pub text: String,
    /// Cores that it works on.
    pub cores: usize,
    /// Addresses, limits, logs.
    pub serving: Serving,
    /// How long requests may take to end once it is told to stop, ns.
    pub drain: u64,
    /// Requests that it holds at once.
    pub max_in_flight: u32,
    /// Requests that wait beyond those, by class.
    pub queue: policy::shed::Config,
    /// Whether it stops working on requests whose caller has gone.
    pub stops_when_cancelled: bool,
    /// From a request to a position in `routes`.
    pub router: Router,
    /// What it answers, in the order of the file's endpoints.
    pub routes: Vec<Route>,
    /// Whom it asks.
    pub targets: Vec<Target>,
    /// The quota on what it gets.
    pub rate_limit: Option<RateLimit>,
    /// The same where several gateways share it.
    pub shared_quota: Option<StoredQuota>,
    /// Answers that it keeps by idempotency key, and the field that has the key.
    pub idempotency: Option<(policy::idempotency::Config, String)>,
    /// The limit on what it holds.
    pub limit: Option<policy::adaptive_limit::Config>,
    /// Permits that groups of routes share.
    pub bulkheads: Vec<plimsoll_model::system::Bulkhead>,
    /// What is switched off under load.
    pub degradation: Option<Degradation>,
}

/// Something that a gateway answers.
#[derive(Clone, Debug)]
pub struct Route {
    /// The endpoint's name.
    pub name: String,
    /// Position in `targets`.
    pub target: usize,
    /// Whether it may be repeated without harm.
    pub repeatable: bool,
    /// The field whose presence makes a request repeatable all the same.
    pub key_header: Option<String>,
    /// Whether the gateway keeps its answers by idempotency key.
    pub remembers: bool,
    /// The priority class, where the endpoint states one.
    pub class: Option<u8>,
    /// Position in `bulkheads`.
    pub bulkhead: Option<usize>,
    /// Answers that are kept: the name under which routes share them, and the rules.
    pub cache: Option<(String, policy::cache::Config)>,
    /// What is answered where the upstream fails.
    pub fallback: Option<FallbackAnswer>,
}

/// An upstream service with one set of policies.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service's name.
    pub service: String,
    /// Tells it from other targets, also after a reload.
    pub key: String,
    /// The policies towards it.
    pub policies: EdgePolicies,
    /// Where its instances are.
    pub addresses: Addresses,
}

impl Plan {
    /// The plan of a system's gateway: the only one, or the one of that name.
    pub fn new(system: &System, name: Option<&str>) -> Result<Plan, CannotServe> {
        let (service, routes) = find(system, name)?;
        let error = |line: u32, message: String| Err(CannotServe { line, message });
        let Some(serving) = service.serving.as_deref() else {
            return error(service.line, format!("`{}` is no gateway", service.name));
        };
        let mut plan = Plan {
            name: service.name.clone(),
            text: String::new(),
            cores: service.cores as usize,
            serving: serving.clone(),
            drain: service.drain,
            max_in_flight: service.max_in_flight,
            queue: service.queue,
            stops_when_cancelled: service.stops_when_cancelled,
            router: Router::default(),
            routes: Vec::new(),
            targets: Vec::new(),
            rate_limit: service.rate_limit.clone(),
            shared_quota: shared_quota(system, service)?,
            idempotency: service.idempotency.map(|config| (config, service.idempotency_header.clone())),
            limit: service.limit,
            bulkheads: service.bulkheads.clone(),
            degradation: service.degradation.clone(),
        };
        let mut edges = Vec::new();
        for (position, route) in routes.iter().enumerate() {
            let endpoint = &service.endpoints[position];
            let behind = &system.services[route.to.service.index()];
            if let Err(message) = plan.router.add(&endpoint.name, position as u32) {
                return error(behind.endpoints[route.to.index as usize].line, message);
            }
            let target = match edges.iter().position(|edge| *edge == route.edge) {
                Some(target) => target,
                None => {
                    let Some(addresses) = behind.at.clone() else {
                        let name = &behind.name;
                        let example = "at: [127.0.0.1:3000]";
                        return error(behind.line, format!("`{name}` has no addresses: give it some, as `{example}`"));
                    };
                    edges.push(route.edge);
                    let first = !plan.targets.iter().any(|target: &Target| target.service == behind.name);
                    let key = if first { behind.name.clone() } else { format!("{} {}", behind.name, endpoint.name) };
                    let policies = system.edges[route.edge.index()].policies.clone();
                    plan.targets.push(Target { service: behind.name.clone(), key, policies, addresses });
                    plan.targets.len() - 1
                }
            };
            let origin = origin(system, route);
            let keeper = &system.services[origin.0];
            let at_origin = &keeper.endpoints[origin.1];
            let cache = route.cache.as_ref();
            plan.routes.push(Route {
                name: endpoint.name.clone(),
                target,
                repeatable: at_origin.idempotent,
                key_header: keeper.idempotency.as_ref().map(|_| keeper.idempotency_header.clone()),
                remembers: service.idempotency.is_some() && !endpoint.idempotent,
                class: at_origin.class,
                bulkhead: service.bulkheads.iter().position(|b| b.endpoints.contains(&(position as u32))),
                cache: cache.map(|cache| (system.keyspaces[cache.keyspace.index()].name.clone(), cache.freshness)),
                fallback: route.fallback_answer.clone(),
            });
        }
        Ok(plan)
    }
}

impl Plan {
    /// When a request must have been answered: a route's `timeout` runs from the request's arrival, whatever it waits
    /// for here. `caller` is until when its caller waits, by its own word.
    pub fn deadline(&self, route: u32, arrived: Time, caller: Option<Time>) -> Time {
        let timeout = self.targets[self.routes[route as usize].target].policies.pipeline.timeout;
        let ours = timeout.map_or(Time::MAX, |timeout| arrived + timeout);
        caller.map_or(ours, |caller| ours.min(caller))
    }
}

/// The quota of a gateway whose counts are in a Redis.
fn shared_quota(system: &System, service: &Service) -> Result<Option<StoredQuota>, CannotServe> {
    let Some((settings, (store, edge))) = service.rate_limit.as_ref().and_then(|s| Some((s, s.store?))) else {
        return Ok(None);
    };
    let store = &system.stores[store.index()];
    let error = |message: String| Err(CannotServe { line: service.line, message });
    let StoreKind::Redis(redis) = &store.kind else {
        return error(format!("`{}` is no Redis", store.name));
    };
    let Some(at) = redis.at.clone() else {
        let name = &store.name;
        return error(format!(
            "`{name}`, which keeps the counts of `rate_limit`, has no address: give it one, as `at: 127.0.0.1:6379`"
        ));
    };
    let calls = system.edges[edge.index()].policies.pipeline;
    Ok(Some(StoredQuota::new(&service.name, at, &settings.config, calls)))
}

fn find<'s>(system: &'s System, name: Option<&str>) -> Result<(&'s Service, &'s [ModelRoute]), CannotServe> {
    let gateways = || {
        system.services.iter().filter_map(|service| match &service.kind {
            ServiceKind::Gateway(routes) => Some((service, &routes[..])),
            ServiceKind::Service => None,
        })
    };
    let names = || gateways().map(|(service, _)| service.name.as_str()).collect::<Vec<_>>().join(", ");
    let error = |message: String| Err(CannotServe { line: 0, message });
    match (name, gateways().count()) {
        (_, 0) => error("the system has no gateway: add a service with `kind: gateway`".to_owned()),
        (Some(name), _) => match gateways().find(|(service, _)| service.name == name) {
            Some(found) => Ok(found),
            None => error(format!("no gateway `{name}`; expected one of: {}", names())),
        },
        (None, 1) => Ok(gateways().next().expect("just counted")),
        (None, _) => error(format!("the system has several gateways: name one of {}", names())),
    }
}

/// The service and endpoint that answer in the end, behind all gateways.
fn origin(system: &System, route: &ModelRoute) -> (usize, usize) {
    let (mut service, mut endpoint) = (route.to.service.index(), route.to.index as usize);
    while let ServiceKind::Gateway(routes) = &system.services[service].kind {
        let Some(next) = routes.get(endpoint) else { break };
        (service, endpoint) = (next.to.service.index(), next.to.index as usize);
    }
    (service, endpoint)
}
