//! How long it took until a policy or a check noticed each fault, and until good answers were back.

use plimsoll_model::run::{Event, EventKind, FaultSpan, Run};

use super::document::{Block, Piece, Section, figures, name, plain, table, words};
use super::recovery::{self, Recovery};
use super::{began, of_first};
use crate::number::nanos;
use crate::words::{clock, event};

/// Whether a policy or a check says with this that it noticed something. What the run itself writes down (a process
/// that it killed, a fault's start) is nothing that the system knows, and a full queue or pool is a symptom that nobody
/// acts on.
pub(super) const fn notices(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::BreakerOpen
            | EventKind::Ejected
            | EventKind::Unhealthy
            | EventKind::PanicStart
            | EventKind::RolledBack
            | EventKind::Degraded
            | EventKind::ScaleUp
            | EventKind::LeaseLost
            | EventKind::Fenced
    )
}

/// Until when what happens is put down to a fault: until the next one starts that starts after its end, or the run ends.
pub(super) fn window(run: &Run, fault: &FaultSpan) -> u64 {
    let later = run.faults.iter().filter(|other| other.at_ns > fault.at_ns && other.at_ns >= fault.until_ns);
    later.map(|other| other.at_ns).min().unwrap_or(run.duration_ns).min(run.duration_ns)
}

/// The first event after a fault's start in which something noticed it, and how long after, ns.
pub(super) fn noticed<'r>(run: &'r Run, fault: &FaultSpan) -> Option<(&'r Event, u64)> {
    let within = fault.at_ns..window(run, fault);
    let events = run.events.iter().filter(|event| notices(event.kind) && within.contains(&event.at_ns));
    let first = events.min_by_key(|event| event.at_ns)?;
    Some((first, first.at_ns - fault.at_ns))
}

/// A promotion is somebody's answer to a fault: there is nothing in it to notice.
pub(super) fn is_repair(fault: &FaultSpan) -> bool {
    fault.text.starts_with("promote ")
}

pub(super) fn section(run: &Run) -> Section {
    let mut blocks = Vec::new();
    if !run.faults.is_empty() {
        let text = "From a fault's start to the first event in which a policy or a check noticed something, and to the \
                    last second in which good answers were fewer than before the faults.";
        blocks.push(Block::Text(vec![plain(format!("{text}{}", of_first(run)))]));
        let columns = vec![
            words("fault"),
            figures("from"),
            figures("to"),
            figures("noticed after"),
            words("by"),
            words("of"),
            words("good answers back"),
        ];
        blocks.extend(table(columns, run.faults.iter().map(|fault| row(run, fault)).collect()));
    }
    Section { heading: "Detection and recovery", on_page: true, blocks }
}

fn row(run: &Run, fault: &FaultSpan) -> Vec<Piece> {
    let mut cells = vec![name(fault.text.as_str()), plain(clock(fault.at_ns)), plain(clock(fault.until_ns))];
    if !began(run, fault) {
        cells.extend([plain(""), plain("it had not begun"), plain(""), plain("")]);
        return cells;
    }
    match noticed(run, fault) {
        _ if is_repair(fault) => cells.extend([plain(""), plain("it is a repair"), plain("")]),
        Some((by, after)) => cells.extend([plain(nanos(after)), plain(event(by.kind)), name(by.subject.as_str())]),
        None => cells.extend([plain(""), plain("nothing"), plain("")]),
    }
    cells.push(plain(recovery::recovery(run, fault).map_or(String::new(), back)));
    cells
}

fn back(recovery: Recovery) -> String {
    match recovery {
        Recovery::NeverFewer => "were never fewer".into(),
        Recovery::WhileItLasted { after_ns } => format!("{} after its start", nanos(after_ns)),
        Recovery::AfterItsEnd { after_ns: 0 } => "at its end".into(),
        Recovery::AfterItsEnd { after_ns } => format!("{} after its end", nanos(after_ns)),
        Recovery::NotBeforeTheNext => "not before the next fault".into(),
        Recovery::NotInTheRun => "not by the run's end".into(),
    }
}
