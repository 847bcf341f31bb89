use std::path::{Path, PathBuf};

use plimsoll_lab::Outcome;
use plimsoll_model::run::Prediction;
use plimsoll_model::system::{Experiment, System};
use plimsoll_report::prediction::{CALM, Predicted, rows, table};
use plimsoll_sim::{Runner, forecasts};

use super::Chance;
use super::calibrate::{calibration, once, quiet};
use super::line::real as line;
use super::marks::Marked;
use super::sim::simulate;
use crate::exit::Exit;
use crate::experiments::{length, share};
use crate::file::SystemFile;
use crate::interrupt::stop_flag;
use crate::output::{check, print};
use crate::progress::Progress;
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
    /// Search each file's load line in calm weather too, in both worlds: some minutes a file
    #[arg(long)]
    line: bool,
    /// Write the table into this file between its two marks, or print it. Rows of other system files stay
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where all chance comes from; the machine has a say too
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl PredictTable {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        check([&self.output])?;
        let into = self.output.as_deref().map(|path| Marked::read(path, "predict-table")).transpose()?;
        let mut made = Vec::new();
        for path in &self.files {
            if !self.file(path, &mut made)? {
                eprintln!("interrupted: nothing is written");
                return Ok(Exit::Interrupted);
            }
        }
        match &into {
            Some(marked) => marked.write(&table(&with(rows(&marked.old), made)))?,
            None => print(&table(&made))?,
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
        if self.line {
            match self.line(&file, (&system, &calibrated), path) {
                Ok(None) => return Ok(false),
                Ok(Some(mut row)) => {
                    row.system.clone_from(&name);
                    row.reason = row.reason.or_else(|| remark.clone());
                    rows.push(row);
                }
                Err(why) => rows.push(row(CALM, first_line(&why))),
            }
        }
        for experiment in &system.experiments {
            match self.predict(&file, (&system, &calibrated), experiment, path) {
                Ok((prediction, _)) if prediction.measured.partial => return Ok(false),
                Ok((prediction, why)) => rows.push(Predicted::of(&prediction, &name, why.or_else(|| remark.clone()))),
                Err(why) => rows.push(row(&experiment.name, first_line(&why))),
            }
        }
        Ok(true)
    }

    /// The mark in calm weather; none if it was interrupted.
    fn line(
        &self,
        file: &SystemFile,
        (system, calibrated): (&System, &System),
        path: &Path,
    ) -> anyhow::Result<Option<Predicted>> {
        line::check(file, system)?;
        let calm = &forecasts(calibrated)[..1];
        let chance = Chance { seed: self.seed, threads: None };
        let progress = Progress::new();
        let show = |share: f64, what: &str| progress.show(share, what);
        let runner = Runner { seed: self.seed, threads: chance.threads(), stop: stop_flag(), progress: &show };
        let predicted = plimsoll_sim::line(calibrated, calm, &plimsoll_sim::Settings::default(), &runner);
        drop(progress);
        if predicted.partial {
            return Ok(None);
        }
        let how =
            line::How { file, path: Some(path), precision: line::PRECISION, seed: self.seed, emulate_stores: true };
        let measured = line::measure(how, system, calm, predicted)?;
        let Some(mark) = measured.marks.first().filter(|_| !measured.partial) else { return Ok(None) };
        // The machine's own limit is among them.
        let why = measured.warnings.first().cloned();
        Ok(Some(match mark.predicted {
            Some(predicted) if mark.load > 0.0 => Predicted::of_line(predicted, mark.load, "", why),
            _ => {
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                Predicted {
                    system: String::new(),
                    experiment: CALM.to_owned(),
                    errors: None,
                    reason: Some(format!("no load that was tried held{why}")),
                }
            }
        }))
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
    match &outcome.run.invalid {
        Some(why) => Some(format!("invalid: {why}")),
        None if outcome.busy > plimsoll_lab::FULL => Some(format!("the machine was {:.0}% busy", outcome.busy * 100.0)),
        None => None,
    }
}

fn first_line(why: &anyhow::Error) -> String {
    format!("{why:#}").lines().next().unwrap_or_default().to_owned()
}

/// A table's rows, with those of the systems in `made` as they are now, where they were.
fn with(old: Vec<Predicted>, made: Vec<Predicted>) -> Vec<Predicted> {
    let mut systems: Vec<String> = Vec::new();
    for row in old.iter().chain(&made) {
        if !systems.contains(&row.system) {
            systems.push(row.system.clone());
        }
    }
    let of = |rows: &[Predicted], system: &str| -> Vec<Predicted> {
        rows.iter().filter(|row| row.system == system).cloned().collect()
    };
    let current = |system: &String| match of(&made, system) {
        now if now.is_empty() => of(&old, system),
        now => now,
    };
    systems.iter().flat_map(current).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_other_files_stay_where_they_were() {
        let row = |system: &str, experiment: &str| Predicted {
            system: system.to_owned(),
            experiment: experiment.to_owned(),
            errors: None,
            reason: None,
        };
        let old = vec![row("a", "1"), row("a", "2"), row("b", "1")];
        let made = vec![row("c", "1"), row("a", "3")];
        assert_eq!(with(old, made), [row("a", "3"), row("b", "1"), row("c", "1")]);
    }
}
