//! One request's way through a system on paper: every step adds to what it takes of each resource.

mod caches;
mod services;
mod stores;

use plimsoll_model::system::{
    Component, ConsumerId, Dist, EdgeId, EndpointId, KeyDist, MetricTarget, ServiceId, StoreId, StoreKind, System,
    TopicId, ZoneId,
};
use plimsoll_policy::retry::{Backoff, Jitter};
use plimsoll_policy::retry_budget::Rule;
use plimsoll_policy::{Mode, PipelineConfig, rate_limit};

use super::demand::Demand;
use super::hit_ratio::top_key;
use super::hold::Hold;
use super::retry;
use super::usl::Scaled;
pub(super) use caches::Caches;
use services::places;
use stores::Transaction;

/// A pass over a system.
pub(super) struct Walk<'s> {
    system: &'s System,
    /// Requests a second over all clients.
    per_s: f64,
    caches: Caches<'s>,
    seen: Caches<'s>,
    demands: Vec<(u32, Demand)>,
    /// By service: what one offered request takes of its instances.
    own: Vec<Own>,
    /// Which call of which client is under way, counted over all.
    call: u32,
    keys: Option<&'s KeyDist>,
    transaction: Option<Transaction>,
    depth: u32,
}

/// Time that a request spends in a service, s.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    work: f64,
    wait: f64,
    /// From its beginning to its answer, others' time included.
    held: f64,
}

impl<'s> Walk<'s> {
    /// At so many requests a second, with caches that answer as the last pass found.
    pub(super) fn new(system: &'s System, per_s: f64, caches: Caches<'s>) -> Self {
        Walk {
            system,
            per_s,
            caches,
            seen: Caches::default(),
            demands: Vec::new(),
            own: vec![Own::default(); system.services.len()],
            call: 0,
            keys: None,
            transaction: None,
            depth: 0,
        }
    }

    /// The requests of one client, which are this share of all.
    pub(super) fn client(&mut self, client: usize, share: f64) -> Hold {
        let of = &self.system.clients[client];
        let total: f64 = of.calls.iter().map(|call| call.weight).sum();
        let mut parts = Vec::new();
        for call in &of.calls {
            let part = call.weight / total;
            self.keys = call.key.as_ref();
            parts.push((part, self.enter_endpoint(call.edge, call.endpoint, share * part)));
            self.call += 1;
        }
        Hold::mixture(&parts)
    }

    /// What all of it comes to: of several parts of one place's resource the busiest counts.
    pub(super) fn finish(mut self) -> (Vec<Demand>, Caches<'s>) {
        self.settle_caches();
        self.scale();
        let mut demands: Vec<Demand> = Vec::new();
        for (_, demand) in self.demands {
            let same = |known: &&mut Demand| known.place == demand.place && known.resource == demand.resource;
            match demands.iter_mut().find(same) {
                Some(known) if known.bound_per_s() <= demand.bound_per_s() => {}
                Some(known) => *known = demand,
                None => demands.push(demand),
            }
        }
        demands.sort_by(|a, b| a.bound_per_s().total_cmp(&b.bound_per_s()));
        (demands, self.seen)
    }

    /// What is left of cores and of places where requests that run at once slow each other down: as
    /// much as the best number of them does.
    fn scale(&mut self) {
        for (s, service) in self.system.services.iter().enumerate() {
            let own = self.own[s];
            let Some(law) = service.scalability.filter(|_| own.work + own.wait > 0.0) else { continue };
            let id = ServiceId::from(s);
            let (name, most) = places(service);
            let (cores, instances) = (service.cores as f64, self.instances(id));
            // Branches that run at once take more time of their own than their request is held.
            let stretched = (own.work + own.wait).min(own.held);
            let rest = own.held - stretched;
            let scaled = Scaled { law, own: stretched, rest, work: own.work, cores, most };
            let (at_once, by_cores) = scaled.best();
            let (resource, capacity, busy_s) = match by_cores {
                true => ("cores", cores, own.work * law.stretch(at_once)),
                false => (name, at_once, rest + stretched * law.stretch(at_once)),
            };
            let demand = Demand { place: self.place(id), resource, busy_s, capacity: instances * capacity };
            self.demands.push((u32::MAX, demand));
        }
        for (s, store) in self.system.stores.iter().enumerate() {
            let law = match &store.kind {
                StoreKind::Postgres(pg) => pg.scalability,
                StoreKind::Quorum(quorum) => quorum.scalability,
                StoreKind::Redis(_) => None,
            };
            let Some(law) = law else { continue };
            let place = MetricTarget::Component(Component::Store(StoreId::from(s)));
            let running = |d: &&mut (u32, Demand)| d.1.place == place && d.1.resource == "concurrency";
            for (_, demand) in self.demands.iter_mut().filter(running) {
                let node = Scaled { law, own: 1.0, rest: 0.0, work: 0.0, cores: 1.0, most: demand.capacity };
                demand.capacity = node.best().0;
                demand.busy_s *= law.stretch(demand.capacity);
            }
        }
    }

