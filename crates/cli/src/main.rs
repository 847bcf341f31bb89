//! `plimsoll`: how much load a system carries, in every kind of weather, and what gives way first.

mod calibration;
mod command;
mod exit;
mod experiments;
mod file;
mod interrupt;
mod output;
mod progress;
mod real;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = command::Arguments::parse();
    exit::code(command::run(arguments))
}
