//! The program from outside, as its users and their scripts see it: one file a command, and files
//! for what all commands share.

#[cfg(target_os = "linux")]
mod calibrate;
mod compare;
mod example;
mod explain;
mod export;
mod gateway;
mod help;
mod hostile;
#[cfg(target_os = "linux")]
mod interrupt;
mod line;
mod output;
mod postmortem;
mod proxy;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod run_attempts;
#[cfg(target_os = "linux")]
mod run_balancer;
mod run_faults;
#[cfg(target_os = "linux")]
mod run_killed;
#[cfg(target_os = "linux")]
mod run_lease;
#[cfg(target_os = "linux")]
mod run_quorum;
#[cfg(target_os = "linux")]
mod run_scale;
#[cfg(target_os = "linux")]
mod run_stores;
mod schema;
mod sim;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Two instances with four cores for 20 ms of work a request: about 200/s, and quick to simulate.
const SMALL: &str = "system: small
clients:
  web:
    rate: 20/s
    calls: [ api GET / ]
    timeout: 1s
services:
  api:
    instances: 2
    workers: 2
    queue: 4
    endpoints:
      GET /:
        - work: 20ms
objectives:
  - { name: answers, indicator: success(all), target: 99% }
experiments:
  steady:
    for: 20s
    expect: [ errors < 1% ]
  overload:
    for: 20s
    load: { web: 500/s }
    expect: [ errors < 1% ]
";

/// Arguments with which the load line of the small system takes a fraction of a second.
const QUICK: [&str; 6] = ["--precision", "20%", "--replications", "2", "--horizon", "1"];

/// How the program ended, and what it said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// One clear error, exit code 2, nothing on standard output.
    #[track_caller]
    fn refused(self, why: &str) {
        assert_eq!(self.code, Some(2), "{}\n{}", self.out, self.err);
        assert_eq!(self.out, "");
        assert_eq!(self.err.matches("error: ").count(), 1, "{}", self.err);
        assert!(self.err.starts_with("error: "), "{}", self.err);
        assert!(self.err.contains(why), "expected `{why}` in:\n{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// A folder of one test's own, with files by name.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    /// With the small system as `small.yaml`.
    fn small() -> Self {
        let folder = Folder::new();
        folder.write("small.yaml", SMALL);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("a file to write");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Names of all files, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Runs the program in the folder.
    fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        let output = command(self.0.path()).args(arguments).output().expect("the program runs");
        Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// The program, cut off from the terminal and the settings of whoever runs the tests.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.current_dir(folder).stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}
