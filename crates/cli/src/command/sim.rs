use std::path::{Path, PathBuf};

use anyhow::bail;
use plimsoll_model::run::Run;
use plimsoll_model::system::{Experiment, System};
use plimsoll_report::{hlog, html, json, junit, terminal};
use plimsoll_sim::{Precision, Runner, Scenario};

use super::Chance;
use crate::exit::Exit;
use crate::file::SystemFile;
use crate::interrupt::stop_flag;
use crate::output::{Outputs, check, print, write, wrote};
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
    /// Write an HdrHistogram interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    #[command(flatten)]
    chance: Chance,
    #[command(flatten)]
    outputs: Outputs,
}

impl Sim {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let file = SystemFile::open(self.file.as_deref())?;
        let system = file.system()?;
        if self.list {
            let names: Vec<&str> = system.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
            print(&names.join("\n"))?;
            return Ok(Exit::Held);
        }
        let experiments = self.experiments(&file, &system)?;
        let several = experiments.len() > 1;
        check([&self.outputs.html, &self.outputs.json, &self.outputs.junit, &self.hlog])?;
        let mut held = true;
        let mut interrupted = false;
        for (i, experiment) in experiments.iter().enumerate() {
            let run = self.simulate(&system, experiment);
            if i > 0 {
                print("")?;
            }
            print(&terminal::run(&run, self.outputs.style()))?;
            self.write(&run, &system, several.then_some(experiment.name.as_str()))?;
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

    fn experiments<'s>(&self, file: &SystemFile, system: &'s System) -> anyhow::Result<Vec<&'s Experiment>> {
        if system.experiments.is_empty() {
            bail!("{}: the file has no experiments to run; `plimsoll line` needs none", file.name);
        }
        if self.experiment.is_empty() {
            return Ok(system.experiments.iter().collect());
        }
        self.experiment
            .iter()
            .map(|name| match system.experiments.iter().find(|experiment| experiment.name == *name) {
                Some(experiment) => Ok(experiment),
                None => {
                    let names: Vec<&str> = system.experiments.iter().map(|e| e.name.as_str()).collect();
                    bail!("{}: no experiment `{name}`; expected one of: {}", file.name, names.join(", "))
                }
            })
            .collect()
    }

    fn simulate(&self, system: &System, experiment: &Experiment) -> Run {
        let progress = Progress::new();
        let show = |share: f64, what: &str| progress.show(share, what);
        let runner =
            Runner { seed: self.chance.seed, threads: self.chance.threads(), stop: stop_flag(), progress: &show };
        let precision = Precision {
            least: self.replications,
            most: self.replications.max(Precision::default().most),
            ..Precision::default()
        };
        plimsoll_sim::simulate(system, &Scenario::from_experiment(experiment), &experiment.expect, &precision, &runner)
    }

    /// Writes the files that were asked for; of several experiments each gets its own.
    fn write(&self, run: &Run, system: &System, experiment: Option<&str>) -> anyhow::Result<()> {
        let files: [(&Option<PathBuf>, &dyn Fn() -> String); 4] = [
            (&self.outputs.html, &|| html::run(run, system)),
            (&self.outputs.json, &|| json::run(run)),
            (&self.outputs.junit, &|| junit::run(run)),
            (&self.hlog, &|| hlog::run(run)),
        ];
        for (path, text) in files {
            if let Some(path) = path {
                let path = named(path, experiment);
                write(&path, &text())?;
                wrote(&path);
            }
        }
        Ok(())
    }
}

/// `report.html` for one experiment, `report-NAME.html` for one of several.
fn named(path: &Path, experiment: Option<&str>) -> PathBuf {
    let Some(experiment) = experiment else { return path.to_owned() };
    let safe: String =
        experiment.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{safe}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{safe}"),
    };
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_experiments_gets_a_file_of_its_own() {
        assert_eq!(named(Path::new("out/r.html"), None), Path::new("out/r.html"));
        assert_eq!(named(Path::new("out/r.html"), Some("a b/c")), Path::new("out/r-a-b-c.html"));
    }
}
