//! What a gateway has counted: its own figures for Prometheus, of which two looks make what is new.

use std::collections::BTreeMap;

use plimsoll_gateway::figures::BUCKETS;
use plimsoll_model::run::{EventKind, Totals};
use plimsoll_model::system::{Component, EdgeId, ServiceKind, System};

use crate::layout::Layout;
use crate::stack::tells;
use crate::tally::{Delta, Of, Report};

/// The looks at one gateway's instance.
#[derive(Debug, Default)]
pub struct Looks {
    before: BTreeMap<String, f64>,
    at: u64,
}

/// Answers of the gateway's own that mean that it turned a request away.
const REJECTIONS: [&str; 6] = ["rate_limited", "max_in_flight", "limit", "bulkhead", "shed", "degraded"];

impl Looks {
    /// What is new in a page of figures, at a time in ns.
    pub fn new_in(&mut self, page: &str, now: u64, system: &System, layout: &Layout, of: (u32, u32)) -> Report {
        let after = read(page);
        let instance_of = |label: Option<&String>| layout.instance_at(system, label?.parse().ok()?);
        // One that started again counts from zero.
        let restarted = total(&after, "requests_total") < total(&self.before, "requests_total");
        if restarted {
            self.before.clear();
        }
        let first = self.at == 0;
        let length = now.saturating_sub(self.at);
        let grown = Grown { before: &self.before, after: &after };
        let mut report = Report::default();
        let service = &system.services[of.0 as usize];
        let name = crate::names::instance(system, of.0, of.1);

        let mut own = Delta::default();
        for (labels, count) in grown.each("requests_total") {
            let count = count as u64;
            own.totals.offered += count;
            match labels.get("code").map_or("", String::as_str) {
                "2xx" | "3xx" => own.totals.ok += count,
                _ => own.totals.failed += count,
            }
        }
        for (labels, count) in grown.each("own_answers_total") {
            match labels.get("reason").map_or("", String::as_str) {
                reason if REJECTIONS.contains(&reason) => own.totals.rejected += count as u64,
                "deadline" | "timeout" => own.totals.timed_out += count as u64,
                "fallback" => own.totals.degraded += count as u64,
                _ => {}
            }
        }
        times(&grown, "request_seconds", |_| true, &mut own);
        let held = after.get("plimsoll_in_flight").copied().unwrap_or(0.0);
        if !first {
            own.levels.insert("in_flight".to_owned(), (held * length as f64, held));
            own.levels.insert("max_in_flight".to_owned(), (held * length as f64, held));
        }
        report.deltas.push((Of::Instance(of.0, of.1), own));

        if let ServiceKind::Gateway(routes) = &service.kind {
            let mut edges: BTreeMap<EdgeId, Delta> = BTreeMap::new();
            let first_of = |edge: EdgeId| system.same_pair(edge).next().unwrap_or(edge);
            let edge_to = |target: &str| {
                let route = routes.iter().find(|route| system.services[route.to.service.index()].name == target);
                route.map(|route| first_of(route.edge))
            };
            for (labels, count) in grown.each("attempts_total") {
                let Some(target) = instance_of(labels.get("instance")) else { continue };
                let to = &system.services[target.0 as usize];
                let Some(edge) = edge_to(&to.name) else { continue };
                let count = count as u64;
                let mut totals = Totals { offered: count, ..Totals::default() };
                match labels.get("result").map_or("", String::as_str) {
                    "2xx" | "3xx" => totals.ok = count,
                    "timeout" => (totals.failed, totals.timed_out) = (count, count),
                    _ => totals.failed = count,
                }
                edges.entry(edge).or_default().totals.add(&totals);
                if !tells(to) {
                    report.deltas.push((Of::Instance(target.0, target.1), Delta { totals, ..Delta::default() }));
                }
            }
            let of_route = |labels: &Labels| {
                let name = labels.get("route").map_or("", String::as_str);
                let at = service.endpoints.iter().position(|endpoint| endpoint.name == name)?;
                routes.get(at).map(|route| first_of(route.edge))
            };
            for (labels, count) in grown.each("retries_total") {
                if let Some(edge) = of_route(&labels) {
                    edges.entry(edge).or_default().totals.retries += count as u64;
                }
            }
            for (labels, count) in grown.each("rescued_total") {
                if let Some(edge) = of_route(&labels) {
                    edges.entry(edge).or_default().totals.rescued += count as u64;
                }
            }
            for (edge, delta) in &mut edges {
                let Component::Service(to) = system.edges[edge.index()].to else { continue };
                let of_target =
                    |labels: &Labels| instance_of(labels.get("instance")).is_some_and(|target| target.0 == to.0);
                times(&grown, "attempt_seconds", of_target, delta);
            }
            for (labels, count) in grown.each("events_total") {
                let target = labels.get("target").map_or("", String::as_str);
                // A route with policies of its own is named after the service and its endpoint.
                let Some(edge) = edge_to(target.split(' ').next().unwrap_or(target)) else { continue };
                let name = match labels.get("event").map_or("", String::as_str) {
                    "trip" => "trips",
                    "ejection" => "ejections",
                    _ => continue,
                };
                *edges.entry(edge).or_default().extras.entry(name.to_owned()).or_default() += count;
            }
            report.deltas.extend(edges.into_iter().map(|(edge, delta)| (Of::Edge(edge.0), delta)));
        }
        if !first && !restarted {
            self.tell(&grown, &name, system, layout, &mut report);
        }
        (self.before, self.at) = (after, now);
        report
    }

