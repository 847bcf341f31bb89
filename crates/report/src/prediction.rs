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

/// One experiment of a table of predictions.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// The system file's name.
    pub system: String,
    /// The experiment's.
    pub experiment: String,
    /// The errors on p50, p95, p99 and goodput of all clients together, each if it could be measured; none if the
    /// experiment was not run.
    pub errors: Option<[Option<f64>; 4]>,
    /// Why it was not run, or why its figures say little.
    pub reason: Option<String>,
}

impl Predicted {
    /// The row of a prediction.
    pub fn of(prediction: &Prediction, system: &str, reason: Option<String>) -> Predicted {
        let error = |key| Some(prediction.miss(SubjectKind::All, "all", key)?.error);
        Predicted {
            system: system.to_owned(),
            experiment: prediction.measured.experiment.clone(),
            errors: Some(COMPARED.map(|(key, _)| error(key))),
            reason,
        }
    }
}

/// Markdown: a row for each experiment, and the medians of the errors' sizes.
pub fn table(rows: &[Predicted]) -> String {
    let mut out =
        String::from("| system | experiment | p50 | p95 | p99 | goodput | |\n|---|---|--:|--:|--:|--:|---|\n");
    for row in rows {
        let cells = match &row.errors {
            Some(errors) => errors.map(|of| of.map_or("n/a".to_owned(), error)).join(" | "),
            None => "| | |".to_owned(),
        };
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

fn medians<'r>(title: &str, rows: impl Iterator<Item = &'r Predicted>) -> String {
    let rows: Vec<[Option<f64>; 4]> = rows.filter_map(|row| row.errors).collect();
    let median = |at: usize| {
        let mut sizes: Vec<f64> = rows.iter().filter_map(|errors| errors[at]).map(f64::abs).collect();
        sizes.sort_by(f64::total_cmp);
        let middle = sizes.len() / 2;
        match sizes.len() {
            0 => "n/a".to_owned(),
            n if n % 2 == 1 => format!("{:.1}%", sizes[middle] * 100.0),
            _ => format!("{:.1}%", (sizes[middle - 1] + sizes[middle]) * 50.0),
        }
    };
    let cells = [0, 1, 2, 3].map(median).join(" | ");
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
        let table = table(&[
            row("a", Some([Some(0.1), Some(-0.2), None, Some(0.0)]), None),
            row("b", Some([Some(-0.3), Some(0.4), Some(0.5), Some(0.02)]), Some("busy")),
            row("c", None, Some("cannot be run")),
        ]);
        let expect = "\
| system | experiment | p50 | p95 | p99 | goodput | |
|---|---|--:|--:|--:|--:|---|
| notes | a | +10% | −20% | n/a | 0% |  |
| notes | b | −30% | +40% | +50% | +2.0% | busy |
| notes | c | | | | | cannot be run |
| | **median of all that ran** (2) | 20.0% | 30.0% | 50.0% | 1.0% | |
| | **median of those without a remark** (1) | 10.0% | 20.0% | n/a | 0.0% | |
";
        assert_eq!(table, expect);
    }
}
