//! The topology with what flows through it: a box a component, as dark as it is busy, and an arrow
//! a call with its rate.

use plimsoll_model::run::{Run, SubjectKind, SubjectRun};

use crate::figures::share;
use crate::markup::{coordinate, escape, put};
use crate::number::{millis, percent, rate, ratio, significant};
use crate::text::{clean, cut, width};
use crate::topology::{Link, Node, Topology};
use crate::words::gives_way;

const NODE: (f64, f64) = (158.0, 58.0);
const GAP: (f64, f64) = (104.0, 26.0);
const MARGIN: f64 = 14.0;
/// Width of a character of a label, about, px.
const CHARACTER: f64 = 6.2;

/// A run to draw, and what to call it where there are two.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) label: &'a str,
    pub(super) run: &'a Run,
}

/// The topology under one run, or under two, of which the last colours it.
pub(super) fn draw(topology: &Topology, shown: &[Shown<'_>], out: &mut String) {
    let Some(last) = shown.last() else { return };
    if topology.nodes.is_empty() {
        return;
    }
    let places = places(topology);
    let extent = |f: fn(&(f64, f64)) -> f64, size: f64| {
        places.iter().map(f).fold(0.0, f64::max) + size + MARGIN
    };
    let (wide, high) = (extent(|p| p.0, NODE.0), extent(|p| p.1, NODE.1) + 6.0);
    put!(
        out,
        "<div class=\"flow\"><svg viewBox=\"0 0 {} {}\" style=\"min-width:{}px\" role=\"img\" aria-label=\"{}\">\n",
        coordinate(wide),
        coordinate(high),
        coordinate(wide * 0.62),
        escape(&summary(topology, last.run)),
    );
    let mut taken: Vec<Area> = places
        .iter()
        .map(|(x, y)| Area {
            x: *x,
            y: *y,
            w: NODE.0,
            h: NODE.1,
        })
        .collect();
    for link in &topology.links {
        draw_link(link, &places, last.run, &mut taken, out);
    }
    let first = last
        .run
        .bottlenecks
        .first()
        .map(|first| first.component.as_str());
    for (node, (x, y)) in topology.nodes.iter().zip(&places) {
        // `db/replica-1` gives way inside of `db`.
        let gives = first
            .is_some_and(|first| first == node.name || first.split('/').next() == Some(&node.name));
        draw_node(node, *x, *y, shown, gives, out);
    }
    out.push_str("</svg></div>\n");
}

/// The upper left corner of every node.
fn places(topology: &Topology) -> Vec<(f64, f64)> {
    let layers = topology.layers();
    let depth = layers.iter().max().map_or(0, |last| last + 1);
    let mut columns: Vec<Vec<usize>> = (0..depth)
        .map(|layer| {
            (0..layers.len())
                .filter(|at| layers[*at] == layer)
                .collect()
        })
        .collect();
    let mut rank: Vec<f64> = vec![0.0; layers.len()];
    let number = |columns: &Vec<Vec<usize>>, rank: &mut Vec<f64>| {
        for column in columns {
            for (at, node) in column.iter().enumerate() {
                rank[*node] = at as f64 - (column.len() - 1) as f64 / 2.0;
            }
        }
    };
    number(&columns, &mut rank);
    // Barycentres, forth and back: a node stands beside those that it is linked with.
    for sweep in 0..6 {
        for column in &mut columns {
            let mut keyed: Vec<(f64, usize)> = column
                .iter()
                .map(|node| {
                    let beside: Vec<f64> = topology
                        .links
                        .iter()
                        .filter_map(|link| match (link.from == *node, link.to == *node) {
                            (true, false) if sweep % 2 == 1 => Some(rank[link.to]),
                            (false, true) if sweep % 2 == 0 => Some(rank[link.from]),
                            _ => None,
                        })
                        .collect();
                    let mean = beside.iter().sum::<f64>() / beside.len() as f64;
                    (if beside.is_empty() { rank[*node] } else { mean }, *node)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            *column = keyed.into_iter().map(|(_, node)| node).collect();
        }
        number(&columns, &mut rank);
    }
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let height = tallest * (NODE.1 + GAP.1) - GAP.1;
    let mut places = vec![(0.0, 0.0); layers.len()];
    for (layer, column) in columns.iter().enumerate() {
        let n = column.len() as f64;
        // Few in a column stand further apart, about the middle.
        let step = (NODE.1 + GAP.1).max((height / n).min((NODE.1 + GAP.1) * 1.6));
        let top = MARGIN + 8.0 + (height - (step * (n - 1.0) + NODE.1)) / 2.0;
        for (at, node) in column.iter().enumerate() {
            places[*node] = (
                MARGIN + layer as f64 * (NODE.0 + GAP.0),
                top + at as f64 * step,
            );
        }
    }
    places
}

struct Area {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

impl Area {
    fn meets(&self, other: &Area) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

fn draw_link(
    link: &Link,
    places: &[(f64, f64)],
    run: &Run,
    taken: &mut Vec<Area>,
    out: &mut String,
) {
    let ((ax, ay), (bx, by)) = (places[link.from], places[link.to]);
    let mid = NODE.1 / 2.0;
    let forward = bx > ax;
    // From the right side to the left one; back along the lower edges where it leads back.
    let (x0, y0, x3, y3) = if forward {
        (ax + NODE.0, ay + mid, bx - 2.0, by + mid)
    } else {
        (ax, ay + mid + 14.0, bx + NODE.0 + 2.0, by + mid + 14.0)
    };
    let bend = if forward {
        ((x3 - x0) * 0.5).clamp(30.0, 140.0)
    } else {
        -60.0
    };
    let (x1, x2) = (x0 + bend, x3 - bend);
    let at = |t: f64| {
        let u = 1.0 - t;
        let along = |a: f64, b: f64, c: f64, d: f64| {
            u * u * u * a + 3.0 * u * u * t * b + 3.0 * u * t * t * c + t * t * t * d
        };
        (along(x0, x1, x2, x3), along(y0, y0, y3, y3))
    };
    let subject = run.subject(SubjectKind::Edge, &link.name);
    let failing = subject.is_some_and(|s| share(s, "errors", s.totals.failed) > 0.01);
    put!(
        out,
        "<g class=\"link{}\"><title>{}</title><path d=\"M{} {}C{} {} {} {} {} {}\"/><path \
         class=\"arrow\" d=\"M{} {}{}\"/>",
        if failing { " failing" } else { "" },
        escape(&link_title(link, subject)),
        coordinate(x0),
        coordinate(y0),
        coordinate(x1),
        coordinate(y0),
        coordinate(x2),
        coordinate(y3),
        coordinate(x3),
        coordinate(y3),
        coordinate(x3),
        coordinate(y3),
        if forward {
            "l-8 -3.8v7.6Z"
        } else {
            "l8 -3.8v7.6Z"
        },
    );
    if let Some(label) = subject.and_then(|subject| link_label(run, subject)) {
        let w = label.chars().count() as f64 * CHARACTER + 8.0;
        let area = |t| {
            let (x, y): (f64, f64) = at(t);
            Area {
                x: x - w / 2.0,
                y: y - 9.0,
                w,
                h: 17.0,
            }
        };
        let free = [0.5, 0.42, 0.6, 0.33, 0.7, 0.25, 0.8]
            .into_iter()
            .map(area)
            .find(|area| !taken.iter().any(|t| t.meets(area)));
        let area = free.unwrap_or_else(|| area(0.5));
        put!(
            out,
            "<text x=\"{}\" y=\"{}\">{}</text>",
            coordinate(area.x + w / 2.0),
            coordinate(area.y + 13.0),
            escape(&label)
        );
        taken.push(area);
    }
    out.push_str("</g>\n");
}

/// The rate of calls and what a breaker did: `2,040/s, 3 trips`.
fn link_label(run: &Run, subject: &SubjectRun) -> Option<String> {
    let calls = calls_per_s(run, subject);
    if calls.is_nan() {
        return None;
    }
    let trips = subject.figure("trips").map_or(0.0, |figure| figure.mean);
    let trips = if trips >= 0.5 {
        format!(", {} trips", significant(trips, 2))
    } else {
        String::new()
    };
    Some(format!("{}{trips}", rate(calls)))
}

fn calls_per_s(run: &Run, subject: &SubjectRun) -> f64 {
    match subject.figure("offered_per_s") {
        Some(figure) => figure.mean,
        None => {
            let seconds = run.duration_ns as f64 / 1e9 * f64::from(run.replications.max(1));
            ratio(subject.totals.offered as f64, seconds)
        }
    }
}

fn link_title(link: &Link, subject: Option<&SubjectRun>) -> String {
    let Some(subject) = subject else {
        return link.name.clone();
    };
    let mut parts = vec![format!(
        "{} errors",
        percent(share(subject, "errors", subject.totals.failed))
    )];
    if let Some(figure) = subject.figure("latency_ms_p99") {
        parts.push(format!("p99 {}", millis(figure.mean)));
    }
    if let Some(figure) = subject.figure("amplification") {
        parts.push(format!("{} attempts a call", significant(figure.mean, 3)));
    }
    if let Some(figure) = subject.figure("trips") {
        parts.push(format!("{} breaker trips", significant(figure.mean, 2)));
    }
    if let Some(figure) = subject.figure("ejections") {
        parts.push(format!("{} ejections", significant(figure.mean, 2)));
    }
    format!("{}: {}", link.name, parts.join(", "))
}

fn draw_node(node: &Node, x: f64, y: f64, shown: &[Shown<'_>], gives: bool, out: &mut String) {
    let busy: Vec<Option<f64>> = shown
        .iter()
        .map(|shown| utilization(node, shown.run))
        .collect();
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
    let numbers: Vec<String> = busy
        .iter()
        .flatten()
        .map(|busy| format!("{}%", significant(busy * 100.0, 2)))
        .collect();
    let value = if node.kind == SubjectKind::Client {
        client(node, shown)
    } else {
        numbers.join(" → ")
    };
    let room = 23usize.saturating_sub(width(&value));
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
            let (y, h) = if shown.len() > 1 {
                (43.0 + 6.0 * at as f64, 4.0)
            } else {
                (45.0, 5.0)
            };
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
        put!(
            out,
            "<text class=\"tag\" x=\"{}\" y=\"-5\">gives way first</text>",
            NODE.0 / 2.0
        );
    }
    out.push_str("</g>\n");
}

/// What a client asks for under each run.
fn client(node: &Node, shown: &[Shown<'_>]) -> String {
    let rates: Vec<String> = shown
        .iter()
        .filter_map(|shown| {
            shown
                .run
                .subject(node.kind, &node.name)
                .map(|subject| calls_per_s(shown.run, subject))
        })
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
            .map(|figure| {
                format!(
                    "{} {} busy",
                    figure.detail.as_deref().unwrap_or("resource"),
                    percent(figure.mean)
                )
            })
            .collect();
        parts.push(format!(
            "{} errors",
            percent(share(subject, "errors", subject.totals.failed))
        ));
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

/// The busiest of a component's resources, 0 to 1.
fn utilization(node: &Node, run: &Run) -> Option<f64> {
    let subject = run.subject(node.kind, &node.name)?;
    subject
        .figures
        .iter()
        .filter(|figure| figure.name == "utilization" && figure.mean.is_finite())
        .map(|figure| figure.mean)
        .max_by(f64::total_cmp)
}

/// The class of a utilization; the number stands beside the colour.
pub(super) fn level(busy: f64) -> &'static str {
    match busy {
        busy if busy >= 0.95 => "u4",
        busy if busy >= 0.85 => "u3",
        busy if busy >= 0.7 => "u2",
        busy if busy >= 0.4 => "u1",
        _ => "u0",
    }
}

fn summary(topology: &Topology, run: &Run) -> String {
    let first = run.bottlenecks.first().map_or(String::new(), |first| {
        format!("; gives way first: {}", gives_way(first))
    });
    format!(
        "{} components and {} links between them{first}",
        topology.nodes.len(),
        topology.links.len()
    )
}
