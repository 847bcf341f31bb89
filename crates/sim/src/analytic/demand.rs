//! What one request takes of every resource, and which resource is used up first.
//!
//! The utilization law: a resource of capacity c of which a request takes D seconds is used up at c / D
//! requests a second (Denning and Buzen, "The Operational Analysis of Queueing Network Models", ACM
//! Computing Surveys 1978). Holding times are those of an idle system, so that the bound is one from
//! above: with queues, what is held while something else is waited for is held for longer. A service
//! or store with `scalability` counts with the number of requests at once that gets the most done;
//! others hold what they hold while they call it for as long as if it were idle.
//!
//! Not in it: hedges, coalescing, open breakers, degradation, rejections by queues, replicas that are too far behind,
//! and faults.

use plimsoll_model::system::{Arrivals, MetricTarget, System};

use super::hit_ratio::Misses;
use super::walk::{Caches, Walk};

/// A resource, and what a request takes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// What has the resource. Of a store's nodes and a topic's partitions it is the busiest.
    pub place: MetricTarget,
    /// Which of its resources: `workers`, `max_in_flight`, `memory`, `cores`, `connections` (pools),
    /// `max_connections`, `concurrency`, `max_rate`, `rate limit`, `bulkhead`, `limit`, `row lock`,
    /// `table lock`, `lease`, `partitions`.
    pub resource: &'static str,
    /// Seconds that one offered request keeps one unit of it busy. Of a quota it is the share of a
    /// second's quota that the request takes.
    pub busy_s: f64,
    /// Its units. Of the workers (or `max_in_flight`, or a store's `concurrency`) where `scalability` is
    /// stated only those that are of use: with more at once, less gets done.
    pub capacity: f64,
}

impl Demand {
    /// Requests a second that use all of it.
    pub fn bound_per_s(&self) -> f64 {
        self.capacity / self.busy_s
    }

    /// The component or edge as the file names it.
    pub fn component(&self, system: &System) -> String {
        match self.place {
            MetricTarget::Component(component) => system.component_name(component).to_owned(),
            MetricTarget::Instance(component, number) => format!("{}/{}", system.component_name(component), number + 1),
            MetricTarget::Edge(edge) => system.edge_name(edge),
        }
    }
}

/// What limits a system.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Requests a second, over all clients in their mix, at which the first resource is used up.
    pub per_s: f64,
    /// Requests a second that the load of the file comes to on an idle system, where closed-loop
    /// clients wait for answers and think.
    pub today_per_s: f64,
    /// What has that resource: a component or edge, as the file names it.
    pub component: String,
    /// The resource; see [`Demand::resource`].
    pub resource: String,
    /// Every resource, the first to be used up first.
    pub demands: Vec<Demand>,
    /// For each client, the mean response time of its requests on an idle system, s.
    pub response_s: Vec<f64>,
}

/// What one request of the clients' own mix takes, at the load that the file states. The first to
/// be used up comes first.
pub fn demands(system: &System) -> Vec<Demand> {
    let mut state = State::new(system);
    state.settle(|mix| mix.total);
    state.walked.demands
}

/// The load at which the first resource is used up. None where nothing limits the system, or where
/// nobody asks.
///
/// How often caches answer, and how often closed-loop clients ask, depends on the load: both are
/// taken as they are at the bound.
pub fn bottleneck(system: &System) -> Option<Bound> {
    let mut state = State::new(system);
    let per_s = |walked: &Walked| walked.demands.first().map_or(f64::INFINITY, Demand::bound_per_s);
    state.settle(|mix| mix.total);
    for _ in 0..ROUNDS {
        let bound = per_s(&state.walked);
        if !bound.is_finite() || bound <= 0.0 {
            break;
        }
        state.settle(|_| bound);
        if (per_s(&state.walked) / bound - 1.0).abs() < 1e-4 {
            break;
        }
    }
    let Walked { demands, response_s } = state.walked;
    let today_per_s = Mix::of(system, &response_s).total;
    let first = demands.first().filter(|first| first.bound_per_s().is_finite())?;
    Some(Bound {
        per_s: first.bound_per_s(),
        today_per_s,
        component: first.component(system),
        resource: first.resource.to_owned(),
        demands,
        response_s,
    })
}

/// Passes over a system until cache hits and closed loops agree with the load.
const ROUNDS: usize = 10;

/// How the clients' requests add up.
struct Mix {
    /// Requests a second over all clients.
    total: f64,
    /// Each client's share.
    shares: Vec<f64>,
}

