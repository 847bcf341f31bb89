use crate::{Folder, QUICK, SMALL};

/// The small system with a fault: one of two instances is gone for 5 s, and its share of the requests is tried again.
fn folder() -> Folder {
    let folder = Folder::new();
    let client = SMALL.replacen("    timeout: 1s\n", "    timeout: 1s\n    retry: { attempts: 2 }\n", 1);
    let lost =
        "  lost:\n    for: 20s\n    faults: [ { at: 5s, kill: api/2, for: 5s } ]\n    expect: [ errors < 50% ]\n";
    folder.write("small.yaml", client + lost);
    folder
}

#[test]
fn a_simulated_run_and_the_same_saved_have_the_same_postmortem() {
    let folder = folder();
    let bare = folder.run(["sim", "small.yaml", "lost"]).with(0);
    let with = folder.run(["sim", "small.yaml", "lost", "--json", "run.json", "--postmortem", "p.md"]).with(0);
    assert_eq!(bare.out, with.out, "the terminal shows what it shows without");
    assert!(with.err.lines().any(|line| line == "wrote p.md"), "{}", with.err);
    let document = folder.read("p.md");
    assert!(document.starts_with("# Postmortem: small, lost\n"), "{document}");
    assert!(document.contains("| `kill api/2` | 5.0 s | 10.0 s |"), "{document}");
    for heading in ["Summary", "Impact", "Timeline", "Detection and recovery", "What limited it", "Root cause"] {
        assert!(document.contains(&format!("\n## {heading}\n")), "{heading}: {document}");
    }
    // A request that was tried again, once at most, was rescued or failed after all.
    let run = folder.json("run.json");
    let client = run["subjects"].as_array().unwrap().iter().find(|subject| subject["kind"] == "client").unwrap();
    let totals = &client["totals"];
    let (rescued, retries) = (totals["rescued"].as_u64().unwrap(), totals["retries"].as_u64().unwrap());
    let failed = totals["failed"].as_u64().unwrap();
    assert!(rescued > 0 && rescued <= retries && retries <= rescued + failed, "{totals}");
    assert!(document.contains("answered well after an attempt of the client's had failed"), "{document}");
    // Phases are parts of the whole.
    let phases = client["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 3);
    let offered: u64 = phases.iter().map(|phase| phase["totals"]["offered"].as_u64().unwrap()).sum();
    assert_eq!(offered, totals["offered"].as_u64().unwrap());

    assert_eq!(folder.run(["postmortem", "run.json"]).with(0).out, document);
    let saved = folder.run(["postmortem", "run.json", "-o", "saved.md"]).with(0);
    assert_eq!((saved.out.as_str(), saved.err.as_str()), ("", "wrote saved.md\n"));
    assert_eq!(folder.read("saved.md"), document);
}

#[cfg(target_os = "linux")]
#[test]
fn a_real_run_has_one_too() {
    let folder = Folder::new();
    folder.write("tiny.yaml", crate::run::SYSTEM);
    let files = ["--json", "run.json", "--postmortem", "p.md", "--html", "run.html"];
    crate::run::ran(folder.run(["run", "tiny.yaml", "lost", "--emulate-stores"].iter().chain(&files)));
    let document = folder.read("p.md");
    assert!(document.contains("| `kill api/2` | 1.0 s | 2.0 s |"), "{document}");
    assert!(document.contains("run on real processes"), "{document}");
    // 40 requests a second for 5 s, one of them in four a write.
    let all = document.lines().find(|line| line.starts_with("| all |")).unwrap();
    assert!(all.contains("| 200 |"), "{all}");
    assert!(document.contains("- `db`: replicas answered "), "{document}");
    let run = folder.json("run.json");
    let subjects = run["subjects"].as_array().unwrap();
    let nodes = subjects.iter().filter(|s| s["kind"] == "node" && s["name"].as_str().unwrap().starts_with("db/"));
    let count = |node: &serde_json::Value, what: &str| node["totals"][what].as_u64().unwrap();
    for node in nodes {
        // Every read that a replica answered is one of its reads, and a primary answers none as a replica.
        let of_replica = if node["name"] == "db/primary" { 0 } else { count(node, "reads") };
        assert_eq!(count(node, "replica_reads"), of_replica, "{}", node["name"]);
        assert!(count(node, "reads") <= count(node, "ok"));
    }
    assert_eq!(folder.run(["postmortem", "run.json"]).with(0).out, document);
    assert!(folder.read("run.html").contains("<h2>Postmortem</h2>"));
}

#[test]
fn each_of_several_experiments_has_its_own() {
    let folder = folder();
    folder.run(["sim", "small.yaml", "steady", "lost", "--replications", "2", "--postmortem", "p.md"]).with(0);
    assert_eq!(folder.names(), ["p-lost.md", "p-steady.md", "small.yaml"]);
    assert!(folder.read("p-steady.md").contains("Nothing was broken"));
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = folder();
    let line = ["line", "small.yaml", "--weather", "calm", "--json", "line.json"];
    folder.run(line.iter().chain(&QUICK)).with(0);
    folder.write("cut", "{ \"format\": 1, \"plimsoll\": ");
    folder.write("empty", "");
    folder.write("newer", r#"{ "format": 999, "experiment": "e" }"#);
    folder.write("deep", "[".repeat(1 << 20));
    folder.write("binary", b"\x7fELF\x02\x01\xff\0");
    std::fs::create_dir(folder.path("folder")).unwrap();
    for (name, why) in [
        ("line.json", "line.json: expected a run written with --json: this is a load line, and a run was expected"),
        ("cut", "cut: expected a run written with --json: not a run written by plimsoll"),
        ("empty", "not a run written by plimsoll"),
        ("newer", "999"),
        ("deep", "not a run written by plimsoll"),
        ("small.yaml", "not a run written by plimsoll"),
        ("binary", "cannot be read"),
        ("folder", "cannot be read"),
        ("missing", "missing: cannot be read"),
    ] {
        folder.run(["postmortem", name]).refused(why);
    }
    folder.run(["postmortem", "small.yaml", "-o", "missing/p.md"]).refused("missing/p.md: cannot be written");
}
