//! `plimsoll run`, killed with SIGKILL at any moment: no process and no directory is left, and so no port either, which
//! is always a process's. (Whether it is free cannot be asked: others' tests take ports too.)

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::{Folder, command, run::SYSTEM};

const TIMES: u64 = 20;
/// Most of them are while processes start, the others under load.
const LATEST_US: u64 = 3_000_000;
/// How many runs there are at a time.
const TOGETHER: u64 = 4;
/// Looks, 10 ms apart, until what is left counts as left: far more than it ever takes.
const PATIENCE: u32 = 6_000;
const MARK: &str = "PLIMSOLL_TEST_MARK";

#[test]
fn nothing_is_left_of_a_run_that_was_killed() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let (next, most) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                loop {
                    let time = next.fetch_add(1, Relaxed);
                    if time >= TIMES {
                        return;
                    }
                    let draw = plimsoll_gateway::random::mix(seed + time);
                    let there = one(&format!("{MARK}={seed}-{time}"), Duration::from_micros(draw % LATEST_US));
                    most.fetch_max(there as u64, Relaxed);
                }
            });
        }
    });
    // Plimsoll, the keeper and some of what it keeps: on a machine however busy, some moments were late enough.
    assert!(most.into_inner() > 3);
}

/// How many processes there were when it was killed.
fn one(mark: &str, moment: Duration) -> usize {
    let folder = Folder::new();
    let base = folder.path("tmp");
    std::fs::create_dir(&base).expect("a folder");
    // Something that stands still, and something of the reader's own that heeds nothing.
    let own = "trap '' TERM; setsid sleep 1000 & while :; do sleep 1; done # {port}";
    let file = SYSTEM.replace(
        "  stock: { async",
        &format!("  extra: {{ run: \"{own}\", endpoints: {{ GET /: [] }} }}\n  stock: {{ async"),
    );
    folder.write("killed.yaml", file);
    let mut run = command(folder.0.path());
    run.args(["run", "killed.yaml", "long", "--emulate-stores"]).env("TMPDIR", &base);
    let (name, value) = mark.split_once('=').expect("a variable");
    run.env(name, value).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = run.spawn().expect("the program runs");
    pause(moment);
    let there = marked(mark).len();
    run.kill().expect("killed");
    assert_eq!(run.wait().expect("it ends").signal(), Some(9), "it had not ended by itself after {moment:?}");
    for looks in 0.. {
        let (processes, directories) = (marked(mark), directories(&base));
        if processes.is_empty() && directories.is_empty() {
            break;
        }
        assert!(
            looks < PATIENCE,
            "{processes:?} and {directories:?} are left of {there} processes, killed after {moment:?}"
        );
        pause(Duration::from_millis(10));
    }
    there
}

/// The run's directories below a folder.
fn directories(base: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    // A folder of this user is there, once the keeper was; in it no run's.
    let all = entries(base).collect::<Vec<_>>();
    all.iter().flat_map(|user| entries(user)).filter(|path| !path.ends_with("lock")).collect()
}

/// Living processes that have this in their environment.
fn marked(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        if read("environ").split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let stat = String::from_utf8_lossy(&read("stat")).into_owned();
            let words: Vec<&str> = stat.split(' ').take(3).collect();
            if words.len() == 3 && words[2] != "Z" {
                found.push(words.join(" "));
            }
        }
    }
    found
}

#[allow(clippy::disallowed_methods, reason = "waits for other processes")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
