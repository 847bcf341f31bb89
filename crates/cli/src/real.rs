//! What the commands share that start real processes.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, anyhow};
use plimsoll_lab::{Launch, Outcome, RunError, Settings};
use plimsoll_model::system::{Experiment, System};

use crate::file::SystemFile;
use crate::interrupt::stop_flag;
use crate::progress::Progress;

/// Runs an experiment of a file that was given by its path, or is built in.
pub(crate) fn carry_out(
    file: &SystemFile,
    system: &System,
    experiment: &Experiment,
    path: Option<&Path>,
    seed: u64,
    emulate_stores: bool,
) -> anyhow::Result<Outcome> {
    let progress = Progress::new();
    let show = |share: f64, what: &str| progress.show(share, what);
    let settings = settings(&file.for_others(path), seed, emulate_stores, stop_flag(), &show)
        .context("this program's own file")?;
    plimsoll_lab::run(system, experiment, &settings).map_err(|why| error(file, why))
}

/// How a run goes; processes read the system file themselves.
pub(crate) fn settings<'s>(
    system: &plimsoll_lab::File,
    seed: u64,
    emulate_stores: bool,
    stop: &'s AtomicBool,
    progress: &'s dyn Fn(f64, &str),
) -> std::io::Result<Settings<'s>> {
    let launch = Launch {
        program: std::env::current_exe()?,
        arguments: vec!["lab-process".to_owned()],
        keeper: vec!["keep".to_owned()],
        base: std::env::temp_dir(),
        file: system.clone(),
    };
    Ok(Settings { seed, launch, emulate_stores, stop, progress })
}

/// Why there is no result, with the places in the file.
pub(crate) fn error(file: &SystemFile, error: RunError) -> anyhow::Error {
    let RunError::Refused(refused) = error else { return error.into() };
    let lines: Vec<String> =
        refused.iter().map(|refused| format!("{}:{}: {refused}", file.name, refused.line)).collect();
    anyhow!("{}", lines.join("\n"))
}
