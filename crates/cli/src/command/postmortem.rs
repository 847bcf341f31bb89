use std::path::PathBuf;

use anyhow::{Context, anyhow};
use plimsoll_report::json::read_measured;
use plimsoll_report::postmortem;

use crate::exit::Exit;
use crate::output::{check, print, write, wrote};

/// Fill in a postmortem from a run that was written with --json
#[derive(clap::Args, Debug)]
pub(crate) struct Postmortem {
    /// The run, or a prediction: of that, what was measured
    file: PathBuf,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Postmortem {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        check([&self.output])?;
        let name = self.file.display();
        let text = std::fs::read_to_string(&self.file).with_context(|| format!("{name}: cannot be read"))?;
        // Its text has the cause in it, which a chain of errors would say once more.
        let run =
            read_measured(&text).map_err(|error| anyhow!("{name}: expected a run written with --json: {error}"))?;
        let text = postmortem::markdown(&run);
        match &self.output {
            None => print(&text)?,
            Some(path) => {
                write(path, &text)?;
                wrote(path);
            }
        }
        Ok(Exit::Held)
    }
}
