//! Real stores of a run: their tables, what their replicas have, how busy they are.

pub mod board;
pub mod schema;
pub(crate) mod watch;
