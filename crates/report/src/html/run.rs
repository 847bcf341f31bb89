//! The parts of a page that show one run.

use plimsoll_model::run::{Run, SubjectKind, SubjectRun};

use super::chart::{Chart, Curve, fault_axis, shares, time_axis};
use super::flow::level;
use super::timeline;
use crate::figures::{Unit, callers, meaning, percentile_ms, share, show, spread, unit};
use crate::markup::{coordinate, escape, put};
use crate::number::{count, millis, percent, significant};
use crate::terminal::between;
use crate::words::kind;

/// Curves of one chart of several components.
const CURVES: usize = 5;
/// Services whose instances' shares are drawn.
const SHARED: usize = 3;
/// Rows of a table of figures.
const ROWS: usize = 120;

/// Every chart of a run, over one time axis.
pub(super) fn charts(run: &Run, out: &mut String) {
    out.push_str("<div class=\"charts\">\n");
    fault_axis(run, out);
    if let Some(all) = run.subjects.iter().find(|subject| subject.kind == SubjectKind::All) {
        latency(all, run, out);
        goodput(all, run, out);
    }
    components(run, out);
    instance_shares(run, out);
    timeline::write(run, out);
    time_axis(run, out);
    out.push_str("</div>\n");
}

fn text_of(name: &str) -> &'static str {
    meaning(name).map_or("", |meaning| meaning.text)
}

fn latency(all: &SubjectRun, run: &Run, out: &mut String) {
    let curve = |label: &str, class: &str, values| Curve { label: label.into(), class: class.into(), values };
    Chart {
        title: "Response time".into(),
        unit: Unit::Millis,
        meaning: "From when a request was due until its answer, failures included. p99: 1 request in 100 took longer.",
        curves: vec![
            curve("p99", "c0 strong", &all.series.p99_ms),
            curve("p95", "c5", &all.series.p95_ms),
            curve("p50", "c6", &all.series.p50_ms),
        ],
        top: None,
    }
    .write(run, out);
}

fn goodput(all: &SubjectRun, run: &Run, out: &mut String) {
    let curve = |label: &str, class: &str, values| Curve { label: label.into(), class: class.into(), values };
    let any = |values: &[f32]| values.iter().any(|value| *value > 0.0);
    let mut curves =
        vec![curve("offered", "c6 dashed", &all.series.offered), curve("answered well", "c2 strong", &all.series.ok)];
    if any(&all.series.failed) {
        curves.push(curve("failed", "c1", &all.series.failed));
    }
    if any(&all.series.rejected) {
        curves.push(curve("of them rejected", "c4 dashed", &all.series.rejected));
    }
    Chart { title: "Requests".into(), unit: Unit::PerSecond, meaning: text_of("goodput_per_s"), curves, top: None }
        .write(run, out);
}

/// Utilization and queues of the components where they are highest.
fn components(run: &Run, out: &mut String) {
    let utilization = highest(run, |s| &s.series.utilization);
    let queues = highest(run, |s| &s.series.queue);
    let curves = |subjects: &[&SubjectRun], column: fn(&SubjectRun) -> &[f32]| {
        // A component has one colour, in whichever chart and whichever run of its system it is.
        let class = |at: usize| format!("c{}{}", at % 7, if (at / 7).is_multiple_of(2) { "" } else { " dashed" });
        drawn(run)
            .enumerate()
            .filter(|(_, s)| subjects.iter().any(|other| std::ptr::eq(*other, *s)))
            .map(|(at, s)| Curve { label: s.name.clone(), class: class(at), values: column(s) })
            .collect::<Vec<_>>()
    };
    Chart {
        title: "Utilization".into(),
        unit: Unit::Share,
        meaning: text_of("utilization"),
        curves: curves(&utilization, |s| &s.series.utilization),
        top: Some(1.0),
    }
    .write(run, out);
    Chart {
        title: "Waiting".into(),
        unit: Unit::Count,
        meaning: text_of("queue_mean"),
        curves: curves(&queues, |s| &s.series.queue),
        top: None,
    }
    .write(run, out);
}

/// The components whose utilization and queues are drawn.
fn drawn(run: &Run) -> impl Iterator<Item = &SubjectRun> {
    use SubjectKind::{Consumer, Node, Service, Store, Topic};
    run.subjects.iter().filter(|s| matches!(s.kind, Service | Store | Node | Topic | Consumer))
}

