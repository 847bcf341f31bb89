//! The files in `examples/controls/` are `notes.yaml` without one policy each: the experiment that
//! depends on it misses the expectations named here, and no others.
//!
//! After a change of `notes.yaml`: `PLIMSOLL_WRITE=1 cargo test -p plimsoll --test examples controls`

use std::collections::BTreeSet;
use std::path::Path;

use super::{folder, plimsoll, yaml_in};

/// `notes.yaml` without one policy.
struct Control {
    name: &'static str,
    /// What is different, and what comes of it.
    why: &'static str,
    experiment: &'static str,
    /// Pieces of `notes.yaml`, and what stands in their place.
    without: &'static [(&'static str, &'static str)],
    missed: &'static [&'static str],
}

const HEALTH: &str = "    health: { path: /health/readiness, every: 5s, unhealthy_after: 3, healthy_after: 2 }\n";
const OUTLIERS: &str = "    outliers: { consecutive_failures: 5, eject_for: 30s, max_ejected: 50% }\n";
const EDGE_RETRY: &str = "    retry: { attempts: 2, when: [connect_error, 503], budget: 20% }\n";
const WEB_RETRY: &str = "    retry: { attempts: 3, backoff: 100ms..2s, jitter: full, budget: 10% }\n";
const EDGE_BREAKER: &str =
    "    breaker: { failure_rate: 50%, window: 5s, min_calls: 20, open_for: 2s, open_for_max: 4s, ramp: 2s }\n";
const DB_BREAKER: &str = ", breaker: { failure_rate: 50%, window: 10s, min_calls: 20, open_for: 5s, ramp: 2s }";
const BULKHEAD: &str = "    bulkheads:\n      writes: { endpoints: [POST /notes], permits: 6 }\n";

const CONTROLS: &[Control] = &[
    Control {
        name: "no-ejection",
        why: "Nobody checks instances and nobody ejects them. A dead one refuses at once, so it always has the fewest \
              requests in flight, and least connections sends it everything that it can.",
        experiment: "instance-failure",
        without: &[(HEALTH, ""), (OUTLIERS, "")],
        missed: &["errors(web) < 0.01%", "amplification(web) during fault < 1.01"],
    },
    Control {
        name: "no-retries",
        why: "Neither the gateway nor the users' browsers try again: what meets the dead instance before it is ejected \
              is an error.",
        experiment: "instance-failure",
        without: &[(EDGE_RETRY, ""), (WEB_RETRY, "")],
        missed: &["errors(web) < 0.01%"],
    },
    Control {
        name: "no-breaker",
        why: "The gateway has no circuit breaker: while the primary hangs, every write waits for its timeout, and so \
              does each of its retries.",
        experiment: "primary-hangs",
        without: &[(EDGE_BREAKER, "")],
        missed: &["mean(edge POST /notes) during fault < 600ms"],
    },
    Control {
        name: "round-robin",
        why: "The gateway balances by round robin: the slow instance gets a third of the requests, until so many of \
              them have timed out that it is ejected.",
        experiment: "slow-instance",
        without: &[("balance: least_connections", "balance: round_robin")],
        missed: &["errors(web) < 0.1%"],
    },
    Control {
        name: "no-quota",
        why: "The API takes what comes. Nothing is turned away before the queues are full, and by then everybody waits \
              for a second.",
        experiment: "saturation",
        without: &[("    rate_limit: { quota: 250/s }\n", "")],
        missed: &["p(95) at end < 300ms"],
    },
    Control {
        name: "no-bulkhead",
        why: "Without breakers and without the bulkhead, writes that wait for the primary take every worker, and reads \
              that need nothing of it find none.",
        experiment: "slow-primary",
        without: &[(EDGE_BREAKER, ""), (BULKHEAD, ""), (DB_BREAKER, "")],
        missed: &["errors(edge GET /notes/:id) < 0.1%", "p(95, edge GET /notes/:id) during fault < 100ms"],
    },
    Control {
        name: "any-replica",
        why: "Reads go to any replica, also to one that does not have yet what the same session wrote.",
        experiment: "replica-lag",
        without: &[(", read_your_writes: session", "")],
        missed: &["stale_reads(db) < 1%"],
    },
    Control {
        name: "hard-shutdown",
        why: "An old instance is stopped without waiting for the requests that it has.",
        experiment: "rolling-deploy",
        without: &[("    drain: 30s\n", "    drain: 0s\n")],
        missed: &["errors == 0%"],
    },
    Control {
        name: "no-rollback",
        why: "Nobody looks at the new version: it rolls out to every instance, and stays.",
        experiment: "bad-deploy",
        without: &[("    deploy: { rollback_at: 5% }\n", "")],
        missed: &["errors < 1%"],
    },
];

