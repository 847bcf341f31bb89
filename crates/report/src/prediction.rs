//! What is said of predictions, wherever it is shown, and the table of many of them.

use plimsoll_model::run::{Prediction, SubjectKind};

/// The figures that are compared, as they are called.
pub(crate) const COMPARED: [(&str, &str); 4] =
    [("latency_ms_p50", "p50"), ("latency_ms_p95", "p95"), ("latency_ms_p99", "p99"), ("goodput_per_s", "goodput")];

/// What the simulation knew.
pub(crate) fn title(prediction: &Prediction) -> String {
    let seed = prediction.measured.seed;
    match &prediction.calibration {
        Some(file) => format!("Simulated with the same load (seed {seed}) and the times of {file}."),
        None => format!("Simulated with the same load (seed {seed}) and the times that the system file says."),
    }
}

/// An error as people read it: `+4%`.
pub(crate) fn error(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent.abs() < 9.95 { format!("{percent:+.1}%") } else { format!("{percent:+.0}%") };
    // A number that rounds to nothing has no sign.
    if text.trim_start_matches(['+', '-']).trim_end_matches('%').chars().all(|c| "0.".contains(c)) {
        return "0%".to_owned();
    }
    text.replace('-', "−")
}

/// Whether an error is as small as a prediction should have: 10%, for a 99th percentile 20%.
pub(crate) fn is_near(figure: &str, error: f64) -> bool {
    error.abs() <= if figure == "latency_ms_p99" { 0.2 } else { 0.1 }
}

/// A row of a table of predictions: an experiment, or a weather's load line.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// The system file's name.
    pub system: String,
    /// The experiment's, or [`CALM`].
    pub experiment: String,
    /// The errors on p50, p95, p99 and goodput of all clients together and on the load line, each if it was measured;
    /// none if nothing was.
    pub errors: Option<[Option<f64>; 5]>,
    /// Why it was not run, or why its figures say little.
    pub reason: Option<String>,
}

/// In an experiment's place, where the row is about the mark in calm weather.
pub const CALM: &str = "load line, calm";

impl Predicted {
    /// The row of a prediction.
    pub fn of(prediction: &Prediction, system: &str, reason: Option<String>) -> Predicted {
        let error = |key| Some(prediction.miss(SubjectKind::All, "all", key)?.error);
        let [p50, p95, p99, goodput] = COMPARED.map(|(key, _)| error(key));
        Predicted {
            system: system.to_owned(),
            experiment: prediction.measured.experiment.clone(),
            errors: Some([p50, p95, p99, goodput, None]),
            reason,
        }
    }

    /// The row of a mark in calm weather, predicted and measured, in one unit.
    pub fn of_line(predicted: f64, measured: f64, system: &str, reason: Option<String>) -> Predicted {
        Predicted {
            system: system.to_owned(),
            experiment: CALM.to_owned(),
            errors: Some([None, None, None, None, Some(predicted / measured - 1.0)]),
            reason,
        }
    }
}

/// Markdown: a row for each experiment, and the medians of the errors' sizes.
pub fn table(rows: &[Predicted]) -> String {
    let mut out = String::from(
        "| system | experiment | p50 | p95 | p99 | goodput | load line | |\n|---|---|--:|--:|--:|--:|--:|---|\n",
    );
    for row in rows {
        let cells = row.errors.unwrap_or_default().map(|of| of.map_or(String::new(), error)).join(" | ");
        let reason = row.reason.as_deref().unwrap_or_default().replace('|', "\\|");
        out.push_str(&format!("| {} | {} | {cells} | {reason} |\n", row.system, row.experiment));
    }
    let ran = |row: &&Predicted| row.errors.is_some();
    out.push_str(&medians("median of all that ran", rows.iter().filter(ran)));
    out.push_str(&medians(
        "median of those without a remark",
        rows.iter().filter(ran).filter(|row| row.reason.is_none()),
    ));
    out
}

/// The rows of a table that [`table`] has written; the medians are none.
pub fn rows(table: &str) -> Vec<Predicted> {
    table.lines().skip(2).filter_map(row).collect()
}

fn row(line: &str) -> Option<Predicted> {
    // A bar within a remark is escaped.
    let line = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\0");
    let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('\0', "|")).collect();
    let [system, experiment, errors @ .., reason] = cells.as_slice() else { return None };
    let errors: [Option<f64>; 5] = errors.iter().map(|cell| percent(cell)).collect::<Vec<_>>().try_into().ok()?;
    (!system.is_empty()).then(|| Predicted {
        system: system.clone(),
        experiment: experiment.clone(),
        errors: errors.iter().any(Option::is_some).then_some(errors),
        reason: (!reason.is_empty()).then(|| reason.clone()),
    })
}

/// What [`error`] wrote.
fn percent(text: &str) -> Option<f64> {
    Some(text.replace('\u{2212}', "-").strip_suffix('%')?.parse::<f64>().ok()? / 100.0)
}

fn medians<'r>(title: &str, rows: impl Iterator<Item = &'r Predicted>) -> String {
    let rows: Vec<[Option<f64>; 5]> = rows.filter_map(|row| row.errors).collect();
    let median = |at: usize| {
        let mut sizes: Vec<f64> = rows.iter().filter_map(|errors| errors[at]).map(f64::abs).collect();
        sizes.sort_by(f64::total_cmp);
        let middle = sizes.len() / 2;
        match sizes.len() {
            0 => String::new(),
            n if n % 2 == 1 => format!("{:.1}%", sizes[middle] * 100.0),
            _ => format!("{:.1}%", (sizes[middle - 1] + sizes[middle]) * 50.0),
        }
    };
    let cells = [0, 1, 2, 3, 4].map(median).join(" | ");
    format!("| | **{title}** ({}) | {cells} | |\n", rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_people_write_them() {
        let cases = [(0.042, "+4.2%"), (-0.123, "−12%"), (0.0, "0%"), (-0.0004, "0%"), (3.0, "+300%")];
        for (share, text) in cases {
            assert_eq!(error(share), text);
        }
    }

    #[test]
    fn a_table_has_its_medians_and_says_why_a_row_is_worth_little() {
        let row = |experiment: &str, errors, reason: Option<&str>| Predicted {
            system: "notes".to_owned(),
            experiment: experiment.to_owned(),
            errors,
            reason: reason.map(str::to_owned),
        };
        let rows_of = [
            row("a", Some([Some(0.1), Some(-0.2), None, Some(0.0), None]), None),
            row("b", Some([Some(-0.3), Some(0.4), Some(0.5), Some(0.02), None]), Some("busy | invalid")),
            row("c", None, Some("cannot be run")),
            Predicted::of_line(110.0, 100.0, "notes", None),
        ];
        let expect = "\
| system | experiment | p50 | p95 | p99 | goodput | load line | |
|---|---|--:|--:|--:|--:|--:|---|
| notes | a | +10% | −20% |  | 0% |  |  |
| notes | b | −30% | +40% | +50% | +2.0% |  | busy \\| invalid |
| notes | c |  |  |  |  |  | cannot be run |
| notes | load line, calm |  |  |  |  | +10% |  |
| | **median of all that ran** (3) | 20.0% | 30.0% | 50.0% | 1.0% | 10.0% | |
| | **median of those without a remark** (2) | 10.0% | 20.0% |  | 0.0% | 10.0% | |
";
        assert_eq!(table(&rows_of), expect);
        // What was written is read again: one file's rows can be made anew.
        assert_eq!(table(&rows(expect)), expect);
        assert!(rows("").is_empty());
    }
}
