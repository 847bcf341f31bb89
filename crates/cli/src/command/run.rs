use std::path::PathBuf;

use anyhow::bail;
use clap::builder::TypedValueParser;
use plimsoll_lab::Outcome;
use plimsoll_model::run::Prediction;
use plimsoll_model::system::{Balancer, Experiment};
use plimsoll_report::terminal;

use super::Chance;
use super::calibrate::once;
use super::sim::simulate;
use crate::calibration::Calibrated;
use crate::exit::Exit;
use crate::experiments::{RunFiles, check_files, chosen, length, share, shortened, write_files, write_prediction};
use crate::file::SystemFile;
use crate::output::{Outputs, print};
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
    /// Stores are processes of Plimsoll's that take the time that the file says, instead of PostgreSQL and Redis
    #[arg(long)]
    emulate_stores: bool,
    /// Who stands for the gateways, whatever the file's `balancer` says: `nginx`, `haproxy`, or Plimsoll's own
    #[arg(long, value_name = "PROGRAM", value_parser = balancer(), conflicts_with = "self_test")]
    balancer: Option<Balancer>,
    /// See whether this machine makes and measures load as it should, with a server that stalls
    #[arg(long, conflicts_with_all = ["file", "experiment", "list"])]
    self_test: bool,
    /// Simulate the same too, and show measurement and prediction over each other
    #[arg(long, conflicts_with = "self_test")]
    predict: bool,
    /// Times for the prediction, from a file that `plimsoll calibrate` wrote
    #[arg(long, value_name = "FILE", requires = "predict")]
    calibration: Option<PathBuf>,
    /// Run for so long instead of as long as the experiment says; its faults must be over by then
    #[arg(long = "for", value_name = "TIME", value_parser = length, conflicts_with = "self_test")]
    length: Option<u64>,
    /// The load, as a share of what the experiment says
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = share, conflicts_with = "self_test")]
    scale: f64,
    /// Where all chance comes from; the machine has a say too
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    files: RunFiles,
    #[command(flatten)]
    outputs: Outputs,
}

/// Programs that can stand for a gateway, by their names in the file.
fn balancer() -> impl clap::builder::TypedValueParser<Value = Balancer> {
    clap::builder::PossibleValuesParser::new(["plimsoll", "nginx", "haproxy"]).map(|name| match name.as_str() {
        "nginx" => Balancer::Nginx,
        "haproxy" => Balancer::Haproxy,
        _ => Balancer::Plimsoll,
    })
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let file = match self.self_test {
            true => SystemFile::built_in("self-test.yaml", SELF_TEST),
            false => SystemFile::open(self.file.as_deref())?,
        };
        let mut system = file.system()?;
        system.scale_load(self.scale);
        if let Some(balancer) = self.balancer
            && system.stand_for_gateways(balancer) == 0
        {
            bail!(
                "{}: --balancer: no gateway that it could stand for: expected a service with `kind: gateway`",
                file.name
            );
        }
        if self.list {
            let names: Vec<&str> = system.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
            print(&names.join("\n"))?;
            return Ok(Exit::Held);
        }
        let experiments = chosen(&file, &system, &self.experiment)?;
        let experiments: Vec<Experiment> =
            experiments.into_iter().map(|of| shortened(&file, of, self.length)).collect::<anyhow::Result<_>>()?;
        let calibrated = match self.predict {
            true => {
                let mut calibrated = system.clone();
                Calibrated { calibration: self.calibration.clone() }.apply(&mut calibrated)?;
                Some(calibrated)
            }
            false => None,
        };
        let several = experiments.len() > 1;
        check_files(&self.outputs, &self.files)?;
        let mut exit = Exit::Held;
        for (i, experiment) in experiments.iter().enumerate() {
            let Outcome { run, .. } =
                real::carry_out(&file, &system, experiment, self.file.as_deref(), self.seed, self.emulate_stores)?;
            if i > 0 {
                print("")?;
            }
            print(&terminal::run(&run, self.outputs.style()))?;
            let name = several.then_some(experiment.name.as_str());
            match &calibrated {
                Some(calibrated) if !run.partial => {
                    let chance = Chance { seed: self.seed, threads: None };
                    let predicted = simulate(calibrated, experiment, &chance, &once());
                    let calibration = self.calibration.as_ref().map(|path| path.display().to_string());
                    let prediction = Prediction::new(run.clone(), predicted, calibration);
                    print("")?;
                    print(&terminal::prediction(&prediction, self.outputs.style()))?;
                    write_prediction(&prediction, &self.outputs, &self.files, name)?;
                }
                _ => write_files(&run, &system, &self.outputs, &self.files, name)?,
            }
            if run.partial {
                eprintln!("interrupted: the figures cover what was done by then");
                return Ok(Exit::Interrupted);
            }
            if let Some(why) = &run.invalid {
                eprintln!("INVALID: {why}");
                exit = Exit::Invalid;
            } else if !run.passed() && exit == Exit::Held {
                exit = Exit::Deviated;
            }
        }
        Ok(exit)
    }
}
