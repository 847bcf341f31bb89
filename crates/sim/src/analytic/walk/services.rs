//! What a request takes of the services on its way, step by step.

use plimsoll_model::system::{
    Action, CacheWrite, Component, ConsumerId, Count, EndpointId, LeaseId, MetricTarget, Program, RateLimitKey,
    Service, ServiceId, ServiceKind, Step,
};
use plimsoll_policy::Mode;

use super::caches::CacheAt;
use super::{Walk, hold};
use crate::analytic::hit_ratio::distinct;
use crate::analytic::hold::Hold;

impl<'s> Walk<'s> {
    pub(super) fn endpoint(&mut self, id: EndpointId, weight: f64) -> Hold {
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
    pub(super) fn place(&self, service: ServiceId) -> MetricTarget {
        let consumer = self.system.consumers.iter().position(|consumer| consumer.service == service);
        MetricTarget::Component(match consumer {
            Some(index) => Component::Consumer(ConsumerId::from(index)),
            None => Component::Service(service),
        })
    }

    fn program(&mut self, program: &'s Program, service: ServiceId, weight: f64) -> Hold {
        program.iter().fold(Hold::NOTHING, |done, step| done.then(self.step(step, service, weight * done.ok)))
    }

    pub(super) fn step(&mut self, step: &'s Step, service: ServiceId, weight: f64) -> Hold {
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
}

/// What limits the requests that one instance runs at once, and how many they are.
pub(super) fn places(service: &Service) -> (&'static str, f64) {
    match service.asynchronous {
        true => ("max_in_flight", service.max_in_flight as f64),
        false => ("workers", service.workers as f64),
    }
}
