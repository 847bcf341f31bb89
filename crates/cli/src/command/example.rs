use anyhow::bail;

use crate::exit::Exit;
use crate::file::EXAMPLES;
use crate::output::print;

/// Print one of the built-in example systems, to start from
#[derive(clap::Args, Debug)]
pub(crate) struct Example {
    /// Its name; without one, the names are listed
    name: Option<String>,
}

impl Example {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let names = || EXAMPLES.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        match self.name {
            None => print(&names().join("\n"))?,
            Some(name) => match EXAMPLES.iter().find(|(known, _)| *known == name) {
                Some((_, text)) => print(text)?,
                None => bail!("no example `{name}`; expected one of: {}", names().join(", ")),
            },
        }
        Ok(Exit::Held)
    }
}
