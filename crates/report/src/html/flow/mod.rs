//! The topology with what flows through it: a box a component, as dark as it is busy, and an arrow
//! a call with its rate.

mod layout;
mod link;
mod node;

use plimsoll_model::run::{Run, SubjectRun};

use self::layout::{Layout, MARGIN, NODE, curves, layout};
use self::link::{Area, Drawn};
use crate::markup::{coordinate, escape, put};
use crate::number::ratio;
use crate::topology::Topology;
use crate::words::gives_way_why;

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
    let Layout { nodes: places, through } = layout(topology);
    let lowest = through.iter().flatten().map(|(_, y)| y + MARGIN).fold(0.0, f64::max);
    let extent = |f: fn(&(f64, f64)) -> f64, size: f64| places.iter().map(f).fold(0.0, f64::max) + size + MARGIN;
    let (wide, high) = (extent(|p| p.0, NODE.0), extent(|p| p.1, NODE.1).max(lowest) + 6.0);
    put!(
        out,
        "<div class=\"flow\"><svg viewBox=\"0 0 {} {}\" style=\"min-width:{}px;max-width:{}px\" role=\"img\" aria-label=\"{}\">\n",
        coordinate(wide),
        coordinate(high),
        coordinate(wide * 0.62),
        coordinate(wide * 1.15),
        escape(&summary(topology, last.run)),
    );
    let mut taken: Vec<Area> = places.iter().map(|(x, y)| Area { x: *x, y: *y, w: NODE.0, h: NODE.1 }).collect();
    let drawn: Vec<Drawn<'_>> = topology
        .links
        .iter()
        .zip(&through)
        .map(|(link, through)| Drawn::new(link, last.run, curves(places[link.from], places[link.to], through)))
        .collect();
    drawn.iter().for_each(|link| link.path(out));
    // Labels last, so that no line runs through one.
    drawn.iter().for_each(|link| link.label(&mut taken, out));
    let first = last.run.bottlenecks.first().map(|first| first.component.as_str());
    for (node, (x, y)) in topology.nodes.iter().zip(&places) {
        // `db/replica-1` gives way inside of `db`.
        let gives = first.is_some_and(|first| first == node.name || first.split('/').next() == Some(&node.name));
        node::draw(node, *x, *y, shown, gives, out);
    }
    out.push_str("</svg></div>\n");
}

/// Calls a second that a subject was asked for.
fn calls_per_s(run: &Run, subject: &SubjectRun) -> f64 {
    match subject.figure("offered_per_s") {
        Some(figure) => figure.mean,
        None => {
            let seconds = run.duration_ns as f64 / 1e9 * f64::from(run.replications.max(1));
            ratio(subject.totals.offered as f64, seconds)
        }
    }
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
    let first =
        run.bottlenecks.first().map_or(String::new(), |first| format!("; gives way first: {}", gives_way_why(first)));
    format!("{} components and {} links between them{first}", topology.nodes.len(), topology.links.len())
}
