use std::path::{Path, PathBuf};

use anyhow::Context;
use plimsoll_lab::emulated::Role;
use plimsoll_lab::layout::Layout;

use crate::exit::Exit;
use crate::file::SystemFile;

/// Be a part of a run; `plimsoll run` starts these
#[derive(clap::Args, Debug)]
pub(crate) struct LabProcess {
    /// The system file
    file: PathBuf,
    /// The run's folder
    own: PathBuf,
    /// Which part, as JSON
    role: String,
}

impl LabProcess {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let file = SystemFile::open(Some(&self.file))?;
        let system = file.system()?;
        let role: Role = serde_json::from_str(&self.role).context("the role")?;
        let layout = self.own.join("layout.json");
        let text = std::fs::read_to_string(&layout).with_context(|| format!("{}", layout.display()))?;
        let layout: Layout = serde_json::from_str(&text).context("the layout")?;
        let folder = self.file.parent().unwrap_or(Path::new("."));
        plimsoll_lab::emulated::run(system, layout, role, folder, &self.own)?;
        Ok(Exit::Held)
    }
}
