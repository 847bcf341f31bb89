//! The same file and seed give the same run to the last bit, on one thread or two, every time.

use plimsoll_sim::Scenario;

use crate::check::{run, system};

const FILE: &str = "
system: everything
clients:
  web:
    rate: 150/s
    arrivals: bursty
    users: 500
    timeout: 2s
    retry: { attempts: 3, budget: 20% }
    calls:
      - { endpoint: edge GET /items/:id, weight: 5, key: { zipf: 0.99, of: 10k } }
      - { endpoint: edge POST /items, key: uniform(10k) }
  batch: { users: 5, think: exp(200ms), calls: [edge GET /items/:id] }
services:
  edge:
    kind: gateway
    upstream: api
    balance: p2c
    outliers: {}
    health: { path: /health, every: 1s }
    retry: { attempts: 2, when: [connect_error, reset, 503] }
  api:
    instances: 3
    workers: 16
    queue: { size: 64, discipline: codel }
    endpoints:
      GET /items/:id:
        - work: exp(1ms)
        - cache: mem
          key: item
          ttl: 5s
          on_miss: [{ query: db.read }]
      POST /items:
        - transaction: db
          do: [{ query: db.insert }, { publish: made }]
    calls: { db: { timeout: 500ms, breaker: {} } }
stores:
  db:
    kind: postgres
    replicas: 2
    reads: { from: replicas, read_your_writes: session }
    operations: { read: { time: { p50: 2ms, p99: 20ms } }, insert: { kind: write, time: { p50: 3ms, p99: 30ms } } }
  mem: { kind: redis, capacity: 2k }
topics: { made: { partitions: 4, capacity: 1k } }
consumers: { mail: { topic: made, instances: 2, handler: exp(5ms), dedup: {} } }
experiments:
  trouble:
    for: 20s
    warmup: 2s
    faults: [{ at: 5s, kill: api/2, for: 5s }, { at: 8s, slow: db, by: 5x, for: 4s }]
";

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let system = system(FILE);
    let scenario = Scenario::from_experiment(&system.experiments[0]);
    let once = format!("{:?}", run(&system, &scenario, 7, 1));
    assert!(once == format!("{:?}", run(&system, &scenario, 7, 2)), "two threads differ from one");
    assert!(once == format!("{:?}", run(&system, &scenario, 7, 1)), "a second run differs from the first");
    assert!(once != format!("{:?}", run(&system, &scenario, 8, 1)), "another seed changes nothing");
}
