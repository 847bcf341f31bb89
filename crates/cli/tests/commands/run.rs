//! `plimsoll run`: systems of a few processes, for a few seconds. Machines are noisy: what is asserted on is what
//! happened, never how fast.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::{Folder, command};

/// Two instances behind a gateway, and what services can do.
pub(crate) const SYSTEM: &str = "system: tiny
clients:
  web:
    rate: 40/s
    arrivals: constant
    users: 100
    calls:
      - { endpoint: edge GET /items/:id, weight: 3, key: uniform(20) }
      - { endpoint: edge POST /items, weight: 1, key: uniform(20) }
    timeout: 5s
services:
  edge: { kind: gateway, upstream: api, balance: least_connections, retry: { attempts: 3, when: [connect_error, reset] } }
  api:
    instances: 2
    workers: 8
    startup: 100ms
    endpoints:
      GET /items/:id:
        - work: 200us
        - cache: fast
          key: item
          on_miss: [ { query: db.read } ]
        - call: stock GET /stock
      POST /items:
        - transaction: db
          do: [ { query: db.write }, { publish: written } ]
    idempotency: { header: Idempotency-Key }
  stock: { async: true, endpoints: { GET /stock: [ { wait: 1ms } ] } }
stores:
  db:
    kind: postgres
    replicas: 1
    replication_lag: 5ms
    reads: { from: replicas, read_your_writes: session }
    synchronous: true
    operations:
      read: { kind: read, time: 1ms }
      write: { kind: write, time: 1ms }
  fast: { kind: redis, time: 0.2ms }
topics:
  written: { partitions: 2 }
consumers:
  reader: { topic: written, handler: 1ms }
experiments:
  steady: { for: 3s, warmup: 1s, expect: [ errors < 100%, hits(fast) > 0% ] }
  lost:
    for: 5s
    warmup: 1s
    faults: [ { at: 1s, kill: api/2, for: 1s } ]
    expect: [ share(api/1) > 0% ]
  wrong: { for: 1s, warmup: 0s, expect: [ goodput > 1000000/s ] }
  long: { for: 600s, warmup: 0s, faults: [ { at: 0s, pause: stock, for: 500s } ], expect: [ errors < 100% ] }
";

/// Far longer than it ever takes: only so that a program that never ends fails the test.
const PATIENCE: u32 = 6_000;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("tiny.yaml", SYSTEM);
    folder
}

/// It went to its end. On a machine that is busy with other things the measurement may be invalid, which it says.
#[track_caller]
pub(crate) fn ran(ended: crate::Ended) -> crate::Ended {
    let late = ended.code == Some(4) && ended.err.contains(" of requests were sent ");
    assert!(late || ended.code == Some(0), "{:?}\n{}\n{}", ended.code, ended.out, ended.err);
    ended
}

