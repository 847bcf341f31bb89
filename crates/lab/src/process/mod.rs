//! Processes that a run starts, and that are gone when it is: however it ends.
//!
//! ```text
//!   plimsoll ──socket──► keeper ──┬─► a process and its group
//!   Supervisor           keep()   ├─► ...
//!                                 └─► (each by way of `child`, which execs)
//! ```
//!
//! The keeper is a process of its own, so that somebody is left to clean up when plimsoll is killed with
//! SIGKILL: the socket between them then ends, and the keeper ends every process and removes the run's
//! directory. It is a subreaper, so a daemon that left its group comes back to it as an orphan. If the keeper
//! is killed, the kernel kills what it started (`PR_SET_PDEATHSIG`), and plimsoll removes the directory; if
//! both are, the next run's start does.
//!
//! Death signals are lost at a change of user and at fork, and belong to the thread that forked. So they are
//! set by [`child`], which runs between the change of user and the program, and the keeper forks from the
//! thread that lives as long as it does.

mod child;
mod directory;
mod keeper;
mod log;
mod ports;
mod protocol;
mod supervisor;
mod tree;
pub mod user;

use std::path::PathBuf;
use std::time::Duration;

pub use child::child;
pub use keeper::keep;
pub use ports::Port;
pub use protocol::{Exit, Signal, Spec};
pub use supervisor::{Process, Supervisor};

/// How the keeper and its children are started: the program that runs [`keep`] when it is called with these
/// arguments and `run`, and [`child`] with these, `child` and that function's arguments.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Usually `/proc/self/exe`.
    pub program: PathBuf,
    /// What comes before `run` and `child`.
    pub arguments: Vec<String>,
}

/// The exit code of [`child`] where the program cannot be executed, as shells have it.
pub const NOT_EXECUTED: i32 = 127;

/// How long processes have to end by themselves when plimsoll is gone, and nobody waits for what they did.
const ORPHANED: Duration = Duration::from_secs(1);

/// Why processes cannot be started or told something.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The directory for runs cannot be made, or is somebody else's.
    #[error("{path}: {why}")]
    Directory {
        /// Where.
        path: PathBuf,
        /// What is wrong there.
        why: String,
    },
    /// The keeper does not start.
    #[error("cannot start the process that keeps the others ({program}): {why}")]
    Keeper {
        /// The program.
        program: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The keeper has ended, and everything with it.
    #[error("the process that keeps the others has ended")]
    Gone,
    /// A program cannot be started.
    #[error("cannot start {name} ({program}): {why}")]
    Start {
        /// The process.
        name: String,
        /// Its program.
        program: String,
        /// What the system says.
        why: String,
    },
    /// A process did not take what was asked of it.
    #[error("{name}: {why}")]
    Refused {
        /// The process.
        name: String,
        /// Why not.
        why: String,
    },
    /// A port is taken, or none is free.
    #[error("the port cannot be had: {0}")]
    Port(std::io::Error),
}
