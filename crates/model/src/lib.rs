//! Every file format of Plimsoll: the [`system`] file in, the [`run`] out.

pub mod calibration;
mod cost;
pub mod draw;
mod file;
mod grow;
pub mod lag;
pub mod load;
pub mod run;
mod scale;
pub mod system;

pub use cost::cost;
pub use file::{Problem, Problems, Source, calibration as read_calibration, explain, parse, reference, schema};
pub use grow::grow;