pub(crate) fn subject<'r>(run: &'r serde_json::Value, kind: &str, name: &str) -> &'r serde_json::Value {
    let subjects = run["subjects"].as_array().unwrap();
    let found = subjects.iter().find(|subject| subject["kind"] == kind && subject["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

pub(crate) fn count(run: &serde_json::Value, kind: &str, name: &str, what: &str) -> u64 {
    subject(run, kind, name)["totals"][what].as_u64().unwrap()
}

#[test]
fn every_part_of_a_system_does_its_work() {
    let folder = folder();
    let arguments = ["run", "tiny.yaml", "steady", "--emulate-stores", "--json", "run.json", "--html", "run.html"];
    let ended = ran(folder.run(arguments));
    assert!(ended.out.contains("run on real processes"), "{}", ended.out);
    assert!(folder.read("run.html").contains("<html"));
    let run = folder.json("run.json");
    assert_eq!((&run["world"], &run["partial"]), (&"real".into(), &false.into()));
    // The schedule is kept whatever the answers: 40 a second for 3 s.
    assert_eq!(count(&run, "all", "all", "offered"), 120);
    assert_eq!(count(&run, "client", "web", "offered"), 120);
    for (kind, name) in [
        ("instance", "edge/1"),
        ("instance", "api/1"),
        ("instance", "api/2"),
        ("instance", "stock/1"),
        ("node", "db/primary"),
        ("node", "db/replica-1"),
        ("node", "fast/1"),
        ("edge", "web -> edge"),
        ("edge", "edge -> api"),
        ("edge", "api -> stock"),
        ("edge", "api -> db"),
        ("topic", "written"),
        ("consumer", "reader"),
    ] {
        assert!(count(&run, kind, name, "ok") > 0, "{kind} {name} did nothing");
    }
    let all = subject(&run, "all", "all");
    let seconds: f64 = all["series"]["offered"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).sum();
    assert_eq!((all["series"]["offered"].as_array().unwrap().len(), seconds), (3, 120.0));
    assert!(all["figures"].as_array().unwrap().iter().any(|figure| figure["name"] == "send_lag_ms_p99"));
}

#[test]
fn a_killed_instance_is_gone_and_comes_back() {
    let folder = folder();
    ran(folder.run(["run", "tiny.yaml", "lost", "--emulate-stores", "--json", "run.json"]));
    let run = folder.json("run.json");
    let events = run["events"].as_array().unwrap();
    let at = |kind: &str| {
        let is = |event: &&serde_json::Value| event["kind"] == kind && event["subject"] == "api/2";
        events.iter().find(is).unwrap_or_else(|| panic!("no {kind} in {events:?}"))["at_ns"].as_u64().unwrap()
    };
    assert!(at("instance_down") >= 1_000_000_000);
    assert!(at("instance_up") >= at("instance_down") + 1_000_000_000);
    assert!(count(&run, "instance", "api/2", "ok") > 0);
}

#[test]
fn an_expectation_that_is_missed_has_its_exit_code() {
    let ended = folder().run(["run", "tiny.yaml", "wrong", "--emulate-stores"]);
    assert!(ended.code == Some(1) || ended.code == Some(4) && ended.err.contains("INVALID: "), "{}", ended.err);
    assert!(ended.out.contains("missed"), "{}", ended.out);
}

#[test]
fn what_a_run_cannot_do_is_refused_with_its_place() {
    let folder = folder();
    let scales = folder.read("tiny.yaml").replace("    synchronous: true\n", "    scalability: { contention: 0.1% }\n");
    folder.write("scales.yaml", scales);
    let why = "scales.yaml:30: `db`: a real store has a `scalability` of its own: take it out, or add --emulate-stores";
    folder.run(["run", "scales.yaml", "steady"]).refused(why);
    let still = "network: { same_zone: 0ms, cross_zone: 0ms }\nexperiments:";
    let file = folder.read("tiny.yaml").replace("experiments:", still);
    folder.write("still.yaml", file.replace("kill: api/2,", "slow: api -> db, by: 2x,"));
    folder
        .run(["run", "still.yaml", "lost", "--emulate-stores"])
        .refused("still.yaml:50: `slow api -> db by 2x`: the network takes no time there");
    folder.run(["run", "tiny.yaml", "stedy", "--emulate-stores"]).refused("no experiment `stedy`; expected one of");
    let write = |from: &str, to: &str| folder.write("other.yaml", folder.read("tiny.yaml").replace(from, to));
    for (from, to, why) in [
        ("kill: api/2, for: 1s", "skew: api, by: +1s, for: 1s", "only leases compare clocks"),
        ("GET /stock: [", "stock: [", "a run asks for endpoints over HTTP"),
    ] {
        write(from, to);
        if from.starts_with("GET /stock") {
            folder.write("other.yaml", folder.read("other.yaml").replace("stock GET /stock", "stock stock"));
        }
        let ended = folder.run(["run", "other.yaml", "lost", "--emulate-stores"]);
        assert_eq!(ended.code, Some(2), "{to}: {}", ended.err);
        assert!(ended.err.contains(why), "{to}: {}", ended.err);
    }
}

#[test]
fn a_command_without_a_port_is_refused() {
    let folder = folder();
    let file = folder.read("tiny.yaml");
    folder.write("own.yaml", file.replace("  stock: { async", "  stock: { run: ./stock, async"));
    let ended = folder.run(["run", "own.yaml", "steady", "--emulate-stores"]).with(2);
    assert!(ended.err.contains("expected a command with `{port}`"), "{}", ended.err);
    folder.write(
        "own.yaml",
        file.replace("  stock: { async", "  stock: { run: 'echo no luck with {port}; exit 3', async"),
    );
    let ended = folder.run(["run", "own.yaml", "steady", "--emulate-stores"]).with(2);
    assert!(ended.err.contains("stock/1 ended before it was ready"), "{}", ended.err);
    assert!(ended.err.contains("no luck with "), "{}", ended.err);
}

/// Nothing counts what happens within another's program: an expectation of it would hold, or fail, of nothing.
#[test]
fn what_nobody_counts_cannot_be_expected() {
    let folder = folder();
    let file =
        folder.read("tiny.yaml").replace("    instances: 2\n", "    instances: 2\n    run: ./api --port {port}\n");
    for (expected, name) in [("stale_reads(db) < 3%", "db"), ("lost_writes(db) == 0", "db"), ("queue(api) < 1", "api")]
    {
        folder.write("own.yaml", file.replace("errors < 100%, hits(fast) > 0%", expected));
        let why = format!("`{expected}`: ");
        let ended = folder.run(["run", "own.yaml", "steady", "--emulate-stores"]);
        assert!(ended.err.contains(&why) && ended.err.contains(&format!("`{name}`")), "{}", ended.err);
        ended.refused(&why);
    }
    folder.write("own.yaml", file.replace("errors < 100%, hits(fast) > 0%", "share(api/1) > 0%"));
    let ended = folder.run(["run", "own.yaml", "steady", "--emulate-stores"]);
    assert!(ended.err.contains("api/1 ended before it was ready"), "what gateways count is not refused: {}", ended.err);
}

/// A gateway whose route has a static answer serves as somebody's own service.
#[test]
fn a_service_of_the_readers_own_takes_its_place() {
    let folder = folder();
    folder.write(
        "gateway.yaml",
        "system: own\nclients: { c: { rate: 1/s, calls: [ edge GET /stock ] } }\nservices:\n  edge:\n    kind: gateway\n    \
         upstream: nobody\n    listen: ['127.0.0.1:PORT']\n    routes: [ { match: GET *, to: nobody, fallback: true } ]\n  \
         nobody: { at: ['127.0.0.1:1'], endpoints: { GET /stock: [] } }\n",
    );
    let program = env!("CARGO_BIN_EXE_plimsoll");
    let own = format!("sed s/PORT/{{port}}/ gateway.yaml > {{port}}.yaml; exec {program} gateway {{port}}.yaml");
    let file = folder.read("tiny.yaml").replace("  stock: { async", &format!("  stock: {{ run: '{own}', async"));
    folder.write("own.yaml", file);
    ran(folder.run(["run", "own.yaml", "steady", "--emulate-stores", "--json", "run.json"]));
    assert!(count(&folder.json("run.json"), "edge", "api -> stock", "ok") > 0);
}

#[test]
fn a_service_that_runs_already_is_asked_where_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    let folder = folder();
    let file = folder.read("tiny.yaml").replace("  stock: { async", &format!("  stock: {{ at: ['{address}'], async"));
    folder.write("at.yaml", file);
    ran(folder.run(["run", "at.yaml", "steady", "--emulate-stores", "--json", "run.json"]));
    assert!(count(&folder.json("run.json"), "edge", "api -> stock", "ok") > 0);
}

#[test]
fn an_interrupt_gives_a_partial_report_and_leaves_nothing() {
    let folder = folder();
    let mut child = long(&folder);
    until(&mut child, |_| processes(&folder).len() >= 9);
    // Some way into the load, with a process that stands still.
    until(&mut child, |_| processes(&folder).iter().any(|(_, state)| *state == 'T'));
    signal(&child, "INT");
    until(&mut child, |child| child.try_wait().unwrap().is_some());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(5), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(folder.json("partial.json")["partial"], true);
    assert_eq!(processes(&folder), []);
    let users = std::fs::read_dir(folder.path("tmp")).unwrap().next().expect("a folder of this user's").unwrap();
    let left: Vec<_> = std::fs::read_dir(users.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"], "the run's directory is gone");
}

/// A run of ten minutes, whose files are all in the folder.
fn long(folder: &Folder) -> Child {
    std::fs::create_dir_all(folder.path("tmp")).unwrap();
    let file = folder.path("tiny.yaml");
    let mut command = command(folder.0.path());
    command.arg("run").arg(file).args(["long", "--emulate-stores", "--json", "partial.json"]);
    command.env("TMPDIR", folder.path("tmp")).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("the program runs")
}

/// Parts of the run of this folder: their numbers, and what each does.
fn processes(folder: &Folder) -> Vec<(u32, char)> {
    let file = folder.path("tiny.yaml").display().to_string();
    running(|line| line.contains("lab-process") && line.contains(&file))
}

/// Processes with such a command line: their numbers, and what each does.
pub(crate) fn running(is: impl Fn(&str) -> bool) -> Vec<(u32, char)> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
            (is(&line) && state != 'Z').then_some((pid, state))
        })
        .collect()
}

pub(crate) fn signal(child: &Child, signal: &str) {
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
    assert!(kill.is_ok_and(|status| status.success()));
}

pub(crate) fn until(child: &mut Child, done: impl Fn(&mut Child) -> bool) {
    for _ in 0..PATIENCE {
        if done(child) {
            return;
        }
        pause();
    }
    let _ = child.kill();
    panic!("it did not come to that");
}

#[allow(clippy::disallowed_methods, reason = "waits for other processes")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
