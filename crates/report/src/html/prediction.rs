//! The page of a prediction: both worlds over each other, second by second.

use plimsoll_model::run::{Prediction, SubjectKind, SubjectRun};

use super::chart::{Chart, Curve, fault_axis, time_axis};
use super::{page, run};
use crate::figures::{Unit, show};
use crate::markup::{escape, put};
use crate::prediction::{COMPARED, error, is_near, title};

/// Endpoints that get charts of their own.
const ENDPOINTS: usize = 6;

pub(super) fn write(prediction: &Prediction) -> String {
    let measured = &prediction.measured;
    let mut body = String::new();
    put!(
        &mut body,
        "<header><p class=\"kicker\">{}</p><h1>{}: prediction and measurement</h1><p class=\"dim\">{}</p></header>\n",
        escape(&measured.system),
        escape(&measured.experiment),
        escape(&title(prediction)),
    );
    let partial = measured.partial.then_some("It was interrupted: its figures cover what was done.");
    page::notices(partial, measured.invalid.as_deref(), &measured.warnings, &mut body);
    table(prediction, &mut body);
    body.push_str("<section class=\"run\"><h2>Over time</h2>\n<div class=\"charts\">\n");
    fault_axis(measured, &mut body);
    let of = |kind| measured.subjects.iter().filter(move |subject| subject.kind == kind);
    for subject in of(SubjectKind::All).chain(of(SubjectKind::Endpoint).take(ENDPOINTS)) {
        if let Some(other) = prediction.predicted.subject(subject.kind, &subject.name) {
            charts(prediction, subject, other, &mut body);
        }
    }
    time_axis(measured, &mut body);
    body.push_str("</div>\n</section>\n<section><h2>What was expected</h2>\n<h3>Measured</h3>\n");
    run::verdicts(measured, &mut body);
    body.push_str("<h3>Predicted</h3>\n");
    run::verdicts(&prediction.predicted, &mut body);
    put!(
        &mut body,
        "</section><footer>Seed {}, system file {}, plimsoll {}.</footer>\n",
        measured.seed,
        escape(&measured.system_hash),
        escape(&measured.plimsoll)
    );
    page::document(&format!("{}: {}, predicted", measured.system, measured.experiment), &body)
}

fn table(prediction: &Prediction, out: &mut String) {
    out.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>of</th><th>figure</th><th class=\"n\">measured</th><th \
         class=\"n\">predicted</th><th class=\"n\">error</th></tr></thead><tbody>\n",
    );
    for miss in &prediction.misses {
        let label = COMPARED.iter().find(|(key, _)| *key == miss.figure).map_or("", |(_, label)| label);
        let class = if is_near(&miss.figure, miss.error) { "n" } else { "n bad" };
        put!(
            out,
            "<tr><td>{}</td><td>{label}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td \
             class=\"{class}\">{}</td></tr>\n",
            escape(&miss.subject),
            show(&miss.figure, miss.measured),
            show(&miss.figure, miss.predicted),
            error(miss.error),
        );
    }
    out.push_str("</tbody></table></div>\n");
}

/// A line of a chart: what it is called, its colour, and its values.
type Line = (&'static str, &'static str, fn(&SubjectRun) -> &[f32]);

/// What is measured is drawn through, what is predicted dashed in the same colour.
fn charts(prediction: &Prediction, measured: &SubjectRun, predicted: &SubjectRun, out: &mut String) {
    let mut chart = |title: String, unit, meaning, columns: &[Line]| {
        let curves = columns.iter().flat_map(|(label, colour, column)| {
            let both = [("measured", "strong", measured), ("predicted", "dashed", predicted)];
            both.map(|(world, stroke, subject)| Curve {
                label: format!("{label} {world}"),
                class: format!("{colour} {stroke}"),
                values: column(subject),
            })
        });
        Chart { title, unit, meaning, curves: curves.collect(), top: None }.write(&prediction.measured, out);
    };
    let name = if measured.kind == SubjectKind::All { "all requests" } else { &measured.name };
    chart(
        format!("Response time of {name}"),
        Unit::Millis,
        "From when a request was due until its answer, failures included.",
        &[("p99", "c0", |s| &s.series.p99_ms), ("p50", "c5", |s| &s.series.p50_ms)],
    );
    if measured.kind == SubjectKind::All {
        chart(
            "95th percentile of all requests".to_owned(),
            Unit::Millis,
            "19 requests in 20 took no longer.",
            &[("p95", "c4", |s| &s.series.p95_ms)],
        );
    }
    chart(
        format!("Goodput of {name}"),
        Unit::PerSecond,
        "Requests that were answered well.",
        &[("answered well", "c2", |s| &s.series.ok)],
    );
}
