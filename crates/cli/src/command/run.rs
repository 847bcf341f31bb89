use std::path::PathBuf;

use anyhow::Context;
use plimsoll_lab::Outcome;
use plimsoll_model::system::{Experiment, System};
use plimsoll_report::terminal;

use crate::exit::Exit;
use crate::experiments::{chosen, write_files};
use crate::file::SystemFile;
use crate::interrupt::stop_flag;
use crate::output::{Outputs, check, print};
use crate::progress::Progress;
use crate::real;

/// A server that stops for 1 s of 10, at a constant rate: one request in ten waits, evenly from nothing to 1 s. So the
/// 99th percentile is 900 ms and the 99.9th 990 ms, wherever in the run the stall is. A load generator that waits for
/// answers before it sends on, or counts from when it sent, reads a few ms.
const SELF_TEST: &str = include_str!("self_test.yaml");

/// Run experiments on real processes of this machine and judge their expectations
#[derive(clap::Args, Debug)]
pub(crate) struct Run {
    /// The system file [default: the built-in example `notes`]
    file: Option<PathBuf>,
    /// The experiments to run [default: all of the file]
    experiment: Vec<String>,
    /// List the file's experiments
    #[arg(long)]
    list: bool,
    /// Stores are processes of Plimsoll's that take the time that the file says
    #[arg(long)]
    emulate_stores: bool,
    /// See whether this machine makes and measures load as it should, with a server that stalls
    #[arg(long, conflicts_with_all = ["file", "experiment", "list"])]
    self_test: bool,
    /// Where all chance comes from; the machine has a say too
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write an HdrHistogram interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let file = match self.self_test {
            true => SystemFile::built_in("self-test.yaml", SELF_TEST),
            false => SystemFile::open(self.file.as_deref())?,
        };
        let system = file.system()?;
        if self.list {
            let names: Vec<&str> = system.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
            print(&names.join("\n"))?;
            return Ok(Exit::Held);
        }
        let experiments = chosen(&file, &system, &self.experiment)?;
        real::stores(&file, &system, self.emulate_stores)?;
        let several = experiments.len() > 1;
        check([&self.outputs.html, &self.outputs.json, &self.outputs.junit, &self.hlog])?;
        let mut exit = Exit::Held;
        for (i, experiment) in experiments.iter().enumerate() {
            let Outcome { run, invalid } = self.carry_out(&file, &system, experiment)?;
            if i > 0 {
                print("")?;
            }
            print(&terminal::run(&run, self.outputs.style()))?;
            write_files(&run, &system, &self.outputs, &self.hlog, several.then_some(experiment.name.as_str()))?;
            if run.partial {
                eprintln!("interrupted: the figures cover what was done by then");
                return Ok(Exit::Interrupted);
            }
            if let Some(why) = invalid {
                eprintln!("INVALID: {why}");
                exit = Exit::Invalid;
            } else if !run.passed() && exit == Exit::Held {
                exit = Exit::Deviated;
            }
        }
        Ok(exit)
    }

    fn carry_out(&self, file: &SystemFile, system: &System, experiment: &Experiment) -> anyhow::Result<Outcome> {
        let progress = Progress::new();
        let show = |share: f64, what: &str| progress.show(share, what);
        let path = file.for_others(self.file.as_deref());
        let settings = real::settings(&path, self.seed, stop_flag(), &show).context("this program's own file")?;
        plimsoll_lab::run(system, experiment, &settings).map_err(|error| real::error(file, error))
    }
}
