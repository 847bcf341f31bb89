//! Processes as they are kept: by a real keeper, and killed in every way there is.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "tests wait for what other processes do")]

mod kept;
mod killed;

use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_lab::process::{Launch, Spec, Supervisor};

fn launch() -> Launch {
    Launch { program: env!("CARGO_BIN_EXE_plimsoll-keeper").into(), arguments: Vec::new() }
}

fn start(base: &Path) -> Supervisor {
    Supervisor::start(&launch(), base).expect("a keeper")
}

/// A process that runs a line of shell.
fn shell(name: &str, line: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        program: "/bin/sh".to_owned(),
        arguments: vec!["-c".to_owned(), line.to_owned()],
        ..Spec::default()
    }
}

/// Waits for a condition, for as long as a busy machine may need.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes that have this in their environment, with their state and name; zombies have none.
fn marked(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let words: Vec<&str> = stat.split(' ').take(3).collect();
            if words.len() == 3 && words[2] != "Z" {
                found.push(words.join(" "));
            }
        }
    }
    found
}
