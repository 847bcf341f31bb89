mod balancer_table;
mod calibrate;
mod compare;
mod example;
mod explain;
mod export;
mod gateway;
mod keep;
mod lab_process;
mod line;
mod marks;
mod postmortem;
mod predict_table;
mod proxy;
mod run;
mod schema;
mod sim;

use crate::exit::Exit;

/// How much load a system carries, in every kind of weather, and what gives way first.
#[derive(clap::Parser, Debug)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 held, 1 deviated, 2 bad file or argument, 4 invalid measurement, 5 interrupted (the result is partial)."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Line(line::Line),
    Sim(sim::Sim),
    Run(run::Run),
    Calibrate(calibrate::Calibrate),
    PredictTable(predict_table::PredictTable),
    BalancerTable(balancer_table::BalancerTable),
    Explain(explain::Explain),
    Schema(schema::Schema),
    Compare(compare::Compare),
    Postmortem(postmortem::Postmortem),
    Example(example::Example),
    Export(export::Export),
    Gateway(gateway::Gateway),
    #[command(hide = true)]
    LabProcess(lab_process::LabProcess),
    Proxy(proxy::Proxy),
    Keep(keep::Keep),
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    match arguments.command {
        Command::Line(command) => command.run(),
        Command::Sim(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Calibrate(command) => command.run(),
        Command::PredictTable(command) => command.run(),
        Command::BalancerTable(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Postmortem(command) => command.run(),
        Command::Example(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Gateway(command) => command.run(),
        Command::LabProcess(command) => command.run(),
        Command::Proxy(command) => command.run(),
        Command::Keep(command) => command.run(),
    }
}

/// What every command that simulates takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Chance {
    /// Where all chance comes from: the same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads to use [default: one a processor]; the result is the same for any number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

impl Chance {
    pub(crate) fn threads(&self) -> usize {
        match self.threads {
            Some(threads) => threads as usize,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
