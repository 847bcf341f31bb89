//! Faults as a user meets them: a file, a run, and what its expectations say.

use std::sync::atomic::AtomicBool;

use plimsoll_model::run::{Run, SubjectKind};
use plimsoll_model::{Source, parse};
use plimsoll_sim::{Precision, Runner, Scenario, simulate};

const SEED: u64 = 1;

/// Runs the file's first experiment.
#[track_caller]
fn run(text: &str) -> Run {
    let system = parse(&Source::alone("fault.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"));
    let stop = AtomicBool::new(false);
    let runner = Runner { seed: SEED, threads: 2, stop: &stop, progress: &|_, _| () };
    let experiment = &system.experiments[0];
    let precision = Precision { least: 4, most: 4, relative: 1.0 };
    simulate(&system, &Scenario::from_experiment(experiment), &experiment.expect, &precision, &runner)
}

/// Every expectation of the file's first experiment holds.
#[track_caller]
fn holds(text: &str) {
    let run = run(text);
    assert!(!run.verdicts.is_empty(), "the file expects something");
    for verdict in &run.verdicts {
        assert!(verdict.passed, "{}: measured {} (seed {SEED})", verdict.text, verdict.measured);
    }
}

#[test]
fn a_process_that_dies_between_commit_and_publish_loses_the_message() {
    holds(
        "
system: shop
clients: { web: { rate: 100/s, timeout: 1s, calls: [api POST /orders] } }
services:
  api:
    instances: 2
    endpoints:
      POST /orders:
        - transaction: db
          do: [ { query: db.insert } ]
        - { name: committed, work: 1ms }
        - { name: publish, publish: orders }
stores: { db: { kind: postgres, operations: { insert: { kind: write, time: 2ms } } } }
topics: { orders: { partitions: 2 } }
consumers: { mail: { topic: orders, handler: 1ms } }
experiments:
  crash:
    for: 20s
    faults: [ { at: 5s, crash_between: [committed, publish], of: api } ]
    expect: [ lost_writes(orders) >= 1, lost_writes(orders) during fault >= 0, errors < 10% ]
",
    );
}