    /// What has happened: breakers, ejections and health, as seen by this instance.
    fn tell(&self, grown: &Grown<'_>, name: &str, system: &System, layout: &Layout, report: &mut Report) {
        let instance_of = |label: Option<&String>| layout.instance_at(system, label?.parse().ok()?);
        let mut happened = |kind, subject: String, text: String| {
            report.events.push(crate::tally::Happening { ago_ns: 0, kind, subject, text });
        };
        for (labels, change) in grown.changes("breaker_state").filter(|(_, change)| *change > 0.0) {
            let edge = format!("{name} -> {}", labels.get("target").map_or("", String::as_str));
            let (kind, text) = match labels.get("state").map_or("", String::as_str) {
                "open" => (EventKind::BreakerOpen, "the breaker opens: calls fail at once"),
                "half_open" => (EventKind::BreakerHalfOpen, "the breaker lets probes through"),
                "ramping" => (EventKind::BreakerClosed, "the breaker closes, and lets more through bit by bit"),
                _ => (EventKind::BreakerClosed, "the breaker closes"),
            };
            let _ = change;
            happened(kind, edge, text.to_owned());
        }
        for (labels, change) in grown.changes("instance_state") {
            let Some((service, instance)) = instance_of(labels.get("instance")) else { continue };
            let subject = crate::names::instance(system, service, instance);
            let (kind, text) = match (labels.get("state").map_or("", String::as_str), change > 0.0) {
                ("ejected", true) => (EventKind::Ejected, "ejected: it fails more than its peers"),
                ("ejected", false) => (EventKind::Returned, "takes traffic again"),
                ("healthy", true) => (EventKind::Healthy, "passes its health checks"),
                ("healthy", false) => (EventKind::Unhealthy, "fails its health checks"),
                _ => continue,
            };
            happened(kind, subject, format!("{text} (seen by {name})"));
        }
    }
}

type Labels = BTreeMap<String, String>;

struct Grown<'p> {
    before: &'p BTreeMap<String, f64>,
    after: &'p BTreeMap<String, f64>,
}

