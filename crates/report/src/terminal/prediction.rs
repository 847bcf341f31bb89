use plimsoll_model::run::{Prediction, SubjectKind};

use super::sheet::{Sheet, Style, Tone, span};
use super::table::{Table, figure, words};
use crate::figures::show;
use crate::prediction::{COMPARED, error, is_near, title};

/// How far a prediction was off.
pub fn prediction(prediction: &Prediction, style: Style) -> String {
    let mut sheet = Sheet::new(style);
    sheet.heading("Prediction");
    sheet.paragraph(span("", Tone::Plain), &title(prediction), Tone::Dim);
    let mut table =
        Table::new(vec![words("of"), words("figure"), figure("measured"), figure("predicted"), figure("error")]);
    let mut subjects: Vec<(SubjectKind, &str)> = Vec::new();
    for miss in &prediction.misses {
        if !subjects.contains(&(miss.kind, &miss.subject)) {
            subjects.push((miss.kind, &miss.subject));
        }
    }
    for (kind, name) in subjects {
        let mut shown = name;
        for (key, label) in COMPARED {
            let Some(miss) = prediction.miss(kind, name, key) else { continue };
            let tone = if is_near(key, miss.error) { Tone::Plain } else { Tone::Strong };
            table.row(vec![
                span(shown, Tone::Plain),
                span(label, Tone::Dim),
                span(show(key, miss.measured), Tone::Plain),
                span(show(key, miss.predicted), Tone::Plain),
                span(error(miss.error), tone),
            ]);
            shown = "";
        }
    }
    if table.is_empty() {
        sheet.paragraph(span("", Tone::Plain), "Too few requests were answered to compare anything.", Tone::Plain);
    } else {
        table.write(&mut sheet);
    }
    sheet.finish()
}
