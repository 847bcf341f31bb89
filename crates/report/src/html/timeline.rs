//! What happened, on the same time axis as the charts: a lane for each thing that something
//! happened to, with bars for states that last and dots for what is over at once.

use std::collections::BTreeMap;

use plimsoll_model::run::{Event, EventKind, Run};

use super::chart::{seconds, share_of};
use crate::markup::{coordinate, escape, put};
use crate::words::{clock, event};

/// Lanes that are drawn; the table below has everything.
const LANES: usize = 16;
/// Dots nearer than this share of the axis become one.
const NEAR: f64 = 0.006;
/// Rows of the table of events.
const ROWS: usize = 300;

/// Events that belong together: they share a lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Breaker,
    Ejection,
    Panic,
    Health,
    Instance,
    Scaling,
    Deploy,
    Promotion,
    Lease,
    Degradation,
    Saturation,
}

impl Family {
    const fn label(self) -> &'static str {
        match self {
            Family::Breaker => "breaker",
            Family::Ejection => "ejected",
            Family::Panic => "panic mode",
            Family::Health => "unhealthy",
            Family::Instance => "down",
            Family::Scaling => "scaling",
            Family::Deploy => "deploy",
            Family::Promotion => "promotion",
            Family::Lease => "lease",
            Family::Degradation => "degraded",
            Family::Saturation => "full",
        }
    }
}

