//! The real world: a system file's components as processes on this machine, under load, broken on purpose.

pub mod answer;
pub mod caller;
pub mod clock;
pub mod context;
pub mod control;
pub mod emulated;
mod fault;
pub mod layout;
pub mod line;
pub mod load;
mod machine;
pub mod measure;
pub mod names;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod refuse;
pub mod requests;
mod result;
pub mod route;
pub mod run;
pub mod stack;
pub mod store;
pub mod tally;
pub mod timer;
pub mod wire;

pub use machine::FULL;
pub use measure::times::fit;
pub use run::{Outcome, RunError, Settings, run};
pub use stack::{File, Launch};
