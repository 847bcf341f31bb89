//! A chart over time. The drawing stretches with the page while its labels, which are HTML, keep
//! their size; all charts of a run have the same margins, so that their time axes line up.

use plimsoll_model::run::{FaultSpan, Run};

use crate::downsample::{extremes, means};
use crate::figures::Unit;
use crate::markup::{coordinate, escape, put};
use crate::number::significant;
use crate::svg::{Scale, time_step};
use crate::words::clock;

/// Parts that a series is cut into for drawing; each keeps its least and greatest value.
const BUCKETS: usize = 110;
/// Units of the drawing's own axes, stretched to the size on the page.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;

/// A line of a chart.
pub(super) struct Curve<'a> {
    pub(super) label: String,
    /// Class that gives it its colour and stroke: `c0`, `c1 thin`.
    pub(super) class: String,
    pub(super) values: &'a [f32],
}

/// What a chart shows, and of which run.
pub(super) struct Chart<'a> {
    pub(super) title: String,
    pub(super) unit: Unit,
    /// What the chart means, for those who hover over its title.
    pub(super) meaning: &'static str,
    pub(super) curves: Vec<Curve<'a>>,
    /// The vertical axis ends here, whatever the values: for shares.
    pub(super) top: Option<f64>,
}

impl Chart<'_> {
    /// Writes the chart, unless there is nothing to draw.
    pub(super) fn write(&self, run: &Run, out: &mut String) {
        let values =
            || self.curves.iter().flat_map(|curve| curve.values).filter(|v| v.is_finite()).map(|v| f64::from(*v));
        if values().next().is_none() {
            return;
        }
        let high = values().fold(0.0, f64::max);
        let low = values().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        let scale = match self.top {
            Some(top) => Scale { low: 0.0, high: top, log: false },
            // From milliseconds to seconds only a logarithmic axis shows both.
            None if self.unit == Unit::Millis && high / low > 40.0 => Scale::decades(low, high),
            None => Scale::from_zero(high),
        };
        let curves: Vec<(String, String, String)> = self
            .curves
            .iter()
            .filter(|curve| curve.values.iter().any(|value| value.is_finite()))
            .map(|curve| (curve.label.clone(), curve.class.clone(), path(curve.values, &scale)))
            .collect();
        let frame = Frame { title: &self.title, meaning: self.meaning, unit: self.unit, scale, filled: false };
        frame.write(run, &curves, out);
    }
}

/// The shares of several series in their sum, one on the other, up to all of it.
pub(super) fn shares(title: &str, meaning: &str, curves: &[Curve<'_>], run: &Run, out: &mut String) {
    let columns: Vec<Vec<f64>> = curves.iter().map(|curve| means(curve.values, BUCKETS)).collect();
    let n = columns.iter().map(Vec::len).max().unwrap_or(0);
    if n < 2 || columns.iter().any(|column| column.len() != n) {
        return;
    }
    let sums: Vec<f64> = (0..n).map(|at| columns.iter().map(|column| column[at].max(0.0)).sum()).collect();
    let mut below = vec![0.0; n];
    let mut areas = Vec::new();
    for (curve, column) in curves.iter().zip(&columns) {
        let above: Vec<f64> =
            (0..n).map(|at| below[at] + if sums[at] > 0.0 { column[at].max(0.0) / sums[at] } else { 0.0 }).collect();
        let x = |at: usize| coordinate((at as f64 + 0.5) / n as f64 * WIDTH);
        let y = |share: f64| coordinate((1.0 - share) * HEIGHT);
        let up = (0..n).map(|at| format!("{} {}", x(at), y(above[at]))).collect::<Vec<_>>().join(" ");
        let back = (0..n).rev().map(|at| format!("{} {}", x(at), y(below[at]))).collect::<Vec<_>>().join(" ");
        areas.push((curve.label.clone(), curve.class.clone(), format!("M{up} {back}Z")));
        below = above;
    }
    let scale = Scale { low: 0.0, high: 1.0, log: false };
    Frame { title, meaning, unit: Unit::Share, scale, filled: true }.write(run, &areas, out);
}

/// The axes, legend and shading around a drawing.
struct Frame<'a> {
    title: &'a str,
    meaning: &'a str,
    unit: Unit,
    scale: Scale,
    filled: bool,
}

