//! Faults of connections in a run: each on the edge of a small system, and what it does to those who call there.

use serde_json::Value;

use crate::Folder;
use crate::run::{count, ran, subject};

/// A client, a gateway, services and a store: every kind of caller and of callee.
const SYSTEM: &str = "system: edges
clients:
  web:
    rate: 40/s
    arrivals: constant
    users: 100
    calls: [ { endpoint: edge GET /items/:id, key: uniform(20) } ]
    timeout: 3s
services:
  edge: { kind: gateway, upstream: api, timeout: 500ms }
  api:
    instances: 2
    workers: 50
    startup: 100ms
    calls: { stock: { timeout: 250ms }, db: { timeout: 1s } }
    endpoints:
      GET /items/:id:
        - query: db.read
        - call: stock GET /stock
        - publish: seen
  stock: { async: true, startup: 100ms, endpoints: { GET /stock: [ { wait: 1ms } ] } }
stores:
  db: { kind: postgres, operations: { read: { kind: read, time: 1ms } } }
topics:
  seen: { partitions: 1 }
consumers:
  reader: { topic: seen, handler: 1ms }
network: { same_zone: 1ms }
experiments:
  faulty: { for: 4s, warmup: 1s, faults: [ { at: 1s, FAULT, for: 1500ms } ], expect: [ EXPECT ] }
";

/// The run of an experiment with this fault, whose expectation holds.
#[track_caller]
fn run(fault: &str, expect: &str) -> Value {
    let folder = Folder::new();
    folder.write("edges.yaml", SYSTEM.replace("FAULT", fault).replace("EXPECT", expect));
    let ended = ran(folder.run(["run", "edges.yaml", "--emulate-stores", "--json", "run.json"]));
    // A fault that met nobody says so.
    assert!(!ended.out.contains("nothing came there") && !ended.out.contains("struck none"), "{}", ended.out);
    let run = folder.json("run.json");
    assert!(count(&run, "edge", "api -> stock", "ok") > 40, "before and after all is well: {}", ended.out);
    run
}

fn figure(run: &Value, kind: &str, name: &str, figure: &str) -> f64 {
    let figures = subject(run, kind, name)["figures"].as_array().unwrap();
    figures.iter().find(|of| of["name"] == figure).unwrap_or_else(|| panic!("no {figure}"))["mean"].as_f64().unwrap()
}

#[test]
fn a_partition_is_a_black_hole() {
    let run = run("partition: api -> stock", "errors during fault > 20%");
    // Nobody is told: who waits 250 ms gives up.
    assert!(count(&run, "edge", "api -> stock", "timed_out") > 20);
    assert_eq!(count(&run, "edge", "api -> db", "failed"), 0);
}

#[test]
fn a_partition_of_an_instance_cuts_it_off_from_all() {
    let run = run("partition: api/2", "errors during fault > 10%");
    assert!(count(&run, "edge", "edge -> api", "failed") > 10);
    let (one, two) = (count(&run, "instance", "api/1", "ok"), count(&run, "instance", "api/2", "ok"));
    assert!(two > 0 && two < one, "{two} and {one}");
}

#[test]
fn with_every_connection_taken_a_pool_cannot_grow() {
    // Slow reads need more connections than there are: who needs a new one is refused, until others give theirs back.
    let run = run("exhaust: db, for: 1500ms }, { at: 1200ms, slow: db, by: +200ms", "errors during fault > 10%");
    assert!(count(&run, "edge", "api -> db", "failed") > 5);
    let refused = |event: &&Value| event["text"].as_str().is_some_and(|text| text.contains("too many connections"));
    assert!(run["events"].as_array().unwrap().iter().any(|event| refused(&event)), "{}", run["events"]);
}

#[test]
fn a_database_that_starts_again_has_no_connection_either_until_the_fault_is_over() {
    let faults = "exhaust: db, for: 2s }, { at: 1200ms, kill: db, for: 300ms }, { at: 1200ms, slow: stock, by: +1ms";
    let run = run(faults, "errors during fault > 30%, errors at end == 0%");
    // 40/s for a second and a half: its connections went with it.
    assert!(count(&run, "edge", "api -> db", "failed") > 30);
}

#[test]
fn lost_packets_are_sent_again_after_a_while() {
    let run = run("drop: api -> db, share: 50%", "errors < 100%");
    assert!(figure(&run, "edge", "api -> db", "latency_ms_p95") >= 200.0);
    assert!(figure(&run, "edge", "api -> stock", "latency_ms_p50") < 200.0);
}

#[test]
fn reset_connections_are_errors_at_once() {
    let run = run("reset: edge -> api, share: 50%", "errors during fault > 10%");
    let (failed, late) =
        (count(&run, "edge", "edge -> api", "failed"), count(&run, "edge", "edge -> api", "timed_out"));
    assert!(failed > late + 10, "{failed} failed, {late} of them by timeout");
}

#[test]
fn answers_share_a_bandwidth() {
    // Answers of 2 KiB, 40 a second, where two of them go through a second.
    let run = run("bandwidth: web -> edge, to: 4KiB/s", "p(95) during fault > 500ms");
    assert_eq!(count(&run, "edge", "edge -> api", "failed"), 0);
}

#[test]
fn an_edge_gets_slower_by_so_much() {
    let run = run("slow: api -> stock, by: +100ms", "p(50) during fault > 100ms");
    assert!(figure(&run, "edge", "api -> stock", "latency_ms_p95") >= 100.0);
    assert_eq!(count(&run, "edge", "api -> stock", "failed"), 0);
}

#[test]
fn an_edge_gets_slower_by_a_factor() {
    // Each way takes 1 ms: a hundred times as long is 200 ms for both.
    let run = run("slow: api -> stock, by: 100x", "p(50) during fault > 198ms");
    assert!(figure(&run, "edge", "api -> stock", "latency_ms_p95") >= 198.0);
}

#[test]
fn what_calls_a_process_that_is_gone_is_refused_at_a_proxy_too() {
    let both = "kill: stock, for: 500ms }, { at: 1s, slow: api -> stock, by: +1ms";
    let run = run(both, "errors during fault > 10%");
    assert!(count(&run, "edge", "api -> stock", "failed") > 10);
    assert_eq!(count(&run, "edge", "api -> stock", "timed_out"), 0);
}