/// What an event does to its lane.
enum Effect {
    /// A state with this class begins, and ends the one before.
    Begins(&'static str),
    /// The state ends.
    Ends,
    /// It is over at once.
    Dot(&'static str),
}

fn effect(kind: EventKind) -> Option<(Family, Effect)> {
    use Effect::{Begins, Dot, Ends};
    use Family::*;
    Some(match kind {
        EventKind::FaultStart | EventKind::FaultEnd => return None,
        EventKind::BreakerOpen => (Breaker, Begins("open")),
        EventKind::BreakerHalfOpen => (Breaker, Begins("half")),
        EventKind::BreakerClosed => (Breaker, Ends),
        EventKind::Ejected => (Ejection, Begins("out")),
        EventKind::Returned => (Ejection, Ends),
        EventKind::PanicStart => (Panic, Begins("open")),
        EventKind::PanicEnd => (Panic, Ends),
        EventKind::Unhealthy => (Health, Begins("out")),
        EventKind::Healthy => (Health, Ends),
        EventKind::InstanceDown => (Instance, Begins("down")),
        EventKind::InstanceUp => (Instance, Ends),
        EventKind::OutOfMemory => (Instance, Dot("bad")),
        EventKind::ScaleUp => (Scaling, Dot("up")),
        EventKind::ScaleDown => (Scaling, Dot("fall")),
        EventKind::Promoted => (Promotion, Dot("good")),
        EventKind::DeployStep => (Deploy, Dot("good")),
        EventKind::RolledBack => (Deploy, Dot("bad")),
        EventKind::LeaseTaken => (Lease, Dot("good")),
        EventKind::LeaseLost | EventKind::Fenced | EventKind::SplitBrain => (Lease, Dot("bad")),
        EventKind::Degraded => (Degradation, Begins("half")),
        EventKind::Restored => (Degradation, Ends),
        EventKind::QueueFull | EventKind::PoolExhausted => (Saturation, Dot("bad")),
    })
}

/// The lanes, and all events as a table.
pub(super) fn write(run: &Run, out: &mut String) {
    let mut lanes: BTreeMap<(Family, &str), Vec<&Event>> = BTreeMap::new();
    for event in &run.events {
        if let Some((family, _)) = effect(event.kind) {
            lanes.entry((family, &event.subject)).or_default().push(event);
        }
    }
    if lanes.is_empty() {
        return;
    }
    let mut lanes: Vec<_> = lanes.into_iter().collect();
    lanes.sort_by_key(|(key, events)| (events.iter().map(|event| event.at_ns).min(), *key));
    out.push_str("<figure class=\"chart events\"><figcaption><span class=\"what\" title=\"What policies and instances did, in the first replication.\">Events</span></figcaption>\n");
    for ((family, subject), events) in lanes.iter().take(LANES) {
        lane(run, *family, subject, events, out);
    }
    if lanes.len() > LANES {
        put!(out, "<p class=\"more\">and {} more: see the table</p>", lanes.len() - LANES);
    }
    out.push_str("</figure>\n");
}

fn lane(run: &Run, family: Family, subject: &str, events: &[&Event], out: &mut String) {
    let seconds = seconds(run);
    put!(out, "<div class=\"lane\"><span class=\"of\">{} <em>{}</em></span>", escape(subject), family.label());
    let mut since: Option<(&Event, &str)> = None;
    let mut depth = 0u32;
    let mut dots: Vec<(f64, &str, &Event, u32)> = Vec::new();
    for event in events {
        match effect(event.kind).map(|(_, effect)| effect) {
            Some(Effect::Begins(class)) => {
                // Several instances can be out at once, in a lane of their caller.
                depth += 1;
                match since {
                    Some((_, last)) if last == class => {}
                    Some((start, last)) => {
                        bar(start, last, event.at_ns, seconds, out);
                        since = Some((event, class));
                    }
                    None => since = Some((event, class)),
                }
                if family == Family::Breaker {
                    depth = 1;
                }
            }
            Some(Effect::Ends) => {
                depth = depth.saturating_sub(1);
                if depth == 0
                    && let Some((start, class)) = since.take()
                {
                    bar(start, class, event.at_ns, seconds, out);
                }
            }
            Some(Effect::Dot(class)) => {
                let at = share_of(event.at_ns, seconds);
                match dots.last_mut() {
                    Some((last, kind, _, times)) if at - *last < NEAR && *kind == class => *times += 1,
                    _ => dots.push((at, class, event, 1)),
                }
            }
            None => {}
        }
    }
    if let Some((start, class)) = since {
        bar(start, class, run.duration_ns.max(start.at_ns), seconds, out);
    }
    for (at, class, event, times) in dots {
        let times = if times > 1 { format!(", {times} times") } else { String::new() };
        put!(
            out,
            "<i class=\"dot {class}\" style=\"left:{}%\" title=\"{}\"></i>",
            coordinate(at * 100.0),
            escape(&format!("{} {}: {}{times}", clock(event.at_ns), self::event(event.kind), event.text))
        );
    }
    out.push_str("</div>\n");
}

fn bar(start: &Event, class: &str, until_ns: u64, seconds: f64, out: &mut String) {
    let (from, to) = (share_of(start.at_ns, seconds), share_of(until_ns, seconds));
    let title = format!("{} to {}, {}: {}", clock(start.at_ns), clock(until_ns), event(start.kind), start.text);
    put!(
        out,
        "<span class=\"bar {class}\" style=\"left:{}%;width:{}%\" title=\"{}\"></span>",
        coordinate(from * 100.0),
        coordinate(((to - from) * 100.0).max(0.3)),
        escape(&title)
    );
}

/// Every event in words, folded away.
pub(super) fn table(run: &Run, out: &mut String) {
    if run.events.is_empty() {
        return;
    }
    put!(
        out,
        "<details class=\"minor\"><summary>{} events as a table</summary><div class=\"scroll\"><table><thead><tr><th \
         class=\"n\">at</th><th>what</th><th>of</th><th>in words</th></tr></thead><tbody>\n",
        run.events.len()
    );
    for one in run.events.iter().take(ROWS) {
        put!(
            out,
            "<tr><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            clock(one.at_ns),
            event(one.kind),
            escape(&one.subject),
            escape(&one.text)
        );
    }
    out.push_str("</tbody></table></div>");
    if run.events.len() > ROWS {
        put!(out, "<p class=\"more\">and {} more: see the JSON</p>", run.events.len() - ROWS);
    }
    out.push_str("</details>\n");
}
