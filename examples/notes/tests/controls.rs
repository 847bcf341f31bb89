//! The files in `controls` are `system.yaml` without one policy each, in both worlds: in its description, and in the
//! options of the real service.
//!
//! After a change of `system.yaml`: `PLIMSOLL_WRITE=1 cargo test -p plimsoll-notes --test controls`
#![allow(clippy::disallowed_methods, reason = "a test looks whether it is to write")]

use std::collections::BTreeSet;
use std::path::Path;

struct Control {
    name: &'static str,
    experiment: &'static str,
    /// What is different, and what comes of it.
    why: &'static str,
    /// Pieces of `system.yaml`, and what stands in their place.
    without: &'static [(&'static str, &'static str)],
}

const HEALTH: &str = "    health: { path: /health/readiness, every: 5s, unhealthy_after: 3, healthy_after: 2 }\n";
const OUTLIERS: &str = "    outliers: { consecutive_failures: 5, eject_for: 30s, max_ejected: 50% }\n";
const EDGE_RETRY: &str = "    retry: { attempts: 2, when: [connect_error, 503], budget: 20% }\n";
const WEB_RETRY: &str = "    retry: { attempts: 3, backoff: 100ms..2s, jitter: full, budget: 10% }\n";
const EDGE_BREAKER: &str =
    "    breaker: { failure_rate: 50%, window: 5s, min_calls: 20, open_for: 2s, open_for_max: 4s, ramp: 2s }\n";
const DB_BREAKER: &str = ", breaker: { failure_rate: 50%, window: 10s, min_calls: 20, open_for: 5s, ramp: 2s }";
const BULKHEAD: &str = "    bulkheads:\n      writes: { endpoints: [POST /notes], permits: 6 }\n";
const RUN: &str = " --log warn\n";

const CONTROLS: &[Control] = &[
    Control {
        name: "no-ejection",
        experiment: "instance-failure",
        why: "Nobody checks instances and nobody ejects them: a dead one refuses at once, and least connections\n# sends it everything that it can.",
        without: &[(HEALTH, ""), (OUTLIERS, "")],
    },
    Control {
        name: "no-retries",
        experiment: "instance-failure",
        why: "Neither the gateway nor the users' browsers try again.",
        without: &[(EDGE_RETRY, ""), (WEB_RETRY, "")],
    },
    Control {
        name: "no-breaker",
        experiment: "primary-hangs",
        why: "Neither the gateway nor the service has a circuit breaker: every write waits for its timeout, and so does\n# each of its retries.",
        without: &[(EDGE_BREAKER, ""), (DB_BREAKER, ""), (RUN, " --log warn --no-breaker\n")],
    },
    Control {
        name: "no-bulkhead",
        experiment: "slow-primary",
        why: "Without breakers and without the bulkhead, writes that wait for the primary take every worker.",
        without: &[
            (EDGE_BREAKER, ""),
            (BULKHEAD, ""),
            (DB_BREAKER, ""),
            (RUN, " --log warn --no-bulkhead --no-breaker\n"),
        ],
    },
];

impl Control {
    fn contents(&self, system: &str) -> String {
        let body = system.find("system: notes").expect("a comment, and then the file");
        let body = self.without.iter().fold(system[body..].to_owned(), |body, (with, without)| {
            assert_eq!(body.matches(with).count(), 1, "{}: system.yaml should have this once: {with}", self.name);
            body.replace(with, without)
        });
        let Control { name, experiment, why, .. } = self;
        format!(
            "# A control of `system.yaml`: its experiment `{experiment}` without a policy that it depends on.\n#\n\
             # {why}\n#\n#   plimsoll sim examples/notes/controls/{name}.yaml {experiment}\n\n{body}"
        )
    }
}

#[test]
fn controls_are_the_system_file_without_one_policy_each() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let system = std::fs::read_to_string(folder.join("system.yaml")).expect("system.yaml");
    let controls = folder.join("controls");
    for control in CONTROLS {
        let path = controls.join(format!("{}.yaml", control.name));
        let contents = control.contents(&system);
        assert!(contents.contains(&format!("\n  {}:\n", control.experiment)), "{}", control.experiment);
        if std::env::var("PLIMSOLL_WRITE").is_ok() {
            std::fs::write(&path, &contents).expect("written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == contents, "{} is not what system.yaml makes it", path.display());
    }
    let known: BTreeSet<String> = CONTROLS.iter().map(|control| format!("{}.yaml", control.name)).collect();
    let there = std::fs::read_dir(&controls).expect("controls");
    let there: BTreeSet<String> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, known);
}

/// The options of every `run` are options of the program.
#[test]
fn the_service_takes_what_the_files_tell_it() {
    let program = env!("CARGO_BIN_EXE_notes");
    let help = std::process::Command::new(program).arg("--help").output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![folder.join("system.yaml")];
    files.extend(CONTROLS.iter().map(|control| folder.join(format!("controls/{}.yaml", control.name))));
    let mut options = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let line = text.lines().find_map(|line| line.trim().strip_prefix("run: ")).expect("a service of one's own");
        for option in line.split(' ').filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "{}: {option}", file.display());
            options += 1;
        }
    }
    assert!(options > 20, "{options}");
}
