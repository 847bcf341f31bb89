//! What a system costs, from the file's prices.
//!
//! | component | a month |
//! |---|---|
//! | service, consumer, gateway | instances × 730 h × (cores × vCPU + memory × memory price) |
//! | gateway, besides | one load balancer |
//! | PostgreSQL, quorum store | nodes × (730 h × cores / 2 × price of two vCPU + storage × price) |
//! | Redis | memory × price |
//! | topic | messages at the clients' own load × price |
//!
//! A service that states no memory is counted with 2 GB a core, the least that AWS Fargate gives
//! one vCPU. Traffic, logs and people are not part of it.

use std::collections::BTreeMap;

use crate::run::Cost;
use crate::system::{Action, Arrivals, Count, EndpointId, Program, Service, ServiceKind, StoreKind, System, TopicId};

/// Hours of a month, as clouds bill it.
const MONTH_HOURS: f64 = 730.0;
/// GB, 10^9 bytes, for each core of a service that states no memory.
const MEMORY_GB_A_CORE: f64 = 2.0;

/// US$ a month, in all and by component. The cost of a million requests is left to those who know
/// how many the system carries.
pub fn cost(system: &System) -> Cost {
    let prices = &system.prices;
    let mut parts = Vec::new();
    for service in &system.services {
        let mut month = instances(service, system);
        if matches!(service.kind, ServiceKind::Gateway(_)) {
            month += prices.load_balancer_month;
        }
        parts.push((service.name.clone(), month));
    }
    for store in &system.stores {
        let node = |cores: u32, storage: u64| {
            MONTH_HOURS * f64::from(cores) / 2.0 * prices.postgres_2vcpu_hour + gb(storage) * prices.postgres_gb_month
        };
        let month = match &store.kind {
            StoreKind::Postgres(postgres) => {
                let nodes = f64::from(postgres.shards) * (1.0 + f64::from(postgres.replicas));
                nodes * node(postgres.cores, postgres.storage)
            }
            StoreKind::Quorum(quorum) => f64::from(quorum.nodes) * node(quorum.cores, quorum.storage),
            StoreKind::Redis(redis) => gb(redis.memory) * prices.redis_gb_month,
        };
        parts.push((store.name.clone(), month));
    }
    for (index, topic) in system.topics.iter().enumerate() {
        let a_second = messages(system, TopicId::from(index));
        parts.push((topic.name.clone(), a_second * MONTH_HOURS * 3_600.0 / 1e6 * prices.queue_million));
    }
    Cost { month_usd: parts.iter().map(|(_, month)| month).sum(), parts, per_million_usd: None }
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn instances(service: &Service, system: &System) -> f64 {
    let cores = f64::from(service.cores);
    let memory = service.memory.map_or(cores * MEMORY_GB_A_CORE, gb);
    let hour = cores * system.prices.vcpu_hour + memory * system.prices.memory_gb_hour;
    f64::from(service.instances) * MONTH_HOURS * hour
}

/// Messages a second on a topic when every client has its own load and all goes well: a closed
/// loop asks once every think time, and lookups in caches miss.
fn messages(system: &System, topic: TopicId) -> f64 {
    let mut publishes = Publishes { system, topic, known: BTreeMap::new(), handled: BTreeMap::new(), depth: 0 };
    let mut sum = 0.0;
    for client in &system.clients {
        let rate = match &client.arrivals {
            Arrivals::Open { rate, .. } => *rate,
            Arrivals::Closed { users, think } if think.mean() > 0.0 => f64::from(*users) / (think.mean() / 1e9),
            Arrivals::Closed { .. } => 0.0,
            Arrivals::Trace { times, span } => times.len() as f64 / (*span as f64 / 1e9),
        };
        let weights: f64 = client.calls.iter().map(|call| call.weight).sum();
        for call in &client.calls {
            sum += rate * call.weight / weights * publishes.of_endpoint(call.endpoint);
        }
    }
    sum
}

struct Publishes<'s> {
    system: &'s System,
    topic: TopicId,
    /// Messages by endpoint; 0 while they are being counted, since handlers may publish to the
    /// topic that they read.
    known: BTreeMap<EndpointId, f64>,
    /// Messages that the handlers of one message bring forth, by topic.
    handled: BTreeMap<TopicId, f64>,
    depth: usize,
}

/// Hops from handler to handler past which messages are not counted; it bounds the recursion.
const HOPS_MAX: usize = 1_000;