    /// Adds `busy` seconds for one request to a part of a place's resource.
    fn take(&mut self, place: MetricTarget, resource: &'static str, part: u32, capacity: f64, busy: f64) {
        if busy.is_nan() || busy <= 0.0 {
            return;
        }
        let same = |(p, d): &&mut (u32, Demand)| *p == part && d.place == place && d.resource == resource;
        match self.demands.iter_mut().find(same) {
            Some((_, demand)) => demand.busy_s += busy,
            None => self.demands.push((part, Demand { place, resource, busy_s: busy, capacity })),
        }
    }

    // --- calls

    fn enter_endpoint(&mut self, edge: EdgeId, endpoint: EndpointId, weight: f64) -> Hold {
        let service = &self.system.services[endpoint.service.index()];
        let repeatable = service.endpoints[endpoint.index as usize].idempotent || service.idempotency.is_some();
        self.through(edge, weight, repeatable, |walk, weight| {
            let there = walk.endpoint(endpoint, weight);
            Hold { mean: there.mean + 2.0 * walk.one_way(edge), ..there }
        })
    }

    /// A call through an edge's policies: retries where its target fails, and what attempts hold.
    fn through(
        &mut self,
        edge: EdgeId,
        weight: f64,
        repeatable: bool,
        mut attempt: impl FnMut(&mut Self, f64) -> Hold,
    ) -> Hold {
        let of = &self.system.edges[edge.index()];
        let once = attempt(self, weight);
        let failure = 1.0 - once.ok;
        let retried = repeatable && of.policies.retry_when.internal_error && failure > 0.0;
        let callers = self.processes(of.from);
        let pipeline = &of.policies.pipeline;
        let attempts = if retried { self.attempts(pipeline, failure, callers / (weight * self.per_s)) } else { 1.0 };
        if attempts > 1.0 {
            attempt(self, weight * (attempts - 1.0));
        }
        let place = MetricTarget::Edge(edge);
        let held = weight * attempts * once.mean;
        if let Some(limit) = &pipeline.rate_limit {
            self.quota(place, 0, limit, callers, weight * attempts, f64::INFINITY);
        }
        if let Some(bulkhead) = pipeline.bulkhead.filter(|b| b.mode == Mode::Enforce) {
            self.take(place, "bulkhead", 0, callers * bulkhead.permits as f64, held);
        }
        if let Some(limit) = pipeline.adaptive_limit.filter(|l| l.mode == Mode::Enforce) {
            self.take(place, "limit", 0, callers * limit.max as f64, held);
        }
        if let Some(most) = of.policies.max_connections {
            let targets = self.processes(of.to);
            self.take(place, "connections", 0, callers * targets * most as f64, held);
        }
        let waits = pipeline.retry.map_or(0.0, |retry| backoff(&retry.backoff)) * (attempts - 1.0);
        Hold {
            mean: once.mean * attempts + waits,
            variance: once.variance * attempts,
            ok: (attempts * once.ok).min(1.0),
        }
    }

    /// Attempts that a call makes when so many fail, as far as the budget pays. `per_call`: seconds
    /// between a caller's calls.
    fn attempts(&self, pipeline: &PipelineConfig, failure: f64, per_call: f64) -> f64 {
        let Some(retry) = pipeline.retry.filter(|retry| retry.mode == Mode::Enforce) else { return 1.0 };
        let plain = retry::attempts(failure, retry.attempts);
        let affordable = match pipeline.budget.filter(|budget| budget.mode == Mode::Enforce).map(|budget| budget.rule) {
            None => f64::INFINITY,
            Some(Rule::Share { ratio, min_per_second, .. }) => ratio + min_per_second * per_call,
            Some(Rule::Tokens { retry_cost, success_return, .. }) => {
                let earned = success_return * (1.0 - failure);
                if earned < retry_cost { earned / (retry_cost - earned) } else { f64::INFINITY }
            }
        };
        plain.min(1.0 + affordable)
    }

    /// A rate limit takes a share of a quota for each request. `users` share the calls evenly where each
    /// key has a quota of its own.
    fn quota(
        &mut self,
        place: MetricTarget,
        part: u32,
        limit: &rate_limit::Config,
        copies: f64,
        weight: f64,
        users: f64,
    ) {
        if limit.mode != Mode::Enforce {
            return;
        }
        let keys = match limit.scope {
            rate_limit::Scope::Shared => 1.0,
            rate_limit::Scope::PerKey { .. } if users.is_finite() => users,
            rate_limit::Scope::PerKey { .. } => self.users(),
        };
        let per_s = limit.limit as f64 / limit.per.as_secs_f64() * copies * keys;
        self.take(place, "rate limit", part, 1.0, weight / per_s);
    }

