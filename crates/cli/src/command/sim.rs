use std::path::PathBuf;

use plimsoll_model::run::Run;
use plimsoll_model::system::{Experiment, System};
use plimsoll_report::terminal;
use plimsoll_sim::{Precision, Runner, Scenario};

use super::Chance;
use crate::calibration::Calibrated;
use crate::exit::Exit;
use crate::experiments::{RunFiles, check_files, chosen, write_files};
use crate::file::SystemFile;
use crate::interrupt::stop_flag;
use crate::output::{Outputs, print};
use crate::progress::Progress;

/// Run experiments in virtual time and judge their expectations
#[derive(clap::Args, Debug)]
pub(crate) struct Sim {
    /// The system file [default: the built-in example `notes`]
    file: Option<PathBuf>,
    /// The experiments to run [default: all of the file]
    experiment: Vec<String>,
    /// List the file's experiments
    #[arg(long)]
    list: bool,
    /// Replications at least
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replications: u32,
    #[command(flatten)]
    files: RunFiles,
    #[command(flatten)]
    calibrated: Calibrated,
    #[command(flatten)]
    chance: Chance,
    #[command(flatten)]
    outputs: Outputs,
}

impl Sim {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let file = SystemFile::open(self.file.as_deref())?;
        let mut system = file.system()?;
        self.calibrated.apply(&mut system)?;
        if self.list {
            let names: Vec<&str> = system.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
            print(&names.join("\n"))?;
            return Ok(Exit::Held);
        }
        let experiments = chosen(&file, &system, &self.experiment)?;
        let several = experiments.len() > 1;
        check_files(&self.outputs, &self.files)?;
        let mut held = true;
        let mut interrupted = false;
        for (i, experiment) in experiments.iter().enumerate() {
            let run = self.simulate(&system, experiment);
            if i > 0 {
                print("")?;
            }
            print(&terminal::run(&run, self.outputs.style()))?;
            write_files(&run, &system, &self.outputs, &self.files, several.then_some(experiment.name.as_str()))?;
            held &= run.passed();
            interrupted |= run.partial;
            if interrupted {
                eprintln!("interrupted: the figures cover {} replications", run.replications);
                break;
            }
        }
        Ok(match (interrupted, held) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Held,
            (false, false) => Exit::Deviated,
        })
    }

    fn simulate(&self, system: &System, experiment: &Experiment) -> Run {
        let most = self.replications.max(Precision::default().most);
        let precision = Precision { least: self.replications, most, ..Precision::default() };
        simulate(system, experiment, &self.chance, &precision)
    }
}

/// Runs an experiment in virtual time.
pub(super) fn simulate(system: &System, experiment: &Experiment, chance: &Chance, precision: &Precision) -> Run {
    let progress = Progress::new();
    let show = |share: f64, what: &str| progress.show(share, what);
    let runner = Runner { seed: chance.seed, threads: chance.threads(), stop: stop_flag(), progress: &show };
    plimsoll_sim::simulate(system, &Scenario::from_experiment(experiment), &experiment.expect, precision, &runner)
}
