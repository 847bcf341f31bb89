//! JUnit XML, for the test tab of a build server: one case an expectation, or one a mark.

use plimsoll_model::run::{Limit, Line, Mark, Run};

use crate::markup::{escape, put};
use crate::number::times;
use crate::words::{
    Loads, against_today, gives_way_why, headline, interval, load, provenance, recovery_sentence, requests, submerged,
};

/// A run: one case for each expectation.
pub fn run(run: &Run) -> String {
    let class = format!("{}.{}", run.system, run.experiment);
    let mut cases: Vec<Case> = run
        .verdicts
        .iter()
        .map(|verdict| {
            let place =
                if verdict.line == 0 { String::new() } else { format!("line {} of the system file\n", verdict.line) };
            let why = verdict.why.as_ref().map_or(String::new(), |why| format!("{why}\n"));
            Case {
                name: verdict.text.clone(),
                outcome: if verdict.passed {
                    Outcome::Passed
                } else {
                    Outcome::Failed { message: format!("measured {}", verdict.measured), text: format!("{why}{place}") }
                },
                output: format!("measured {}", verdict.measured),
            }
        })
        .collect();
    if run.partial {
        cases.push(interrupted("the run is complete"));
    }
    if let Some(why) = &run.invalid {
        let name = "the measurement is valid".to_owned();
        cases.push(Case { name, outcome: Outcome::Error(why.clone()), output: String::new() });
    }
    suite(&class, &cases, &provenance(run))
}

/// A load line: one case for each mark. It fails where the mark lies below today's load.
pub fn line(line: &Line) -> String {
    let mut cases: Vec<Case> = line.marks.iter().map(|mark| of_mark(mark, Loads::of(line))).collect();
    if line.partial {
        cases.push(interrupted("the search is complete"));
    }
    suite(&format!("{}.load-line", line.system), &cases, &headline(line))
}

struct Case {
    name: String,
    outcome: Outcome,
    output: String,
}

enum Outcome {
    Passed,
    Failed {
        message: String,
        text: String,
    },
    /// It could not be decided.
    Error(String),
}

fn of_mark(mark: &Mark, loads: Loads) -> Case {
    let text = [
        Some(format!("{}: {} ({})", mark.weather.name, load(mark, loads), interval(mark))),
        Some(mark.weather.text.clone()),
        requests(mark, loads),
        mark.first.as_ref().map(|first| format!("gives way first: {}", gives_way_why(first))),
        mark.fails.as_ref().map(|fails| format!("fails first: {fails}")),
        recovery_sentence(mark, loads),
    ];
    let output = text.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let outcome = if !submerged(mark, loads) {
        Outcome::Passed
    } else if mark.limit == Limit::Interrupted {
        Outcome::Error(format!("the search was interrupted at {}", loads.words(mark.load)))
    } else {
        let factor = times(against_today(mark, loads));
        let message = format!("carries {}, {factor} today's {}", load(mark, loads), loads.words(loads.today));
        Outcome::Failed { message, text: output.clone() }
    };
    Case { name: format!("{} carries today's load", mark.weather.name), outcome, output }
}

fn interrupted(name: &str) -> Case {
    Case { name: name.into(), outcome: Outcome::Error("it was interrupted".into()), output: String::new() }
}

fn suite(class: &str, cases: &[Case], output: &str) -> String {
    let failures = cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed { .. })).count();
    let errors = cases.iter().filter(|case| matches!(case.outcome, Outcome::Error(_))).count();
    let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"", cases.len());
    let class = escape(class);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    put!(&mut out, "<testsuites name=\"plimsoll\" {counts}>\n");
    put!(&mut out, "  <testsuite name=\"{class}\" {counts} skipped=\"0\">\n");
    for case in cases {
        put!(&mut out, "    <testcase classname=\"{class}\" name=\"{}\">\n", escape(&case.name));
        match &case.outcome {
            Outcome::Passed => {}
            Outcome::Failed { message, text } => {
                put!(&mut out, "      <failure type=\"deviated\" message=\"{}\">", escape(message));
                lines(text, &mut out);
                out.push_str("</failure>\n");
            }
            Outcome::Error(message) => {
                put!(&mut out, "      <error type=\"undecided\" message=\"{}\"/>\n", escape(message));
            }
        }
        if !case.output.is_empty() {
            out.push_str("      <system-out>");
            lines(&case.output, &mut out);
            out.push_str("</system-out>\n");
        }
        out.push_str("    </testcase>\n");
    }
    out.push_str("    <system-out>");
    lines(output, &mut out);
    out.push_str("</system-out>\n  </testsuite>\n</testsuites>\n");
    out
}

fn lines(text: &str, out: &mut String) {
    let escaped: Vec<String> = text.lines().map(escape).collect();
    out.push_str(&escaped.join("\n"));
}
