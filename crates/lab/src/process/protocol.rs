//! What plimsoll and the keeper say to each other: one JSON value a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A process to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Spec {
    /// What it is called in logs and errors; its log is `NAME.log` in the run's directory. Letters, digits,
    /// `-`, `_` and `.` alone.
    pub name: String,
    /// The program, with its path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables of its environment that differ from plimsoll's; `None` takes one out.
    pub environment: BTreeMap<String, Option<String>>,
    /// Where it runs. Default: the run's directory.
    pub folder: Option<String>,
    /// The user and group that it runs as. Default: plimsoll's. Another needs root.
    pub user: Option<(u32, u32)>,
    /// Bytes of its log that are kept: the last half of them at least. Default: 4 MiB.
    pub log_bytes: Option<u64>,
    /// What asks it to end. Default: `SIGTERM`.
    pub stop: Signal,
}

/// A signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// `SIGTERM`
    #[default]
    Terminate,
    /// `SIGINT`: PostgreSQL's fast shutdown.
    Interrupt,
    /// `SIGQUIT`
    Quit,
    /// `SIGHUP`
    Hangup,
    /// `SIGUSR1`
    User1,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With this code. 127: the program could not be executed, and its log says why.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its keeper was killed, and it with it.
    Lost,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
            Exit::Lost => f.write_str("its keeper's end"),
        }
    }
}

/// What plimsoll asks. Each request has a number, and gets one answer with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) what: What,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum What {
    Spawn {
        id: u64,
        spec: Spec,
    },
    /// To the process alone.
    Signal {
        id: u64,
        signal: Signal,
    },
    /// Stops the process and everything that it started.
    Pause {
        id: u64,
    },
    Resume {
        id: u64,
    },
    /// Answered when nothing of it is left.
    Stop {
        id: u64,
        grace_ms: u64,
    },
    /// The same for all, and the keeper itself.
    End {
        grace_ms: u64,
    },
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// The first: the run's directory is there.
    Ready { directory: String },
    /// There is none, and the keeper ends.
    Failed { why: String },
    /// To a request: how many processes it concerned.
    Answer { number: u64, result: Result<u32, String> },
    /// A process has ended; others of its group may be left.
    Exited { id: u64, exit: Exit },
}