    /// The users of the client whose call is under way.
    fn users(&self) -> f64 {
        self.client_of_call().1
    }

    /// The client whose call is under way, by number, and its users.
    fn client_of_call(&self) -> (u32, f64) {
        let mut call = self.call;
        for (c, client) in self.system.clients.iter().enumerate() {
            if (call as usize) < client.calls.len() {
                let users = match client.arrivals {
                    plimsoll_model::system::Arrivals::Closed { users, .. } => users,
                    _ => client.users,
                };
                return (c as u32, users.max(1) as f64);
            }
            call -= client.calls.len() as u32;
        }
        (0, 1.0)
    }

    /// How many processes a component is, at most.
    fn processes(&self, component: Component) -> f64 {
        match component {
            Component::Service(id) => self.instances(id),
            Component::Consumer(id) => self.instances(self.system.consumers[id.index()].service),
            _ => 1.0,
        }
    }

    fn instances(&self, service: ServiceId) -> f64 {
        let of = &self.system.services[service.index()];
        of.autoscale.map_or(of.instances, |scale| scale.max.max(of.instances)) as f64
    }

    /// Mean network delay one way, s.
    fn one_way(&self, edge: EdgeId) -> f64 {
        let of = &self.system.edges[edge.index()];
        // Half of it belongs to each way.
        let overhead = of.policies.overhead.as_ref().map_or(0.0, |overhead| overhead.mean() / 2e9);
        if let Some(latency) = &of.policies.latency {
            return latency.mean() / 1e9 + overhead;
        }
        let network = &self.system.network;
        let (from, to) = (self.zones(of.from), self.zones(of.to));
        let pairs = (from.len() * to.len()) as f64;
        let crossing =
            from.iter().flat_map(|a| to.iter().map(move |b| a != b)).filter(|&crosses| crosses).count() as f64;
        let share = if pairs == 0.0 { 0.0 } else { crossing / pairs };
        (network.same_zone.mean() * (1.0 - share) + network.cross_zone.mean() * share) / 1e9 + overhead
    }

    fn zones(&self, component: Component) -> Vec<ZoneId> {
        match component {
            Component::Client(id) => self.system.clients[id.index()].zone.into_iter().collect(),
            Component::Service(id) => self.system.services[id.index()].zones.clone(),
            Component::Store(id) => self.system.stores[id.index()].zones.clone(),
            Component::Consumer(id) => {
                self.system.services[self.system.consumers[id.index()].service.index()].zones.clone()
            }
            Component::Topic(_) | Component::Lease(_) => Vec::new(),
        }
    }

    /// The share of this call's requests that the busiest of so many parts gets, where keys choose the
    /// part: that of the most popular key, and its part of the rest.
    fn hottest(&self, parts: u32) -> f64 {
        let top = top_key(self.keys);
        top + (1.0 - top) / parts.max(1) as f64
    }

    fn messages(&mut self, topic: TopicId, weight: f64) {
        for (c, consumer) in self.system.consumers.iter().enumerate().filter(|(_, consumer)| consumer.topic == topic) {
            let id = EndpointId::new(consumer.service, 0);
            let outer = self.transaction.take();
            let once = self.endpoint(id, weight);
            let failure = 1.0 - once.ok * (1.0 - consumer.poison);
            let deliveries = retry::attempts(failure, consumer.attempts);
            if deliveries > 1.0 {
                self.endpoint(id, weight * (deliveries - 1.0));
            }
            self.transaction = outer;
            // A partition's messages are handled one after the other, in order.
            let partitions = self.system.topics[topic.index()].partitions;
            let held = once.mean * deliveries + consumer.backoff.mean() / 1e9 * (deliveries - 1.0);
            let place = MetricTarget::Component(Component::Consumer(ConsumerId::from(c)));
            self.take(place, "partitions", 0, 1.0, weight * self.hottest(partitions) * held);
        }
    }
}

fn hold(time: &Dist) -> Hold {
    let mean = time.mean() / 1e9;
    Hold { mean, variance: if mean == 0.0 { 0.0 } else { time.scv() * mean * mean }, ok: 1.0 }
}

/// The mean wait before a first retry, s.
fn backoff(of: &Backoff) -> f64 {
    let share = match of.jitter {
        Jitter::None => 1.0,
        Jitter::Full => 0.5,
        Jitter::Equal => 0.75,
        // Between the base and three times that.
        Jitter::Decorrelated => 2.0,
    };
    of.base.min(of.cap).as_secs_f64() * share
}
