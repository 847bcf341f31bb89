//! The value of a metric over the segments of a phase, by the simulation's definitions.

use plimsoll_model::run::Totals;
use plimsoll_model::system::{Component, EdgeId, Metric, MetricTarget, StoreKind, Subject, System};

use super::Cuts;
use super::parts::Parts;
use super::requests::Requests;
use crate::layout::nodes;
use crate::stack::tells;
use crate::tally::{Delta, Of};

/// Everything that was measured.
#[derive(Debug)]
pub struct Measured<'m> {
    /// The system.
    pub system: &'m System,
    /// The experiment's segments.
    pub cuts: &'m Cuts,
    /// Clients' requests.
    pub requests: &'m Requests,
    /// What processes have counted.
    pub parts: &'m Parts,
    /// By service: instance slots that there are.
    pub slots: &'m [u32],
    /// By service: instances at the end.
    pub members: &'m [u32],
}

/// Something that can be used up: its name, how much of it there is, and the level that says how much is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resource {
    /// Its name.
    pub name: &'static str,
    /// How much there is.
    pub capacity: f64,
}

impl Measured<'_> {
    /// A metric's value; not a number where nothing was measured. Shares are from 0 to 1, durations in ns, rates a
    /// second.
    pub fn value(&self, metric: &Metric, segments: &[usize]) -> f64 {
        let seconds = self.cuts.length(segments) as f64 / 1e9;
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let of = |who: Subject| self.requests.over(who, segments);
        match *metric {
            Metric::Errors(who) => {
                let totals = of(who).totals;
                share(totals.offered.saturating_sub(totals.ok), totals.offered)
            }
            Metric::Success(who) => {
                let totals = of(who).totals;
                if totals.offered == 0 { 1.0 } else { share(totals.ok, totals.offered) }
            }
            Metric::Goodput(who) => of(who).totals.ok as f64 / seconds,
            Metric::Percentile(p, who) => match of(who).all {
                times if times.count() == 0 => f64::NAN,
                times => times.percentile_ms(p) * 1e6,
            },
            Metric::Mean(who) => match of(who).all {
                times if times.count() == 0 => f64::NAN,
                times => times.mean_ms() * 1e6,
            },
            Metric::Degraded(who) => {
                let totals = of(who).totals;
                share(totals.degraded, totals.ok)
            }
            Metric::Gap(who) => self.requests.gap(who, segments) as f64,
            Metric::Amplification(target) => {
                let totals = match target {
                    MetricTarget::Component(Component::Client(id)) => {
                        let totals = of(Subject::Client(id)).totals;
                        return if totals.offered == 0 { 1.0 } else { 1.0 + share(totals.retries, totals.offered) };
                    }
                    MetricTarget::Edge(edge) => self.edge(edge, segments).totals,
                    MetricTarget::Component(component) => self.incoming(component, segments),
                    MetricTarget::Instance(component, _) => self.incoming(component, segments),
                };
                let calls = totals.offered.saturating_sub(totals.retries);
                if calls == 0 { 1.0 } else { totals.offered as f64 / calls as f64 }
            }
            Metric::Share(component, number) => {
                let ok = |of: Of| self.parts.over(of, segments).map_or(0, |delta| delta.totals.ok);
                match component {
                    Component::Service(id) => {
                        let all: u64 = self.instances(id.0).map(&ok).sum();
                        share(ok(Of::Instance(id.0, number)), all)
                    }
                    Component::Store(id) => {
                        let all: u64 = self.nodes(id.0).map(&ok).sum();
                        ok(Of::Node(id.0, number)) as f64 / all as f64
                    }
                    _ => f64::NAN,
                }
            }
            Metric::Utilization(target) => self.busiest(target, segments).map_or(f64::NAN, |(_, share)| share),
            Metric::Queue(target) => self.mean_level(target, "queue", segments),
            Metric::Rejected(MetricTarget::Component(Component::Client(id))) => {
                let totals = of(Subject::Client(id)).totals;
                share(totals.rejected, totals.offered)
            }
            Metric::Rejected(target) => {
                let totals = self.of_target(target, segments).totals;
                share(totals.rejected, totals.offered)
            }
            Metric::StaleReads(store) => {
                let totals = self.parts.sum(self.nodes(store.0), segments).totals;
                share(totals.stale, totals.ok)
            }
            Metric::LostWrites(target) => self.of_target(target, segments).totals.lost as f64,
            Metric::Duplicates(target) => self.of_target(target, segments).totals.duplicates as f64,
            Metric::Backlog(topic) => {
                self.mean_level(MetricTarget::Component(Component::Topic(topic)), "backlog", segments)
            }
            Metric::DeadLetters(topic) => self.extra(Of::Topic(topic.0), "dead_letters", segments),
            Metric::Trips(edge) => self.edge(edge, segments).extras.get("trips").copied().unwrap_or(0.0),
            Metric::Ejections(edge) => self.edge(edge, segments).extras.get("ejections").copied().unwrap_or(0.0),
            Metric::Hits(store) => {
                let sum = self.parts.sum(self.nodes(store.0), segments);
                let of = |name: &str| sum.extras.get(name).copied().unwrap_or(0.0);
                of("hits") / of("lookups")
            }
            Metric::Instances(service) => f64::from(self.members[service.index()]),
        }
    }

    fn extra(&self, of: Of, name: &str, segments: &[usize]) -> f64 {
        self.parts.over(of, segments).map_or(0.0, |delta| delta.extras.get(name).copied().unwrap_or(0.0))
    }

    /// The instances of a service.
    pub fn instances(&self, service: u32) -> impl Iterator<Item = Of> + use<> {
        (0..self.slots[service as usize]).map(move |instance| Of::Instance(service, instance))
    }

    /// The nodes of a store, and the store as a whole.
    pub fn nodes(&self, store: u32) -> impl Iterator<Item = Of> + use<> {
        let count = nodes(&self.system.stores[store as usize].kind);
        (0..count).map(move |node| Of::Node(store, node))
    }

    /// An edge's counts: those of all edges of its pair.
    pub fn edge(&self, edge: EdgeId, segments: &[usize]) -> Delta {
        self.parts.sum(self.system.same_pair(edge).map(|edge| Of::Edge(edge.0)), segments)
    }

    /// What all edges to a component carry.
    fn incoming(&self, component: Component, segments: &[usize]) -> Totals {
        let edges = self.system.edges.iter().enumerate().filter(|(_, edge)| edge.to == component);
        self.parts.sum(edges.map(|(at, _)| Of::Edge(at as u32)), segments).totals
    }

    /// What is counted about a metric's target.
    pub fn of_target(&self, target: MetricTarget, segments: &[usize]) -> Delta {
        self.parts.sum(self.covers(target), segments)
    }

    fn covers(&self, target: MetricTarget) -> Vec<Of> {
        match target {
            MetricTarget::Component(Component::Service(id)) => self.instances(id.0).collect(),
            MetricTarget::Component(Component::Store(id)) => self.nodes(id.0).chain([Of::Store(id.0)]).collect(),
            MetricTarget::Component(Component::Topic(id)) => vec![Of::Topic(id.0)],
            MetricTarget::Component(Component::Consumer(id)) => vec![Of::Consumer(id.0)],
            MetricTarget::Component(Component::Lease(id)) => vec![Of::Lease(id.0)],
            MetricTarget::Component(Component::Client(_)) => Vec::new(),
            MetricTarget::Instance(Component::Service(id), number) => vec![Of::Instance(id.0, number)],
            MetricTarget::Instance(Component::Store(id), number) => vec![Of::Node(id.0, number)],
            MetricTarget::Instance(component, _) => self.covers(MetricTarget::Component(component)),
            MetricTarget::Edge(edge) => self.system.same_pair(edge).map(|edge| Of::Edge(edge.0)).collect(),
        }
    }

    /// A level's time average, summed over what the target covers.
    pub fn mean_level(&self, target: MetricTarget, name: &str, segments: &[usize]) -> f64 {
        let length = self.cuts.length(segments).max(1) as f64;
        self.of_target(target, segments).levels.get(name).map_or(0.0, |(area, _)| area / length)
    }

    /// What of a target can be used up.
    pub fn resources(&self, target: MetricTarget) -> Vec<Resource> {
        let resource = |name, capacity| Resource { name, capacity };
        match target {
            MetricTarget::Instance(Component::Service(id), _) | MetricTarget::Component(Component::Service(id)) => {
                let service = &self.system.services[id.index()];
                if !tells(service) {
                    return Vec::new();
                }
                let count = match target {
                    // As many as there ever were.
                    MetricTarget::Component(_) if service.autoscale.is_some() => {
                        let used =
                            |(at, of): (u32, Of)| at < service.instances || self.parts.segments.contains_key(&of);
                        (0..).zip(self.instances(id.0)).filter(|&instance| used(instance)).count() as f64
                    }
                    MetricTarget::Component(_) => f64::from(self.slots[id.index()].min(service.instances)),
                    _ => 1.0,
                };
                let of = |name, each: u32| resource(name, f64::from(each) * count);
                let gateway = matches!(service.kind, plimsoll_model::system::ServiceKind::Gateway(_));
                match service.asynchronous || gateway {
                    true if gateway => vec![of("max_in_flight", service.max_in_flight)],
                    true => vec![of("max_in_flight", service.max_in_flight), of("cores", service.cores)],
                    false => vec![of("workers", service.workers), of("cores", service.cores)],
                }
            }
            MetricTarget::Instance(Component::Store(id), _) | MetricTarget::Component(Component::Store(id)) => {
                match &self.system.stores[id.index()].kind {
                    StoreKind::Postgres(pg) => vec![
                        resource("concurrency", f64::from(pg.concurrency)),
                        resource("max_connections", f64::from(pg.max_connections)),
                    ],
                    StoreKind::Redis(_) => vec![resource("max_rate", 1.0)],
                    StoreKind::Quorum(quorum) => vec![resource("concurrency", f64::from(quorum.concurrency))],
                }
            }
            MetricTarget::Component(Component::Topic(id)) => {
                vec![resource("capacity", f64::from(self.system.topics[id.index()].capacity))]
            }
            MetricTarget::Edge(edge) => {
                self.connections(edge).map(|c| resource("connections", c)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Pooled connections of all callers of an edge to a store, to one node of it.
    fn connections(&self, edge: EdgeId) -> Option<f64> {
        let edge = &self.system.edges[edge.index()];
        let Component::Store(id) = edge.to else { return None };
        let pool = match &self.system.stores[id.index()].kind {
            StoreKind::Postgres(pg) => pg.pool,
            StoreKind::Redis(redis) => redis.pool,
            StoreKind::Quorum(_) => return None,
        };
        let callers = match edge.from {
            Component::Service(id) => self.system.services[id.index()].instances,
            Component::Consumer(id) => self.system.consumers[id.index()].instances,
            _ => 1,
        };
        Some(f64::from(pool) * f64::from(callers))
    }

    /// How far a resource of a target is used up, 0 to 1.
    pub fn used(&self, target: MetricTarget, resource: Resource, segments: &[usize]) -> f64 {
        let length = self.cuts.length(segments).max(1) as f64;
        let delta = self.of_target(target, segments);
        let level = |name: &str| delta.levels.get(name).map_or(0.0, |(area, _)| area / length);
        let level = match resource.name {
            "max_rate" => delta.extras.get("busy_ns").copied().unwrap_or(0.0) / length,
            "capacity" => level("backlog"),
            name => level(name),
        };
        level / resource.capacity.max(1e-9)
    }

    /// The busiest of a target's resources, and how far it is used up. A store is as busy as its busiest node.
    pub fn busiest(&self, target: MetricTarget, segments: &[usize]) -> Option<(Resource, f64)> {
        let targets = match target {
            MetricTarget::Component(component @ Component::Store(id)) => {
                (0..nodes(&self.system.stores[id.index()].kind))
                    .map(|node| MetricTarget::Instance(component, node))
                    .collect()
            }
            other => vec![other],
        };
        let all = targets.into_iter().flat_map(|target| {
            let used = move |resource| (resource, self.used(target, resource, segments));
            self.resources(target).into_iter().map(used)
        });
        all.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}
