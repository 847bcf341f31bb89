//! One request's way through a system on paper: every step adds to what it takes of each resource.

use plimsoll_model::system::{
    Action, CacheWrite, Component, ConsumerId, Count, Dist, EdgeId, EndpointId, KeyDist, LeaseId, Lock, MetricTarget,
    Program, RateLimitKey, Service, ServiceId, ServiceKind, Step, StoreId, StoreKind, System, TopicId, ZoneId,
};
use plimsoll_policy::retry::{Backoff, Jitter};
use plimsoll_policy::retry_budget::Rule;
use plimsoll_policy::{Mode, PipelineConfig, cache, rate_limit};

use super::demand::Demand;
use super::hit_ratio::{Asker, CacheLoad, Misses, distinct, misses, top_key};
use super::hold::Hold;
use super::retry;
use super::usl::Scaled;

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

/// A transaction under way: its store and the locks that it has taken, with how long for, s.
struct Transaction {
    store: StoreId,
    locks: Vec<(Taken, f64)>,
}

/// A lock.
#[derive(Clone, Copy)]
struct Taken {
    lock: Lock,
    table: u32,
    weight: f64,
}

/// What caches were asked in a pass, and what they answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Caches<'s>(Vec<Cache<'s>>);

#[derive(Clone, Debug)]
struct Cache<'s> {
    at: CacheAt,
    load: CacheLoad<'s>,
    /// Number of the client's call that each asker stands for.
    calls: Vec<u32>,
    answers: Vec<Misses>,
}

/// Which cache.
#[derive(Clone, Copy, Debug, PartialEq)]
enum CacheAt {
    Store { store: StoreId, keyspace: u32 },
    Gateway { service: ServiceId, endpoint: u32 },
}

impl<'s> Caches<'s> {
    /// What they answer, in order.
    pub(super) fn misses(&self) -> impl Iterator<Item = Misses> {
        self.0.iter().flat_map(|cache| &cache.answers).copied()
    }

    fn answer(&self, at: CacheAt, call: u32) -> Misses {
        let cache = self.0.iter().find(|cache| cache.at == at);
        cache
            .and_then(|cache| cache.calls.iter().position(|&known| known == call).map(|i| cache.answers[i]))
            .unwrap_or(Misses::ALL)
    }

    fn asker(&mut self, at: CacheAt, call: u32, keys: Option<&'s KeyDist>) -> (&mut CacheLoad<'s>, usize) {
        let cache = match self.0.iter().position(|cache| cache.at == at) {
            Some(index) => &mut self.0[index],
            None => {
                let load = CacheLoad { capacity: 0.0, ttl: f64::INFINITY, stale: 0.0, askers: Vec::new() };
                self.0.push(Cache { at, load, calls: Vec::new(), answers: Vec::new() });
                self.0.last_mut().expect("just pushed")
            }
        };
        let asker = cache.calls.iter().position(|&known| known == call).unwrap_or_else(|| {
            cache.calls.push(call);
            cache.load.askers.push(Asker { keys, lookups: 0.0, drops: 0.0 });
            cache.calls.len() - 1
        });
        (&mut cache.load, asker)
    }
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

    // --- services

    fn endpoint(&mut self, id: EndpointId, weight: f64) -> Hold {
        // The file's reader refuses cycles of calls; messages may still chase each other.
        if self.depth > 32 {
            return Hold::NOTHING;
        }
        self.depth += 1;
        let service = &self.system.services[id.service.index()];
        let endpoint = &service.endpoints[id.index as usize];
        let limiter = self.service_quota(id, weight);
        let begins = weight * (1.0 - endpoint.errors);
        let mut held = self.program(&endpoint.program, id.service, begins);
        if let ServiceKind::Gateway(routes) = &service.kind
            && let Some(route) = routes.iter().find(|route| route.endpoint == id.index)
        {
            let weight = begins * held.ok;
            let forwarded = match &route.cache {
                None => self.enter_endpoint(route.edge, route.to, weight),
                Some(cache) => {
                    let at = CacheAt::Gateway { service: id.service, endpoint: id.index };
                    let answers = self.look_up(at, &cache.freshness, weight, cache.capacity as f64);
                    let fetched = self.enter_endpoint(route.edge, route.to, weight * answers.fetch);
                    Hold::mixture(&[(answers.wait, fetched), (1.0 - answers.wait, Hold::NOTHING)])
                }
            };
            held = held.then(if route.fallback { Hold { ok: 1.0, ..forwarded } } else { forwarded });
        }
        // Its own errors strike before its work.
        held = Hold::mixture(&[(1.0 - endpoint.errors, held), (endpoint.errors, Hold { ok: 0.0, ..Hold::NOTHING })]);
        self.hold_instance(id, weight * held.mean);
        self.depth -= 1;
        Hold { mean: held.mean + limiter, ..held }
    }