/// Those of them with the highest peaks in a column.
fn highest(run: &Run, column: fn(&SubjectRun) -> &[f32]) -> Vec<&SubjectRun> {
    let mut subjects: Vec<(f32, &SubjectRun)> = drawn(run)
        .map(|s| (column(s).iter().copied().filter(|v| v.is_finite()).fold(0.0, f32::max), s))
        .filter(|(peak, _)| *peak > 0.0)
        .collect();
    subjects.sort_by(|a, b| b.0.total_cmp(&a.0));
    subjects.into_iter().take(CURVES).map(|(_, subject)| subject).collect()
}

/// How a service's requests are spread over its instances, where there are several.
fn instance_shares(run: &Run, out: &mut String) {
    let services = run.subjects.iter().filter(|subject| subject.kind == SubjectKind::Service);
    let mut drawn = 0;
    for service in services {
        let prefix = format!("{}/", service.name);
        let instances: Vec<&SubjectRun> = run
            .subjects
            .iter()
            .filter(|s| s.kind == SubjectKind::Instance && s.name.starts_with(&prefix) && !s.series.offered.is_empty())
            .collect();
        if instances.len() < 2 || drawn == SHARED {
            continue;
        }
        drawn += 1;
        let curves: Vec<Curve<'_>> = instances
            .iter()
            .enumerate()
            .map(|(at, s)| Curve { label: s.name.clone(), class: format!("c{}", at % 6), values: &s.series.offered })
            .collect();
        let meaning = "Share of the service's requests that each instance was given: even, unless one is down or slow.";
        shares(&format!("Share of each instance of {}", service.name), meaning, &curves, run, out);
    }
}

/// What was expected, and what came.
pub(super) fn verdicts(run: &Run, out: &mut String) {
    if run.verdicts.is_empty() {
        return;
    }
    out.push_str(
        "<div class=\"scroll\"><table class=\"verdicts\"><thead><tr><th></th><th>expected</th><th class=\"n\">measured</th>\
         <th class=\"n\">95% interval</th><th class=\"n\">line</th></tr></thead><tbody>\n",
    );
    for verdict in &run.verdicts {
        let (class, mark) = if verdict.passed { ("good", "✓ met") } else { ("bad", "✗ missed") };
        let line = if verdict.line == 0 { "default".into() } else { verdict.line.to_string() };
        let why = verdict.why.as_ref().map_or(String::new(), |why| format!("<div class=\"why\">{}</div>", escape(why)));
        put!(
            out,
            "<tr><td class=\"{class}\">{mark}</td><td><code>{}</code>{why}</td><td class=\"n {class}\">{}</td><td class=\"n \
             dim\">{}</td><td class=\"n dim\">{line}</td></tr>\n",
            escape(&verdict.text),
            escape(&verdict.measured),
            escape(&between(verdict.low, verdict.high, &verdict.measured)),
        );
    }
    out.push_str("</tbody></table></div>\n");
}

/// How much room a table has.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Width {
    Full,
    /// Beside another run's: the columns that say most.
    Half,
}