impl Mix {
    /// The mix that the file states; closed loops ask as fast as `response_s` lets them.
    fn of(system: &System, response_s: &[f64]) -> Self {
        let rate = |(arrivals, response): (&Arrivals, f64)| match arrivals {
            Arrivals::Open { rate, .. } => *rate,
            Arrivals::Closed { users, think } => *users as f64 / (think.mean() / 1e9 + response).max(1e-6),
            Arrivals::Trace { times, span } => times.len() as f64 / (*span as f64 / 1e9).max(1e-9),
        };
        let clients = system.clients.iter().map(|client| &client.arrivals);
        let rates: Vec<f64> = clients.zip(response_s.iter().copied()).map(rate).collect();
        let total: f64 = rates.iter().sum();
        Mix { total, shares: rates.iter().map(|rate| if total > 0.0 { rate / total } else { 0.0 }).collect() }
    }
}

struct Walked {
    demands: Vec<Demand>,
    response_s: Vec<f64>,
}

struct State<'s> {
    system: &'s System,
    caches: Caches<'s>,
    walked: Walked,
}

impl<'s> State<'s> {
    fn new(system: &'s System) -> Self {
        let walked = Walked { demands: Vec::new(), response_s: vec![0.0; system.clients.len()] };
        State { system, caches: Caches::default(), walked }
    }

    /// Walks until what caches answer is what was assumed.
    fn settle(&mut self, load: impl Fn(&Mix) -> f64) {
        for _ in 0..ROUNDS {
            let mix = Mix::of(self.system, &self.walked.response_s);
            let before: Vec<Misses> = self.caches.misses().collect();
            self.walk(&mix, load(&mix));
            let after: Vec<Misses> = self.caches.misses().collect();
            let moved = |(a, b): (&Misses, &Misses)| (a.fetch - b.fetch).abs().max((a.wait - b.wait).abs());
            let closed = self.system.clients.iter().any(|client| matches!(client.arrivals, Arrivals::Closed { .. }));
            if !closed && before.len() == after.len() && before.iter().zip(&after).map(moved).fold(0.0, f64::max) < 1e-6
            {
                break;
            }
        }
    }

