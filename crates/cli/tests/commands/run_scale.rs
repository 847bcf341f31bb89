//! Autoscaling in a run: what is asserted on is what happened, never how fast.

use serde_json::Value;

use crate::Folder;
use crate::run::{count, ran, subject};

/// One instance does 50 requests a second; 100 and 6 are asked for by every kind of caller: a client, a gateway, a service.
const SYSTEM: &str = "system: elastic
clients:
  web:
    rate: 100/s
    calls: [ { endpoint: edge GET / }, { endpoint: api GET / }, { endpoint: front GET /front } ]
    timeout: 10s
services:
  edge: { kind: gateway, upstream: api }
  front: { async: true, startup: 100ms, endpoints: { GET /front: [ { call: api GET / } ] } }
  api:
    workers: 200
    cores: 1
    startup: 200ms
    endpoints: { GET /: [ { work: 20ms } ] }
    autoscale: { min: 1, max: 4, target: 70%, every: 1s, delay: 300ms, cooldown: 2s }
experiments:
  tide: { for: 18s, warmup: 0s, load: { web: [100/s, 6/s, 6/s] }, expect: [ instances(api) at end < 3 ] }
  deployed:
    for: 9s
    warmup: 0s
    load: { web: [6/s, 100/s, 100/s] }
    faults: [ { at: 0s, deploy: api, version: { slow: 3x }, for: 3s } ]
    expect: [ instances(api) at end > 2 ]
";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("elastic.yaml", SYSTEM);
    folder
}

fn events(run: &Value, kind: &str) -> Vec<(u64, String)> {
    let events = run["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind);
    events.map(|event| (event["at_ns"].as_u64().unwrap(), event["text"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_service_grows_with_its_load_and_shrinks_without() {
    let folder = folder();
    let ended = ran(folder.run(["run", "elastic.yaml", "tide", "--json", "run.json"]));
    let run = folder.json("run.json");
    let (up, down) = (events(&run, "scale_up"), events(&run, "scale_down"));
    assert!(!up.is_empty() && !down.is_empty(), "{up:?} {down:?}\n{}", ended.err);
    assert!(up[0].1.starts_with("1 to "), "{up:?}");
    assert!(up[0].0 < down[0].0, "{up:?} {down:?}");
    // No instance is asked before it is ready, and each that was has answered.
    assert!(count(&run, "instance", "api/1", "ok") > 0 && count(&run, "instance", "api/2", "ok") > 0);
    let ready: Vec<&Value> = run["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "instance_up" && event["subject"] == "api/2")
        .collect();
    assert!(ready[0]["at_ns"].as_u64().unwrap() > up[0].0, "{ready:?} {up:?}");
    for caller in ["web -> api", "edge -> api", "front -> api"] {
        assert!(count(&run, "edge", caller, "ok") > 0, "{caller}");
    }
    // Every step leads from where the last one ended.
    let mut steps = [up, down].concat();
    steps.sort();
    let mut now = 1;
    for (_, text) in steps {
        let numbers: Vec<u32> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers[0], now, "{text}");
        assert!((1..=4).contains(&numbers[1]) && numbers[1] != now, "{text}");
        now = numbers[1];
    }
    assert!(now < 3, "it has not shrunk: {now}");
}

#[test]
fn what_an_autoscaler_starts_runs_what_was_deployed() {
    let folder = folder();
    ran(folder.run(["run", "elastic.yaml", "deployed", "--json", "run.json"]));
    let run = folder.json("run.json");
    assert!(!events(&run, "scale_up").is_empty());
    let is = |of: &&Value| of["kind"] == "instance" && of["name"].as_str().is_some_and(|name| name.starts_with("api/"));
    let grown = run["subjects"].as_array().unwrap().iter().filter(is).filter(|of| of["name"] != "api/1");
    let mut some = 0;
    for instance in grown.filter(|instance| instance["totals"]["ok"].as_u64().unwrap() > 0) {
        let figures = instance["figures"].as_array().unwrap();
        let mean = figures.iter().find(|figure| figure["name"] == "latency_ms_mean").unwrap()["mean"].as_f64().unwrap();
        assert!(mean >= 59.0, "{}: the work takes 60 ms in the new version: {mean}", instance["name"]);
        some += 1;
    }
    assert!(some >= 2, "the replacement of the old instance, and what was added");
    assert_eq!(subject(&run, "service", "api")["kind"], "service");
}

#[test]
fn what_cannot_be_scaled_is_refused() {
    let folder = folder();
    let scale = "autoscale: { max: 4 }";
    for (from, to, why) in [
        (
            "upstream: api }",
            "upstream: api, AUTOSCALE }",
            "`edge`: a run does not know how busy the cores of a real gateway",
        ),
        ("{ async: true, startup: 100ms,", "{ run: './front {port}', AUTOSCALE,", "busy another's program is"),
        ("{ async: true, startup: 100ms,", "{ run: './front {port}',", "`api`: `front`, another's program, calls it"),
    ] {
        folder.write("other.yaml", SYSTEM.replace(from, &to.replace("AUTOSCALE", scale)));
        folder.run(["run", "other.yaml", "tide"]).refused(why);
    }
}
