//! `plimsoll calibrate`, and what takes its file. Machines are noisy: what was measured may be far above what was
//! described, never below it.

use crate::Folder;

const SYSTEM: &str = "system: tiny
clients: { web: { rate: 40/s, arrivals: constant, calls: [ edge GET / ], timeout: 5s } }
services:
  edge: { kind: gateway, upstream: api }
  api:
    instances: 2
    endpoints:
      GET /:
        - work: 3ms
        - query: db.read
        - cache: fast
          key: item
          on_miss: [ { wait: 7ms } ]
stores:
  db: { kind: postgres, operations: { read: { kind: read, time: 10ms } } }
  fast: { kind: redis, time: 2ms }
experiments:
  steady: { for: 3s, warmup: 1s, expect: [ errors < 100% ] }
  lost:
    for: 5s
    warmup: 1s
    faults: [ { at: 1s, kill: api/2, for: 3s } ]
    expect: [ errors < 100% ]
";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("tiny.yaml", SYSTEM);
    folder
}

/// The median of the first line with this key, ms.
fn median(text: &str, key: &str) -> f64 {
    let at = text.find(key).unwrap_or_else(|| panic!("no {key} in\n{text}"));
    let rest = text[at..].split_once("p50: ").expect("a median").1;
    rest.split_once("ms").and_then(|(number, _)| number.parse().ok()).unwrap_or_else(|| panic!("{rest}"))
}

#[test]
fn what_is_measured_is_near_what_was_described_and_is_taken_for_predictions() {
    let folder = folder();
    let calibrate = ["calibrate", "tiny.yaml", "--emulate-stores", "--for", "3s", "-o", "machine.yaml"];
    let ended = folder.run(calibrate);
    if ended.code == Some(4) {
        // A machine that cannot make 40 requests a second in time says so, and writes nothing.
        assert!(ended.err.contains("INVALID: "), "{}", ended.err);
        return;
    }
    ended.with(0);
    let text = folder.read("machine.yaml");
    for (key, least) in [("\n    1: {", 3.0), ("\n    2: {", 7.0), ("\"db.read\"", 10.0), ("\"fast\"", 2.0)] {
        let p50 = median(&text, key);
        assert!((least..least * 20.0 + 50.0).contains(&p50), "{key}: {p50} ms\n{text}");
    }
    for edge in ["\"web -> edge\"", "\"api -> db\"", "\"api -> fast\""] {
        let p50 = median(&text, edge);
        assert!((0.0..100.0).contains(&p50), "{edge}: {p50} ms");
    }

    // With it, what is simulated takes longer: each request has overheads now.
    let p50 = |more: &[&str]| {
        let fixed = ["sim", "tiny.yaml", "steady", "--replications", "2", "--json", "sim.json"];
        folder.run(fixed.iter().chain(more)).with(0);
        let run = folder.json("sim.json");
        let figures = run["subjects"][0]["figures"].as_array().expect("figures").clone();
        let of = figures.iter().find(|figure| figure["name"] == "latency_ms_p50").expect("a median");
        of["mean"].as_f64().expect("a number")
    };
    assert!(p50(&["--calibration", "machine.yaml"]) > p50(&[]));

    let run = ["run", "tiny.yaml", "steady", "--emulate-stores", "--predict", "--calibration", "machine.yaml"];
    let ended = folder.run(run.iter().chain(&["--json", "both.json", "--html", "both.html", "--for", "2s"]));
    assert!(matches!(ended.code, Some(0 | 4)), "{}\n{}", ended.out, ended.err);
    assert!(ended.out.contains("Prediction") && ended.out.contains("machine.yaml"), "{}", ended.out);
    let both = folder.json("both.json");
    assert_eq!((&both["measured"]["world"], &both["predicted"]["world"]), (&"real".into(), &"virtual".into()));
    assert_eq!(both["measured"]["duration_ns"], 2_000_000_000u64);
    // The same load: as many requests are due in both worlds.
    let offered = |world: &str| both[world]["subjects"][0]["totals"]["offered"].as_u64().expect("a count");
    assert_eq!(offered("measured"), offered("predicted"));
    assert!(folder.read("both.html").contains("p99 predicted"));
}

/// The simulation knows of waits for permits: counted with the way there, they would be there twice.
#[test]
fn waits_for_a_permit_are_not_taken_for_the_way_there() {
    let folder = Folder::new();
    folder.write(
        "tiny.yaml",
        "system: tiny
clients: { web: { rate: 2/s, arrivals: constant, calls: [ front GET / ], timeout: 5s } }
services:
  front: { endpoints: { GET /: [ { for_each: 4, limit: 4, do: [ { call: back GET / } ] } ] } }
  back:
    endpoints: { GET /: [ { wait: 100ms } ] }
    bulkheads: { one: { endpoints: [GET /], permits: 1, queue: 8, max_wait: 4s } }
experiments:
  steady: { for: 4s, warmup: 1s, expect: [ errors < 100% ] }
",
    );
    let ended = folder.run(["calibrate", "tiny.yaml", "--for", "4s", "-o", "machine.yaml"]);
    if ended.code == Some(4) {
        assert!(ended.err.contains("INVALID: "), "{}", ended.err);
        return;
    }
    ended.with(0);
    // Of each four one waits a tenth of a second, one twice and one three times as long.
    let text = folder.read("machine.yaml");
    let p50 = median(&text, "\"front -> back\"");
    assert!(p50 < 100.0, "{p50} ms\n{text}");
}

#[test]
fn a_file_that_does_not_match_is_refused_with_its_place() {
    let folder = folder();
    folder.write("bad.yaml", "calibration: 1\nsystem: tiny\nhash: x\nplimsoll: x\nseed: 1\nload: 100%\nfor: 3s\nbusy: 1%\npublishes:\n  nothing: { samples: 1, min: 1ms, p5: 1ms, p10: 1ms, p25: 1ms, p50: 1ms, p75: 1ms, p90: 1ms, p95: 1ms, p99: 1ms, p999: 1ms, max: 1ms }\n");
    for command in [["sim", "tiny.yaml"], ["line", "tiny.yaml"]] {
        folder.run(command.iter().chain(&["--calibration", "bad.yaml"])).refused("bad.yaml:10:3");
    }
    let run = ["run", "tiny.yaml", "--emulate-stores", "--predict", "--calibration", "bad.yaml"];
    folder.run(run).refused("there is no topic `nothing`");
    folder.run(["sim", "tiny.yaml", "--calibration", "none.yaml"]).refused("none.yaml: cannot be opened");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    let folder = folder();
    let run = ["run", "tiny.yaml", "lost", "--emulate-stores"];
    folder.run(run.iter().chain(&["--for", "2s"])).refused("ends at 4s");
    folder.run(["calibrate", "tiny.yaml"]).refused("--emulate-stores");
    for (arguments, why) in [
        (["calibrate", "tiny.yaml", "--for", "soon"], "30s"),
        (["calibrate", "tiny.yaml", "--scale", "half"], "50%"),
        (["run", "tiny.yaml", "--calibration", "c.yaml"], "--predict"),
    ] {
        let ended = folder.run(arguments).with(2);
        assert!(ended.err.contains(why), "{}", ended.err);
    }
    folder.write("page.md", "no marks\n");
    folder.run(["predict-table", "tiny.yaml", "-o", "page.md"]).refused("<!-- predict-table -->");
}
