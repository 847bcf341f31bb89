//! `plimsoll line`.

pub(super) mod real;

use std::path::PathBuf;

use anyhow::{Context, bail};
use plimsoll_model::run::Line as LoadLine;
use plimsoll_model::system::System;
use plimsoll_report::{html, json, junit, svg, terminal};
use plimsoll_sim::{Forecast, Runner, Settings};

use super::Chance;
use crate::calibration::Calibrated;
use crate::exit::Exit;
use crate::file::SystemFile;
use crate::interrupt::stop_flag;
use crate::output::{Outputs, check, print, write, wrote};
use crate::progress::Progress;

/// Find how much load a system carries in each weather, what gives way first, and whether it comes
/// back
#[derive(clap::Args, Debug)]
pub(crate) struct Line {
    /// The system file [default: the built-in example `notes`]
    file: Option<PathBuf>,
    /// Only these weathers, built-in ones or experiments of the file; calm always comes first
    #[arg(long, value_name = "NAME")]
    weather: Vec<String>,
    /// Repeat it for the system scaled for so many times its load, as its `growth` says
    #[arg(long, value_name = "FACTORS", value_delimiter = ',', value_parser = factor)]
    grow: Vec<f64>,
    /// End with 1 unless every mark is at least so many times today's load
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    require: Option<f64>,
    /// Measure it: try loads on real processes of this machine, beside what the simulation says
    #[arg(long, conflicts_with = "grow")]
    real: bool,
    /// With --real: stores are processes of Plimsoll's that take the time that the file says
    #[arg(long, requires = "real")]
    emulate_stores: bool,
    /// How close the load that fails must be to the load that holds [default: 5%, measured 10%]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    precision: Option<f64>,
    /// Replications at least behind each simulated mark
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    replications: u32,
    /// The calm mark is stated for so many minutes without a collapse
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    horizon: u64,
    /// Write the ladder as an SVG picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    calibrated: Calibrated,
    #[command(flatten)]
    chance: Chance,
    #[command(flatten)]
    outputs: Outputs,
}

impl Line {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let file = SystemFile::open(self.file.as_deref())?;
        let mut system = file.system()?;
        self.calibrated.apply(&mut system)?;
        let forecasts = self.forecasts(&system)?;
        check([&self.outputs.html, &self.outputs.json, &self.outputs.junit, &self.svg])?;
        let settings = Settings {
            precision: self.precision.unwrap_or(Settings::default().precision),
            replications: self.replications,
            horizon: self.horizon * 60_000_000_000,
            ..Settings::default()
        };
        if self.real {
            real::check(&file, &system)?;
        }
        let mut line = self.search(&system, &forecasts, &settings);
        if self.real && !line.partial {
            // What is calibrated is the simulation.
            let how = real::How {
                file: &file,
                path: self.file.as_deref(),
                precision: self.precision.unwrap_or(real::PRECISION),
                seed: self.chance.seed,
                emulate_stores: self.emulate_stores,
            };
            line = real::measure(how, &file.system()?, &forecasts, line)?;
        }

        print(&terminal::line(&line, self.outputs.style()))?;
        if let Some(path) = &self.outputs.html {
            write(path, &html::line(&line, &system))?;
            wrote(path);
        }
        if let Some(path) = &self.outputs.json {
            write(path, &json::line(&line))?;
            wrote(path);
        }
        if let Some(path) = &self.outputs.junit {
            write(path, &junit::line(&line))?;
            wrote(path);
        }
        if let Some(path) = &self.svg {
            write(path, &svg::ladder(&line))?;
            wrote(path);
        }
        if line.partial {
            eprintln!("interrupted: marks that are missing were not searched for");
            return Ok(Exit::Interrupted);
        }
        let required = self.require.unwrap_or(0.0) * line.today;
        let short = line.marks.iter().filter(|mark| mark.load < required).count();
        Ok(if short > 0 { Exit::Deviated } else { Exit::Held })
    }

    fn search(&self, system: &System, forecasts: &[Forecast], settings: &Settings) -> LoadLine {
        let progress = Progress::new();
        // Each factor of growth is another search of about the same length.
        let parts = 1.0 + self.grow.len() as f64;
        let show = |share: f64, what: &str| progress.show(share / parts, what);
        let runner =
            Runner { seed: self.chance.seed, threads: self.chance.threads(), stop: stop_flag(), progress: &show };
        let mut line = plimsoll_sim::line(system, forecasts, settings, &runner);
        for (i, &factor) in self.grow.iter().enumerate() {
            if runner.stop.load(std::sync::atomic::Ordering::Relaxed) {
                line.partial = true;
                break;
            }
            let (grown, changes) = plimsoll_model::grow(system, factor);
            let done = 1.0 + i as f64;
            let show = |share: f64, what: &str| progress.show((done + share) / parts, &format!("{factor}x: {what}"));
            let runner = Runner { progress: &show, ..runner };
            line.growth.push(plimsoll_sim::grown_line(&grown, factor, changes, settings, &runner));
        }
        line
    }

    fn forecasts(&self, system: &System) -> anyhow::Result<Vec<Forecast>> {
        let built_in = plimsoll_sim::forecasts(system);
        if self.weather.is_empty() {
            return Ok(built_in);
        }
        let mut chosen = vec![built_in[0].clone()];
        // The file's own name wins over a built-in one.
        let own: Vec<Forecast> = system.experiments.iter().map(Forecast::from_experiment).collect();
        let taken = |name: &str| own.iter().any(|forecast| forecast.weather.name == name);
        let all: Vec<Forecast> =
            built_in.into_iter().filter(|forecast| !taken(&forecast.weather.name)).chain(own.clone()).collect();
        for name in &self.weather {
            match all.iter().find(|forecast| forecast.weather.name == *name) {
                Some(forecast) if chosen.iter().any(|known| known.weather == forecast.weather) => {}
                Some(forecast) => chosen.push(forecast.clone()),
                None => {
                    let names: Vec<&str> = all.iter().map(|forecast| forecast.weather.name.as_str()).collect();
                    bail!("--weather {name}: expected one of: {}", names.join(", "));
                }
            }
        }
        Ok(chosen)
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches(['x', '×']);
    match number.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 && factor <= 1e6 => Ok(factor),
        _ => Err("expected a factor above zero, such as 10 or 1.5x".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let value = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match value.with_context(|| "no percentage") {
        Ok(percent) if (0.5..=50.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("expected a percentage from 0.5% to 50%, such as 5%".to_owned()),
    }
}
