//! The parts of a page that show one run.

use plimsoll_model::run::{Run, SubjectKind, SubjectRun};

use super::chart::{Chart, Curve, fault_axis, shares, time_axis};
use super::flow::level;
use super::timeline;
use crate::figures::{Unit, callers, meaning, percentile_ms, share, show, spread, unit};
use crate::markup::{coordinate, escape, put};
use crate::number::{NONE, count, millis, percent, significant};
use crate::terminal::between;
use crate::words::kind;

/// Curves of one chart of several components.
const CURVES: usize = 6;
/// Services whose instances' shares are drawn.
const SHARED: usize = 3;
/// Rows of a table of figures.
const ROWS: usize = 120;

/// Every chart of a run, over one time axis.
pub(super) fn charts(run: &Run, out: &mut String) {
    out.push_str("<div class=\"charts\">\n");
    fault_axis(run, out);
    if let Some(all) = run
        .subjects
        .iter()
        .find(|subject| subject.kind == SubjectKind::All)
    {
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
    let curve = |label: &str, class: &str, values| Curve {
        label: label.into(),
        class: class.into(),
        values,
    };
    Chart {
        title: "Response time",
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
    let curve = |label: &str, class: &str, values| Curve {
        label: label.into(),
        class: class.into(),
        values,
    };
    let any = |values: &[f32]| values.iter().any(|value| *value > 0.0);
    let mut curves = vec![
        curve("offered", "c6 dashed", &all.series.offered),
        curve("answered well", "c2 strong", &all.series.ok),
    ];
    if any(&all.series.failed) {
        curves.push(curve("failed", "c1", &all.series.failed));
    }
    if any(&all.series.rejected) {
        curves.push(curve("of them rejected", "c4 dashed", &all.series.rejected));
    }
    Chart {
        title: "Requests",
        unit: Unit::PerSecond,
        meaning: text_of("goodput_per_s"),
        curves,
        top: None,
    }
    .write(run, out);
}

/// Utilization and queues of the components where they are highest.
fn components(run: &Run, out: &mut String) {
    let parts = |column: fn(&SubjectRun) -> &[f32]| {
        let mut subjects: Vec<(f32, &SubjectRun)> = run
            .subjects
            .iter()
            .filter(|s| {
                matches!(
                    s.kind,
                    SubjectKind::Service
                        | SubjectKind::Store
                        | SubjectKind::Node
                        | SubjectKind::Topic
                        | SubjectKind::Consumer
                )
            })
            .map(|s| {
                (
                    column(s)
                        .iter()
                        .copied()
                        .filter(|v| v.is_finite())
                        .fold(0.0, f32::max),
                    s,
                )
            })
            .filter(|(peak, _)| *peak > 0.0)
            .collect();
        subjects.sort_by(|a, b| b.0.total_cmp(&a.0));
        subjects.truncate(CURVES);
        // Each keeps its place in the run's order, so that colours are alike from chart to chart.
        subjects.sort_by_key(|(_, s)| (s.kind, s.name.clone()));
        subjects
            .into_iter()
            .enumerate()
            .map(|(at, (_, s))| Curve {
                label: s.name.clone(),
                class: format!("c{at}"),
                values: column(s),
            })
            .collect::<Vec<_>>()
    };
    let utilization = parts(|s| &s.series.utilization);
    Chart {
        title: "Utilization",
        unit: Unit::Share,
        meaning: text_of("utilization"),
        curves: utilization,
        top: Some(1.0),
    }
    .write(run, out);
    let queues = parts(|s| &s.series.queue);
    Chart {
        title: "Waiting",
        unit: Unit::Count,
        meaning: text_of("queue_mean"),
        curves: queues,
        top: None,
    }
    .write(run, out);
}

/// How a service's requests are spread over its instances, where there are several.
fn instance_shares(run: &Run, out: &mut String) {
    let services = run
        .subjects
        .iter()
        .filter(|subject| subject.kind == SubjectKind::Service);
    let mut drawn = 0;
    for service in services {
        let prefix = format!("{}/", service.name);
        let instances: Vec<&SubjectRun> = run
            .subjects
            .iter()
            .filter(|s| {
                s.kind == SubjectKind::Instance
                    && s.name.starts_with(&prefix)
                    && !s.series.offered.is_empty()
            })
            .collect();
        if instances.len() < 2 || drawn == SHARED {
            continue;
        }
        drawn += 1;
        let curves: Vec<Curve<'_>> = instances
            .iter()
            .enumerate()
            .map(|(at, s)| Curve {
                label: s.name.clone(),
                class: format!("c{}", at % 6),
                values: &s.series.offered,
            })
            .collect();
        let meaning = "Share of the service's requests that each instance was given: even, unless one is down or slow.";
        shares("Share of each instance", meaning, &curves, run, out);
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
        let (class, mark) = if verdict.passed {
            ("good", "✓ met")
        } else {
            ("bad", "✗ missed")
        };
        let line = if verdict.line == 0 {
            "default".into()
        } else {
            verdict.line.to_string()
        };
        let why = verdict.why.as_ref().map_or(String::new(), |why| {
            format!("<div class=\"why\">{}</div>", escape(why))
        });
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

/// What callers saw.
pub(super) fn figures(run: &Run, out: &mut String) {
    let subjects = callers(run);
    if subjects.is_empty() {
        return;
    }
    out.push_str("<div class=\"scroll\"><table class=\"figures\"><thead><tr><th></th>");
    for name in ["goodput_per_s", "errors", "rejected"] {
        heading(name, out);
    }
    for name in [
        "latency_ms_p50",
        "latency_ms_p95",
        "latency_ms_p99",
        "latency_ms_p999",
        "latency_ms_max",
    ] {
        heading(name, out);
    }
    out.push_str("</tr></thead><tbody>\n");
    for subject in subjects.iter().take(ROWS) {
        let name = if subject.kind == SubjectKind::All {
            "all"
        } else {
            &subject.name
        };
        put!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
        cell(subject, "goodput_per_s", f64::NAN, out);
        cell(
            subject,
            "errors",
            share(subject, "errors", subject.totals.failed),
            out,
        );
        cell(
            subject,
            "rejected",
            share(subject, "rejected", subject.totals.rejected),
            out,
        );
        let points = [
            ("latency_ms_p50", 50.0),
            ("latency_ms_p95", 95.0),
            ("latency_ms_p99", 99.0),
            ("latency_ms_p999", 99.9),
        ];
        for (name, percentile) in points {
            cell(subject, name, percentile_ms(subject, name, percentile), out);
        }
        let max = if subject.latency.count() > 0 {
            millis(subject.latency.max_ms())
        } else {
            NONE.into()
        };
        put!(out, "<td class=\"n\">{max}</td></tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn heading(name: &str, out: &mut String) {
    if let Some(meaning) = meaning(name) {
        put!(
            out,
            "<th class=\"n\"><abbr title=\"{}\">{}</abbr></th>",
            escape(meaning.text),
            escape(meaning.label)
        );
    }
}

/// A figure with its interval on hover; `otherwise` where the run has no such figure.
fn cell(subject: &SubjectRun, name: &str, otherwise: f64, out: &mut String) {
    match subject.figure(name) {
        Some(figure) => {
            let interval =
                spread(figure).map_or(String::new(), |spread| format!("95% interval: {spread}"));
            put!(
                out,
                "<td class=\"n\" title=\"{}\">{}</td>",
                escape(&interval),
                show(name, figure.mean)
            );
        }
        None => put!(out, "<td class=\"n\">{}</td>", unit(name).show(otherwise)),
    }
}

/// How busy each component was.
pub(super) fn components_table(run: &Run, out: &mut String) {
    let subjects: Vec<&SubjectRun> = run
        .subjects
        .iter()
        .filter(|s| {
            !matches!(
                s.kind,
                SubjectKind::All | SubjectKind::Client | SubjectKind::Endpoint
            )
        })
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
    for name in [
        "errors",
        "latency_ms_p99",
        "utilization",
        "queue_mean",
        "amplification",
    ] {
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
        let queue = subject
            .figure("queue_mean")
            .map_or(String::new(), |figure| significant(figure.mean, 2));
        let attempts = subject
            .figure("amplification")
            .map_or(String::new(), |figure| significant(figure.mean, 3));
        let other: Vec<String> = ["hits", "trips", "ejections", "backlog_max"]
            .into_iter()
            .filter_map(|name| subject.figure(name).filter(|figure| figure.mean != 0.0))
            .map(|figure| {
                let label =
                    meaning(&figure.name).map_or(figure.name.as_str(), |meaning| meaning.label);
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
        put!(
            out,
            "<p class=\"more\">and {} more: see the JSON</p>",
            subjects.len() - ROWS
        );
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
