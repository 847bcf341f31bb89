//! The real world: a system file's components as processes on this machine, under load, broken on purpose.

pub mod clock;
pub mod timer;
pub mod wire;
