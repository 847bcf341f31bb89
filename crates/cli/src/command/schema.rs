use crate::exit::Exit;
use crate::output::print;

/// Print the JSON Schema of system files, for editors that complete and check
#[derive(clap::Args, Debug)]
pub(crate) struct Schema {}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        print(&serde_json::to_string_pretty(&plimsoll_model::schema())?)?;
        Ok(Exit::Held)
    }
}