    /// What a request holds of its instance from its beginning to its answer.
    fn hold_instance(&mut self, id: EndpointId, held: f64) {
        let place = self.place(id.service);
        let service = &self.system.services[id.service.index()];
        let instances = self.instances(id.service);
        let (name, most) = places(service);
        self.own[id.service.index()].held += held;
        self.take(place, name, 0, instances * most, held);
        if let Some(memory) = service.memory {
            let most = memory / service.request_memory.max(1);
            self.take(place, "memory", 0, instances * most as f64, held);
        }
        if let Some(limit) = service.limit.filter(|limit| limit.mode == Mode::Enforce) {
            self.take(place, "limit", 0, instances * limit.max as f64, held);
        }
        for (b, bulkhead) in service.bulkheads.iter().enumerate() {
            if bulkhead.endpoints.contains(&id.index) && bulkhead.config.mode == Mode::Enforce {
                self.take(place, "bulkhead", b as u32, instances * bulkhead.config.permits as f64, held);
            }
        }
    }

    /// A service's quota, and how long a request waits for a shared one's store.
    fn service_quota(&mut self, id: EndpointId, weight: f64) -> f64 {
        let service = &self.system.services[id.service.index()];
        let Some(limit) = &service.rate_limit else { return 0.0 };
        let copies = if limit.store.is_some() { 1.0 } else { self.instances(id.service) };
        let (client, users) = self.client_of_call();
        let (part, keys) = match limit.per {
            RateLimitKey::All => (0, 1.0),
            RateLimitKey::Endpoint => (id.index, 1.0),
            RateLimitKey::Client => (client, 1.0),
            RateLimitKey::User => (client, users),
        };
        self.quota(self.place(id.service), part, &limit.config, copies, weight, keys);
        limit.store.map_or(0.0, |(store, edge)| self.command(edge, store, weight, None).mean)
    }

    /// The service, or the consumer whose handler it hides.
    fn place(&self, service: ServiceId) -> MetricTarget {
        let consumer = self.system.consumers.iter().position(|consumer| consumer.service == service);
        MetricTarget::Component(match consumer {
            Some(index) => Component::Consumer(ConsumerId::from(index)),
            None => Component::Service(service),
        })
    }

    // --- programs

    fn program(&mut self, program: &'s Program, service: ServiceId, weight: f64) -> Hold {
        program.iter().fold(Hold::NOTHING, |done, step| done.then(self.step(step, service, weight * done.ok)))
    }

