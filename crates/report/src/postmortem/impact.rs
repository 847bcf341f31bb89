//! Who was hit, and how hard: good answers and response times before, during and after the faults.

use plimsoll_model::run::{FaultPhase, PhaseRun, Run, SubjectKind, SubjectRun};

use super::document::{Block, Piece, Section, figures, name, plain, table, words};
use super::{a_run, mean_of};
use crate::figures::callers;
use crate::number::{millis, percent, ratio};

const PHASES: [FaultPhase; 3] = [FaultPhase::Before, FaultPhase::During, FaultPhase::After];

/// What a subject saw in a phase; none if it asked for nothing in it.
pub(super) fn phase(subject: &SubjectRun, phase: FaultPhase) -> Option<&PhaseRun> {
    subject.phases.iter().find(|of| of.phase == phase && of.totals.offered > 0)
}

/// Good answers of the requests that were due in a phase.
pub(super) fn availability(subject: &SubjectRun, of: FaultPhase) -> Option<f64> {
    let totals = &phase(subject, of)?.totals;
    Some(ratio(totals.ok as f64, totals.offered as f64))
}

/// Requests without a good answer, those without any included.
pub(super) fn failed(subject: &SubjectRun) -> u64 {
    subject.totals.offered.saturating_sub(subject.totals.ok)
}

/// Whoever was answered well least while the faults lasted, if that is worse than for all together.
pub(super) fn worst(run: &Run) -> Option<(&SubjectRun, f64)> {
    let all = availability(super::all(run)?, FaultPhase::During)?;
    let endpoints = run.subjects.iter().filter(|subject| subject.kind == SubjectKind::Endpoint);
    let shares = endpoints.filter_map(|subject| Some((subject, availability(subject, FaultPhase::During)?)));
    shares.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, share)| *share < all)
}

pub(super) fn section(run: &Run) -> Section {
    let subjects: Vec<&SubjectRun> = callers(run).into_iter().filter(|subject| subject.totals.offered > 0).collect();
    let mut blocks = Vec::new();
    if subjects.is_empty() {
        return Section { heading: "Impact", on_page: true, blocks };
    }
    let phases = subjects.iter().any(|subject| !subject.phases.is_empty());
    let text = match phases {
        true => "Good answers, as a share of the requests that were due before, during and after the faults.",
        false => "Good answers, as a share of the requests that were due.",
    };
    blocks.push(Block::Text(vec![plain(format!("{text}{}", mean_of(run)))]));
    let who = |subject: &SubjectRun| match subject.kind {
        SubjectKind::All => plain("all"),
        _ => name(subject.name.as_str()),
    };
    let share = |subject: &SubjectRun, of| availability(subject, of).map_or(String::new(), percent);
    let mut columns = vec![words("")];
    if phases {
        columns.extend([figures("before"), figures("during"), figures("after")]);
    }
    columns.extend([figures("whole run"), figures("requests"), figures("without a good answer")]);
    let row = |subject: &&SubjectRun| -> Vec<Piece> {
        let mut cells = vec![who(subject)];
        if phases {
            cells.extend(PHASES.map(|of| plain(share(subject, of))));
        }
        let totals = &subject.totals;
        cells.push(plain(percent(ratio(totals.ok as f64, totals.offered as f64))));
        cells.extend([plain(a_run(totals.offered, run)), plain(a_run(failed(subject), run))]);
        cells
    };
    blocks.extend(table(columns, subjects.iter().map(row).collect()));
    if phases {
        blocks.push(Block::Text(vec![plain("Response times, failures included.")]));
        let columns = ["", "p50 before", "p50 during", "p50 after", "p95 before", "p95 during", "p95 after"];
        let columns =
            columns.into_iter().enumerate().map(|(at, title)| if at == 0 { words(title) } else { figures(title) });
        let row = |subject: &&SubjectRun| -> Vec<Piece> {
            let times = |of: fn(&PhaseRun) -> f64| {
                PHASES.map(|at| {
                    let time = phase(subject, at).map(of).filter(|ms| ms.is_finite());
                    plain(time.map_or(String::new(), millis))
                })
            };
            let mut cells = vec![who(subject)];
            cells.extend(times(|of| of.latency_ms_p50));
            cells.extend(times(|of| of.latency_ms_p95));
            cells
        };
        blocks.extend(table(columns.collect(), subjects.iter().map(row).collect()));
    }
    Section { heading: "Impact", on_page: true, blocks }
}
