//! Tables and a ladder for a terminal: readable at 80 columns, never wider than asked, colour
//! only if asked.

mod compare;
mod ladder;
mod line;
mod prediction;
mod run;
mod sheet;
mod table;

pub use compare::compare;
pub use line::line;
pub use prediction::prediction;
pub(crate) use run::between;
pub use run::run;
pub use sheet::Style;