/// What callers saw.
pub(super) fn figures(run: &Run, width: Width, out: &mut String) {
    let subjects = callers(run);
    if subjects.is_empty() {
        return;
    }
    let columns: &[&str] = match width {
        Width::Full => &[
            "goodput_per_s",
            "errors",
            "rejected",
            "latency_ms_p50",
            "latency_ms_p95",
            "latency_ms_p99",
            "latency_ms_p999",
            "latency_ms_max",
        ],
        Width::Half => &["goodput_per_s", "errors", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99"],
    };
    out.push_str("<div class=\"scroll\"><table class=\"figures\"><thead><tr><th></th>");
    columns.iter().for_each(|name| heading(name, out));
    out.push_str("</tr></thead><tbody>\n");
    for subject in subjects.iter().take(ROWS) {
        let name = if subject.kind == SubjectKind::All { "all" } else { &subject.name };
        put!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
        columns.iter().for_each(|name| cell(subject, name, out));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn heading(name: &str, out: &mut String) {
    if let Some(meaning) = meaning(name) {
        put!(out, "<th class=\"n\"><abbr title=\"{}\">{}</abbr></th>", escape(meaning.text), escape(meaning.label));
    }
}

/// A figure with its interval on hover; what the totals say where the run has no such figure.
fn cell(subject: &SubjectRun, name: &str, out: &mut String) {
    let interval = subject.figure(name).and_then(spread).map_or(String::new(), |s| format!("95% interval: {s}"));
    let value = match name {
        "errors" => share(subject, name, subject.totals.failed),
        "rejected" => share(subject, name, subject.totals.rejected),
        "latency_ms_p50" => percentile_ms(subject, name, 50.0),
        "latency_ms_p95" => percentile_ms(subject, name, 95.0),
        "latency_ms_p99" => percentile_ms(subject, name, 99.0),
        "latency_ms_p999" => percentile_ms(subject, name, 99.9),
        // The longest of all, not the mean of the longest of each replication.
        "latency_ms_max" if subject.latency.count() > 0 => subject.latency.max_ms(),
        _ => subject.figure(name).map_or(f64::NAN, |figure| figure.mean),
    };
    let interval = if name == "latency_ms_max" { String::new() } else { interval };
    put!(out, "<td class=\"n\" title=\"{}\">{}</td>", escape(&interval), unit(name).show(value));
}

/// How busy each component was.
pub(super) fn components_table(run: &Run, out: &mut String) {
    let subjects: Vec<&SubjectRun> = run
        .subjects
        .iter()
        .filter(|s| !matches!(s.kind, SubjectKind::All | SubjectKind::Client | SubjectKind::Endpoint))
        .collect();
    if subjects.is_empty() {
        return;
    }
    put!(
        out,
        "<details class=\"minor\"><summary>{} components, instances and edges as a table</summary><div \
         class=\"scroll\"><table class=\"figures\"><thead><tr><th></th><th>kind</th><th class=\"n\">requests</th>",
        subjects.len()
    );
    for name in ["errors", "latency_ms_p99", "utilization", "queue_mean", "amplification"] {
        heading(name, out);
    }
    out.push_str("<th>other</th></tr></thead><tbody>\n");
    for subject in subjects.iter().take(ROWS) {
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>",
            escape(&subject.name),
            kind(subject.kind),
            count(subject.totals.offered),
            percent(share(subject, "errors", subject.totals.failed)),
            millis(percentile_ms(subject, "latency_ms_p99", 99.0)),
        );
        utilization_cell(subject, out);
        let queue = subject.figure("queue_mean").map_or(String::new(), |figure| significant(figure.mean, 2));
        let attempts = subject.figure("amplification").map_or(String::new(), |figure| significant(figure.mean, 3));
        let other: Vec<String> = ["hits", "trips", "coalesced", "ejections", "backlog_max"]
            .into_iter()
            .filter_map(|name| subject.figure(name).filter(|figure| figure.mean != 0.0))
            .map(|figure| {
                let label = meaning(&figure.name).map_or(figure.name.as_str(), |meaning| meaning.label);
                format!("{label} {}", show(&figure.name, figure.mean))
            })
            .collect();
        put!(
            out,
            "<td class=\"n\">{queue}</td><td class=\"n\">{attempts}</td><td>{}</td></tr>\n",
            escape(&other.join(", "))
        );
    }
    out.push_str("</tbody></table></div>");
    if subjects.len() > ROWS {
        put!(out, "<p class=\"more\">and {} more: see the JSON</p>", subjects.len() - ROWS);
    }
    out.push_str("</details>\n");
}

fn utilization_cell(subject: &SubjectRun, out: &mut String) {
    let cells: Vec<String> = subject
        .figures
        .iter()
        .filter(|figure| figure.name == "utilization")
        .map(|figure| {
            format!(
                "<span class=\"meter\"><i class=\"{}\" style=\"width:{}%\"></i></span>{} {}",
                level(figure.mean),
                coordinate(figure.mean.clamp(0.0, 1.0) * 100.0),
                percent(figure.mean),
                escape(figure.detail.as_deref().unwrap_or(""))
            )
        })
        .collect();
    put!(out, "<td class=\"n\">{}</td>", cells.join("<br>"));
}