    fn step(&mut self, step: &'s Step, service: ServiceId, weight: f64) -> Hold {
        match &step.action {
            Action::Work(time) => {
                let takes = hold(time);
                let cores = self.system.services[service.index()].cores as f64 * self.instances(service);
                self.own[service.index()].work += weight * takes.mean;
                self.take(self.place(service), "cores", 0, cores, weight * takes.mean);
                takes
            }
            Action::Wait(time) => {
                let takes = hold(time);
                self.own[service.index()].wait += weight * takes.mean;
                takes
            }
            Action::Fail(share) => Hold { ok: 1.0 - share, ..Hold::NOTHING },
            Action::Call { edge, endpoint } => self.enter_endpoint(*edge, *endpoint, weight),
            Action::Query { edge, store, operation } => self.query(*edge, *store, *operation, weight),
            Action::Cache { edge, store, keyspace, config, on_miss } => {
                let at = CacheAt::Store { store: *store, keyspace: keyspace.0 };
                let looked_up = self.command(*edge, *store, weight, None);
                let answers = self.look_up(at, config, weight, 0.0);
                let fetched = self.program(on_miss, service, weight * answers.fetch);
                let filled = self.command(*edge, *store, weight * answers.fetch * fetched.ok, None);
                let missed = fetched.then(filled);
                looked_up.then(Hold::mixture(&[(answers.wait, missed), (1.0 - answers.wait, Hold::NOTHING)]))
            }
            Action::CacheWrite { edge, store, keyspace, kind, write } => match kind {
                CacheWrite::Behind { flush } => {
                    let window = *flush as f64 / 1e9;
                    let written = distinct(self.keys, weight * self.per_s, window);
                    self.program(write, service, weight * written);
                    self.command(*edge, *store, weight, None)
                }
                CacheWrite::Through | CacheWrite::Invalidate => {
                    let written = self.program(write, service, weight);
                    if *kind == CacheWrite::Invalidate {
                        let at = CacheAt::Store { store: *store, keyspace: keyspace.0 };
                        let (load, asker) = self.seen.asker(at, self.call, self.keys);
                        load.askers[asker].drops += weight * self.per_s;
                    }
                    written.then(self.command(*edge, *store, weight * written.ok, None))
                }
            },
            Action::Transaction { edge, store, steps, cross_shard } => {
                self.transaction(*edge, *store, steps, *cross_shard, service, weight)
            }
            Action::Publish { topic, outbox } => {
                self.messages(*topic, weight);
                if *outbox { Hold::NOTHING } else { hold(&self.system.topics[topic.index()].publish) }
            }
            Action::Parallel { branches, limit } => {
                let each: Vec<Hold> = branches.iter().map(|branch| self.program(branch, service, weight)).collect();
                if (*limit as usize) < each.len() {
                    let share = 1.0 / each.len() as f64;
                    let parts: Vec<(f64, Hold)> = each.iter().map(|&branch| (share, branch)).collect();
                    let ok = each.iter().map(|branch| branch.ok).product();
                    return Hold { ok, ..Hold::mixture(&parts).rounds(each.len() as f64, *limit) };
                }
                each.into_iter().reduce(Hold::both).unwrap_or(Hold::NOTHING)
            }
            Action::ForEach { count, limit, steps } => {
                let rounds = match *count {
                    Count::Constant(n) => n as f64,
                    Count::Uniform(low, high) => (low as f64 + high as f64) / 2.0,
                    Count::Geometric(mean) => mean,
                };
                self.program(steps, service, weight * rounds).rounds(rounds, *limit)
            }
            Action::Choice(alternatives) => {
                let total: f64 = alternatives.iter().map(|(weight, _)| weight).sum();
                let parts: Vec<(f64, Hold)> = alternatives
                    .iter()
                    .map(|(part, program)| (part / total, self.program(program, service, weight * part / total)))
                    .collect();
                Hold::mixture(&parts)
            }
            Action::Fallback { attempt, otherwise } => {
                let tried = self.program(attempt, service, weight);
                let failed = 1.0 - tried.ok;
                let instead = self.program(otherwise, service, weight * failed);
                let made_good =
                    Hold { ok: 1.0, ..tried }.then(Hold::mixture(&[(failed, instead), (tried.ok, Hold::NOTHING)]));
                Hold { ok: tried.ok + failed * instead.ok, ..made_good }
            }
            Action::Lease { lease, steps } => {
                let held = self.program(steps, service, weight);
                let place = MetricTarget::Component(Component::Lease(LeaseId(lease.0)));
                self.take(place, "lease", 0, 1.0, weight * held.mean);
                held
            }
        }
    }

    // --- stores

