//! Ctrl-C ends a command early, with what is known by then and an exit code of its own.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Folder, SMALL};

const PAUSE: Duration = Duration::from_millis(10);

/// Far longer than it ever takes: only so that a program that never ends fails the test.
const PATIENCE: u32 = 6_000;

#[test]
fn an_interrupted_experiment_is_partial() {
    let folder = Folder::new();
    folder.write("long.yaml", SMALL.replacen("for: 20s", "for: 24h", 1));
    let arguments = ["sim", "long.yaml", "steady", "--replications", "1000", "--json", "partial.json"];
    let arguments = [&arguments[..], &["--postmortem", "partial.md"]].concat();
    let (code, err) = interrupted(&folder, &arguments);
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("interrupted: "), "{err}");
    let run = folder.json("partial.json");
    assert_eq!(run["partial"], true);
    assert!(run["replications"].as_u64().unwrap() < 1000);
    assert!(folder.read("partial.md").contains("The run was interrupted"));
}

#[test]
fn an_interrupted_search_is_partial() {
    let folder = Folder::new();
    folder.write("small.yaml", SMALL);
    let long = ["--replications", "1000", "--precision", "0.5%", "--horizon", "10000", "--json", "partial.json"];
    let (code, err) = interrupted(&folder, &[&["line", "small.yaml"], &long[..]].concat());
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("interrupted: "), "{err}");
    assert_eq!(folder.json("partial.json")["partial"], true);
}

/// Starts the program, interrupts it once it listens, and waits for its end.
fn interrupted(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = crate::command(folder.0.path());
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    until(&mut child, listens);
    // The shell's own `kill`, which is there wherever there is a shell.
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(kill.is_ok_and(|status| status.success()));
    until(&mut child, |child| child.try_wait().expect("a child").is_some());
    let ended = child.wait_with_output().expect("it ended");
    (ended.status.code(), String::from_utf8(ended.stderr).expect("UTF-8"))
}

#[allow(clippy::disallowed_methods, reason = "waits for another process")]
fn until(child: &mut Child, done: impl Fn(&mut Child) -> bool) {
    for _ in 0..PATIENCE {
        if done(child) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    let _ = child.kill();
    panic!("it did not come to that");
}

/// Whether the program catches SIGINT by now; before, it would just die of it.
fn listens(child: &mut Child) -> bool {
    assert!(child.try_wait().expect("a child").is_none(), "it ended before it was interrupted");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("its status");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("the mask");
    let mask = u64::from_str_radix(caught.trim(), 16).expect("a mask");
    mask & (1 << (2 - 1)) != 0
}
