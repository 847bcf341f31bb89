use std::collections::BTreeMap;

use plimsoll_model::run::{EventKind, Figure, Run, SubjectRun};

use super::line::warnings;
use super::sheet::{Sheet, Style, Tone, span};
use super::table::{Table, drawing, figure, words};
use crate::figures::{callers, percentile_ms, share, show, spread, utilizations};
use crate::number::{NONE, count, millis, percent};
use crate::words::{clock, event, gives_way, gives_way_why, kind, plural, provenance, resource};

/// Rows of callers that a terminal shows; the page shows all.
const CALLERS_SHOWN: usize = 24;

/// A run: its verdicts, figures by client and endpoint, utilization, events.
pub fn run(run: &Run, style: Style) -> String {
    let mut sheet = Sheet::new(style);
    title(run, &mut sheet);
    verdicts(run, &mut sheet);
    latency(run, &mut sheet);
    goodput(run, &mut sheet);
    utilization(run, &mut sheet);
    bottlenecks(run, &mut sheet);
    faults(run, &mut sheet);
    events(run, &mut sheet);
    warnings(&run.warnings, &mut sheet);
    sheet.finish()
}

fn title(run: &Run, sheet: &mut Sheet) {
    let failed = run.verdicts.iter().filter(|verdict| !verdict.passed).count() as u64;
    let all = run.verdicts.len() as u64;
    let (text, tone) = match (all, failed) {
        (0, _) => ("nothing was expected of it".to_owned(), Tone::Dim),
        (all, 0) => (format!("{} met", plural(all, "expectation", "expectations")), Tone::Good),
        (all, failed) => (format!("{failed} of {} missed", plural(all, "expectation", "expectations")), Tone::Bad),
    };
    sheet.paragraph(span(format!("{}, {}: ", run.system, run.experiment), Tone::Strong), &text, tone);
    sheet.paragraph(span("", Tone::Dim), &format!("{}.", provenance(run)), Tone::Dim);
    if let Some(why) = &run.invalid {
        sheet.paragraph(span("Invalid: ", Tone::Bad), &format!("{why}."), Tone::Plain);
    }
    if run.partial {
        let text = "it was interrupted, and its figures cover what was done.";
        sheet.paragraph(span("Partial: ", Tone::Bad), text, Tone::Plain);
    }
}

fn verdicts(run: &Run, sheet: &mut Sheet) {
    if run.verdicts.is_empty() {
        return;
    }
    sheet.blank();
    let mut table = Table::new(vec![words(""), words("expected"), words("measured"), words("between"), figure("line")]);
    for verdict in &run.verdicts {
        let (mark, tone) = if verdict.passed {
            (sheet.style.pick("✓ met", "met"), Tone::Good)
        } else {
            (sheet.style.pick("✗ missed", "MISSED"), Tone::Bad)
        };
        table.row(vec![
            span(mark, tone),
            span(&verdict.text, Tone::Plain),
            span(&verdict.measured, tone),
            span(between(verdict.low, verdict.high, &verdict.measured), Tone::Dim),
            span(if verdict.line == 0 { "default".to_owned() } else { verdict.line.to_string() }, Tone::Dim),
        ]);
        if let Some(why) = &verdict.why {
            table.note(why, Tone::Plain);
        }
    }
    table.write(sheet);
}

/// A verdict's interval in the unit that its measured value is written in.
pub(crate) fn between(low: f64, high: f64, measured: &str) -> String {
    if !low.is_finite() || !high.is_finite() || low == high {
        return String::new();
    }
    let name = if measured.ends_with('%') {
        "errors"
    } else if measured.ends_with("/s") {
        "goodput_per_s"
    } else if measured.ends_with('s') || measured.ends_with("min") || measured.ends_with('h') {
        "latency_ms_p50"
    } else {
        ""
    };
    let figure = Figure { name: name.into(), detail: None, mean: 0.0, low, high, samples: Vec::new() };
    spread(&figure).unwrap_or_default()
}

fn latency(run: &Run, sheet: &mut Sheet) {
    let subjects: Vec<&SubjectRun> =
        callers(run).into_iter().filter(|s| s.latency.count() > 0 || has_latency(s)).collect();
    if subjects.is_empty() {
        return;
    }
    sheet.heading("Response time, from when a request was due, failures included");
    let mut table =
        Table::new(vec![words(""), figure("p50"), figure("p95"), figure("p99"), figure("p99.9"), figure("max")]);
    for subject in subjects.iter().take(CALLERS_SHOWN) {
        let at = |name, percentile| span(millis(percentile_ms(subject, name, percentile)), Tone::Plain);
        let max = if subject.latency.count() > 0 { millis(subject.latency.max_ms()) } else { NONE.into() };
        table.row(vec![
            span(name(subject), Tone::Plain),
            at("latency_ms_p50", 50.0),
            at("latency_ms_p95", 95.0),
            at("latency_ms_p99", 99.0),
            at("latency_ms_p999", 99.9),
            span(max, Tone::Plain),
        ]);
    }
    table.write(sheet);
    more(subjects.len(), sheet);
}

fn has_latency(subject: &SubjectRun) -> bool {
    subject.figures.iter().any(|figure| figure.name.starts_with("latency_ms"))
}

