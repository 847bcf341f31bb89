use plimsoll_model::run::{Weather, WeatherKind};
use plimsoll_model::system::{
    Action, Component, Dist, Experiment, Fault, FaultKind, Program, ServiceId, ServiceKind, StoreId, StoreKind, System,
    Target, Version, ZoneId,
};

use crate::plan::Scenario;

/// A weather, and the scenario that it is.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// What it is called.
    pub weather: Weather,
    /// What happens; its load is multiplied by the search.
    pub scenario: Scenario,
    /// The time that the system is given to come back, ns after the last fault's end.
    pub grace: u64,
}

const SECOND: u64 = 1_000_000_000;

/// Before the measured part: queues and caches fill, health checks settle.
const WARMUP: u64 = 3 * SECOND;

/// Calm weather is measured for so long; the long quiet run comes on top.
const CALM: u64 = 20 * SECOND;

/// A fault begins so long after the measured part.
const AT: u64 = SECOND;

/// A fault lasts so long: longer than health checks with default settings take to notice it.
const LASTS: u64 = 16 * SECOND;

/// The outage after which clients retry (Bronson et al., HotOS 2021: 10 s).
const OUTAGE: u64 = 10 * SECOND;

/// After the fault a system has this long to come back.
const GRACE: u64 = 10 * SECOND;

/// And is watched for this long after that.
const AFTER: u64 = 5 * SECOND;

/// The built-in weathers that apply to a system, calm first.
pub fn forecasts(system: &System) -> Vec<Forecast> {
    let mut out = vec![calm()];
    out.extend(instance_lost(system));
    out.extend(zone_lost(system));
    out.extend(database_slow(system));
    out.extend(primary_lost(system));
    out.extend(replica_lag(system));
    out.extend(cache_cold(system));
    out.extend(broker_down(system));
    out.extend(clients_retrying(system));
    out.extend(rolling_deploy(system));
    out
}

impl Forecast {
    /// An experiment of the file as a weather.
    pub fn from_experiment(experiment: &Experiment) -> Self {
        let mut scenario = Scenario::from_experiment(experiment);
        // The search decides the load.
        scenario.load.clear();
        let last = scenario.faults.iter().map(|fault| fault.until).max().unwrap_or(0);
        scenario.duration = scenario.duration.max(last + GRACE + AFTER);
        let text = scenario.faults.iter().map(|fault| fault.text.clone()).collect::<Vec<_>>().join("; ");
        let weather = Weather { kind: WeatherKind::Experiment, name: experiment.name.clone(), text };
        Forecast { weather, scenario, grace: GRACE }
    }
}

pub(super) fn calm() -> Forecast {
    let weather = Weather { kind: WeatherKind::Calm, name: "calm".to_owned(), text: "no fault".to_owned() };
    Forecast { weather, scenario: Scenario::calm(WARMUP, CALM), grace: 0 }
}

fn forecast(kind: WeatherKind, name: &str, text: String, fault: FaultKind, lasts: u64) -> Forecast {
    let until = AT + lasts;
    let mut scenario = Scenario::calm(WARMUP, until + GRACE + AFTER);
    scenario.name = name.to_owned();
    scenario.faults.push(Fault { at: AT, until, kind: fault, text: text.clone(), line: 0 });
    scenario.cuts.push(until + GRACE);
    Forecast { weather: Weather { kind, name: name.to_owned(), text }, scenario, grace: GRACE }
}

/// Services that people wrote: not gateways, not the hidden ones of consumers.
fn plain_services(system: &System) -> impl Iterator<Item = (ServiceId, &plimsoll_model::system::Service)> {
    system
        .services
        .iter()
        .enumerate()
        .map(|(s, service)| (ServiceId(s as u32), service))
        .filter(|(id, _)| !system.consumers.iter().any(|consumer| consumer.service == *id))
        .filter(|(_, service)| service.kind == ServiceKind::Service)
}

/// One instance of the service that suffers most from it: the one with the fewest, of those that
/// have a second.
fn instance_lost(system: &System) -> Option<Forecast> {
    let (id, service) = plain_services(system)
        .filter(|(_, service)| service.instances > 1)
        .min_by_key(|(_, service)| service.instances)?;
    let text = format!("kill {}/1 for 16 s", service.name);
    let fault = FaultKind::Kill(Target::Instance(Component::Service(id), 0));
    Some(forecast(WeatherKind::InstanceLost, "instance lost", text, fault, LASTS))
}

fn zone_lost(system: &System) -> Option<Forecast> {
    if system.zones.len() < 2 {
        return None;
    }
    let text = format!("kill zone {} for 16 s", system.zones[0]);
    let fault = FaultKind::Kill(Target::Zone(ZoneId(0)));
    Some(forecast(WeatherKind::ZoneLost, "zone lost", text, fault, LASTS))
}

