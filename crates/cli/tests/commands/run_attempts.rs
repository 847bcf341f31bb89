//! Attempts in a run: the second one meets what comes then, not what the first one met.

use serde_json::Value;

use crate::Folder;
use crate::run::{count, ran};

/// What is asked fails for every second attempt, or takes a second for every tenth: directly, behind a gateway, hedged.
const SYSTEM: &str = "system: attempts
clients:
  direct: { rate: 40/s, arrivals: constant, timeout: 5s, calls: [ shaky GET /fails ], retry: { attempts: 8, backoff: 1ms, budget: 1000%, when: [500] } }
  behind: { rate: 40/s, arrivals: constant, timeout: 5s, calls: [ edge GET /fails ] }
  hedging: { rate: 40/s, arrivals: constant, timeout: 5s, calls: [ hedger GET /waits ] }
services:
  edge: { kind: gateway, upstream: shaky, retry: { attempts: 8, backoff: 1ms, budget: 1000%, when: [500] } }
  hedger:
    async: true
    endpoints: { GET /waits: [ { call: shaky GET /waits } ] }
    calls: { shaky: { timeout: 5s, retry: { attempts: 2, budget: 1000% }, hedge: { percentile: 80%, min_samples: 20 } } }
  shaky:
    async: true
    startup: 100ms
    endpoints:
      GET /fails: [ { fail: 50% } ]
      GET /waits: [ { choice: [ { weight: 90, do: [] }, { weight: 10, do: [ { wait: 1s } ] } ] } ]
experiments:
  steady: { for: 6s, warmup: 3s, expect: [ errors < 100% ] }
";

fn figure(run: &Value, kind: &str, name: &str, figure: &str) -> f64 {
    let figures = crate::run::subject(run, kind, name)["figures"].as_array().unwrap();
    figures.iter().find(|of| of["name"] == figure).unwrap_or_else(|| panic!("no {figure}"))["mean"].as_f64().unwrap()
}

#[test]
fn every_attempt_has_chances_of_its_own() {
    let folder = Folder::new();
    folder.write("attempts.yaml", SYSTEM);
    let ended = ran(folder.run(["run", "attempts.yaml", "steady", "--json", "run.json"]));
    let run = folder.json("run.json");
    // Half of all calls would fail however often they are made.
    for client in ["direct", "behind"] {
        let (offered, ok) = (count(&run, "client", client, "offered"), count(&run, "client", client, "ok"));
        assert!(offered > 100 && ok * 10 > offered * 9, "{client}: {ok} of {offered}\n{}", ended.out);
    }
    // A tenth would take a second.
    let p95 = figure(&run, "client", "hedging", "latency_ms_p95");
    assert!(p95 < 1_000.0, "{p95} ms\n{}", ended.out);
    // Losers are called off, and were made all the same.
    let edge = |what| count(&run, "edge", "hedger -> shaky", what);
    let (offered, ok, failed, retries) = (edge("offered"), edge("ok"), edge("failed"), edge("retries"));
    assert!(retries > 0 && offered > ok + failed, "{offered} offered, {ok} ok, {failed} failed, {retries} extra");
}
