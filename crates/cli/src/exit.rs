use std::process::ExitCode;

use crate::file::Refused;

/// How a command ended, short of an error. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything held: 0.
    Held,
    /// An expectation or a requirement was not met, or a comparison came out worse: 1.
    Deviated,
    /// The measurement says nothing about the system: 4.
    Invalid,
    /// The run was interrupted, and its result is partial: 5.
    Interrupted,
}

/// The file, an argument or the disk was at fault: 2. (3 is for an unsteady baseline, which only real runs can have.)
const BAD_INPUT: u8 = 2;

/// Says what went wrong, if anything did.
pub(crate) fn code(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(Exit::Held) => ExitCode::SUCCESS,
        Ok(Exit::Deviated) => ExitCode::from(1),
        Ok(Exit::Invalid) => ExitCode::from(4),
        Ok(Exit::Interrupted) => ExitCode::from(5),
        Err(error) => {
            // What is wrong with a system file comes with a heading of its own.
            let heading = if error.is::<Refused>() { "" } else { "error: " };
            eprintln!("{}", format!("{heading}{error:#}").trim_end());
            ExitCode::from(BAD_INPUT)
        }
    }
}
