use plimsoll_model::run::{Cost, GrownLine, Limit, Line, Mark};

use super::ladder::{ladder, tone};
use super::sheet::{Sheet, Span, Style, Tone, span};
use super::table::{Table, figure, words};
use crate::number::{ratio, times, usd};
use crate::words::{
    Loads, against_today, analytic, effort, gives_way, headline, interval, load, metastable, predictions, quiet,
    recovers, recovery_sentence, requests, waived, what_a_mark_is, why,
};

/// A load line: the ladder, the marks, and what to know about them.
pub fn line(line: &Line, style: Style) -> String {
    let mut sheet = Sheet::new(style);
    sheet.paragraph(span(format!("{}: ", line.system), Tone::Strong), &headline(line), Tone::Plain);
    sheet.blank();
    ladder(line, &mut sheet);
    marks(line, &mut sheet);
    predicted(line, &mut sheet);
    metastability(line, &mut sheet);
    waivers(line, &mut sheet);
    disagreements(line, &mut sheet);
    growth(line, &mut sheet);
    cost(&line.cost, &mut sheet);
    warnings(&line.warnings, &mut sheet);
    footnote(line, &mut sheet);
    sheet.finish()
}

fn marks(line: &Line, sheet: &mut Sheet) {
    sheet.blank();
    let mut table = Table::new(vec![
        words("weather"),
        figure("load"),
        figure("between"),
        figure("today"),
        words("gives way first"),
        words("recovers"),
    ]);
    let loads = Loads::of(line);
    for mark in &line.marks {
        let tone = tone(mark, loads);
        table.row(vec![
            span(&mark.weather.name, Tone::Strong),
            span(load(mark, loads.bare()), tone),
            span(interval(mark), Tone::Dim),
            span(times(against_today(mark, loads)), tone),
            span(mark.first.as_ref().map_or("nothing seen".into(), gives_way), Tone::Plain),
            span(recovers(mark, loads), if metastable(mark) { Tone::Bad } else { Tone::Plain }),
        ]);
        if let Some(note) = note(mark, loads) {
            table.note(note, Tone::Dim);
        }
    }
    table.write(sheet);
}

/// What stands under a mark: what happens in it, why it ends there, and whose it is.
fn note(mark: &Mark, loads: Loads) -> Option<String> {
    let mut parts = Vec::new();
    if !mark.weather.text.is_empty() && mark.weather.text != mark.weather.name {
        parts.push(format!("{}.", mark.weather.text.trim_end_matches('.')));
    }
    match mark.limit {
        Limit::AboveSearch => parts.push("Held at the largest load that was tried.".into()),
        Limit::BelowSearch => parts.push("Failed at the smallest load that was tried.".into()),
        Limit::Interrupted => parts.push("The search was interrupted.".into()),
        Limit::Found => {}
    }
    if let Some(requests) = requests(mark, loads) {
        parts.push(format!("{requests}."));
    }
    if let Some(fails) = &mark.fails {
        parts.push(format!("Fails first: {}.", fails.trim_end_matches('.')));
    }
    if let Some(first) = &mark.first {
        parts.push(format!("Why: {}.", why(first)));
        if let Some(owner) = &first.owner {
            parts.push(format!("Owner: {owner}."));
        }
    }
    if parts.is_empty() { None } else { Some(parts.join(" ")) }
}

/// What was predicted beside what was measured.
fn predicted(line: &Line, sheet: &mut Sheet) {
    let rows = predictions(line);
    if rows.is_empty() {
        return;
    }
    sheet.heading("Predicted and measured");
    let mut table = Table::new(vec![words("weather"), figure("predicted"), figure("measured"), figure("error")]);
    for (weather, predicted, measured, error) in rows {
        table.row(vec![
            span(weather, Tone::Strong),
            span(predicted, Tone::Plain),
            span(measured, Tone::Plain),
            span(error, Tone::Plain),
        ]);
    }
    table.write(sheet);
}

fn metastability(line: &Line, sheet: &mut Sheet) {
    let marks: Vec<&Mark> = line.marks.iter().filter(|mark| metastable(mark)).collect();
    if marks.is_empty() {
        return;
    }
    sheet.heading("Metastable");
    for mark in marks {
        if let Some(sentence) = recovery_sentence(mark, Loads::of(line)) {
            sheet.paragraph(span(format!("  {}: ", mark.weather.name), Tone::Bad), &sentence, Tone::Plain);
        }
    }
}

fn waivers(line: &Line, sheet: &mut Sheet) {
    if line.marks.iter().all(|mark| mark.waived.is_empty()) {
        return;
    }
    sheet.heading("Objectives that do not set a mark");
    for mark in &line.marks {
        for one in &mark.waived {
            sheet.paragraph(span(format!("  {}: ", mark.weather.name), Tone::Warn), &waived(one), Tone::Plain);
        }
    }
}