fn databases(system: &System) -> impl Iterator<Item = (StoreId, &plimsoll_model::system::Store)> {
    let all = system.stores.iter().enumerate().map(|(s, store)| (StoreId(s as u32), store));
    all.filter(|(_, store)| !matches!(store.kind, StoreKind::Redis(_)))
}

fn database_slow(system: &System) -> Option<Forecast> {
    let (id, store) = databases(system).next()?;
    let text = format!("slow {} by 5x for 16 s", store.name);
    let target = Target::All(Component::Store(id));
    let fault = FaultKind::Slow { target, factor: 5.0, added: Dist::Constant(0) };
    Some(forecast(WeatherKind::DatabaseSlow, "database slow 5x", text, fault, LASTS))
}

fn primary_lost(system: &System) -> Option<Forecast> {
    let (id, store) = databases(system).find(|(_, store)| matches!(store.kind, StoreKind::Postgres(_)))?;
    let text = format!("kill primary of {} for 16 s", store.name);
    let fault = FaultKind::Kill(Target::Primary(id));
    Some(forecast(WeatherKind::PrimaryLost, "primary lost", text, fault, LASTS))
}

fn replica_lag(system: &System) -> Option<Forecast> {
    databases(system).find_map(|(id, store)| {
        let StoreKind::Postgres(pg) = &store.kind else { return None };
        if pg.replicas == 0 || !pg.reads.from_replicas {
            return None;
        }
        // Past the file's own bound, so that the bound is tried.
        let by = (5 * SECOND).max(pg.reads.max_lag.unwrap_or(0) * 2);
        let text = format!("replicas of {} {} s behind for 16 s", store.name, by / SECOND);
        let fault = FaultKind::Lag { store: id, by };
        Some(forecast(WeatherKind::ReplicaLag, "replica lag", text, fault, LASTS))
    })
}

fn cache_cold(system: &System) -> Option<Forecast> {
    let store = system.services.iter().flat_map(|s| &s.endpoints).find_map(|e| caches_in(&e.program))?;
    let text = format!("flush {}", system.stores[store.index()].name);
    let fault = FaultKind::Flush(store);
    Some(forecast(WeatherKind::CacheCold, "cache cold", text, fault, SECOND))
}

/// The first store that a program caches in.
fn caches_in(program: &Program) -> Option<StoreId> {
    program.iter().find_map(|step| match &step.action {
        Action::Cache { store, .. } => Some(*store),
        Action::CacheWrite { write, .. } => caches_in(write),
        Action::Transaction { steps, .. } | Action::ForEach { steps, .. } | Action::Lease { steps, .. } => {
            caches_in(steps)
        }
        Action::Parallel { branches, .. } => branches.iter().find_map(caches_in),
        Action::Choice(alternatives) => alternatives.iter().find_map(|(_, program)| caches_in(program)),
        Action::Fallback { attempt, otherwise } => caches_in(attempt).or_else(|| caches_in(otherwise)),
        _ => None,
    })
}

fn broker_down(system: &System) -> Option<Forecast> {
    let topic = system.topics.first()?;
    let text = format!("{} down for 16 s", topic.name);
    let fault = FaultKind::BrokerDown(plimsoll_model::system::TopicId(0));
    Some(forecast(WeatherKind::BrokerDown, "broker down", text, fault, LASTS))
}

/// Applies where somebody retries: everything behind the entrance stops for 10 s, and what was
/// retried in that time comes at once.
fn clients_retrying(system: &System) -> Option<Forecast> {
    system.edges.iter().find(|edge| edge.policies.pipeline.retry.is_some_and(|retry| retry.attempts > 1))?;
    let (id, service) = plain_services(system).next()?;
    let text = format!("pause {} for 10 s", service.name);
    let fault = FaultKind::Pause(Target::All(Component::Service(id)));
    Some(forecast(WeatherKind::ClientsRetrying, "clients retrying after an outage", text, fault, OUTAGE))
}

fn rolling_deploy(system: &System) -> Option<Forecast> {
    let (id, service) = plain_services(system).find(|(_, service)| service.instances > 1)?;
    let text = format!("deploy {}", service.name);
    let version = Version { slow: 1.0, errors: 0.0, startup: None };
    let fault = FaultKind::Deploy { service: id, version };
    let batches = service.instances.div_ceil(service.deploy.batch.max(1)) as u64;
    let each = service.startup.mean() as u64 + service.deploy.pause + 2 * SECOND;
    let lasts = LASTS.max(batches * each).min(120 * SECOND);
    Some(forecast(WeatherKind::RollingDeploy, "rolling deploy", text, fault, lasts))
}
