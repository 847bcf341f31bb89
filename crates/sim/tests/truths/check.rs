//! Runs a file and holds its figures to a truth.

use std::sync::atomic::AtomicBool;

use plimsoll_model::run::{Run, SubjectKind};
use plimsoll_model::system::System;
use plimsoll_model::{Source, parse};
use plimsoll_sim::{Precision, Runner, Scenario, simulate};

/// Every truth replays from this seed.
pub(crate) const SEED: u64 = 1;

#[track_caller]
pub(crate) fn system(text: &str) -> System {
    parse(&Source::alone("truth.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A run without faults, after a warm-up.
pub(crate) fn calm(system: &System, warmup_s: f64, seconds: f64) -> Run {
    let ns = |seconds: f64| (seconds * 1e9) as u64;
    run(system, &Scenario::calm(ns(warmup_s), ns(seconds)), SEED, 1)
}

/// The run of the file's first experiment.
pub(crate) fn experiment(system: &System) -> Run {
    run(system, &Scenario::from_experiment(&system.experiments[0]), SEED, 1)
}

pub(crate) fn run(system: &System, scenario: &Scenario, seed: u64, threads: usize) -> Run {
    let stop = AtomicBool::new(false);
    let runner = Runner { seed, threads, stop: &stop, progress: &|_, _| () };
    simulate(system, scenario, &[], &Precision::default(), &runner)
}

/// So many replications, each a run of its own: for what has no figure, and is read off a series.
pub(crate) fn one_by_one(system: &System, scenario: &Scenario, replications: u64) -> Vec<Run> {
    let stop = AtomicBool::new(false);
    let precision = Precision { least: 1, most: 1, ..Precision::default() };
    let runs = (0..replications).map(|i| Runner { seed: SEED + i, threads: 1, stop: &stop, progress: &|_, _| () });
    runs.map(|runner| simulate(system, scenario, &[], &precision, &runner)).collect()
}

/// A figure's value in each replication.
#[track_caller]
pub(crate) fn figure(run: &Run, kind: SubjectKind, name: &str, figure: &str) -> Vec<f64> {
    let subject = run.subject(kind, name).unwrap_or_else(|| panic!("no {kind:?} {name}"));
    let figure = subject.figure(figure).unwrap_or_else(|| panic!("{name} has no {figure}"));
    assert!(figure.samples.len() >= 10, "{} replications", figure.samples.len());
    figure.samples.clone()
}

/// A figure over all clients.
#[track_caller]
pub(crate) fn overall(run: &Run, name: &str) -> Vec<f64> {
    figure(run, SubjectKind::All, "all", name)
}

/// Whether the mean of independent values lies within four standard errors of the truth. Values that
/// do not vary must be the truth.
pub(crate) fn within(what: &str, values: &[f64], truth: f64) -> Result<(), String> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (n - 1.0);
    let error = (variance / n).sqrt();
    let off = (mean - truth).abs();
    let line = format!("{what}: {mean:.6}, truth {truth:.6}, standard error {error:.2e} over {n} replications");
    println!("{line}");
    if off <= 4.0 * error + 1e-9 * truth.abs() { Ok(()) } else { Err(format!("{line} (seed {SEED})")) }
}

/// As [`within`], for a test that looks at one figure after another.
#[track_caller]
pub(crate) fn holds(what: &str, values: &[f64], truth: f64) {
    if let Err(why) = within(what, values, truth) {
        panic!("{why}");
    }
}

/// What a truth says of each figure that it looks at.
pub(crate) type Found = Vec<Result<(), String>>;

/// A system, and what is known of it.
pub(crate) struct Truth {
    file: String,
    check: Box<dyn Fn(&System) -> Found>,
}

impl Truth {
    pub(crate) fn new(file: impl Into<String>, check: impl Fn(&System) -> Found + 'static) -> Self {
        Truth { file: file.into(), check: Box::new(check) }
    }

    #[track_caller]
    pub(crate) fn holds(&self) {
        let off: Vec<String> = (self.check)(&system(&self.file)).into_iter().filter_map(Result::err).collect();
        assert!(off.is_empty(), "{}", off.join("\n"));
    }

    /// The same system with something wrong in it must not pass.
    #[track_caller]
    pub(crate) fn notices(&self, right: &str, wrong: &str) {
        assert!(self.file.contains(right), "no {right} in{}", self.file);
        let found = (self.check)(&system(&self.file.replace(right, wrong)));
        assert!(found.iter().any(Result::is_err), "{wrong} in place of {right} goes unnoticed in{}", self.file);
    }
}

/// A condition that needs no standard error.
pub(crate) fn ensure(condition: bool, what: String) -> Result<(), String> {
    println!("{what}");
    if condition { Ok(()) } else { Err(what) }
}

/// The mean of a series from one second to another, over all replications.
pub(crate) fn between(series: &[f32], from: usize, to: usize) -> f64 {
    let part = &series[from..to];
    part.iter().map(|&value| f64::from(value)).sum::<f64>() / part.len() as f64
}
