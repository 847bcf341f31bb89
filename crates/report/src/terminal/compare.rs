use plimsoll_model::run::SubjectKind;

use super::line::warnings;
use super::sheet::{Sheet, Style, Tone, span};
use super::table::{Table, figure, words};
use crate::compare::{Basis, Comparison, Difference, Verdict, order};
use crate::figures::{meaning, show};
use crate::number::{ratio, significant, times};
use crate::words::{plural, resource};

/// A comparison: what got better or worse beyond noise, then what did not change.
pub fn compare(comparison: &Comparison, style: Style) -> String {
    let mut sheet = Sheet::new(style);
    sheet.paragraph(span("A: ", Tone::Strong), &comparison.a, Tone::Plain);
    sheet.paragraph(span("B: ", Tone::Strong), &comparison.b, Tone::Plain);
    sheet.blank();
    let of = |verdict| comparison.differences.iter().filter(|d| d.verdict == verdict).count() as u64;
    let summary = format!(
        "B against A: {} better, {} worse, {} changed, {} without a difference beyond noise.",
        of(Verdict::Better),
        of(Verdict::Worse),
        of(Verdict::Changed),
        of(Verdict::Same)
    );
    sheet.paragraph(span("", Tone::Plain), &summary, Tone::Strong);
    changes(comparison, &mut sheet);
    differences(comparison, &mut sheet);
    warnings(&comparison.warnings, &mut sheet);
    sheet.finish()
}

fn changes(comparison: &Comparison, sheet: &mut Sheet) {
    if comparison.changes.is_empty() {
        return;
    }
    sheet.blank();
    for change in &comparison.changes {
        sheet.paragraph(span(format!("  {} ", sign(change.verdict)), tone(change.verdict)), &change.text, Tone::Plain);
    }
}

fn differences(comparison: &Comparison, sheet: &mut Sheet) {
    let (same, different): (Vec<&Difference>, Vec<&Difference>) =
        comparison.differences.iter().partition(|d| d.verdict == Verdict::Same && d.basis != Basis::Bracket);
    let (mut shown, details): (Vec<&Difference>, Vec<&Difference>) = different.into_iter().partition(|d| headline(d));
    shown.sort_by_key(|d| {
        let rank = match d.verdict {
            Verdict::Worse => 0,
            Verdict::Better => 1,
            Verdict::Changed => 2,
            Verdict::Same => 3,
            Verdict::Unknown => 4,
        };
        (rank, order(&d.figure))
    });
    if !shown.is_empty() {
        sheet.blank();
        let mut table = Table::new(vec![
            words("of"),
            words("figure"),
            figure("A"),
            figure("B"),
            figure("change"),
            words("verdict"),
        ]);
        for one in shown {
            table.row(vec![
                span(&one.subject, Tone::Plain),
                span(label(one), Tone::Dim),
                span(show(&one.figure, one.a), Tone::Plain),
                span(show(&one.figure, one.b), Tone::Plain),
                span(change(one), tone(one.verdict)),
                span(one.verdict.text(), tone(one.verdict)),
            ]);
        }
        table.write(sheet);
    }
    if !details.is_empty() {
        let text = format!(
            "{} of instances, nodes and the like differ too: see the comparison's JSON.",
            plural(details.len() as u64, "figure", "figures")
        );
        sheet.paragraph(span("  ", Tone::Dim), &text, Tone::Dim);
    }
    if !same.is_empty() {
        let text = format!("{} without a difference beyond noise.", plural(same.len() as u64, "figure", "figures"));
        sheet.paragraph(span("  ", Tone::Dim), &text, Tone::Dim);
    }
    if comparison.differences.iter().any(|d| d.basis == Basis::Paired) {
        let text = "Replications of one seed saw the same arrivals: differences are taken pair by pair.";
        sheet.paragraph(span("  ", Tone::Dim), text, Tone::Dim);
    }
}

/// Whether a figure is one that is asked for first: what callers see, and how busy components are.
fn headline(one: &Difference) -> bool {
    use SubjectKind::{All, Client, Consumer, Edge, Endpoint, Instance, Lease, Node, Service, Store, Topic};
    let figures: &[&str] = match one.kind {
        None => return true,
        Some(All | Client | Endpoint) => {
            &["goodput_per_s", "errors", "rejected", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99"]
        }
        Some(Service | Store | Consumer) => &["utilization", "hits"],
        Some(Topic) => &["backlog_max"],
        Some(Edge) => &["amplification", "trips", "ejections"],
        Some(Instance | Node | Lease) => &[],
    };
    figures.contains(&one.figure.as_str())
}

/// What a figure is called: `p99`, `utilization (workers)`, `load`.
fn label(one: &Difference) -> String {
    let label = match one.figure.as_str() {
        "load_per_s" => "load",
        "times_today" => "times today",
        name => meaning(name).map_or(name, |meaning| meaning.label),
    };
    one.detail.as_ref().map_or(label.to_owned(), |detail| format!("{label} ({})", resource(detail)))
}

/// The change relative to A, or itself where A is zero.
fn change(one: &Difference) -> String {
    let relative = ratio(one.difference, one.a.abs());
    if relative.abs() >= 10.0 && relative.is_finite() {
        times(one.b / one.a)
    } else if relative.is_finite() {
        let sign = if relative > 0.0 { "+" } else { "" };
        format!("{sign}{}%", significant(relative * 100.0, 2))
    } else {
        show(&one.figure, one.difference)
    }
}

const fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "+",
        Verdict::Worse => "-",
        Verdict::Changed | Verdict::Same | Verdict::Unknown => "*",
    }
}

const fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Better => Tone::Good,
        Verdict::Worse => Tone::Bad,
        Verdict::Changed => Tone::Warn,
        Verdict::Same | Verdict::Unknown => Tone::Dim,
    }
}
