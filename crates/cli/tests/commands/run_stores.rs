//! `plimsoll run` on real PostgreSQL and Redis: a small system for a few seconds. ./scripts/packages installs them.
//! Machines are noisy: what is asserted on is what happened, never how fast.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::Folder;
use crate::run::{running, signal, until};

/// Two instances, a primary with a replica, a cache.
const SYSTEM: &str = "system: stored
clients:
  web:
    rate: 40/s
    arrivals: constant
    users: 100
    calls:
      - { endpoint: api GET /items/:id, weight: 2, key: uniform(20) }
      - { endpoint: api GET /list, weight: 1, key: uniform(20) }
      - { endpoint: api POST /items, weight: 1, key: uniform(20) }
    timeout: 10s
services:
  api:
    instances: 2
    workers: 16
    endpoints:
      GET /items/:id: [ { cache: fast, key: item, ttl: 200ms, on_miss: [ { query: db.read } ] } ]
      GET /list: [ { query: db.list } ]
      POST /items: [ { transaction: db, do: [ { query: db.write }, { query: db.tally } ] } ]
stores:
  db:
    kind: postgres
    replicas: 1
    replication_lag: 20ms
    reads: { from: replicas, max_lag: 5s, read_your_writes: session }
    synchronous: true
    operations:
      read: { kind: read, time: 1ms }
      list: { kind: read, time: 2ms, table: lists, size: 2KB }
      write: { kind: write, time: 1ms }
      tally: { kind: write, time: 1ms, lock: none, table: lists }
  fast: { kind: redis, time: 0.2ms }
experiments:
  steady: { for: 3s, warmup: 1s, expect: [ errors < 100%, hits(fast) > 0% ] }
  moved:
    for: 5s
    warmup: 1s
    faults: [ { at: 1s, promote: db } ]
    expect: [ lost_writes(db) == 0 ]
  broken:
    for: 8s
    warmup: 0s
    faults:
      - { at: 1s, slow: primary of db, by: +5ms, for: 1s }
      - { at: 1s, lag: db, by: 300ms, for: 1s }
      - { at: 2500ms, lock: db.main, for: 500ms }
      - { at: 3s, flush: fast }
      - { at: 3500ms, pause: fast/1, for: 500ms }
      - { at: 4s, kill: db/2, for: 1s }
      - { at: 6s, exhaust: db, for: 1s }
    expect: [ errors < 100% ]
  long: { for: 10m, warmup: 0s, faults: [ { at: 1s, pause: primary of db, until: 9m } ], expect: [ errors < 100% ] }
";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("stored.yaml", SYSTEM);
    folder
}

/// It went to its end, with every fault in effect. On a machine that is busy with other things its load may have been
/// late, which it says.
#[track_caller]
fn run(experiment: &str) -> serde_json::Value {
    let folder = folder();
    let ended = folder.run(["run", "stored.yaml", experiment, "--json", "run.json"]);
    let late = ended.code == Some(4) && ended.err.contains("INVALID: 1% of requests were sent");
    assert!(late || ended.code == Some(0), "{:?}\n{}\n{}", ended.code, ended.out, ended.err);
    assert!(ended.out.contains("run on real processes, ready in "), "{}", ended.out);
    folder.json("run.json")
}

fn subject<'r>(run: &'r serde_json::Value, kind: &str, name: &str) -> &'r serde_json::Value {
    let subjects = run["subjects"].as_array().unwrap();
    let found = subjects.iter().find(|subject| subject["kind"] == kind && subject["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn count(run: &serde_json::Value, kind: &str, name: &str, what: &str) -> u64 {
    subject(run, kind, name)["totals"][what].as_u64().unwrap()
}

fn figure(run: &serde_json::Value, kind: &str, name: &str, what: &str) -> f64 {
    let figures = subject(run, kind, name)["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == what);
    found.unwrap_or_else(|| panic!("no {what} of {name}"))["mean"].as_f64().unwrap()
}

fn happened(run: &serde_json::Value, kind: &str, subject: &str) -> bool {
    let events = run["events"].as_array().unwrap();
    events.iter().any(|event| event["kind"] == kind && event["subject"] == subject)
}

#[test]
fn operations_are_statements_and_both_nodes_are_used() {
    let run = run("steady");
    assert!(run["ready_ns"].as_u64().unwrap() > 0);
    assert_eq!(count(&run, "all", "all", "offered"), 120);
    for (kind, name) in [
        ("node", "db/primary"),
        ("node", "db/replica-1"),
        ("node", "fast/1"),
        ("edge", "api -> db"),
        ("edge", "api -> fast"),
    ] {
        assert!(count(&run, kind, name, "ok") > 0, "{kind} {name} did nothing");
        assert_eq!(count(&run, kind, name, "failed"), 0, "{kind} {name} failed");
    }
    // The replica applies each commit 20 ms later, and the server says how many connections it has.
    let age = figure(&run, "node", "db/replica-1", "replica_age_ms_mean");
    assert!(age > 5.0, "{age} ms");
    let used = subject(&run, "node", "db/primary")["figures"].as_array().unwrap();
    let connections = used.iter().find(|figure| figure["detail"] == "max_connections").expect("connections");
    assert!(connections["mean"].as_f64().unwrap() > 0.0, "{connections}");
}

#[test]
fn a_promotion_loses_no_write_that_waited_for_a_replica() {
    let run = run("moved");
    assert!(happened(&run, "promoted", "db/replica-1"), "{}", run["events"]);
    // The primary before comes back as a replica.
    assert!(happened(&run, "instance_up", "db/primary"), "{}", run["events"]);
    assert_eq!(count(&run, "store", "db", "lost"), 0);
    assert!(count(&run, "endpoint", "api POST /items", "ok") > 0);
}

#[test]
fn every_fault_of_a_store_takes_effect_and_is_undone() {
    let run = run("broken");
    assert!(happened(&run, "instance_down", "db/replica-1") && happened(&run, "instance_up", "db/replica-1"));
    assert!(count(&run, "node", "fast/1", "lost") > 0, "the cache was emptied");
    // Until the lag's end the replica showed what was 300 ms old.
    assert!(figure(&run, "node", "db/replica-1", "replica_age_ms_max") > 200.0);
}

/// Nothing is left of a run that is interrupted while a server of PostgreSQL stands still.
#[test]
fn an_interrupt_ends_servers_that_stand_still() {
    let folder = folder();
    let tmp = folder.path("tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    // Whom root runs PostgreSQL as has to get there.
    for path in [folder.0.path(), &tmp] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = crate::command(folder.0.path());
    command.args(["run", "stored.yaml", "long", "--json", "partial.json"]);
    command.env("TMPDIR", &tmp).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    until(&mut child, |_| servers(&tmp).contains(&'T'));
    signal(&child, "INT");
    until(&mut child, |child| child.try_wait().unwrap().is_some());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(5), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(folder.json("partial.json")["partial"], true);
    assert_eq!(servers(&tmp), []);
    let users = std::fs::read_dir(&tmp).unwrap().next().expect("a folder of this user's").unwrap();
    // The template of an empty cluster stays, for the next run.
    let left = std::fs::read_dir(users.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let runs: Vec<String> = left.filter(|name| name != "lock" && !name.starts_with("postgres-")).collect();
    assert_eq!(runs, [""; 0], "the run's directory is gone");
}

/// What each process does whose command line names this directory: its servers' do.
fn servers(tmp: &std::path::Path) -> Vec<char> {
    let tmp = tmp.display().to_string();
    running(|line| line.contains(&tmp)).into_iter().map(|(_, state)| state).collect()
}
