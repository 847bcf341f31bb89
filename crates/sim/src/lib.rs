//! The virtual world: a system file's components as a discrete-event simulation, bit for bit
//! reproducible from (file, seed).

pub mod analytic;
mod collect;
mod compile;
mod component;
mod engine;
mod experiment;
mod fault;
mod gives_way;
pub mod journal;
mod line;
mod measure;
mod metric;
mod plan;
mod replicate;
pub mod stats;
mod world;

pub use experiment::{Precision, simulate};
pub use line::{Forecast, Settings, forecasts, grown_line, line, today};
pub use plan::Scenario;
pub use replicate::Runner;
