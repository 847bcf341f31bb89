//! Leases in a run: a leader that stops, or whose clock is off, and a lock that requests take in turn.

use serde_json::Value;

use crate::Folder;
use crate::run::{count, ran};

/// A scheduler on one of three instances, and a lock around a wait.
const SYSTEM: &str = "system: led
clients:
  web: { rate: 20/s, arrivals: constant, calls: [ { endpoint: api POST /jobs } ], timeout: 10s }
services:
  api:
    instances: 3
    workers: 64
    endpoints:
      POST /jobs: [ { lease: exclusive, do: [ { wait: 5ms } ] } ]
leases:
  leader: { service: api, ttl: 2s, renew: 500ms, write_every: 50ms, write: 5ms, fencing: FENCING }
  exclusive: { service: api, ttl: 2s, renew: 500ms, fencing: FENCING }
experiments:
  off: { for: 8s, warmup: 1s, faults: [ { at: 1s, FAULT } ], expect: [ EXPECT ] }
";

#[track_caller]
fn run(fencing: bool, fault: &str, expect: &str) -> Value {
    let folder = Folder::new();
    let system = SYSTEM.replace("FENCING", &fencing.to_string()).replace("FAULT", fault).replace("EXPECT", expect);
    folder.write("led.yaml", system);
    ran(folder.run(["run", "led.yaml", "--json", "run.json"]));
    folder.json("run.json")
}

/// What was said of the leader, of one kind, in its order.
fn said(run: &Value, kind: &str) -> Vec<String> {
    let events = run["events"].as_array().unwrap().iter();
    let here = events.filter(|event| event["kind"] == kind && event["subject"] == "leader");
    here.map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_leader_that_stops_is_followed_and_its_late_write_refused() {
    let run = run(true, "pause: api/1, for: 4s", "duplicates(leader) == 0");
    let taken = said(&run, "lease_taken");
    assert!(taken[0].starts_with("api/1 holds it"), "the first of all has it first: {taken:?}");
    assert!(taken.iter().any(|text| !text.starts_with("api/1 ")), "{taken:?}");
    let fenced = said(&run, "fenced");
    assert!(fenced.iter().any(|text| text.starts_with("a late write of api/1 is refused")), "{fenced:?}");
    assert!(count(&run, "lease", "leader", "rejected") >= 1);
    assert!(count(&run, "lease", "leader", "ok") > 20, "before and after somebody leads");
    assert!(count(&run, "lease", "exclusive", "ok") > 40, "and requests take the lock in turn");
}

#[test]
fn without_fencing_both_write() {
    let run = run(false, "pause: api/1, for: 4s", "duplicates(leader) > 0");
    let both = said(&run, "split_brain");
    assert!(both.iter().any(|text| text.starts_with("api/1 writes with token")), "{both:?}");
    assert_eq!(count(&run, "lease", "leader", "rejected"), 0);
}

#[test]
fn a_leader_that_dies_is_followed() {
    let run = run(true, "kill: api/1, for: 4s", "duplicates(leader) == 0");
    let (lost, taken) = (said(&run, "lease_lost"), said(&run, "lease_taken"));
    assert!(lost.contains(&"api/1 no longer holds it: its process is gone".to_owned()), "{lost:?}");
    assert!(taken.iter().any(|text| !text.starts_with("api/1 ")), "{taken:?}");
}

#[test]
fn a_leader_that_is_cut_off_stops_by_its_own_clock() {
    let run = run(true, "partition: api/1, for: 5s", "duplicates(leader) == 0");
    let lost = said(&run, "lease_lost");
    let own = "api/1 no longer holds it: it cannot renew it, and its time is over by its own clock";
    assert!(lost.contains(&own.to_owned()), "{lost:?}");
    // Its clock stands a minute behind: it goes on believing, until it hears otherwise.
    let run =
        self::run(true, "skew: api/1, by: -1min, for: 6s }, { at: 1s, partition: api/1, for: 5s", "errors < 100%");
    let lost = said(&run, "lease_lost");
    assert!(!lost.contains(&own.to_owned()), "{lost:?}");
    assert!(said(&run, "lease_taken").iter().any(|text| !text.starts_with("api/1 ")));
}

#[test]
fn a_clock_ahead_takes_and_loses_it_in_turn() {
    let run = run(true, "skew: api/1, by: 1min, for: 4s", "duplicates(leader) == 0");
    let lost = said(&run, "lease_lost");
    let own = "api/1 no longer holds it: its time is over by its own clock";
    assert!(lost.iter().filter(|text| *text == own).count() > 1, "{lost:?}");
    assert_eq!(count(&run, "lease", "leader", "rejected"), 0, "that does no harm");
}

#[test]
fn what_holds_no_lease_in_a_run_is_refused() {
    let folder = Folder::new();
    let system = SYSTEM.replace("FENCING", "true").replace("FAULT", "skew: api, by: 1s, for: 1s");
    let system = system.replace("EXPECT", "errors < 100%");
    folder.write("own.yaml", system.replace("    instances: 3\n", "    instances: 3\n    run: ./api --port {port}\n"));
    folder
        .run(["run", "own.yaml"])
        .refused("`leader`: only what a run emulates holds leases, and `api` is not emulated");
}