fn disagreements(line: &Line, sheet: &mut Sheet) {
    let disputed: Vec<&Mark> =
        line.marks.iter().filter(|mark| mark.analytic.as_ref().is_some_and(|analytic| !analytic.agrees)).collect();
    if disputed.is_empty() {
        return;
    }
    sheet.heading("Where the closed forms and the simulation differ");
    for mark in disputed {
        if let Some(one) = &mark.analytic {
            sheet.paragraph(span(format!("  {}: ", mark.weather.name), Tone::Plain), &analytic(one), Tone::Plain);
        }
    }
}

fn growth(line: &Line, sheet: &mut Sheet) {
    if line.growth.is_empty() {
        return;
    }
    sheet.heading("Grown");
    let mut table = Table::new(vec![
        words("for"),
        words("weather"),
        figure("load"),
        figure("today"),
        words("holds"),
        words("gives way first"),
    ]);
    let loads = Loads::of(line);
    for grown in &line.growth {
        for (at, mark) in grown.marks.iter().enumerate() {
            let factor = against_today(mark, loads);
            let holds = holds(factor, grown.factor, sheet.style);
            table.row(vec![
                span(if at == 0 { times(grown.factor) } else { String::new() }, Tone::Strong),
                span(&mark.weather.name, Tone::Plain),
                span(load(mark, loads), holds.tone),
                span(times(factor), holds.tone),
                holds,
                span(mark.first.as_ref().map_or(String::new(), gives_way), Tone::Plain),
            ]);
        }
    }
    if !table.is_empty() {
        table.write(sheet);
    }
    for grown in &line.growth {
        sheet.paragraph(span(format!("  {}: ", times(grown.factor)), Tone::Strong), &changes(grown), Tone::Dim);
    }
}

/// Whether a mark of a grown system carries the load that it was grown for.
fn holds(factor: f64, wanted: f64, style: Style) -> Span {
    if factor.is_nan() || wanted.is_nan() {
        span("", Tone::Plain)
    } else if factor >= wanted {
        span(format!("{} yes", style.pick("✓", "+")), Tone::Good)
    } else {
        span(format!("{} no, {}", style.pick("✗", "x"), times(ratio(factor, wanted))), Tone::Bad)
    }
}

fn changes(grown: &GrownLine) -> String {
    let changes = if grown.changes.is_empty() { "nothing was changed".to_owned() } else { grown.changes.join(", ") };
    format!("{changes}; {} a month", usd(grown.cost.month_usd))
}

fn cost(cost: &Cost, sheet: &mut Sheet) {
    sheet.blank();
    let per_million = cost
        .per_million_usd
        .map_or(String::new(), |usd_| format!(", {} a million requests at the calm mark", usd(usd_)));
    let mut parts: Vec<&(String, f64)> = cost.parts.iter().collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let listed: Vec<String> = parts.iter().take(5).map(|(name, amount)| format!("{name} {}", usd(*amount))).collect();
    let rest = parts.len().saturating_sub(5);
    let more = if rest > 0 { format!(", and {rest} more") } else { String::new() };
    let of = if listed.is_empty() { String::new() } else { format!(" ({}{more})", listed.join(", ")) };
    sheet.paragraph(
        span("Cost: ", Tone::Strong),
        &format!("{} a month{per_million}{of}", usd(cost.month_usd)),
        Tone::Plain,
    );
}

pub(super) fn warnings(warnings: &[String], sheet: &mut Sheet) {
    if warnings.is_empty() {
        return;
    }
    sheet.blank();
    for warning in warnings {
        sheet.paragraph(span("Warning: ", Tone::Warn), warning, Tone::Plain);
    }
}

fn footnote(line: &Line, sheet: &mut Sheet) {
    sheet.blank();
    if line.partial {
        sheet.paragraph(
            span("Partial: ", Tone::Bad),
            "the search was interrupted, and later marks are missing.",
            Tone::Plain,
        );
    }
    let objectives = if line.objectives.is_empty() { "none".to_owned() } else { line.objectives.join("; ") };
    let stated = if line.objectives_stated { "" } else { " (the default: the file states none)" };
    sheet.paragraph(span("Objectives: ", Tone::Dim), &format!("{objectives}{stated}."), Tone::Dim);
    let mark = what_a_mark_is(line);
    sheet.paragraph(span("", Tone::Dim), &format!("A mark is {mark} {}.", effort(line)), Tone::Dim);
    // One weather's long run speaks for all where they agree.
    let mut stated: Vec<String> = line.marks.iter().filter_map(|mark| mark.quiet.as_ref()).map(quiet).collect();
    stated.dedup();
    for (at, one) in stated.iter().enumerate().take(4) {
        let lead = if at == 0 { "Horizon: " } else { "" };
        sheet.paragraph(span(lead, Tone::Dim), &format!("{one}."), Tone::Dim);
    }
    sheet.paragraph(
        span("", Tone::Dim),
        &format!("Seed {}, system file {}, plimsoll {}.", line.seed, line.system_hash, line.plimsoll),
        Tone::Dim,
    );
}