fn goodput(run: &Run, sheet: &mut Sheet) {
    let subjects = callers(run);
    if subjects.is_empty() {
        return;
    }
    sheet.heading("Answers, with 95% intervals");
    let mut table = Table::new(vec![
        words(""),
        figure("goodput"),
        figure("between"),
        figure("errors"),
        figure("between"),
        figure("rejected"),
    ]);
    for subject in subjects.iter().take(CALLERS_SHOWN) {
        let seconds = run.duration_ns as f64 / 1e9 * f64::from(run.replications.max(1));
        let goodput = subject
            .figure("goodput_per_s")
            .map_or(crate::number::ratio(subject.totals.ok as f64, seconds), |figure| figure.mean);
        let interval = |name| span(subject.figure(name).and_then(spread).unwrap_or_default(), Tone::Dim);
        let errors = share(subject, "errors", subject.totals.failed);
        table.row(vec![
            span(name(subject), Tone::Plain),
            span(show("goodput_per_s", goodput), Tone::Plain),
            interval("goodput_per_s"),
            span(percent(errors), if errors > 0.01 { Tone::Bad } else { Tone::Plain }),
            interval("errors"),
            span(percent(share(subject, "rejected", subject.totals.rejected)), Tone::Plain),
        ]);
    }
    table.write(sheet);
    more(subjects.len(), sheet);
}

fn name(subject: &SubjectRun) -> String {
    match subject.kind {
        plimsoll_model::run::SubjectKind::All => "all".into(),
        _ => subject.name.clone(),
    }
}

fn more(rows: usize, sheet: &mut Sheet) {
    if rows > CALLERS_SHOWN {
        let text = format!("  and {} more", rows - CALLERS_SHOWN);
        sheet.row(&[span(text, Tone::Dim)]);
    }
}

/// Characters of a utilization bar.
const BAR: usize = 16;

fn utilization(run: &Run, sheet: &mut Sheet) {
    let rows = utilizations(run);
    if rows.is_empty() {
        return;
    }
    sheet.heading("Utilization");
    let mut table = Table::new(vec![words(""), words("of"), drawing(), figure("busy"), figure("between")]);
    for (subject, figure) in rows {
        let tone = match figure.mean {
            busy if busy >= 0.95 => Tone::Bad,
            busy if busy >= 0.8 => Tone::Warn,
            _ => Tone::Plain,
        };
        let full =
            if figure.mean.is_finite() { (figure.mean.clamp(0.0, 1.0) * BAR as f64).round() as usize } else { 0 };
        let (on, off) = (sheet.style.pick("█", "#"), sheet.style.pick("░", "."));
        table.row(vec![
            span(&subject.name, Tone::Plain),
            span(resource(figure.detail.as_deref().unwrap_or(kind(subject.kind))), Tone::Dim),
            span(on.repeat(full) + &off.repeat(BAR - full), tone),
            span(percent(figure.mean), tone),
            span(spread(figure).unwrap_or_default(), Tone::Dim),
        ]);
    }
    table.write(sheet);
}

fn bottlenecks(run: &Run, sheet: &mut Sheet) {
    let Some((first, others)) = run.bottlenecks.split_first() else {
        return;
    };
    sheet.blank();
    let owner = first.owner.as_ref().map_or(String::new(), |owner| format!(" Owner: {owner}."));
    sheet.paragraph(span("Gives way first: ", Tone::Strong), &format!("{}.{owner}", gives_way_why(first)), Tone::Plain);
    if !others.is_empty() {
        let list: Vec<String> = others.iter().take(4).map(gives_way).collect();
        sheet.paragraph(span("Then: ", Tone::Dim), &format!("{}.", list.join("; ")), Tone::Dim);
    }
}

fn faults(run: &Run, sheet: &mut Sheet) {
    if run.faults.is_empty() {
        return;
    }
    sheet.heading("Faults");
    let mut table = Table::new(vec![figure("from"), figure("to"), words("what")]);
    for fault in &run.faults {
        table.row(vec![
            span(clock(fault.at_ns), Tone::Plain),
            span(clock(fault.until_ns), Tone::Plain),
            span(&fault.text, Tone::Plain),
        ]);
    }
    table.write(sheet);
}

fn events(run: &Run, sheet: &mut Sheet) {
    let mut groups: BTreeMap<(EventKind, &str), (u64, u64, u64)> = BTreeMap::new();
    for event in &run.events {
        if matches!(event.kind, EventKind::FaultStart | EventKind::FaultEnd) {
            continue;
        }
        let group = groups.entry((event.kind, &event.subject)).or_insert((0, event.at_ns, event.at_ns));
        group.0 += 1;
        group.1 = group.1.min(event.at_ns);
        group.2 = group.2.max(event.at_ns);
    }
    if groups.is_empty() {
        return;
    }
    let mut rows: Vec<_> = groups.into_iter().collect();
    rows.sort_by_key(|(key, (_, first, _))| (*first, *key));
    let replication = if run.replications > 1 { " (of the first replication)" } else { "" };
    sheet.heading(&format!("Events{replication}"));
    let mut table = Table::new(vec![figure("first"), figure("last"), figure("times"), words("what"), words("of")]);
    for ((kind, subject), (times, first, last)) in rows.iter().take(CALLERS_SHOWN) {
        table.row(vec![
            span(clock(*first), Tone::Plain),
            span(if times > &1 { clock(*last) } else { String::new() }, Tone::Dim),
            span(count(*times), Tone::Plain),
            span(event(*kind), Tone::Plain),
            span(*subject, Tone::Plain),
        ]);
    }
    table.write(sheet);
    more(rows.len(), sheet);
}
