//! What each of several gateways kept of the same experiments, as a table.

use plimsoll_model::run::Run;

/// Who stands for a gateway where nobody else does.
const OWN: &str = "plimsoll";

/// A run as its column is headed.
fn gateway(run: &Run) -> &str {
    run.balancer.as_deref().unwrap_or(OWN)
}

/// Values in the order in which they come first.
fn distinct<'r>(values: impl Iterator<Item = &'r str>) -> Vec<&'r str> {
    let mut all = Vec::new();
    values.for_each(|value| {
        if !all.contains(&value) {
            all.push(value);
        }
    });
    all
}

/// Markdown: a row for each expectation with what was measured behind each gateway, misses in bold; then how many
/// experiments held; then what the runs warn of. Of two runs of an experiment behind one gateway the later counts.
/// An invalid one says so and counts for nothing.
pub fn table(runs: &[Run]) -> String {
    let gateways = distinct(runs.iter().map(gateway));
    let experiments = distinct(runs.iter().map(|run| run.experiment.as_str()));
    let find = |experiment: &str, name: &str| {
        runs.iter().rev().find(|run| run.experiment == experiment && gateway(run) == name)
    };
    let mut out = format!("| experiment | expected | {} |\n", gateways.join(" | "));
    out.push_str(&format!("|---|---|{}\n", "--:|".repeat(gateways.len())));
    for experiment in &experiments {
        let of: Vec<Option<&Run>> = gateways.iter().map(|name| find(experiment, name)).collect();
        let expected = of.iter().flatten().flat_map(|run| &run.verdicts).map(|verdict| verdict.text.as_str());
        for (row, expected) in distinct(expected).into_iter().enumerate() {
            let cells = of.iter().map(|run| {
                let verdict = run.and_then(|run| run.verdicts.iter().find(|verdict| verdict.text == expected));
                let invalid = run.is_some_and(|run| run.invalid.is_some());
                verdict.map_or_else(String::new, |verdict| match verdict.passed {
                    _ if invalid => "invalid".to_owned(),
                    true => cell(&verdict.measured),
                    false => format!("**{}**", cell(&verdict.measured)),
                })
            });
            let first = if row == 0 { cell(experiment) } else { String::new() };
            let cells: Vec<String> = cells.collect();
            out.push_str(&format!("| {first} | `{}` | {} |\n", cell(expected), cells.join(" | ")));
        }
    }
    let held = gateways.iter().map(|name| {
        let of: Vec<&Run> =
            experiments.iter().filter_map(|of| find(of, name)).filter(|of| of.invalid.is_none()).collect();
        format!("{} of {}", of.iter().filter(|run| run.passed()).count(), of.len())
    });
    out.push_str(&format!("| **held** | | {} |\n", held.collect::<Vec<_>>().join(" | ")));
    let counted = || experiments.iter().flat_map(|of| gateways.iter().filter_map(|name| find(of, name)));
    for (at, warning) in distinct(counted().flat_map(|run| &run.warnings).map(String::as_str)).into_iter().enumerate() {
        let warned = counted().filter(|run| run.warnings.iter().any(|of| of == warning));
        let names: Vec<String> = warned.map(|run| format!("{} behind {}", run.experiment, gateway(run))).collect();
        let whose = if names.len() == counted().count() { "all".to_owned() } else { names.join(", ") };
        out.push_str(&format!("{}- {whose}: {warning}\n", if at == 0 { "\n" } else { "" }));
    }
    out
}

/// A text that ends no cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::run::{Verdict, World};

    fn run(experiment: &str, balancer: Option<&str>, verdicts: &[(&str, &str, bool)], warnings: &[&str]) -> Run {
        let verdict = |(text, measured, passed): &(&str, &str, bool)| Verdict {
            text: (*text).to_owned(),
            line: 1,
            passed: *passed,
            measured: (*measured).to_owned(),
            value: 0.0,
            low: 0.0,
            high: 0.0,
            why: None,
        };
        Run {
            format: Run::FORMAT,
            plimsoll: "0".to_owned(),
            system: "s".to_owned(),
            system_hash: String::new(),
            experiment: experiment.to_owned(),
            world: World::Real,
            seed: 1,
            replications: 1,
            warmup_ns: 0,
            duration_ns: 1,
            ready_ns: None,
            balancer: balancer.map(str::to_owned),
            invalid: None,
            partial: false,
            subjects: Vec::new(),
            faults: Vec::new(),
            events: Vec::new(),
            verdicts: verdicts.iter().map(verdict).collect(),
            bottlenecks: Vec::new(),
            warnings: warnings.iter().map(|warning| (*warning).to_owned()).collect(),
        }
    }

    #[test]
    fn a_row_has_what_was_measured_behind_each_and_misses_are_bold() {
        let runs = [
            run("lost", None, &[("errors < 1%", "0%", true), ("p(95) < 1s", "7 ms", true)], &["one machine"]),
            run("lost", Some("nginx"), &[("errors < 1%", "9%", false)], &["one machine"]),
            // The same again, which counts.
            run("lost", Some("nginx"), &[("errors < 1%", "2%", false)], &["one machine", "busy"]),
            run("slow", None, &[("share(a|b) > 1%", "3%", true)], &["one machine"]),
            Run {
                invalid: Some("late".to_owned()),
                ..run("slow", Some("nginx"), &[("share(a|b) > 1%", "0%", false)], &[])
            },
        ];
        assert_eq!(
            table(&runs),
            "| experiment | expected | plimsoll | nginx |\n\
             |---|---|--:|--:|\n\
             | lost | `errors < 1%` | 0% | **2%** |\n\
             |  | `p(95) < 1s` | 7 ms |  |\n\
             | slow | `share(a\\|b) > 1%` | 3% | invalid |\n\
             | **held** | | 2 of 2 | 0 of 1 |\n\
             \n\
             - lost behind plimsoll, lost behind nginx, slow behind plimsoll: one machine\n\
             - lost behind nginx: busy\n"
        );
    }
}
