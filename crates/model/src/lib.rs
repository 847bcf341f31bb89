//! Every file format of Plimsoll: the [`system`] file in, the [`run`] out.

pub mod run;
pub mod system;