    fn query(&mut self, edge: EdgeId, store: StoreId, operation: u32, weight: f64) -> Hold {
        let of = &self.system.stores[store.index()];
        let spec = &of.operations[operation as usize];
        let time = hold(&spec.time);
        let place = MetricTarget::Component(Component::Store(store));
        match &of.kind {
            StoreKind::Redis(_) => self.command(edge, store, weight, Some(&spec.time)),
            StoreKind::Quorum(quorum) => self.through(edge, weight, !spec.write, |walk, weight| {
                walk.take(place, "concurrency", 0, quorum.concurrency as f64, weight * time.mean);
                let needed = if spec.write { quorum.write } else { quorum.read };
                let there = time.needed(needed, quorum.nodes);
                Hold { mean: there.mean + 2.0 * walk.one_way(edge), ..there }
            }),
            StoreKind::Postgres(pg) => {
                let inside = self.transaction.as_ref().is_some_and(|transaction| transaction.store == store);
                self.through(edge, weight, !spec.write && !inside, |walk, weight| {
                    let from_replicas = !spec.write && !inside && pg.reads.from_replicas && pg.replicas > 0;
                    // The busiest node's part of it.
                    let shard = if spec.scatter { 1.0 } else { walk.hottest(pg.shards) };
                    let part = if from_replicas { shard / pg.replicas as f64 } else { shard };
                    let node = from_replicas as u32;
                    let one_way = walk.one_way(edge);
                    let mut there = if spec.scatter { time.rounds(pg.shards as f64, pg.shards) } else { time };
                    // Each shard's connection is given back with its own part.
                    let mut part_mean = time.mean;
                    walk.take(place, "concurrency", node, pg.concurrency as f64, weight * part * time.mean);
                    if inside {
                        walk.lock(store, spec.lock, spec.table, weight, there.mean);
                    } else {
                        if spec.write && pg.synchronous {
                            there.mean += pg.commit.mean() / 1e9;
                            part_mean += pg.commit.mean() / 1e9;
                        }
                        walk.lock(store, spec.lock, spec.table, weight, there.mean);
                        walk.connections(edge, store, node, weight * part * (one_way + part_mean));
                    }
                    Hold { mean: there.mean + 2.0 * one_way, ..there }
                })
            }
        }
    }

    /// A command of a Redis: one of its operations, or the cache's or limiter's own.
    fn command(&mut self, edge: EdgeId, store: StoreId, weight: f64, time: Option<&Dist>) -> Hold {
        let StoreKind::Redis(redis) = &self.system.stores[store.index()].kind else { return Hold::NOTHING };
        let place = MetricTarget::Component(Component::Store(store));
        self.through(edge, weight, true, |walk, weight| {
            let turn = 1.0 / redis.max_rate;
            let there = hold(time.unwrap_or(&redis.time));
            let one_way = walk.one_way(edge);
            walk.take(place, "max_rate", 0, 1.0, weight * turn);
            walk.connections(edge, store, 0, weight * (one_way + turn + there.mean));
            Hold { mean: there.mean + turn + 2.0 * one_way, ..there }
        })
    }

    /// Pooled connections to one node of a store, and what the node sees of all pools.
    fn connections(&mut self, edge: EdgeId, store: StoreId, node: u32, held: f64) {
        let callers = self.processes(self.system.edges[edge.index()].from);
        let (pool, most) = match &self.system.stores[store.index()].kind {
            StoreKind::Postgres(pg) => (pg.pool, Some(pg.max_connections)),
            StoreKind::Redis(redis) => (redis.pool, None),
            StoreKind::Quorum(_) => return,
        };
        self.take(MetricTarget::Edge(edge), "connections", node, callers * pool as f64, held);
        if let Some(most) = most {
            let place = MetricTarget::Component(Component::Store(store));
            self.take(place, "max_connections", node, most as f64, held);
        }
    }

    /// The share of this call's requests that the busiest of so many parts gets, where keys choose the
    /// part: that of the most popular key, and its part of the rest.
    fn hottest(&self, parts: u32) -> f64 {
        let top = top_key(self.keys);
        top + (1.0 - top) / parts.max(1) as f64
    }

