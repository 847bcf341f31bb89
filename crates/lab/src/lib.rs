//! The real world: a system file's components as processes on this machine, under load, broken on purpose.

pub mod answer;
pub mod caller;
pub mod clock;
pub mod context;
pub mod control;
pub mod emulated;
pub mod layout;
pub mod names;
pub mod requests;
pub mod tally;
pub mod timer;
pub mod wire;
