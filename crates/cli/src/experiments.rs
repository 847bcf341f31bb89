//! What the commands share that run experiments: which ones, and where their results go.

use std::path::{Path, PathBuf};

use anyhow::bail;
use plimsoll_model::run::{Prediction, Run};
use plimsoll_model::system::{Experiment, System};
use plimsoll_report::{hlog, html, json, junit, postmortem};

use crate::file::SystemFile;
use crate::output::{Outputs, check, write, wrote};

/// The experiments of these names; all of the file where there is none.
pub(crate) fn chosen<'s>(
    file: &SystemFile,
    system: &'s System,
    names: &[String],
) -> anyhow::Result<Vec<&'s Experiment>> {
    if system.experiments.is_empty() {
        bail!("{}: the file has no experiments to run; `plimsoll line` needs none", file.name);
    }
    if names.is_empty() {
        return Ok(system.experiments.iter().collect());
    }
    names
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

/// An experiment of another length. Faults that last to its end last to the new one; the others must be over by then.
pub(crate) fn shortened(file: &SystemFile, of: &Experiment, length: Option<u64>) -> anyhow::Result<Experiment> {
    let mut experiment = of.clone();
    let Some(length) = length else { return Ok(experiment) };
    for fault in &mut experiment.faults {
        if fault.until >= of.duration && fault.at < length {
            fault.until = length;
        }
        if fault.until > length {
            let seconds = |nanos: u64| nanos as f64 / 1e9;
            bail!(
                "{}:{}: --for {}s: `{}` ends at {}s: expected at least so long",
                file.name,
                fault.line,
                seconds(length),
                fault.text,
                seconds(fault.until),
            );
        }
    }
    experiment.duration = length;
    Ok(experiment)
}

/// A length of time on the command line, ns: `30s`, `2m`, `500ms`.
pub(crate) fn length(text: &str) -> Result<u64, String> {
    let wrong = || "expected a length of time of at least a second, such as 30s or 2m".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return Err(wrong()),
    };
    let nanos = digits.parse::<f64>().map_err(|_| wrong())? * unit;
    if (1e9..=86_400e9).contains(&nanos) { Ok(nanos as u64) } else { Err(wrong()) }
}

/// A share of a load on the command line: `50%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()) {
        Some(percent) if (0.1..=10_000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("expected a percentage from 0.1% on, such as 50%".to_owned()),
    }
}

/// Files that only a run can be written to.
#[derive(clap::Args, Debug)]
pub(crate) struct RunFiles {
    /// Write an HdrHistogram interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write a postmortem as Markdown, with what the run says filled in
    #[arg(long, value_name = "FILE")]
    postmortem: Option<PathBuf>,
}

/// Whether the files that were asked for can be written, as far as can be seen before.
pub(crate) fn check_files(outputs: &Outputs, files: &RunFiles) -> anyhow::Result<()> {
    check([&outputs.html, &outputs.json, &outputs.junit, &files.hlog, &files.postmortem])
}

/// Writes the files that were asked for; of several experiments each gets its own.
pub(crate) fn write_files(
    run: &Run,
    system: &System,
    outputs: &Outputs,
    files: &RunFiles,
    experiment: Option<&str>,
) -> anyhow::Result<()> {
    let files: [Written<'_>; 5] = [
        (&outputs.html, &|| html::run(run, system)),
        (&outputs.json, &|| json::run(run)),
        (&outputs.junit, &|| junit::run(run)),
        (&files.hlog, &|| hlog::run(run)),
        (&files.postmortem, &|| postmortem::markdown(run)),
    ];
    write_each(&files, experiment)
}

/// The same for a prediction: pages and JSON have both worlds, the others what was measured.
pub(crate) fn write_prediction(
    prediction: &Prediction,
    outputs: &Outputs,
    files: &RunFiles,
    experiment: Option<&str>,
) -> anyhow::Result<()> {
    let files: [Written<'_>; 5] = [
        (&outputs.html, &|| html::prediction(prediction)),
        (&outputs.json, &|| json::prediction(prediction)),
        (&outputs.junit, &|| junit::run(&prediction.measured)),
        (&files.hlog, &|| hlog::run(&prediction.measured)),
        (&files.postmortem, &|| postmortem::markdown(&prediction.measured)),
    ];
    write_each(&files, experiment)
}

type Written<'f> = (&'f Option<PathBuf>, &'f dyn Fn() -> String);

fn write_each(files: &[Written<'_>], experiment: Option<&str>) -> anyhow::Result<()> {
    for (path, text) in files {
        if let Some(path) = path {
            let path = named(path, experiment);
            write(&path, &text())?;
            wrote(&path);
        }
    }
    Ok(())
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