    fn transaction(
        &mut self,
        edge: EdgeId,
        store: StoreId,
        steps: &'s Program,
        cross_shard: f64,
        service: ServiceId,
        weight: f64,
    ) -> Hold {
        let StoreKind::Postgres(pg) = &self.system.stores[store.index()].kind else { return Hold::NOTHING };
        let outer = self.transaction.replace(Transaction { store, locks: Vec::new() });
        let mut done = Hold::NOTHING;
        // Locks with the time at which the step that took them began.
        let mut since: Vec<f64> = Vec::new();
        for step in steps {
            let began = done.mean;
            done = done.then(self.step(step, service, weight * done.ok));
            let taken = self.transaction.as_ref().map_or(0, |transaction| transaction.locks.len());
            since.resize(taken, began);
        }
        let locks = std::mem::replace(&mut self.transaction, outer).map_or(Vec::new(), |transaction| transaction.locks);
        let one_way = self.one_way(edge);
        let shard = self.hottest(pg.shards);
        let place = MetricTarget::Component(Component::Store(store));
        // Prepare and commit on the second shard, and the commit on the first: three more forced writes.
        let forced = hold(&pg.commit).mean * (1.0 + 3.0 * cross_shard);
        self.take(place, "concurrency", 0, pg.concurrency as f64, weight * done.ok * shard * forced);
        let confirmed = if pg.synchronous { pg.commit.mean() / 1e9 } else { 0.0 };
        let held = done.then(Hold::fixed(one_way + forced + confirmed));
        self.connections(edge, store, 0, weight * shard * held.mean);
        // A transaction that has a lock does not take it again.
        let mut had: Vec<Taken> = Vec::new();
        for ((taken, _), since) in locks.into_iter().zip(since) {
            let before = had.iter().filter(|had| had.lock == taken.lock && had.table == taken.table);
            let more = taken.weight.min(weight) - before.map(|had| had.weight).sum::<f64>();
            if more > 0.0 {
                let taken = Taken { weight: more, ..taken };
                had.push(taken);
                self.take_lock(store, taken, held.mean - since);
            }
        }
        held
    }

    /// An operation takes a lock: until it has ended, or its transaction has.
    fn lock(&mut self, store: StoreId, lock: Lock, table: u32, weight: f64, held: f64) {
        let taken = Taken { lock, table, weight };
        match &mut self.transaction {
            Some(transaction) if transaction.store == store => transaction.locks.push((taken, held)),
            _ => self.take_lock(store, taken, held),
        }
    }

    fn take_lock(&mut self, store: StoreId, taken: Taken, held: f64) {
        let StoreKind::Postgres(pg) = &self.system.stores[store.index()].kind else { return };
        let place = MetricTarget::Component(Component::Store(store));
        match taken.lock {
            Lock::None => {}
            Lock::Row => self.take(place, "row lock", taken.table, 1.0, taken.weight * top_key(self.keys) * held),
            Lock::Table => {
                let shard = self.hottest(pg.shards);
                self.take(place, "table lock", taken.table, 1.0, taken.weight * shard * held);
            }
        }
    }

    // --- caches

    /// Counts lookups and says what the cache answers. `capacity` is that of a gateway's own cache.
    fn look_up(&mut self, at: CacheAt, config: &cache::Config, weight: f64, capacity: f64) -> Misses {
        let instances = match at {
            CacheAt::Store { .. } => 1.0,
            CacheAt::Gateway { service, .. } => self.instances(service),
        };
        let lookups = weight * self.per_s / instances;
        let (load, asker) = self.seen.asker(at, self.call, self.keys);
        load.capacity = capacity;
        load.ttl = config.ttl.as_secs_f64();
        load.stale = config.stale_while_revalidate.unwrap_or(config.ttl).as_secs_f64();
        load.askers[asker].lookups += lookups;
        if config.mode == Mode::Enforce { self.caches.answer(at, self.call) } else { Misses::ALL }
    }

    /// What the caches that this pass has seen answer in the next.
    fn settle_caches(&mut self) {
        let room: Vec<f64> = self.seen.0.iter().map(|cache| self.room(cache)).collect();
        for (cache, room) in self.seen.0.iter_mut().zip(room) {
            cache.load.capacity = room;
            cache.answers = misses(&cache.load);
        }
    }

    /// Kinds of keys share a store's room in proportion to their number.
    fn room(&self, cache: &Cache) -> f64 {
        let CacheAt::Store { store, keyspace } = cache.at else { return cache.load.capacity };
        let StoreKind::Redis(redis) = &self.system.stores[store.index()].kind else { return 0.0 };
        let keys = |keyspace: u32| self.system.keyspaces[keyspace as usize].keys as f64;
        let here = self.seen.0.iter().filter_map(|other| match other.at {
            CacheAt::Store { store: of, keyspace } if of == store => Some(keys(keyspace)),
            _ => None,
        });
        redis.capacity as f64 * keys(keyspace) / here.sum::<f64>().max(1.0)
    }

    // --- messages

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

/// What limits the requests that one instance runs at once, and how many they are.
fn places(service: &Service) -> (&'static str, f64) {
    match service.asynchronous {
        true => ("max_in_flight", service.max_in_flight as f64),
        false => ("workers", service.workers as f64),
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