impl Control {
    fn file(&self) -> String {
        format!("notes-{}.yaml", self.name)
    }

    /// `notes.yaml` with the differences, under a head of its own.
    fn contents(&self, notes: &str) -> String {
        let body = notes.find("system: notes").expect("notes.yaml begins with a comment");
        let body = self.without.iter().fold(notes[body..].to_owned(), |body, (with, without)| {
            assert_eq!(body.matches(with).count(), 1, "{}: notes.yaml should have this once: {with}", self.name);
            body.replace(with, without)
        });
        let why: String = wrapped(self.why).iter().map(|line| format!("# {line}\n")).collect();
        let (file, experiment) = (self.file(), self.experiment);
        format!(
            "# A control of `notes.yaml`: its experiment `{experiment}` without a policy that it depends on.\n#\n{why}#\n\
             #   diff examples/notes.yaml examples/controls/{file}\n\
             #   plimsoll sim examples/controls/{file} {experiment}\n\n{body}"
        )
    }
}

/// In lines as long as comments have them.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.len() + 1 + word.len() <= 98 => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn notes() -> String {
    std::fs::read_to_string(folder().join("notes.yaml")).expect("notes.yaml")
}

#[test]
fn they_are_notes_without_a_policy() {
    let controls = folder().join("controls");
    let write = std::env::var_os("PLIMSOLL_WRITE").is_some();
    for control in CONTROLS {
        let path = controls.join(control.file());
        let expect = control.contents(&notes());
        if write {
            std::fs::create_dir_all(&controls).expect("the folder");
            std::fs::write(&path, &expect).expect("a control");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expect, "{} has to be written anew: see the top of this file", path.display());
    }
    let known: BTreeSet<String> = CONTROLS.iter().map(Control::file).collect();
    let found: BTreeSet<String> = yaml_in(&controls).iter().map(|path| name(path)).collect();
    assert_eq!(found, known);
}

#[test]
fn they_miss_what_the_policy_gives() {
    let temporary = tempfile::tempdir().expect("a folder");
    for control in CONTROLS {
        let json = temporary.path().join("run.json");
        let path = folder().join("controls").join(control.file());
        let (code, said) = plimsoll(&[
            "sim",
            path.to_str().expect("UTF-8"),
            control.experiment,
            "--replications",
            "2",
            "--json",
            json.to_str().expect("UTF-8"),
        ]);
        assert_eq!(code, Some(1), "{}: {said}", control.name);
        let run: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&json).expect("the result")).expect("the result is JSON");
        let verdicts = run["verdicts"].as_array().expect("verdicts");
        let missed: Vec<&str> =
            verdicts.iter().filter(|v| v["passed"] == false).filter_map(|v| v["text"].as_str()).collect();
        assert_eq!(missed, control.missed, "{}: {said}", control.name);
    }
}

#[test]
fn p2c_leaves_a_slow_instance_alone_too() {
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("notes-p2c.yaml");
    std::fs::write(&path, notes().replace("balance: least_connections", "balance: p2c")).expect("a file");
    let (code, said) = plimsoll(&["sim", path.to_str().expect("UTF-8"), "slow-instance", "--replications", "2"]);
    assert_eq!(code, Some(0), "{said}");
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}