impl Grown<'_> {
    fn of<'n>(&'n self, name: &'n str) -> impl Iterator<Item = (&'n String, Labels, f64)> + 'n {
        let start = format!("plimsoll_{name}{{");
        self.after.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(&start)?;
            Some((series, read_labels(labels), *value))
        })
    }

    /// By how much each series of a counter has grown, where it has.
    fn each<'n>(&'n self, name: &'n str) -> impl Iterator<Item = (Labels, f64)> + 'n {
        let grown = self
            .of(name)
            .map(|(series, labels, value)| (labels, value - self.before.get(series).copied().unwrap_or(0.0)));
        grown.filter(|(_, by)| *by > 0.0)
    }

    /// By how much each series of a gauge that was there before has changed, where it has.
    fn changes<'n>(&'n self, name: &'n str) -> impl Iterator<Item = (Labels, f64)> + 'n {
        self.of(name).filter_map(|(series, labels, value)| {
            let change = value - self.before.get(series)?;
            (change != 0.0).then_some((labels, change))
        })
    }
}

/// Adds a histogram's new times, each bucket at its middle, the sum exact.
fn times(grown: &Grown<'_>, name: &str, of: impl Fn(&Labels) -> bool, delta: &mut Delta) {
    let sum: f64 = grown.each(&format!("{name}_sum")).filter(|(labels, _)| of(labels)).map(|(_, by)| by).sum();
    let mut counts = [0u64; BUCKETS.len() + 1];
    for (labels, by) in grown.each(&format!("{name}_bucket")).filter(|(labels, _)| of(labels)) {
        let end = labels.get("le").and_then(|end| end.parse::<f64>().ok());
        let at = match end {
            Some(end) if end.is_finite() => BUCKETS.iter().position(|b| (*b as f64 / 1e9 - end).abs() < 1e-12),
            _ => Some(BUCKETS.len()),
        };
        if let Some(at) = at {
            counts[at] += by as u64;
        }
    }
    let mut below = 0;
    let middles = counts.iter().enumerate().filter_map(|(at, upto)| {
        let here = upto.saturating_sub(below);
        below = below.max(*upto);
        let low = if at == 0 { 0 } else { BUCKETS[at - 1] };
        let high = BUCKETS.get(at).copied().unwrap_or(low * 2);
        (here > 0).then_some(((low + high) / 2, here))
    });
    delta.latency.record_all_ns(middles.collect::<Vec<_>>(), sum * 1e9);
}

fn total(page: &BTreeMap<String, f64>, name: &str) -> f64 {
    let start = format!("plimsoll_{name}{{");
    page.iter().filter(|(series, _)| series.starts_with(&start)).map(|(_, value)| value).sum()
}

/// A page of figures by series.
fn read(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// `route="GET /notes",code="2xx"}`
fn read_labels(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text.trim_end_matches('}');
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => break,
                },
                c => value.push(c),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        rest = &after[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_by_series() {
        let page =
            read("# HELP x y\nplimsoll_requests_total{route=\"GET /a\\\"b\",code=\"2xx\"} 5\nplimsoll_in_flight 2\n");
        assert_eq!(page["plimsoll_in_flight"], 2.0);
        let before = BTreeMap::new();
        let grown = Grown { before: &before, after: &page };
        let all: Vec<_> = grown.each("requests_total").collect();
        assert_eq!((all[0].0["route"].as_str(), all[0].0["code"].as_str(), all[0].1), ("GET /a\"b", "2xx", 5.0));
    }

    #[test]
    fn times_are_what_two_histograms_differ_by() {
        let before =
            read("plimsoll_t_bucket{le=\"0.0005\"} 1\nplimsoll_t_bucket{le=\"0.001\"} 1\nplimsoll_t_sum{a=\"b\"} 1");
        let after = read(
            "plimsoll_t_bucket{le=\"0.0005\"} 2\nplimsoll_t_bucket{le=\"0.001\"} 4\nplimsoll_t_sum{a=\"b\"} 1.002",
        );
        let mut delta = Delta::default();
        times(&Grown { before: &before, after: &after }, "t", |_| true, &mut delta);
        assert_eq!(delta.latency.count(), 3);
        assert!((delta.latency.mean_ms() - 2.0 / 3.0).abs() < 1e-9);
    }
}