    /// One pass, at so many requests a second.
    fn walk(&mut self, mix: &Mix, per_s: f64) {
        let mut walk = Walk::new(self.system, per_s, std::mem::take(&mut self.caches));
        let response_s =
            mix.shares.iter().enumerate().map(|(client, &share)| walk.client(client, share).mean).collect();
        let (demands, caches) = walk.finish();
        self.caches = caches;
        self.walked = Walked { demands, response_s };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytic::digits;
    use plimsoll_model::{Source, parse};

    fn system(text: &str) -> System {
        parse(&Source::alone("test.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The bound that a file's resource sets, requests a second.
    #[track_caller]
    fn bound(text: &str, component: &str, resource: &str, expect: f64) {
        let system = system(text);
        let demands = demands(&system);
        let found = demands.iter().find(|d| d.component(&system) == component && d.resource == resource);
        let got = found.unwrap_or_else(|| panic!("no {resource} of {component} in {demands:#?}")).bound_per_s();
        assert!((got / expect - 1.0).abs() < 1e-6, "{resource} of {component}: {got}, not {expect}");
    }

    const NO_NETWORK: &str = "network: { same_zone: 0s, cross_zone: 0s }";

    #[test]
    fn a_worker_is_held_while_it_waits() {
        // 8 workers over a 300 ms store carry 26.7/s (docs of the most used peer: 8 workers, 25/s).
        let file = format!(
            "system: s\n{NO_NETWORK}
clients: {{ web: {{ rate: 10/s, calls: [{{ endpoint: api GET / }}] }} }}
services: {{ api: {{ workers: 8, endpoints: {{ GET /: [{{ query: db.get }}] }} }} }}
stores: {{ db: {{ kind: postgres, pool: 50, concurrency: 40, operations: {{ get: 300ms }} }} }}
"
        );
        bound(&file, "api", "workers", 8.0 / 0.3);
        bound(&file, "db", "concurrency", 40.0 / 0.3);
        bound(&file, "api -> db", "connections", 50.0 / 0.3);
        bound(&file, "db", "max_connections", 100.0 / 0.3);
        let got = bottleneck(&system(&file)).unwrap();
        assert_eq!((got.component.as_str(), got.resource.as_str()), ("api", "workers"));
        digits(got.per_s, 8.0 / 0.3, 6);
        digits(got.response_s[0], 0.3, 9);
    }

    const SHOP: &str = "
system: shop
network: { same_zone: 1ms, cross_zone: 1ms }
clients:
  web:
    rate: 100/s
    calls: [{ endpoint: edge GET /a, weight: 3 }, { endpoint: edge POST /b, weight: 1 }]
services:
  edge: { kind: gateway, upstream: api }
  api:
    instances: 2
    workers: 16
    cores: 4
    endpoints:
      GET /a:
        - work: 2ms
        - query: db.read
      POST /b:
        - work: 4ms
        - transaction: db
          do: [{ query: db.insert }, { for_each: 3, do: [{ query: db.insert }] }]
stores:
  db:
    kind: postgres
    replicas: 2
    reads: replicas
    pool: 5
    concurrency: 8
    commit: 6ms
    operations: { read: exp(10ms), insert: { kind: write, time: 5ms } }
";

    #[test]
    fn each_path_adds_to_what_it_uses() {
        // Work: 3/4 of 2 ms and 1/4 of 4 ms. The read holds a connection for 1 + 10 ms, the transaction
        // for four inserts of 2 + 5 ms there and back, then 1 + 6 ms.
        bound(SHOP, "api", "cores", 8.0 / 0.0025);
        bound(SHOP, "api", "workers", 32.0 / (0.75 * 0.014 + 0.25 * (0.004 + 0.028 + 0.007)));
        bound(SHOP, "db", "concurrency", 8.0 / (0.25 * 0.026));
        bound(SHOP, "api -> db", "connections", 10.0 / (0.25 * 0.035));
        // Each of two replicas has half of the reads.
        let system = system(SHOP);
        let got = bottleneck(&system).unwrap();
        // Gateway and api, there and back, around what the api does.
        digits(got.response_s[0], 0.75 * 0.014 + 0.25 * 0.039 + 0.004, 9);
    }

    #[test]
    fn a_cache_takes_load_off_the_origin() {
        // 1,000 keys, 1,000/s, 9 s: one fill for 9 hits, whether it is waited for or not.
        let file = format!(
            "system: s\n{NO_NETWORK}
clients: {{ web: {{ rate: 1k/s, calls: [{{ endpoint: api GET /, key: uniform(1k) }}] }} }}
services:
  api:
    endpoints: {{ GET /: [{{ cache: mem, key: item, ttl: 9s, on_miss: [{{ query: db.get }}] }}] }}
stores:
  mem: {{ kind: redis, max_rate: 10k/s, time: 1ms }}
  db: {{ kind: postgres, concurrency: 10, operations: {{ get: 20ms }} }}
"
        );
        bound(&file, "db", "concurrency", 10.0 / (0.02 * 0.1));
        bound(&file, "mem", "max_rate", 10_000.0 / 1.1);
        // At the bound, keys are asked for more often, and hits are more: x / (1 + 9 x / 1000) = 500.
        let got = bottleneck(&system(&file)).unwrap();
        assert_eq!(got.resource, "max_rate");
        let database = got.demands.iter().find(|d| d.resource == "concurrency").unwrap();
        assert!(database.bound_per_s() > 10_000.0, "{database:?}");
    }

    #[test]
    fn failures_bring_retries_and_fallbacks() {
        let file = format!(
            "system: s\n{NO_NETWORK}
clients: {{ web: {{ rate: 10/s, calls: [{{ endpoint: api GET / }}] }} }}
services:
  api:
    endpoints: {{ GET /: [{{ fallback: {{ try: [{{ call: flaky GET / }}], else: [{{ work: 1ms }}] }} }}] }}
    calls: {{ flaky: {{ retry: {{ attempts: 4, when: [500] }} }} }}
  flaky:
    endpoints: {{ GET /: [{{ work: 1ms }}, {{ fail: 50% }}] }}
"
        );
        bound(&file, "flaky", "cores", 2.0 / 0.001_875);
        bound(&file, "api", "cores", 2.0 / (0.001 / 16.0));
    }

    #[test]
    fn messages_are_handled_in_order() {
        let file = "
system: s
clients: { web: { rate: 10/s, calls: [{ endpoint: api POST / }] } }
services: { api: { endpoints: { POST /: [{ publish: made }] } } }
topics: { made: { partitions: 4 } }
consumers: { mail: { topic: made, instances: 3, concurrency: 2, handler: 50ms } }
";
        bound(file, "mail", "workers", 6.0 / 0.05);
        bound(file, "mail", "partitions", 4.0 / 0.05);
    }

    #[test]
    fn quotas_and_hot_rows_bound_too() {
        let file = format!(
            "system: s\n{NO_NETWORK}
clients:
  web: {{ rate: 10/s, users: 50, calls: [{{ endpoint: api POST /, key: {{ hot: 20%, of: 1k }} }}] }}
services:
  api:
    instances: 2
    rate_limit: {{ quota: 60/min, per: user }}
    endpoints: {{ POST /: [{{ transaction: db, do: [{{ query: db.put }}, {{ query: db.put }}] }}] }}
stores:
  db: {{ kind: postgres, commit: 2ms, operations: {{ put: {{ kind: write, time: 4ms }} }} }}
"
        );
        // Each of two instances counts for itself.
        bound(&file, "api", "rate limit", 2.0 * 50.0);
        // From the first update to the commit's end.
        bound(&file, "db", "row lock", 1.0 / (0.2 * 0.010));
    }

    #[test]
    fn closed_loops_ask_as_fast_as_they_are_answered() {
        let file = format!(
            "system: s\n{NO_NETWORK}
clients:
  web: {{ rate: 100/s, calls: [{{ endpoint: api GET / }}] }}
  batch: {{ users: 10, think: 50ms, calls: [{{ endpoint: api POST / }}] }}
services: {{ api: {{ endpoints: {{ GET /: [{{ work: 1ms }}], POST /: [{{ work: 50ms }}] }} }} }}
"
        );
        // 10 users of 100 ms a round: 100/s too.
        bound(&file, "api", "cores", 2.0 / (0.5 * 0.001 + 0.5 * 0.05));
    }

    #[test]
    fn requests_that_slow_each_other_down_set_the_bound() {
        let file = |how: &str, steps: &str, law: &str| {
            format!(
                "system: s\n{NO_NETWORK}
clients: {{ web: {{ rate: 10/s, calls: [api GET /] }} }}
services:
  api:
    instances: 2
    {how}
    scalability: {{ {law} }}
    endpoints: {{ GET /: [{steps}] }}
stores: {{ db: {{ kind: postgres, pool: 90, concurrency: 1k, operations: {{ get: 60ms }} }} }}
"
            )
        };
        // Amdahl: 64 at once are worth 64 / 1.63.
        let waits = "{ wait: 10ms }";
        bound(&file("workers: 64", waits, "contention: 1%"), "api", "workers", 2.0 * 64.0 / 0.0163);
        // Past 10 at once it is less: 10 / (1 + 0.01 x 10 x 9).
        bound(&file("async: true", waits, "coherency: 1%"), "api", "max_in_flight", 2.0 * 10.0 / 0.019);
        // One core's work.
        let works = "{ work: 10ms }";
        bound(&file("cores: 1", works, "contention: 10%"), "api", "cores", 2.0 / 0.01);
        bound(&file("cores: 4", works, "contention: 10%"), "api", "cores", 2.0 * 4.0 / 0.013);
        // Work of 10 ms and a query of 60: where one core and n places do as much as each other,
        // n / (60 + 10 f(n)) = 1 / (10 f(n)), and f(n) = 0.9 + 0.1 n.
        let queries = "{ work: 10ms }, { query: db.get }";
        let n = (-0.8 + f64::sqrt(0.8 * 0.8 + 4.0 * 0.1 * 6.9)) / (2.0 * 0.1);
        bound(&file("cores: 1", queries, "contention: 10%"), "api", "cores", 2.0 / (0.01 * (0.9 + 0.1 * n)));
    }

    #[test]
    fn so_do_operations_that_slow_each_other_down() {
        let file = |store: &str| {
            format!(
                "system: s\n{NO_NETWORK}
clients: {{ web: {{ rate: 10/s, calls: [api GET /] }} }}
services: {{ api: {{ async: true, endpoints: {{ GET /: [{{ query: db.get }}] }} }} }}
stores: {{ db: {{ {store}, operations: {{ get: 10ms }} }} }}
"
            )
        };
        let (eight, many) = ("scalability: { contention: 5% }", "scalability: { coherency: 1% }");
        bound(&file(&format!("kind: postgres, concurrency: 8, {eight}")), "db", "concurrency", 8.0 / 0.0135);
        bound(&file(&format!("kind: quorum, concurrency: 50, {many}")), "db", "concurrency", 10.0 / 0.019);
    }

    #[test]
    fn nothing_limits_what_nobody_asks() {
        let file = "
system: s
clients: { web: { rate: 10/s, calls: [{ endpoint: api GET / }] } }
services: { api: { async: true, endpoints: { GET /: [] } } }
";
        assert_eq!(bottleneck(&system(file)), None);
    }
}
