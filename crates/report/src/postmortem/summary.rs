//! What happened in a few sentences, and where they come from.

use plimsoll_model::run::{FaultPhase, Run};

use super::detection::{is_repair, noticed};
use super::document::{Block, Piece, Section, name, plain};
use super::impact::{availability, failed, worst};
use super::recovery::{Recovery, recovery};
use super::{a_run, all, began};
use crate::number::{nanos, percent, ratio};
use crate::words::{clock, event, plural, provenance};

pub(super) fn section(run: &Run) -> Section {
    let mut pieces = Vec::new();
    if run.partial {
        pieces.push(plain("The run was interrupted, and this covers what was done. "));
    }
    answers(run, &mut pieces);
    notice(run, &mut pieces);
    expectations(run, &mut pieces);
    Section { heading: "Summary", on_page: true, blocks: vec![Block::Text(pieces)] }
}

/// How many requests were answered well.
fn answers(run: &Run, pieces: &mut Vec<Piece>) {
    let Some(all) = all(run).filter(|all| all.totals.offered > 0) else {
        return pieces.push(plain("No request was made. "));
    };
    let without = match failed(all) {
        0 => "every request had a good answer".to_owned(),
        n => format!("{} of {} requests had no good answer", a_run(n, run), a_run(all.totals.offered, run)),
    };
    let begun: Vec<_> = run.faults.iter().filter(|fault| began(run, fault)).collect();
    let (Some(first), Some(last)) =
        (begun.iter().map(|fault| fault.at_ns).min(), begun.iter().map(|fault| fault.until_ns).max())
    else {
        let share = percent(ratio(all.totals.ok as f64, all.totals.offered as f64));
        return pieces.push(plain(format!("Nothing was broken: {share} of requests were answered well; {without}. ")));
    };
    pieces.push(plain("Broken on purpose: "));
    for (at, fault) in begun.iter().take(SHOWN).enumerate() {
        if at > 0 {
            pieces.push(plain(", "));
        }
        pieces.push(name(fault.text.as_str()));
    }
    if begun.len() > SHOWN {
        pieces.push(plain(format!(" and {} more", begun.len() - SHOWN)));
    }
    pieces.push(plain(format!(", from {} to {}. ", clock(first), clock(last.min(run.duration_ns)))));
    if let Some(during) = availability(all, FaultPhase::During) {
        let of = |phase, word: &str| availability(all, phase).map(|share| format!("{} {word}", percent(share)));
        let others: Vec<String> =
            [of(FaultPhase::Before, "before"), of(FaultPhase::After, "after")].into_iter().flatten().collect();
        let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
        pieces.push(plain(format!("Meanwhile {} of requests were answered well{others}", percent(during))));
        if let Some((worst, share)) = worst(run) {
            pieces.extend([
                plain(", fewest at "),
                name(worst.name.as_str()),
                plain(format!(" with {}", percent(share))),
            ]);
        }
        pieces.push(plain(format!("; in the whole run {without}. ")));
    } else {
        pieces.push(plain(format!("In the whole run {without}. ")));
    }
}

/// Faults that are named.
const SHOWN: usize = 3;

/// Who noticed the first fault, and when good answers were back.
fn notice(run: &Run, pieces: &mut Vec<Piece>) {
    let Some(fault) = run.faults.iter().filter(|f| began(run, f) && !is_repair(f)).min_by_key(|f| f.at_ns) else {
        return;
    };
    match noticed(run, fault) {
        Some((by, after)) => pieces.extend([
            plain(format!("A policy or a check first noticed something {} after the start (", nanos(after))),
            name(by.subject.as_str()),
            plain(format!(" {}). ", event(by.kind))),
        ]),
        None => pieces.push(plain("No policy and no check noticed anything. ")),
    }
    let Some(recovery) = recovery(run, fault) else { return };
    pieces.push(plain(match recovery {
        Recovery::NeverFewer => "In no second were good answers fewer than before. ".to_owned(),
        Recovery::WhileItLasted { after_ns } => {
            format!("Good answers were back {} after the start, while it lasted. ", nanos(after_ns))
        }
        Recovery::AfterItsEnd { after_ns: 0 } => "Good answers were back at its end. ".to_owned(),
        Recovery::AfterItsEnd { after_ns } => format!("Good answers were back {} after its end. ", nanos(after_ns)),
        Recovery::NotBeforeTheNext => "Good answers were not back before the next fault. ".to_owned(),
        Recovery::NotInTheRun => "Good answers were not back by the end of the run. ".to_owned(),
    }));
}

fn expectations(run: &Run, pieces: &mut Vec<Piece>) {
    let (all, held) = (run.verdicts.len(), run.verdicts.iter().filter(|verdict| verdict.passed).count());
    let text = match all {
        0 => "Nothing was expected of it.".to_owned(),
        _ if held == all => format!("{} held.", plural(all as u64, "expectation", "expectations")),
        _ => format!("{held} of {} held.", plural(all as u64, "expectation", "expectations")),
    };
    pieces.push(plain(text));
}

/// Where the figures come from, and what to know before trusting them.
pub(super) fn about(run: &Run) -> Section {
    let mut items = vec![
        vec![plain(format!("{}.", provenance(run)))],
        vec![plain("System file "), name(run.system_hash.as_str()), plain(format!(", plimsoll {}.", run.plimsoll))],
    ];
    items.extend(run.invalid.iter().map(|why| vec![plain(format!("The measurement is invalid: {why}."))]));
    items.extend(run.warnings.iter().map(|warning| vec![plain(format!("Warning: {warning}."))]));
    Section { heading: "About these figures", on_page: false, blocks: vec![Block::Items(items)] }
}