impl Frame<'_> {
    fn write(&self, run: &Run, curves: &[(String, String, String)], out: &mut String) {
        let seconds = seconds(run);
        let (unit, factor) = self.axis();
        let names = curves.iter().map(|(label, _, _)| label.as_str()).collect::<Vec<_>>().join(", ");
        put!(
            out,
            "<figure class=\"chart\"><figcaption><span class=\"what\" title=\"{}\">{}</span> <span class=\"unit\">{unit}\
             </span><span class=\"legend\">",
            escape(self.meaning),
            escape(self.title),
        );
        for (label, class, _) in curves {
            put!(
                out,
                "<span class=\"key\" title=\"{label}\"><i class=\"{class}{}\"></i><span>{label}</span><output></output></span>",
                if self.filled { " area" } else { "" },
                label = escape(label)
            );
        }
        put!(
            out,
            "</span></figcaption><div class=\"plot\" tabindex=\"0\" role=\"group\" data-low=\"{}\" data-high=\"{}\" \
             data-log=\"{}\" data-unit=\"{unit}\" data-seconds=\"{seconds}\" data-filled=\"{}\" aria-label=\"{}: {}. Arrow \
             keys read values.\">",
            self.scale.low * factor,
            self.scale.high * factor,
            u8::from(self.scale.log),
            u8::from(self.filled),
            escape(self.title),
            escape(&names),
        );
        for tick in self.scale.ticks() {
            let (at, label) = (coordinate(self.scale.share(tick) * 100.0), significant(tick * factor, 2));
            put!(out, "<span class=\"y\" style=\"bottom:{at}%\">{label}</span>");
        }
        put!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
        shade(&run.faults, seconds, out);
        let step = time_step(seconds);
        let upright: String = (1..)
            .map(|tick| f64::from(tick) * step)
            .take_while(|tick| *tick < seconds)
            .map(|tick| format!("M{} 0V{HEIGHT}", coordinate(tick / seconds * WIDTH)))
            .collect();
        put!(out, "<path class=\"grid upright\" d=\"{upright}\"/>");
        for tick in self.scale.ticks() {
            put!(
                out,
                "<path class=\"grid\" d=\"M0 {}H{WIDTH}\"/>",
                coordinate((1.0 - self.scale.share(tick)) * HEIGHT)
            );
        }
        for (_, class, path) in curves {
            put!(out, "<path class=\"{} {class}\" d=\"{path}\"/>", if self.filled { "area" } else { "curve" });
        }
        out.push_str("</svg></div></figure>\n");
    }

    /// The unit of the axis, and what a value is multiplied by to be in it.
    fn axis(&self) -> (&'static str, f64) {
        match self.unit {
            Unit::PerSecond => ("/s", 1.0),
            Unit::Share => ("%", 100.0),
            Unit::Millis if !self.scale.log && self.scale.high >= 5000.0 => ("s", 1e-3),
            Unit::Millis => ("ms", 1.0),
            Unit::Count => ("", 1.0),
        }
    }
}

/// The shaded spans of the faults.
fn shade(faults: &[FaultSpan], seconds: f64, out: &mut String) {
    for fault in faults {
        let (from, to) = (share_of(fault.at_ns, seconds), share_of(fault.until_ns, seconds));
        put!(
            out,
            "<rect class=\"shade\" x=\"{}\" width=\"{}\" height=\"{HEIGHT}\"/>",
            coordinate(from * WIDTH),
            coordinate(((to - from) * WIDTH).max(1.0))
        );
    }
}

fn path(values: &[f32], scale: &Scale) -> String {
    // A second's value stands in the middle of the second.
    let x = |at: usize| coordinate((at as f64 + 0.5) / values.len() as f64 * WIDTH);
    let y = |value: f32| coordinate((1.0 - scale.share(f64::from(value))) * HEIGHT);
    let mut path = String::new();
    let points = extremes(values, BUCKETS);
    let step = values.len().div_ceil(BUCKETS).max(1);
    let mut last: Option<usize> = None;
    for (at, value) in points {
        // Where there are no numbers, as of an instance that is down, the line has a gap.
        let joined = last.is_some_and(|last| at - last <= step * 2);
        path.push_str(if joined { " " } else { "M" });
        path.push_str(&format!("{} {}", x(at), y(value)));
        last = Some(at);
    }
    path
}

/// The time axis under the charts of a run, with the faults named over it.
pub(super) fn time_axis(run: &Run, out: &mut String) {
    let seconds = seconds(run);
    let step = time_step(seconds);
    out.push_str("<div class=\"time\" aria-hidden=\"true\">");
    let mut tick = 0.0;
    while tick <= seconds * 1.000_001 {
        let label = if seconds >= 600.0 {
            format!("{} min", significant(tick / 60.0, 3))
        } else {
            format!("{} s", significant(tick, 3))
        };
        put!(out, "<span style=\"left:{}%\">{label}</span>", coordinate(tick / seconds * 100.0));
        tick += step;
    }
    out.push_str("</div>\n");
}

/// Bars that name the faults, over the charts.
pub(super) fn fault_axis(run: &Run, out: &mut String) {
    if run.faults.is_empty() {
        return;
    }
    let seconds = seconds(run);
    out.push_str("<div class=\"faults\">");
    for fault in &run.faults {
        let (from, to) = (share_of(fault.at_ns, seconds), share_of(fault.until_ns, seconds));
        let text = format!("{}, {} to {}", fault.text, clock(fault.at_ns), clock(fault.until_ns));
        // What starts late has its text to the left, where there is room.
        let side = if from > 0.6 { " left" } else { "" };
        put!(
            out,
            "<div class=\"lane\"><span class=\"bar fault{side}\" style=\"left:{}%;width:{}%\" title=\"{}\"><b>{}</b></span></div>",
            coordinate(from * 100.0),
            coordinate(((to - from) * 100.0).max(0.3)),
            escape(&text),
            escape(&fault.text)
        );
    }
    out.push_str("</div>\n");
}

/// The length of a run's time axis, s.
pub(super) fn seconds(run: &Run) -> f64 {
    (run.duration_ns as f64 / 1e9).max(0.001)
}

/// Where a time lies on the axis, 0 to 1.
pub(super) fn share_of(at_ns: u64, seconds: f64) -> f64 {
    (at_ns as f64 / 1e9 / seconds).clamp(0.0, 1.0)
}
