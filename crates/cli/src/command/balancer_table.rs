use std::path::PathBuf;

use anyhow::{Context, anyhow};
use plimsoll_report::balancers::table;
use plimsoll_report::json::read_run;

use super::marks::Marked;
use crate::exit::Exit;
use crate::output::{check, print};

/// Tabulate results of `run --balancer --json` side by side: what holds behind which gateway
#[derive(clap::Args, Debug)]
pub(crate) struct BalancerTable {
    /// The results, in the order of the table's columns and rows
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Write the table into this file between its two marks, or print it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl BalancerTable {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        check([&self.output])?;
        let into = self.output.as_deref().map(|path| Marked::read(path, "balancer-table")).transpose()?;
        let read = |path: &PathBuf| {
            let name = path.display();
            let text = std::fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
            read_run(&text).map_err(|error| anyhow!("{name}: expected a run written with --json: {error}"))
        };
        let table = table(&self.results.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?);
        match &into {
            Some(marked) => marked.write(&table)?,
            None => print(&table)?,
        }
        Ok(Exit::Held)
    }
}
