//! What Plimsoll found, as text: pure functions from a [`Run`](plimsoll_model::run::Run) or a
//! [`Line`](plimsoll_model::run::Line) to output. Nothing here reads a file, a clock or the
//! environment; the same result gives the same bytes.
//!
//! | module | output |
//! |---|---|
//! | [`terminal`] | tables and a ladder for a terminal |
//! | [`json`] | the result itself, to be read back |
//! | [`html`] | one self-contained page |
//! | [`svg`] | the ladder as a picture |
//! | [`junit`] | one case an expectation or a mark, for build servers |
//! | [`postmortem`] | what a run says of its faults, as a document that people finish |
//! | [`mod@prediction`] | how far predictions were off, as a table |
//! | [`balancers`] | what each of several gateways kept of the same experiments, as a table |
//! | [`hlog`] | HdrHistogram interval log |
//! | [`compare`](mod@compare) | two results over each other |

pub mod balancers;
pub mod compare;
pub mod hlog;
pub mod html;
pub mod json;
pub mod junit;
pub mod postmortem;
pub mod prediction;
pub mod svg;
pub mod terminal;
pub mod topology;

mod downsample;
mod figures;
mod markup;
mod number;
mod stats;
mod text;
mod words;
