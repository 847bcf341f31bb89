//! The measured line: loads are tried on real processes, weather by weather.

use std::path::Path;

use anyhow::bail;
use plimsoll_lab::line::{Settings, mark, refuse};
use plimsoll_lab::{Outcome, RunError};
use plimsoll_model::run::{Limit, Line as LoadLine, World};
use plimsoll_model::system::System;
use plimsoll_sim::Forecast;

use crate::file::SystemFile;
use crate::interrupt::stop_flag;
use crate::progress::Progress;
use crate::real;

/// Loads are that far apart, where nothing else is asked for: two runs of one load differ by some percent.
pub(in crate::command) const PRECISION: f64 = 0.1;

/// What is measured, and how.
#[derive(Clone, Copy)]
pub(in crate::command) struct How<'h> {
    pub(in crate::command) file: &'h SystemFile,
    /// Where the file is, if it is not a built-in one.
    pub(in crate::command) path: Option<&'h Path>,
    pub(in crate::command) precision: f64,
    pub(in crate::command) seed: u64,
    pub(in crate::command) emulate_stores: bool,
}

/// Says what of a system cannot be measured, before anything is simulated.
pub(in crate::command) fn check(file: &SystemFile, system: &System) -> anyhow::Result<()> {
    if let Some((line, why)) = refuse(system) {
        bail!("{}:{line}: {why}", file.name);
    }
    Ok(())
}

/// The same weathers on real processes; `predicted` is the simulated line.
pub(in crate::command) fn measure(
    how: How<'_>,
    system: &System,
    forecasts: &[Forecast],
    predicted: LoadLine,
) -> anyhow::Result<LoadLine> {
    let progress = Progress::new();
    let settings = Settings { precision: how.precision, today: predicted.today };
    let path = how.file.for_others(how.path);
    let mut seed = how.seed;
    let mut predicted = predicted;
    let simulated = std::mem::take(&mut predicted.marks);
    let mut line = LoadLine { world: World::Real, warnings: Vec::new(), ..predicted };
    let mut busy = false;
    for (at, forecast) in forecasts.iter().enumerate() {
        let weather = plimsoll_lab::line::Forecast {
            weather: forecast.weather.clone(),
            faults: forecast.scenario.faults.clone(),
        };
        let mut runs = 0;
        let mut carry = |experiment: &_, words: &str| -> Result<Outcome, RunError> {
            // A search is about this many runs long; it may be longer, and then the bar waits.
            let done = (f64::from(runs) / TYPICAL).min(0.95);
            let show = |share: f64, _: &str| {
                let share = (done + share / TYPICAL).min(1.0);
                progress.show((at as f64 + share) / forecasts.len() as f64, words);
            };
            runs += 1;
            seed += 1;
            let settings = real::settings(&path, seed, how.emulate_stores, stop_flag(), &show)?;
            let outcome = plimsoll_lab::run(system, experiment, &settings)?;
            busy |= outcome.busy > plimsoll_lab::FULL;
            Ok(outcome)
        };
        match mark(system, &weather, line.marks.first(), settings, &mut carry) {
            Ok(measured) => {
                let mut mark = measured.mark;
                if measured.invalid {
                    line.warnings.push(format!(
                        "{}: the mark is where this machine no longer made the load in time; the system may carry more",
                        mark.weather.name
                    ));
                }
                let simulated = simulated.iter().find(|simulated| simulated.weather == mark.weather);
                mark.predicted = simulated.map(|simulated| simulated.load);
                line.partial = mark.limit == Limit::Interrupted;
                line.marks.push(mark);
            }
            Err(RunError::Refused(refused)) if at > 0 => {
                let why = refused.first().map_or(String::new(), ToString::to_string);
                line.warnings.push(format!("{}: not tried: {why}", weather.weather.name));
            }
            Err(error) => return Err(real::error(how.file, error)),
        }
        if line.partial {
            break;
        }
    }
    if busy {
        line.warnings.push(
            "this machine's processors were busy at some loads: there the machine is the limit, and not the system"
                .to_owned(),
        );
    }
    Ok(line)
}

/// Runs of a usual search.
const TYPICAL: f64 = 8.0;
