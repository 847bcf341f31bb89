//! Faults and events, in order of time.

use std::collections::BTreeMap;

use plimsoll_model::run::{EventKind, Run};

use super::document::{Block, Piece, Section, figures, name, plain, table, words};
use super::{began, of_first};
use crate::words::{clock, event};

/// Events that are written out one by one; of more, those of a kind at one place are put together.
const ALL: usize = 40;

pub(super) fn section(run: &Run) -> Section {
    let mut rows: Vec<(u64, Vec<Piece>)> = Vec::new();
    let mut row = |at: u64, what: &str, of: &str, text: Piece| {
        rows.push((at, vec![plain(clock(at)), plain(what), name(of), text]));
    };
    for fault in run.faults.iter().filter(|fault| began(run, fault)) {
        row(fault.at_ns, "fault starts", "", name(fault.text.as_str()));
        if fault.until_ns > fault.at_ns && fault.until_ns <= run.duration_ns {
            row(fault.until_ns, "fault ends", "", name(fault.text.as_str()));
        }
    }
    let events = run.events.iter().filter(|event| !matches!(event.kind, EventKind::FaultStart | EventKind::FaultEnd));
    let events: Vec<_> = events.collect();
    if events.len() <= ALL {
        events.iter().for_each(|one| row(one.at_ns, event(one.kind), &one.subject, plain(one.text.as_str())));
    } else {
        let mut groups: BTreeMap<(EventKind, &str), (u64, u64, u64, &str)> = BTreeMap::new();
        for one in &events {
            let group = groups.entry((one.kind, &one.subject)).or_insert((one.at_ns, one.at_ns, 0, &one.text));
            *group = (group.0.min(one.at_ns), group.1.max(one.at_ns), group.2 + 1, group.3);
        }
        for ((kind, subject), (first, last, times, text)) in groups {
            let text = match times {
                1 => text.to_owned(),
                _ => format!("{times} times until {}: {text}", clock(last)),
            };
            row(first, event(kind), subject, plain(text));
        }
    }
    rows.sort_by_key(|(at, _)| *at);
    let columns = vec![figures("at"), words("what"), words("of"), words("")];
    let mut blocks = table(columns, rows.into_iter().map(|(_, row)| row).collect());
    if !blocks.is_empty() {
        let text = format!("Times count from the end of the warm-up.{}", of_first(run));
        blocks.insert(0, Block::Text(vec![plain(text)]));
    }
    Section { heading: "Timeline", on_page: false, blocks }
}