#[test]
fn what_a_stopped_process_was_sent_is_done_when_it_goes_on() {
    // 170/s of 300/s, two attempts: above C / (1 + r), so that the backlog of an outage feeds itself.
    let run = run("
system: storm
clients:
  web:
    rate: 170/s
    timeout: none
    per_try_timeout: 1s
    retry: { attempts: 2, backoff: 1ms..1ms, when: [timeout] }
    calls: [api GET /]
services:
  api: { workers: 3, cores: 3, queue: 10M, endpoints: { GET /: [ { work: exp(10ms) } ] } }
experiments:
  outage: { for: 200s, faults: [ { at: 10s, pause: api, for: 10s } ] }
");
    let ok = &run.subject(SubjectKind::All, "all").expect("everybody is a subject").series.ok;
    let end: f32 = ok[150..200].iter().sum::<f32>() / 50.0;
    assert!(end < 0.05 * 170.0, "{end}/s are answered well at the end (seed {SEED})");
}

#[test]
fn an_operation_without_the_key_is_as_slow_as_the_slowest_shard() {
    // The mean of the longest of eight exponential times is H(8) = 2.718 of them.
    holds(
        "
system: shards
network: { same_zone: 0s }
clients: { web: { rate: 20/s, calls: [ { endpoint: api GET /all, key: uniform(1000) } ] } }
services: { api: { endpoints: { GET /all: [ { query: db.scan } ] } } }
stores:
  db:
    kind: postgres
    shards: 8
    concurrency: 50
    operations: { scan: { kind: read, time: exp(10ms), scatter: true } }
experiments:
  calm: { for: 300s, expect: [ mean between 26.5ms and 27.9ms ] }
",
    );
}

#[test]
fn an_operation_without_the_key_takes_a_connection_to_each_shard() {
    // One connection to each of four shards, 10 ms each: at 80/s each pool is an M/D/1 queue of 80%
    // with the same arrivals, so that all four are free at once: 10 ms and a wait of 20 ms.
    holds(
        "
system: shards
network: { same_zone: 0s }
clients:
  web: { rate: 80/s, calls: [ { endpoint: api GET /all, key: uniform(1000) } ] }
services: { api: { async: true, endpoints: { GET /all: [ { query: db.scan } ] } } }
stores:
  db:
    kind: postgres
    shards: 4
    pool: 1
    concurrency: 50
    operations: { scan: { kind: read, time: 10ms, scatter: true } }
experiments:
  calm: { for: 300s, warmup: 20s, expect: [ mean between 28ms and 32ms, errors == 0% ] }
",
    );
}

#[test]
fn a_partition_of_an_edge_covers_its_routes() {
    holds(
        "
system: routed
clients: { web: { rate: 50/s, timeout: 1s, calls: [edge GET /a, edge GET /b] } }
services:
  edge:
    kind: gateway
    routes:
      - { match: GET /a, to: api, timeout: 300ms }
      - { match: GET /b, to: api, timeout: 400ms }
  api: { endpoints: { GET /a: [ { work: 1ms } ], GET /b: [ { work: 1ms } ] } }
experiments:
  cut:
    for: 20s
    faults: [ { at: 5s, partition: edge -> api, for: 5s } ]
    expect: [ 'errors(edge GET /a) during fault > 90%', 'errors(edge GET /b) during fault > 90%', errors before fault < 1% ]
",
    );
}

#[test]
fn a_client_can_be_cut_off() {
    holds(
        "
system: far
clients:
  far: { rate: 50/s, timeout: 1s, calls: [api GET /] }
  near: { rate: 50/s, timeout: 1s, calls: [api GET /] }
services: { api: { endpoints: { GET /: [ { work: 1ms } ] } } }
experiments:
  cut:
    for: 20s
    faults: [ { at: 5s, partition: far, for: 5s } ]
    # Who asks in the last second still waits when it is over.
    expect: [ errors(far) during fault > 70%, errors(near) < 1%, errors(far) before fault < 1% ]
",
    );
}

#[test]
fn a_slow_process_waits_longer_too() {
    // 10 ms of waiting: five times as long, then 30 ms more.
    holds(
        "
system: patient
network: { same_zone: 0s }
clients: { web: { rate: 50/s, calls: [api GET /] } }
services: { api: { async: true, endpoints: { GET /: [ { wait: 10ms } ] } } }
experiments:
  slow:
    for: 40s
    faults: [ { at: 10s, slow: api, by: 5x, for: 10s }, { at: 20s, slow: api, by: +30ms, for: 10s } ]
    expect: [ mean before fault < 10.1ms, mean during fault between 44.6ms and 45.4ms, mean at end < 10.1ms ]
",
    );
}

/// Two faults of one kind on one target: from 10 s to 20 s, and from 15 s to the end at 28 s. The
/// last quarter is the second one's alone.
#[track_caller]
fn overlapping(first: &str, second: &str, expect: &str) {
    holds(&format!(
        "
system: twice
network: {{ same_zone: 0s }}
clients:
  web:
    rate: 100/s
    timeout: 1s
    calls:
      - {{ endpoint: api GET /, weight: 9, key: uniform(10) }}
      - {{ endpoint: api PUT /, key: uniform(10) }}
services:
  api:
    async: true
    startup: 0s
    endpoints:
      GET /: [ {{ wait: 10ms }}, {{ query: db.get }} ]
      PUT /: [ {{ query: db.put }} ]
stores:
  db:
    kind: postgres
    replicas: 1
    reads: replicas
    operations: {{ get: {{ kind: read, time: 1ms }}, put: {{ kind: write, lock: none, time: 1ms }} }}
experiments:
  e:
    for: 28s
    faults: [ {{ at: 10s, {first}, until: 20s }}, {{ at: 15s, {second}, until: 28s }} ]
    expect: [ {expect} ]
"
    ));
}

#[test]
fn overlapping_faults_of_a_kind_are_undone_one_by_one() {
    overlapping("slow: api, by: 5x", "slow: api, by: 3x", "'p(50, api GET /) at end between 30ms and 33ms'");
    overlapping("kill: api", "kill: api", "errors at end > 99%");
    // Whoever asks in the last second is answered when the process goes on.
    overlapping("pause: api", "pause: api", "errors at end > 80%");
    overlapping("lag: db, by: 9s", "lag: db, by: 3s", "stale_reads(db) at end > 80%");
}

#[test]
fn a_request_may_take_as_long_as_its_client_waits() {
    // A minute each, under way at the end, and answered well: with a timeout, and without any.
    for patience in ["timeout: 90s", "timeout: none"] {
        let run = run(&format!(
            "
system: reports
clients: {{ web: {{ rate: 1/s, {patience}, calls: [api POST /report] }} }}
services: {{ api: {{ async: true, endpoints: {{ POST /report: [ {{ wait: 60s }} ] }} }} }}
experiments: {{ calm: {{ for: 30s, expect: [ errors < 1% ] }} }}
"
        ));
        let verdict = &run.verdicts[0];
        assert!(verdict.passed, "{patience}: {}: measured {} (seed {SEED})", verdict.text, verdict.measured);
        assert!(run.warnings.is_empty(), "{:?}", run.warnings);
    }
}

/// How many reads in a hundred are stale, where so many rows are each written once a second and replicas lag as the
/// default says.
fn stale_at(rows: u32) -> f64 {
    let run = run(&format!(
        "
system: notes
clients:
  editors: {{ rate: {rows}/s, calls: [{{ endpoint: api PUT /, key: uniform({rows}) }}] }}
  readers: {{ rate: 200/s, calls: [{{ endpoint: api GET /, key: uniform({rows}) }}] }}
services:
  api:
    workers: 500
    queue: 10k
    endpoints: {{ PUT /: [ {{ query: db.write }} ], GET /: [ {{ query: db.read }} ] }}
stores:
  db:
    kind: postgres
    replicas: 2
    reads: replicas
    max_connections: 500
    pool: 500
    operations: {{ write: {{ kind: write, time: 0.1ms }}, read: {{ kind: read, time: 0.1ms }} }}
experiments: {{ calm: {{ for: 200s }} }}
"
    ));
    let totals = |kind, name| run.subject(kind, name).expect("it is a subject").totals;
    let (db, reads) = (totals(SubjectKind::Store, "db"), totals(SubjectKind::Endpoint, "api GET /"));
    100.0 * db.stale as f64 / reads.ok as f64
}

#[test]
fn how_far_replicas_are_behind_does_not_depend_on_how_many_writes_there_are() {
    // The mean lag is 23 ms, and of a row that is written once a second as many reads are stale.
    for rows in [5, 1_000] {
        let stale = stale_at(rows);
        assert!((1.2..4.0).contains(&stale), "{stale}% of reads at {rows} writes a second (seed {SEED})");
    }
}

#[test]
fn a_session_waits_for_its_replica_with_a_connection_to_that_one() {
    // 40 sessions that read what they wrote, replicas that need longer than they wait for them, and four connections to
    // each node: while they wait they take none of the primary's, and writes go on.
    holds(
        "
system: notes
clients: { web: { rate: 60/s, users: 10, timeout: 2s, calls: [ { endpoint: api PUT /, weight: 40 }, { endpoint: api GET /, weight: 20 } ] } }
services:
  api:
    workers: 500
    endpoints: { PUT /: [ { query: db.write } ], GET /: [ { query: db.read } ] }
stores:
  db:
    kind: postgres
    replicas: 1
    replication_lag: 5s
    reads: { from: replicas, read_your_writes: session, wait: 150ms }
    pool: 4
    operations: { write: { kind: write, time: 1ms }, read: { kind: read, time: 1ms } }
experiments: { calm: { for: 60s, warmup: 5s, expect: [ 'p(99, api PUT /) < 5ms', 'p(50, api GET /) > 150ms', errors == 0% ] } }
",
    );
}

#[test]
fn a_session_waits_for_what_was_acknowledged_to_it_and_no_more() {
    // A replica shows a commit long before it is acknowledged, and who is not told of it yet does not wait for it.
    holds(
        "
system: notes
clients: { web: { rate: 50/s, users: 1, timeout: 5s, calls: [ api PUT /, api GET / ] } }
services: { api: { workers: 500, endpoints: { PUT /: [ { query: db.write } ], GET /: [ { query: db.read } ] } } }
stores:
  db:
    kind: postgres
    replicas: 1
    replication_lag: 500ms
    commit: 1s
    synchronous: true
    max_connections: 200
    pool: 200
    reads: { from: replicas, read_your_writes: session }
    operations: { write: { kind: write, time: 1ms }, read: { kind: read, time: 1ms } }
experiments: { calm: { for: 30s, expect: [ 'p(99, api PUT /) > 1s', 'p(99, api GET /) < 5ms', errors == 0% ] } }
",
    );
}

#[test]
fn a_busy_session_does_not_wait_for_what_it_writes_while_it_waits() {
    // A write every 20 ms, each of which the replica shows 30 ms later: a read waits for the last one before it.
    holds(
        "
system: notes
clients: { web: { rate: 100/s, users: 1, timeout: 5s, calls: [ api PUT /, api GET / ] } }
services: { api: { workers: 500, endpoints: { PUT /: [ { query: db.write } ], GET /: [ { query: db.read } ] } } }
stores:
  db:
    kind: postgres
    replicas: 1
    replication_lag: 30ms
    reads: { from: replicas, read_your_writes: session, wait: 100ms }
    operations: { write: { kind: write, time: 1ms }, read: { kind: read, time: 1ms } }
experiments: { calm: { for: 60s, expect: [ 'p(50, api GET /) > 10ms', 'p(99, api GET /) < 36ms', errors == 0% ] } }
",
    );
}

#[test]
fn with_every_connection_taken_pools_keep_theirs_and_cannot_grow() {
    // One request at a time needs one connection, which it has. Ten times as many need more, and are refused.
    let load = |rate: u32, expected: &str| {
        format!(
            "
system: notes
clients: {{ web: {{ rate: {rate}/s, arrivals: constant, timeout: 5s, calls: [ api GET / ] }} }}
services: {{ api: {{ workers: 500, endpoints: {{ GET /: [ {{ query: db.read }} ] }} }} }}
stores:
  db:
    kind: postgres
    pool: 10
    operations: {{ read: {{ kind: read, time: 50ms }} }}
experiments:
  leak:
    for: 20s
    load: {{ web: [{rate}/s, {rate}/s] }}
    faults: [ {{ at: 5s, exhaust: db, for: 5s }}, {{ at: 6s, surge: web, by: 8x, for: 3s }} ]
    expect: [ {expected} ]
"
        )
    };
    holds(&load(10, "errors during fault > 30%, errors before fault == 0%, errors at end == 0%"));
    holds(&load(1, "errors == 0%"));
}

/// Transactions that write the same three rows, and a fault from 5 s to 8 s: at the end all is as it was.
#[track_caller]
fn locks_are_free_after(fault: &str) {
    holds(&format!(
        "
system: shop
clients: {{ web: {{ rate: 60/s, timeout: 1s, calls: [{{ endpoint: api PUT /, key: uniform(3) }}] }} }}
services:
  api:
    workers: 200
    endpoints: {{ PUT /: [ {{ transaction: db, do: [ {{ query: db.update }} ] }} ] }}
    calls: {{ db: {{ timeout: 500ms }} }}
stores:
  db:
    kind: postgres
    pool: 80
    concurrency: 50
    operations: {{ update: {{ kind: write, time: 10ms }} }}
experiments:
  broken:
    for: 20s
    faults: [ {{ at: 5s, {fault}, for: 3s }} ]
    expect: [ errors during fault > 10%, errors at end == 0%, p(99) at end < 200ms ]
"
    ));
}

#[test]
fn a_server_that_dies_frees_what_its_transactions_have_locked() {
    locks_are_free_after("kill: db");
}

#[test]
fn a_statement_whose_caller_gave_up_frees_what_it_locks_when_it_ends() {
    locks_are_free_after("slow: db, by: +800ms");
}

#[test]
fn a_synchronous_commit_waits_until_a_replica_has_it_and_not_until_it_shows_it() {
    holds(
        "
system: notes
clients: { web: { rate: 50/s, timeout: 5s, calls: [ api PUT / ] } }
services: { api: { workers: 500, endpoints: { PUT /: [ { query: db.write } ] } } }
stores:
  db:
    kind: postgres
    replicas: 1
    replication_lag: 900ms
    commit: 20ms
    synchronous: true
    operations: { write: { kind: write, time: 1ms } }
experiments: { calm: { for: 30s, expect: [ 'p(50, api PUT /) > 20ms', 'p(99, api PUT /) < 30ms', errors == 0% ] } }
",
    );
}
