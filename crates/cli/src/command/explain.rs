use std::path::PathBuf;

use crate::exit::Exit;
use crate::file::SystemFile;
use crate::output::print;

/// Show a system file with every default filled in, and where each value comes from
#[derive(clap::Args, Debug)]
pub(crate) struct Explain {
    /// The system file [default: the built-in example `notes`]
    file: Option<PathBuf>,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        print(&SystemFile::open(self.file.as_deref())?.explain()?)?;
        Ok(Exit::Held)
    }
}