impl Publishes<'_> {
    /// Messages that a request brings forth, those of handlers included.
    fn of_endpoint(&mut self, endpoint: EndpointId) -> f64 {
        if let Some(known) = self.known.get(&endpoint) {
            return *known;
        }
        if self.depth == HOPS_MAX {
            return 0.0;
        }
        self.depth += 1;
        self.known.insert(endpoint, 0.0);
        let service = &self.system.services[endpoint.service.index()];
        let mut sum = self.of_program(&service.endpoints[endpoint.index as usize].program);
        if let ServiceKind::Gateway(routes) = &service.kind
            && let Some(route) = routes.get(endpoint.index as usize)
        {
            sum += self.of_endpoint(route.to);
        }
        self.known.insert(endpoint, sum);
        self.depth -= 1;
        sum
    }

    fn of_handlers(&mut self, topic: TopicId) -> f64 {
        if let Some(known) = self.handled.get(&topic) {
            return *known;
        }
        self.handled.insert(topic, 0.0);
        let system = self.system;
        let consumers = system.consumers.iter().filter(|consumer| consumer.topic == topic);
        let sum = consumers.map(|consumer| self.of_endpoint(EndpointId::new(consumer.service, 0))).sum();
        self.handled.insert(topic, sum);
        sum
    }

    fn of_program(&mut self, program: &Program) -> f64 {
        program.iter().map(|step| self.of_action(&step.action)).sum()
    }

    fn of_action(&mut self, action: &Action) -> f64 {
        match action {
            Action::Work(_) | Action::Wait(_) | Action::Fail(_) | Action::Query { .. } => 0.0,
            Action::Call { endpoint, .. } => self.of_endpoint(*endpoint),
            Action::Cache { on_miss, .. } => self.of_program(on_miss),
            Action::CacheWrite { write, .. } => self.of_program(write),
            Action::Transaction { steps, .. } | Action::Lease { steps, .. } => self.of_program(steps),
            Action::Publish { topic, .. } => f64::from(u8::from(*topic == self.topic)) + self.of_handlers(*topic),
            Action::Parallel { branches, .. } => branches.iter().map(|branch| self.of_program(branch)).sum(),
            Action::ForEach { count, steps, .. } => {
                let rounds = match count {
                    Count::Constant(n) => f64::from(*n),
                    Count::Uniform(low, high) => (f64::from(*low) + f64::from(*high)) / 2.0,
                    Count::Geometric(mean) => *mean,
                };
                rounds * self.of_program(steps)
            }
            Action::Choice(alternatives) => {
                let weights: f64 = alternatives.iter().map(|(weight, _)| weight).sum();
                alternatives.iter().map(|(weight, program)| weight / weights * self.of_program(program)).sum()
            }
            Action::Fallback { attempt, .. } => self.of_program(attempt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, parse};

    fn parts(text: &str) -> Vec<(String, f64)> {
        let system = parse(&Source::alone("cost.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"));
        let cost = cost(&system);
        assert_eq!(cost.month_usd, cost.parts.iter().map(|(_, month)| month).sum::<f64>());
        cost.parts.into_iter().map(|(name, month)| (name, (month * 100.0).round() / 100.0)).collect()
    }

    #[test]
    fn counts_what_is_billed() {
        let cost = parts(
            "
system: cost
clients: { c: { rate: 10/s, calls: [ edge GET / ] } }
services:
  edge: { kind: gateway, upstream: api, cores: 1, memory: 1GB }
  api:
    instances: 3
    endpoints:
      GET /: [ { for_each: 2, do: [ { publish: t } ] }, { query: db.read }, { query: q.read }, { query: r.get } ]
stores:
  db: { kind: postgres, replicas: 1, cores: 2, storage: 100GB, operations: { read: 1ms } }
  q: { kind: quorum, cores: 4, storage: 10GB, operations: { read: 1ms } }
  r: { kind: redis, memory: 2GB }
topics: { t: {} }
",
        );
        let expected = [
            // 730 x (.0405 + .00445) + 16.43
            ("edge", 49.24),
            // 3 x 730 x (2 x .0405 + 4 x .00445)
            ("api", 216.37),
            // 2 x (730 x .145 + 100 x .115)
            ("db", 234.7),
            // 3 x (730 x 2 x .145 + 10 x .115)
            ("q", 638.55),
            ("r", 23.36),
            // 20/s x 2,628,000 s = 52.56 million
            ("t", 21.02),
        ];
        let expected: Vec<(String, f64)> = expected.iter().map(|(name, month)| ((*name).to_owned(), *month)).collect();
        assert_eq!(cost, expected);
    }

    #[test]
    fn the_files_prices_replace_the_defaults() {
        let cost = parts(
            "
system: cost
clients: { c: { rate: 10/s, calls: [ api GET / ] } }
services: { api: { cores: 1, memory: 1GB, endpoints: { GET /: [ { work: 1ms } ] } } }
prices: { vcpu: $1/h, memory: $0/GB-h }
",
        );
        assert_eq!(cost, [("api".to_owned(), 730.0)]);
    }
}
