//! What the policies did: openings, ejections, rejections, and failures that they kept from callers.

use std::collections::BTreeMap;

use plimsoll_model::run::{EventKind, Run, SubjectKind, SubjectRun};

use super::document::{Block, Piece, Section, figures, name, plain, table, words};
use super::{a_run, mean_of};
use crate::number::{count, significant};
use crate::words::clock;

pub(super) fn section(run: &Run) -> Section {
    let mut blocks = Vec::new();
    let acted = acted(run);
    if !acted.is_empty() {
        let text = "At edges: what callers' policies did; at services: what their own did.";
        blocks.push(Block::Text(vec![plain(format!("{text}{}", mean_of(run)))]));
        let columns = vec![
            words(""),
            figures("breaker openings"),
            figures("ejections"),
            figures("turned away"),
            figures("further attempts"),
            figures("calls rescued"),
        ];
        blocks.extend(table(columns, acted));
    }
    let who = who(run);
    if !who.is_empty() {
        let of = if run.replications > 1 { " (in the first replication)" } else { "" };
        blocks.push(Block::Text(vec![plain(format!("Who opened and who was taken out{of}:"))]));
        blocks.push(Block::Items(who));
    }
    let prevented = prevented(run);
    if !prevented.is_empty() {
        blocks.push(Block::Text(vec![plain("Failures that clients' requests did not become:")]));
        blocks.push(Block::Items(prevented));
    }
    Section { heading: "What the policies did", on_page: true, blocks }
}

/// Edges and services at which something was done.
fn acted(run: &Run) -> Vec<Vec<Piece>> {
    let mut rows = Vec::new();
    for subject in run.subjects.iter().filter(|s| matches!(s.kind, SubjectKind::Edge | SubjectKind::Service)) {
        let figure = |name: &str| {
            let mean = subject.figure(name).map_or(0.0, |figure| figure.mean);
            if mean.is_finite() { mean } else { 0.0 }
        };
        let (trips, ejections) = (figure("trips"), figure("ejections"));
        let totals = &subject.totals;
        let retries = if subject.kind == SubjectKind::Edge { totals.retries } else { 0 };
        if trips == 0.0 && ejections == 0.0 && totals.rejected == 0 && retries == 0 && totals.rescued == 0 {
            continue;
        }
        let number = |value: f64| plain(if value == 0.0 { String::new() } else { significant(value, 3) });
        let counted = |value: u64| plain(if value == 0 { String::new() } else { a_run(value, run) });
        rows.push(vec![
            name(subject.name.as_str()),
            number(trips),
            number(ejections),
            counted(totals.rejected),
            counted(retries),
            counted(totals.rescued),
        ]);
    }
    rows
}

/// Breakers that opened and instances that were ejected, each with how often and when first.
fn who(run: &Run) -> Vec<Vec<Piece>> {
    let mut groups: BTreeMap<(EventKind, &str), (u64, u64)> = BTreeMap::new();
    let wanted = |kind| matches!(kind, EventKind::BreakerOpen | EventKind::Ejected);
    for event in run.events.iter().filter(|event| wanted(event.kind)) {
        let group = groups.entry((event.kind, &event.subject)).or_insert((event.at_ns, 0));
        *group = (group.0.min(event.at_ns), group.1 + 1);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (first, _))| *first);
    let more = groups.len().saturating_sub(MOST);
    let line = |((kind, subject), (first, times)): ((EventKind, &str), (u64, u64))| {
        let did = if kind == EventKind::BreakerOpen { "opened" } else { "was ejected" };
        let times = if times == 1 { "once".to_owned() } else { format!("{} times, first", count(times)) };
        vec![name(subject), plain(format!(" {did} {times} at {}", clock(first)))]
    };
    let mut lines: Vec<_> = groups.into_iter().take(MOST).map(line).collect();
    if more > 0 {
        lines.push(vec![plain(format!("and {more} more: see the JSON"))]);
    }
    lines
}

/// Lines of who did something.
const MOST: usize = 20;

/// Requests that were answered well although something beneath them failed, by client, as far as that was counted.
fn prevented(run: &Run) -> Vec<Vec<Piece>> {
    let clients = run.subjects.iter().filter(|subject| subject.kind == SubjectKind::Client);
    let mut lines = Vec::new();
    let mut line = |subject: &SubjectRun, n: u64, how: &str| {
        if n > 0 {
            lines.push(vec![name(subject.name.as_str()), plain(format!(": {} {how}", a_run(n, run)))]);
        }
    };
    for client in clients {
        line(client, client.totals.rescued, "answered well after an attempt of the client's had failed");
        line(client, client.totals.degraded, "answered by a fallback, a stale copy, or without an optional step");
    }
    let edges = run.subjects.iter().filter(|s| s.kind == SubjectKind::Edge && !from_client(s, run));
    for edge in edges {
        line(edge, edge.totals.rescued, "calls answered well after an attempt had failed");
    }
    lines
}

/// Whether a client's requests are this edge's calls: those are counted at the client.
fn from_client(edge: &SubjectRun, run: &Run) -> bool {
    let from = edge.name.split(" -> ").next().unwrap_or("");
    run.subjects.iter().any(|subject| subject.kind == SubjectKind::Client && subject.name == from)
}
