use plimsoll_model::run::{Run, SubjectKind, SubjectRun};

use super::calls_per_s;
use super::layout::Curve;
use crate::figures::share;
use crate::markup::{coordinate, escape, put};
use crate::number::{millis, percent, rate, significant};
use crate::topology::Link;

/// Width of a character of a label, about, px.
const CHARACTER: f64 = 6.2;

/// A rectangle that something takes up.
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
}

impl Area {
    fn meets(&self, other: &Area) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

/// A link on its way through the picture.
pub(super) struct Drawn<'a> {
    link: &'a Link,
    run: &'a Run,
    subject: Option<&'a SubjectRun>,
    curves: Vec<Curve>,
}

impl<'a> Drawn<'a> {
    pub(super) fn new(link: &'a Link, run: &'a Run, curves: Vec<Curve>) -> Self {
        Drawn { link, run, subject: run.subject(SubjectKind::Edge, &link.name), curves }
    }

    /// The line and its head.
    pub(super) fn path(&self, out: &mut String) {
        let (Some(first), Some(last)) = (self.curves.first(), self.curves.last()) else {
            return;
        };
        self.open(out);
        put!(
            out,
            "<path d=\"M{} {}{}\"/><path class=\"arrow\" d=\"M{} {}{}\"/></g>\n",
            coordinate(first.from.0),
            coordinate(first.from.1),
            self.curves.iter().map(Curve::path).collect::<String>(),
            coordinate(last.to.0),
            coordinate(last.to.1),
            if last.to.0 > first.from.0 { "l-8 -3.8v7.6Z" } else { "l8 -3.8v7.6Z" },
        );
    }

    /// The label, where it meets nothing that is drawn already.
    pub(super) fn label(&self, taken: &mut Vec<Area>, out: &mut String) {
        let mut label = self.subject.map_or(Vec::new(), |subject| link_label(self.run, subject));
        if self.gives_way() {
            label.push("gives way first".into());
        }
        let longest = label.iter().map(|line| line.chars().count()).max();
        let (Some(longest), Some(first)) = (longest, self.curves.first()) else {
            return;
        };
        let (w, h) = (longest as f64 * CHARACTER + 6.0, 14.0 * label.len() as f64 + 2.0);
        // On the line where that is steep, above it where it is level.
        let area = |(curve, t): (&Curve, f64)| {
            let (x, y) = curve.at(t);
            let lift = if (curve.to.1 - curve.from.1).abs() < 24.0 { h + 3.0 } else { h / 2.0 };
            Area { x: x - w / 2.0, y: y - lift, w, h }
        };
        let tries = self.curves.iter().flat_map(|curve| [0.5, 0.42, 0.6, 0.33, 0.7, 0.25, 0.8].map(|t| (curve, t)));
        let free = tries.map(area).find(|area| !taken.iter().any(|taken| taken.meets(area)));
        let area = free.unwrap_or_else(|| area((first, 0.5)));
        self.open(out);
        put!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\"/>",
            coordinate(area.x),
            coordinate(area.y),
            coordinate(area.w),
            coordinate(area.h)
        );
        for (at, line) in label.iter().enumerate() {
            let (x, y) = (coordinate(area.x + w / 2.0), coordinate(area.y + 11.5 + 14.0 * at as f64));
            put!(out, "<text x=\"{x}\" y=\"{y}\">{}</text>", escape(line));
        }
        out.push_str("</g>\n");
        taken.push(area);
    }

    /// Whether the link itself is what gives way: its pool of connections, or its policies.
    fn gives_way(&self) -> bool {
        self.run.bottlenecks.first().is_some_and(|first| first.component == self.link.name)
    }

    fn open(&self, out: &mut String) {
        let failing = self.subject.is_some_and(|s| share(s, "errors", s.totals.failed) > 0.01);
        let failing = if failing { " failing" } else { "" };
        let gives = if self.gives_way() { " gives" } else { "" };
        put!(out, "<g class=\"link{failing}{gives}\"><title>{}</title>", escape(&link_title(self.link, self.subject)));
    }
}

/// The rate of calls and, under it, what a breaker did.
fn link_label(run: &Run, subject: &SubjectRun) -> Vec<String> {
    let calls = calls_per_s(run, subject);
    if calls.is_nan() {
        return Vec::new();
    }
    let trips = subject.figure("trips").map_or(0.0, |figure| figure.mean);
    let mut lines = vec![rate(calls)];
    if trips >= 0.5 {
        lines.push(format!("{} trips", significant(trips, 2)));
    }
    lines
}

fn link_title(link: &Link, subject: Option<&SubjectRun>) -> String {
    let Some(subject) = subject else {
        return link.name.clone();
    };
    let mut parts = vec![format!("{} errors", percent(share(subject, "errors", subject.totals.failed)))];
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
