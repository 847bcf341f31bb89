use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plimsoll_lab::Outcome;
use plimsoll_model::run::Prediction;
use plimsoll_model::system::{Experiment, System};
use plimsoll_report::prediction::{Predicted, table};

use super::Chance;
use super::calibrate::{calibration, once, quiet};
use super::sim::simulate;
use crate::exit::Exit;
use crate::experiments::{length, share};
use crate::file::SystemFile;
use crate::output::{check, print, write, wrote};
use crate::real;

/// Calibrate, run and predict all experiments of files, and tabulate how far off the predictions were
#[derive(clap::Args, Debug)]
pub(crate) struct PredictTable {
    /// The system files; their stores are emulated
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How long to calibrate each file
    #[arg(long = "calibrate-for", value_name = "TIME", default_value = "30s", value_parser = length)]
    length: u64,
    /// The load, as a share of what files and experiments say
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = share)]
    scale: f64,
    /// Write the table into this file between its two marks, or print it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where all chance comes from; the machine has a say too
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Between these lines of a file the table stands.
const BEGIN: &str = "<!-- predict-table -->";
const END: &str = "<!-- /predict-table -->";

impl PredictTable {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        check([&self.output])?;
        let into = self.output.as_deref().map(marked).transpose()?;
        let mut rows = Vec::new();
        for path in &self.files {
            if !self.file(path, &mut rows)? {
                eprintln!("interrupted: nothing is written");
                return Ok(Exit::Interrupted);
            }
        }
        let table = table(&rows);
        match (&self.output, into) {
            (Some(path), Some((before, after))) => {
                write(path, &format!("{before}{BEGIN}\n{table}{END}{after}"))?;
                wrote(path);
            }
            _ => print(&table)?,
        }
        Ok(Exit::Held)
    }

    /// The rows of one file; false if it was interrupted.
    fn file(&self, path: &Path, rows: &mut Vec<Predicted>) -> anyhow::Result<bool> {
        let file = SystemFile::open(Some(path))?;
        let mut system = file.system()?;
        system.scale_load(self.scale);
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let row = |experiment: &str, reason: String| Predicted {
            system: name.clone(),
            experiment: experiment.to_owned(),
            errors: None,
            reason: Some(reason),
        };
        let experiment = quiet(self.length);
        let (calibrated, remark) = match real::carry_out(&file, &system, &experiment, Some(path), self.seed, true) {
            Ok(outcome) if outcome.run.partial => return Ok(false),
            Ok(outcome) => {
                let calibration = calibration(&system, &experiment, &outcome, self.seed, self.scale)?;
                let mut calibrated = system.clone();
                calibration.apply(&mut calibrated);
                (calibrated, remark(&outcome).map(|why| format!("calibrated while {why}")))
            }
            Err(why) => {
                rows.extend(system.experiments.iter().map(|of| row(&of.name, first_line(&why))));
                return Ok(true);
            }
        };
        for experiment in &system.experiments {
            match self.predict(&file, (&system, &calibrated), experiment, path) {
                Ok((prediction, _)) if prediction.measured.partial => return Ok(false),
                Ok((prediction, why)) => rows.push(Predicted::of(&prediction, &name, why.or_else(|| remark.clone()))),
                Err(why) => rows.push(row(&experiment.name, first_line(&why))),
            }
        }
        Ok(true)
    }

    fn predict(
        &self,
        file: &SystemFile,
        (system, calibrated): (&System, &System),
        experiment: &Experiment,
        path: &Path,
    ) -> anyhow::Result<(Prediction, Option<String>)> {
        let outcome = real::carry_out(file, system, experiment, Some(path), self.seed, true)?;
        let remark = remark(&outcome);
        let chance = Chance { seed: self.seed, threads: None };
        let predicted = simulate(calibrated, experiment, &chance, &once());
        Ok((Prediction::new(outcome.run, predicted, None), remark))
    }
}

/// Why a run's figures say little of the system.
fn remark(outcome: &Outcome) -> Option<String> {
    match &outcome.invalid {
        Some(why) => Some(format!("invalid: {why}")),
        None if outcome.busy > plimsoll_lab::FULL => Some(format!("the machine was {:.0}% busy", outcome.busy * 100.0)),
        None => None,
    }
}

fn first_line(why: &anyhow::Error) -> String {
    format!("{why:#}").lines().next().unwrap_or_default().to_owned()
}

/// What stands before and after the table in a file.
fn marked(path: &Path) -> anyhow::Result<(String, String)> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
    let Some((before, rest)) = text.split_once(BEGIN) else {
        bail!("{name}: expected a line `{BEGIN}` where the table is to stand, and after it `{END}`");
    };
    let Some((_, after)) = rest.split_once(END) else {
        bail!("{name}: expected a line `{END}` after `{BEGIN}`");
    };
    Ok((before.to_owned(), after.to_owned()))
}
