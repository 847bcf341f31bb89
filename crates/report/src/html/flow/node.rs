use plimsoll_model::run::{Run, SubjectKind};

use super::layout::NODE;
use super::{Shown, calls_per_s, level};
use crate::figures::share;
use crate::markup::{coordinate, escape, put};
use crate::number::{millis, percent, rate, significant};
use crate::text::{clean, cut, width};
use crate::topology::Node;

/// A component's box at `x`, `y`: its name, what it is, and how busy it is under each run.
pub(super) fn draw(node: &Node, x: f64, y: f64, shown: &[Shown<'_>], gives: bool, out: &mut String) {
    let busy: Vec<Option<f64>> = shown.iter().map(|shown| utilization(node, shown.run)).collect();
    let last = busy.last().copied().flatten();
    let class = last.map_or("idle", level);
    put!(
        out,
        "<g class=\"node {class}{}\" transform=\"translate({} {})\"><title>{}</title><rect width=\"{}\" height=\"{}\" \
         rx=\"7\"/>",
        if gives { " gives" } else { "" },
        coordinate(x),
        coordinate(y),
        escape(&node_title(node, shown)),
        NODE.0,
        NODE.1,
    );
    let numbers: Vec<String> = busy.iter().flatten().map(|busy| whole_percent(*busy)).collect();
    let value = if node.kind == SubjectKind::Client { client(node, shown) } else { numbers.join(" → ") };
    let room = 21usize.saturating_sub(width(&value));
    put!(
        out,
        "<text class=\"name\" x=\"10\" y=\"21\">{}</text><text class=\"value\" x=\"{}\" y=\"21\">{}</text><text \
         class=\"text\" x=\"10\" y=\"37\">{}</text>",
        escape(&cut(&clean(&node.name), room.max(6))),
        NODE.0 - 10.0,
        escape(&value),
        escape(&cut(&clean(&node.text), 25)),
    );
    for (at, busy) in busy.iter().enumerate() {
        if let Some(busy) = busy {
            let (y, h) = if shown.len() > 1 { (43.0 + 6.0 * at as f64, 4.0) } else { (45.0, 5.0) };
            let full = NODE.0 - 20.0;
            put!(
                out,
                "<rect class=\"track\" x=\"10\" y=\"{y}\" width=\"{full}\" height=\"{h}\" rx=\"2\"/><rect class=\"bar \
                 {}\" x=\"10\" y=\"{y}\" width=\"{}\" height=\"{h}\" rx=\"2\"/>",
                level(*busy),
                coordinate(full * busy.clamp(0.0, 1.0)),
            );
        }
    }
    if gives {
        put!(out, "<text class=\"tag\" x=\"{}\" y=\"-5\">gives way first</text>", NODE.0 / 2.0);
    }
    out.push_str("</g>\n");
}

fn whole_percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => "<1%".into(),
        percent => format!("{percent:.0}%"),
    }
}

/// What a client asks for under each run.
fn client(node: &Node, shown: &[Shown<'_>]) -> String {
    let rates: Vec<String> = shown
        .iter()
        .filter_map(|shown| shown.run.subject(node.kind, &node.name).map(|subject| calls_per_s(shown.run, subject)))
        .filter(|rate| rate.is_finite())
        .map(rate)
        .collect();
    rates.last().cloned().unwrap_or_default()
}

fn node_title(node: &Node, shown: &[Shown<'_>]) -> String {
    let mut text = format!("{}: {}", node.name, node.text);
    for shown in shown {
        if shown.label.is_empty() {
            text.push_str(". ");
        } else {
            text.push_str(&format!(". {}: ", shown.label));
        }
        let Some(subject) = shown.run.subject(node.kind, &node.name) else {
            continue;
        };
        let mut parts: Vec<String> = subject
            .figures
            .iter()
            .filter(|figure| figure.name == "utilization")
            .map(|figure| format!("{} {} busy", figure.detail.as_deref().unwrap_or("resource"), percent(figure.mean)))
            .collect();
        parts.push(format!("{} errors", percent(share(subject, "errors", subject.totals.failed))));
        if let Some(figure) = subject.figure("latency_ms_p99") {
            parts.push(format!("p99 {}", millis(figure.mean)));
        }
        if let Some(figure) = subject.figure("queue_mean") {
            parts.push(format!("{} waiting", significant(figure.mean, 2)));
        }
        text.push_str(&parts.join(", "));
    }
    text
}

/// The busiest of a component's resources, 0 to 1. A consumer's handlers are measured as the
/// service that runs them.
fn utilization(node: &Node, run: &Run) -> Option<f64> {
    let kinds = match node.kind {
        SubjectKind::Consumer => [node.kind, SubjectKind::Service],
        kind => [kind, kind],
    };
    kinds
        .into_iter()
        .filter_map(|kind| run.subject(kind, &node.name))
        .flat_map(|subject| &subject.figures)
        .filter(|figure| figure.name == "utilization" && figure.mean.is_finite())
        .map(|figure| figure.mean)
        .max_by(f64::total_cmp)
}
