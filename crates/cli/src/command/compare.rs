use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use plimsoll_report::compare;
use plimsoll_report::json::{Either, read_either};
use plimsoll_report::terminal;

use crate::exit::Exit;
use crate::output::{Colour, print, style, write, wrote};

/// Lay two results over each other: two runs, or two load lines, written with --json
#[derive(clap::Args, Debug)]
pub(crate) struct Compare {
    /// The result to compare with
    a: PathBuf,
    /// The result that is compared; the exit code is 1 if it is worse
    b: PathBuf,
    /// Write the comparison as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// When to colour the terminal's output
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    color: Colour,
}

impl Compare {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let comparison = match (read(&self.a)?, read(&self.b)?) {
            (Either::Run(a), Either::Run(b)) => compare::runs(&a, &b),
            (Either::Line(a), Either::Line(b)) => compare::lines(&a, &b),
            _ => bail!("a run and a load line have nothing to compare; expected two of a kind"),
        };
        print(&terminal::compare(&comparison, style(self.color)))?;
        if let Some(path) = &self.json {
            write(path, &comparison.to_json())?;
            wrote(path);
        }
        Ok(if comparison.worse() { Exit::Deviated } else { Exit::Held })
    }
}

fn read(path: &Path) -> anyhow::Result<Either> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
    // Its text has the cause in it, which a chain of errors would say once more.
    read_either(&text).map_err(|error| anyhow!("{name}: expected a result written with --json: {error}"))
}
