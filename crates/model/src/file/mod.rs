//! From a system file to a [`System`]: text, tree, tables, types.
//!
//! ```text
//!   bytes ──tree──► nodes ──check, with the tables──► filled ──sections──► System
//!                                                       └──────explain───► text
//! ```
//!
//! One file a section: its table of keys, and what it becomes. All problems of a file are found
//! in one pass through these stages; a stage goes on past a bad value with a stand-in.

mod arrivals;
mod calibration;
mod check;
mod client;
mod consumer;
mod cycle;
mod decode;
mod distribution;
mod edge;
mod expectation;
mod experiment;
mod explain;
mod fault;
mod filled;
mod gateway;
mod growth;
mod histogram;
mod keyspace;
mod lease;
mod names;
mod objective;
mod owners;
mod policy;
mod prices;
mod problem;
mod program;
mod quantity;
mod reader;
mod reference;
mod render;
mod root;
mod routes;
mod schema;
mod service;
mod serving;
mod step;
mod store;
mod suggest;
mod table;
mod target;
mod topic;
mod trace;
mod tree;

pub use calibration::calibration;
pub use problem::{Problem, Problems};
pub use reference::reference;
pub use schema::schema;

use crate::system::System;
use filled::Filled;
use problem::Report;
use table::Kind;

/// A system file, and a way to the files that it names.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The file's name, for messages.
    pub name: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
    /// Reads a file that this one names (`trace(...)`, `histogram(...)`), relative to it; an error
    /// says why that cannot be done.
    pub read: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
}

impl<'a> Source<'a> {
    /// A file that names no other.
    pub fn alone(name: &'a str, text: &'a str) -> Self {
        Source { name, bytes: text.as_bytes(), read: &|_| Err("there are no other files here".to_owned()) }
    }
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Reads a system file, or says everything that is wrong with it.
pub fn parse(source: &Source) -> Result<System, Problems> {
    read(source).map(|read| read.system)
}

/// The file with every default filled in, each value with its origin as a comment. It reads as the
/// same system.
pub fn explain(source: &Source) -> Result<String, Problems> {
    read(source).map(|read| explain::explain(&read.filled, &read.implied))
}

struct Read {
    system: System,
    filled: Filled,
    /// Calls without policies in the file: caller and target.
    implied: Vec<(String, String)>,
}

fn read(source: &Source) -> Result<Read, Problems> {
    let mut report = Report::default();
    let tree = reader::read(source.bytes, &mut report);
    let read = tree.as_ref().map(|tree| {
        let filled = check::check(tree, Kind::Object(&root::SYSTEM), &mut report);
        let (system, implied) = decode::decode(source, &filled, &mut report);
        Read { system, filled, implied }
    });
    match read {
        Some(read) if report.is_empty() => Ok(read),
        _ => Err(report.finish(source.name, source.bytes, tree.as_ref())),
    }
}
