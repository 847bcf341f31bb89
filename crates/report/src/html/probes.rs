//! The across that a search tried, with what came of each: where the line is, and how steep.

use plimsoll_model::run::{Mark, Probe};

use crate::markup::{coordinate, escape, put};
use crate::number::{millis, percent, rate, significant};
use crate::svg::Scale;
use crate::words::Loads;

/// The curve of one quantity over the across.
struct Quantity {
    title: &'static str,
    unit: &'static str,
    scale: Scale,
    factor: f64,
    value: fn(&Probe) -> f64,
}

/// The probes of a mark: the tail latency and the errors over the load, and the same as a table.
pub(super) fn write(mark: &Mark, loads: Loads, out: &mut String) {
    let mut probes: Vec<&Probe> =
        mark.probes.iter().filter(|probe| probe.load.is_finite() && probe.load > 0.0).collect();
    if probes.len() < 2 {
        return;
    }
    probes.sort_by(|a, b| a.load.total_cmp(&b.load));
    let highest = probes.last().map_or(1.0, |probe| probe.load);
    let across = Scale::from_zero(highest);
    let finite = |value: fn(&Probe) -> f64| {
        probes.iter().map(|p| value(p)).filter(|v| v.is_finite() && *v > 0.0).collect::<Vec<_>>()
    };
    let latencies = finite(|probe| probe.p99_ms);
    let (low, high) =
        (latencies.iter().copied().fold(f64::INFINITY, f64::min), latencies.iter().copied().fold(0.0, f64::max));
    let latency = if high / low > 40.0 { Scale::decades(low, high) } else { Scale::from_zero(high) };
    let errors = Scale::from_zero(finite(|probe| probe.errors).into_iter().fold(0.001, f64::max));
    out.push_str("<div class=\"probes\">\n");
    for quantity in [
        Quantity { title: "p99 over load", unit: "ms", scale: latency, factor: 1.0, value: |probe| probe.p99_ms },
        Quantity { title: "Errors over load", unit: "%", scale: errors, factor: 100.0, value: |probe| probe.errors },
    ] {
        curve(&quantity, &probes, mark, &across, loads, out);
    }
    out.push_str("</div>\n");
    table(&probes, loads, out);
}

fn curve(quantity: &Quantity, probes: &[&Probe], mark: &Mark, across: &Scale, loads: Loads, out: &mut String) {
    let x = |load: f64| across.share(load) * 1000.0;
    let y = |value: f64| (1.0 - quantity.scale.share(value)) * 100.0;
    put!(
        out,
        "<figure class=\"chart\"><figcaption><span class=\"what\" title=\"While the fault lasted.\">{}</span> <span \
         class=\"unit\">{}</span><span class=\"legend\"><span class=\"key\"><i class=\"held\"></i>held</span><span \
         class=\"key\"><i class=\"not\"></i>did not</span></span></figcaption><div class=\"plot still\">",
        quantity.title,
        quantity.unit
    );
    for tick in quantity.scale.ticks() {
        let at = coordinate(quantity.scale.share(tick) * 100.0);
        put!(out, "<span class=\"y\" style=\"bottom:{at}%\">{}</span>", significant(tick * quantity.factor, 2));
    }
    put!(
        out,
        "<svg viewBox=\"0 0 1000 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        escape(&format!("{} of {}: the table below has the values", quantity.title, mark.weather.name))
    );
    for tick in quantity.scale.ticks() {
        put!(out, "<path class=\"grid\" d=\"M0 {}H1000\"/>", coordinate(y(tick)));
    }
    if mark.low.is_finite() && mark.high.is_finite() && mark.high > mark.low {
        let (low, high) = (x(mark.low), x(mark.high));
        put!(
            out,
            "<rect class=\"bracket\" x=\"{}\" width=\"{}\" height=\"100\"/>",
            coordinate(low),
            coordinate((high - low).max(1.5))
        );
    }
    let today = loads.today;
    if today.is_finite() && today > 0.0 && today <= across.high {
        put!(out, "<path class=\"today\" d=\"M{} 0V100\"/>", coordinate(x(today)));
    }
    let points: Vec<(f64, f64, bool)> = probes
        .iter()
        .map(|probe| (probe.load, (quantity.value)(probe), probe.held))
        .filter(|(_, value, _)| value.is_finite())
        .collect();
    let line: Vec<String> =
        points.iter().map(|(load, value, _)| format!("{} {}", coordinate(x(*load)), coordinate(y(*value)))).collect();
    if !line.is_empty() {
        put!(out, "<path class=\"curve c6\" d=\"M{}\"/>", line.join(" "));
    }
    for (class, wanted) in [("held", true), ("not", false)] {
        let dots: String = points
            .iter()
            .filter(|(_, _, held)| *held == wanted)
            .map(|(load, value, _)| format!("M{} {}h0", coordinate(x(*load)), coordinate(y(*value))))
            .collect();
        put!(out, "<path class=\"dots {class}\" d=\"{dots}\"/>");
    }
    out.push_str("</svg></div><div class=\"time\" aria-hidden=\"true\">");
    for tick in across.ticks() {
        put!(out, "<span style=\"left:{}%\">{}</span>", coordinate(across.share(tick) * 100.0), loads.short(tick));
    }
    out.push_str("</div></figure>\n");
}

fn table(probes: &[&Probe], loads: Loads, out: &mut String) {
    put!(
        out,
        "<details class=\"minor\"><summary>{} probes as a table</summary><div class=\"scroll\"><table><thead><tr><th \
         class=\"n\">load</th><th class=\"n\">requests</th><th>held</th><th>recovered</th><th class=\"n\">goodput</th><th class=\"n\">errors</th><th \
         class=\"n\">p99</th><th class=\"n\">replications</th></tr></thead><tbody>\n",
        probes.len()
    );
    for probe in probes {
        let say = |yes: bool| {
            if yes { "<td class=\"good\">yes</td>" } else { "<td class=\"bad\">no</td>" }
        };
        put!(
            out,
            "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td>{}{}<td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td \
             class=\"n\">{}</td></tr>\n",
            loads.short(probe.load),
            rate(probe.requests_per_s),
            say(probe.held),
            say(probe.recovered),
            rate(probe.goodput_per_s),
            percent(probe.errors),
            millis(probe.p99_ms),
            probe.replications
        );
    }
    out.push_str("</tbody></table></div></details>\n");
}
