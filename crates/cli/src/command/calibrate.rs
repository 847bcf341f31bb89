use std::path::PathBuf;

use anyhow::bail;
use plimsoll_lab::Outcome;
use plimsoll_model::calibration::{Calibration, Times, What};
use plimsoll_model::run::{Run, SubjectKind};
use plimsoll_model::system::{EndpointId, Experiment, StoreKind, System};
use plimsoll_sim::Precision;

use super::Chance;
use super::sim::simulate;
use crate::exit::Exit;
use crate::experiments::{length, share};
use crate::file::SystemFile;
use crate::output::{check, print, write, wrote};
use crate::real;

/// Measure how long things take on this machine, for simulations that predict it
#[derive(clap::Args, Debug)]
pub(crate) struct Calibrate {
    /// The system file [default: the built-in example `notes`]
    file: Option<PathBuf>,
    /// Stores are processes of Plimsoll's that take the time that the file says
    #[arg(long)]
    emulate_stores: bool,
    /// How long to measure, after five seconds of warm-up
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = length)]
    length: u64,
    /// The load, as a share of the clients' own
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = share)]
    scale: f64,
    /// Where to write it [default: the terminal]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where all chance comes from; the machine has a say too
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Calibrate {
    /// What a real server's own part of a time is, nobody says: calibrations are of emulated stores.
    fn stores(&self, file: &SystemFile, system: &System) -> anyhow::Result<()> {
        let real = system.stores.iter().find(|store| !matches!(store.kind, StoreKind::Quorum(_)));
        match real {
            Some(store) if !self.emulate_stores => {
                let place = format!("{}:{}", file.name, store.line);
                bail!("{place}: `{}` is to be emulated for a calibration: add --emulate-stores", store.name)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let file = SystemFile::open(self.file.as_deref())?;
        let mut system = file.system()?;
        self.stores(&file, &system)?;
        check([&self.output])?;
        system.scale_load(self.scale);
        let experiment = quiet(self.length);
        let outcome = real::carry_out(&file, &system, &experiment, self.file.as_deref(), self.seed, true)?;
        if outcome.run.partial {
            eprintln!("interrupted: nothing is written");
            return Ok(Exit::Interrupted);
        }
        if let Some(why) = &outcome.run.invalid {
            eprintln!("INVALID: {why}");
            return Ok(Exit::Invalid);
        }
        let calibration = calibration(&system, &experiment, &outcome, self.seed, self.scale)?;
        for warning in outcome.run.warnings.iter().filter(|warning| warning.contains("busy")) {
            eprintln!("warning: {warning}");
        }
        let text = calibration.text(&system);
        match &self.output {
            Some(path) => {
                write(path, &text)?;
                wrote(path);
            }
            None => print(&text)?,
        }
        Ok(Exit::Held)
    }
}

/// The clients' own load, without faults.
pub(super) fn quiet(length: u64) -> Experiment {
    Experiment {
        name: "calibration".to_owned(),
        duration: length,
        warmup: 5_000_000_000,
        load: Vec::new(),
        faults: Vec::new(),
        expect: Vec::new(),
        line: 0,
    }
}

/// What a run's times say, for a system with the load that it had.
pub(super) fn calibration(
    system: &System,
    experiment: &Experiment,
    outcome: &Outcome,
    seed: u64,
    load: f64,
) -> anyhow::Result<Calibration> {
    let times = plimsoll_lab::fit(system, &outcome.timed);
    if times.is_empty() {
        bail!("nothing was measured: no request was answered well within {} s", experiment.duration / 1_000_000_000);
    }
    let mut calibration = Calibration {
        system: system.name.clone(),
        hash: format!("{:016x}", system.hash),
        plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
        seed,
        load,
        length: experiment.duration,
        busy: outcome.busy,
        times,
    };
    // What no part accounts for is found by simulating the same load: half-way percentiles say how much is missing.
    let mut calibrated = system.clone();
    calibration.apply(&mut calibrated);
    let chance = Chance { seed, threads: None };
    let predicted = simulate(&calibrated, experiment, &chance, &several());
    calibration.times.extend(beside(system, &outcome.run, &predicted));
    Ok(calibration)
}

/// One replication: it has the same arrivals as the run.
pub(super) fn once() -> Precision {
    Precision { least: 1, most: 1, ..Precision::default() }
}

/// As many as it takes for the simulation's own chance to be small beside the run's.
fn several() -> Precision {
    Precision { least: 10, most: 10, ..Precision::default() }
}

/// How much longer than predicted an endpoint must take for something to be missing, ns.
const LEAST: f64 = 5_000.0;

/// What endpoints take beside what was measured of them: the difference of the medians of all that asks for them.
fn beside(system: &System, measured: &Run, predicted: &Run) -> Vec<(What, Times)> {
    let mut missing: Vec<(EndpointId, f64, u64)> = Vec::new();
    for endpoint in system.clients.iter().flat_map(|client| &client.calls).map(|call| call.endpoint) {
        let name = system.endpoint_name(endpoint);
        let of = |run: &Run| Some(run.subject(SubjectKind::Endpoint, &name)?.latency_ok.clone());
        let (Some(real), Some(simulated)) = (of(measured), of(predicted)) else { continue };
        if real.count() == 0 || simulated.count() == 0 {
            continue;
        }
        let more = (real.percentile_ms(50.0) - simulated.percentile_ms(50.0)) * 1e6;
        let at = plimsoll_lab::requests::origin_of(system, endpoint);
        match missing.iter_mut().find(|(known, ..)| *known == at) {
            Some((_, sum, count)) => {
                *sum += more * real.count() as f64;
                *count += real.count();
            }
            None => missing.push((at, more * real.count() as f64, real.count())),
        }
    }
    let mean = missing.into_iter().map(|(at, sum, count)| (at, sum / count as f64, count));
    mean.filter(|(_, more, _)| *more > LEAST)
        .map(|(at, more, count)| (What::Beside(at), Times::constant(more as u64, count)))
        .collect()
}
