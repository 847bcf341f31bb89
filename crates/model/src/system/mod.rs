//! The system file, resolved: every name an index, every quantity a number, every default filled.

mod client;
mod distribution;
mod edge;
mod experiment;
mod ids;
mod messaging;
mod objective;
mod service;
mod serving;
mod step;
mod store;

pub use client::{Arrivals, Client, ClientCall, Process};
pub use distribution::{Dist, KeyDist};
pub use edge::{Edge, EdgePolicies, Health, RetryWhen};
pub use experiment::{
    Bound, Expectation, Experiment, Fault, FaultKind, Load, Metric, MetricTarget, Phase, Target, Version,
};
pub use ids::{
    ClientId, Component, ConsumerId, EdgeId, EndpointId, KeyspaceId, LeaseId, ServiceId, StoreId, TopicId, ZoneId,
};
pub use messaging::{Consumer, Lease, Topic, WhenFull};
pub use objective::{Indicator, Objective, Subject};
/// The policies: their configurations are part of a system.
pub use plimsoll_policy as policy;
pub use service::{
    Autoscale, Bulkhead, Degradation, DegradationLevel, Deploy, Endpoint, RateLimit, RateLimitKey, Route, RouteCache,
    Scalability, Service, ServiceKind, Warmup,
};
pub use serving::{
    AccessLog, Address, Addresses, Balancer, FallbackAnswer, Headers, Limits, LogFormat, NetworkPrefix, Serving, Tls,
};
pub use step::{Action, CacheWrite, Count, Program, Step};
pub use store::{Failover, Lock, Operation, Postgres, Quorum, Reads, Redis, RedisAt, RedisTls, Store, StoreKind};

/// A system: what a system file says, with every name resolved and every default filled in.
#[derive(Clone, Debug)]
pub struct System {
    /// The reader's name for it.
    pub name: String,
    /// Who answers for it, where a component names no owner of its own.
    pub owner: Option<String>,
    /// A hash of the file's text, which names it in a run.
    pub hash: u64,
    /// Zone names.
    pub zones: Vec<String>,
    /// Network delays between zones.
    pub network: Network,
    /// Those who ask.
    pub clients: Vec<Client>,
    /// Services and gateways; the hidden services of consumers come last.
    pub services: Vec<Service>,
    /// Stores.
    pub stores: Vec<Store>,
    /// Topics.
    pub topics: Vec<Topic>,
    /// Consumers.
    pub consumers: Vec<Consumer>,
    /// Leases.
    pub leases: Vec<Lease>,
    /// Who calls whom. A gateway's route with policies of its own has an edge beside the first of its
    /// pair; a name such as `edge -> api` stands for the first, and faults and metrics on it are
    /// about all of the pair (see [`System::same_pair`]).
    pub edges: Vec<Edge>,
    /// The kinds of thing that caches hold, each with its number of keys.
    pub keyspaces: Vec<Keyspace>,
    /// What is promised; a file that states nothing gets the default objectives.
    pub objectives: Vec<Objective>,
    /// Questions that the file asks.
    pub experiments: Vec<Experiment>,
    /// How the system is scaled when its load grows.
    pub growth: Vec<Growth>,
    /// Prices in US$, defaults and overrides.
    pub prices: Prices,
    /// Owners, with how to reach them.
    pub owners: Vec<Owner>,
}

/// One-way network delays, ns.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Within a zone, and where a side has no zone.
    pub same_zone: Dist,
    /// Between zones.
    pub cross_zone: Dist,
}

/// A kind of thing that a cache holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Keyspace {
    /// The reader's name for it.
    pub name: String,
    /// Number of keys: as stated, or the most of any client that leads here. `u32::MAX` where requests
    /// without a key distribution do: each has a key of its own.
    pub keys: u32,
}

/// What grows with the load.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// The component.
    pub component: Component,
    /// Which of its numbers.
    pub what: GrowthKey,
    /// Most that it can grow to.
    pub max: Option<u32>,
}

/// A number of a component that can grow with the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GrowthKey {
    Instances,
    Workers,
    Cores,
    Replicas,
    Shards,
    MaxConnections,
    Concurrency,
    MaxRate,
    Capacity,
    Partitions,
    Nodes,
}

/// Somebody who answers for components.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// The name that `owner:` refers to.
    pub name: String,
    /// How to reach them.
    pub contact: Option<String>,
    /// Where their runbook is.
    pub runbook: Option<String>,
}

/// Prices in US$. A month has 730 hours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// A virtual processor for an hour.
    pub vcpu_hour: f64,
    /// A GB (10^9 bytes) of memory for an hour.
    pub memory_gb_hour: f64,
    /// A PostgreSQL node's two processors for an hour.
    pub postgres_2vcpu_hour: f64,
    /// A GB of database storage for a month.
    pub postgres_gb_month: f64,
    /// A GB of Redis memory for a month.
    pub redis_gb_month: f64,
    /// A million messages.
    pub queue_million: f64,
    /// A load balancer for a month.
    pub load_balancer_month: f64,
}

impl System {
    /// The name of a component as the file gives it.
    pub fn component_name(&self, component: Component) -> &str {
        match component {
            Component::Client(id) => &self.clients[id.index()].name,
            Component::Service(id) => &self.services[id.index()].name,
            Component::Store(id) => &self.stores[id.index()].name,
            Component::Topic(id) => &self.topics[id.index()].name,
            Component::Consumer(id) => &self.consumers[id.index()].name,
            Component::Lease(id) => &self.leases[id.index()].name,
        }
    }

    /// An edge as a file names it: `api -> db`.
    pub fn edge_name(&self, edge: EdgeId) -> String {
        let edge = &self.edges[edge.index()];
        format!("{} -> {}", self.component_name(edge.from), self.component_name(edge.to))
    }

    /// All edges with the caller and target of this one, itself included.
    pub fn same_pair(&self, edge: EdgeId) -> impl Iterator<Item = EdgeId> + '_ {
        let Edge { from, to, .. } = self.edges[edge.index()];
        let pair = move |(_, other): &(usize, &Edge)| other.from == from && other.to == to;
        self.edges.iter().enumerate().filter(pair).map(|(index, _)| EdgeId::from(index))
    }

    /// An endpoint as a file names it: `edge GET /notes`.
    pub fn endpoint_name(&self, endpoint: EndpointId) -> String {
        let service = &self.services[endpoint.service.index()];
        format!("{} {}", service.name, service.endpoints[endpoint.index as usize].name)
    }
}
