//! Every file format of Plimsoll: the [`system`] file in, the [`run`] out.

mod file;
pub mod run;
pub mod system;

pub use file::{Problem, Problems, Source, explain, parse, reference, schema};
