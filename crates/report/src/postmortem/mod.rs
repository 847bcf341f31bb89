//! A postmortem that fills itself in: what a run says of its faults, as a document that people finish.
//!
//! Everything is computed from the [`Run`] alone, so that it is the same for both worlds and for a result that was
//! saved. What a run does not say is left out. `docs/postmortem.md` defines each figure.

mod busy;
mod data;
mod detection;
mod document;
mod expected;
mod html;
mod impact;
mod markdown;
mod peak;
mod people;
mod policies;
mod recovery;
mod summary;
mod timeline;

use plimsoll_model::run::{FaultSpan, Run, SubjectKind, SubjectRun};

use crate::number::{count, significant};
use document::{Block, Document, Section};

/// A run's postmortem as a Markdown document, with headings for what only people can say.
///
/// It is that of the result as it is saved, whose series have four digits: the same file has the same postmortem.
pub fn markdown(run: &Run) -> String {
    let saved = crate::json::read_run(&crate::json::run(run)).ok();
    markdown::write(&document(saved.as_ref().unwrap_or(run)))
}

/// The same as a section of a run's page, without what the page has elsewhere; nothing of a run without faults.
pub(crate) fn section(run: &Run, out: &mut String) {
    if !run.faults.is_empty() {
        html::write(&document(run), out);
    }
}

fn document(run: &Run) -> Document {
    let mut sections = vec![
        summary::section(run),
        impact::section(run),
        timeline::section(run),
        detection::section(run),
        limited(run),
        expected::section(run),
        policies::section(run),
        data::section(run),
    ];
    sections.retain(|section| !section.blocks.is_empty());
    sections.extend(people::sections());
    sections.push(summary::about(run));
    Document { title: format!("Postmortem: {}, {}", run.system, run.experiment), sections }
}

/// What limited the system: the busiest second, what gave way, and how busy everything was.
fn limited(run: &Run) -> Section {
    let mut blocks: Vec<Block> = [busy::gave_way(run), peak::block(run)].into_iter().flatten().collect();
    blocks.extend(busy::table(run));
    Section { heading: "What limited it", on_page: true, blocks }
}

/// A second, ns.
const SECOND: u64 = 1_000_000_000;

/// All clients together.
fn all(run: &Run) -> Option<&SubjectRun> {
    run.subjects.iter().find(|subject| subject.kind == SubjectKind::All)
}

/// The seconds of the measured part in which faults were under way, in part or all of it.
fn seconds_of_faults(run: &Run) -> Option<std::ops::Range<usize>> {
    let first = run.faults.iter().map(|fault| fault.at_ns).min()?;
    let last = run.faults.iter().map(|fault| fault.until_ns).max()?.min(run.duration_ns);
    let from = (first / SECOND) as usize;
    Some(from..(last.div_ceil(SECOND) as usize).max(from + 1))
}

/// Whether a fault began. One that was still to come when a run was interrupted did not.
fn began(run: &Run, fault: &FaultSpan) -> bool {
    let said = |event: &plimsoll_model::run::Event| {
        event.kind == plimsoll_model::run::EventKind::FaultStart && event.text == fault.text
    };
    !run.partial || run.events.iter().any(said)
}

/// A count of one run: the mean over replications.
fn a_run(total: u64, run: &Run) -> String {
    match run.replications {
        0 | 1 => count(total),
        n => {
            let mean = total as f64 / f64::from(n);
            if mean >= 100.0 { count(mean.round() as u64) } else { significant(mean, 3) }
        }
    }
}

/// Said of counts where a run has several replications.
fn mean_of(run: &Run) -> String {
    match run.replications {
        0 | 1 => String::new(),
        n => format!(" Counts are those of one run: means over {n} replications."),
    }
}

/// Said of events where a run has several replications.
fn of_first(run: &Run) -> &'static str {
    if run.replications > 1 { " Events are those of the first replication." } else { "" }
}
