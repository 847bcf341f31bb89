use anyhow::Context;
use plimsoll_lab::process;

use crate::exit::Exit;

/// What `run` starts to keep its processes, and to clean up after it however it ends
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct Keep {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Keep processes until standard input, a socket to the run, ends
    Run { base: std::path::PathBuf },
    /// Become a program of the run
    #[command(disable_help_flag = true)]
    Child {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

impl Keep {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self.what {
            What::Run { base } => process::keep(&base, &["keep"]).context("only `plimsoll run` starts this")?,
            What::Child { arguments } => {
                eprintln!("error: {}", process::child(arguments.into_iter()));
                std::process::exit(process::NOT_EXECUTED);
            }
        }
        Ok(Exit::Held)
    }
}
