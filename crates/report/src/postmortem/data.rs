//! What became of data: lost, stale and doubled, who answered reads, and how old replicas were.

use plimsoll_model::run::{Run, SubjectKind, SubjectRun};

use super::busy::whole_of;
use super::document::{Block, Piece, Section, figures, name, plain, table, words};
use super::{a_run, mean_of};
use crate::number::{millis, percent, ratio};

pub(super) fn section(run: &Run) -> Section {
    let mut blocks = Vec::new();
    let broken = broken(run);
    if !broken.is_empty() {
        let text = "Acknowledged and gone, read too old, or done twice.";
        blocks.push(Block::Text(vec![plain(format!("{text}{}", mean_of(run)))]));
        let columns = vec![words(""), figures("lost"), figures("stale reads"), figures("duplicates")];
        blocks.extend(table(columns, broken));
    }
    let items: Vec<Vec<Piece>> = reads(run).into_iter().chain(ages(run)).collect();
    if !items.is_empty() {
        blocks.push(Block::Text(vec![plain("Reads and replicas:")]));
        blocks.push(Block::Items(items));
    }
    Section { heading: "Data", on_page: true, blocks }
}

/// Components with losses, stale reads or duplicates. Without any there may be nobody who counts them.
fn broken(run: &Run) -> Vec<Vec<Piece>> {
    use SubjectKind::{Consumer, Lease, Service, Store, Topic};
    let components = run.subjects.iter().filter(|s| matches!(s.kind, Service | Store | Topic | Consumer | Lease));
    let rows =
        components.filter(|s| s.totals.lost > 0 || s.totals.stale > 0 || s.totals.duplicates > 0).map(|subject| {
            let counted = |value: u64| plain(if value == 0 { String::new() } else { a_run(value, run) });
            let totals = &subject.totals;
            vec![name(subject.name.as_str()), counted(totals.lost), counted(totals.stale), counted(totals.duplicates)]
        });
    rows.collect()
}

/// The share of each database's reads that replicas answered.
fn reads(run: &Run) -> Vec<Vec<Piece>> {
    let stores = run.subjects.iter().filter(|subject| subject.kind == SubjectKind::Store);
    let lines = stores.filter_map(|store| {
        let nodes =
            run.subjects.iter().filter(|s| s.kind == SubjectKind::Node && whole_of(&s.name) == Some(&store.name));
        let nodes: Vec<&SubjectRun> = nodes.collect();
        let sum = |of: fn(&SubjectRun) -> u64| nodes.iter().fold(0u64, |sum, node| sum.saturating_add(of(node)));
        let (reads, of_replicas) = (sum(|node| node.totals.reads), sum(|node| node.totals.replica_reads));
        let share = ratio(of_replicas as f64, reads as f64);
        (nodes.len() > 1 && reads > 0).then(|| {
            let text = format!(": replicas answered {} of {} reads", percent(share), a_run(reads, run));
            vec![name(store.name.as_str()), plain(text)]
        })
    });
    lines.collect()
}

/// How much older what each replica showed was than what its primary had acknowledged, where that was measured.
fn ages(run: &Run) -> Vec<Vec<Piece>> {
    let nodes = run.subjects.iter().filter(|subject| subject.kind == SubjectKind::Node);
    let lines = nodes.filter_map(|node| {
        let figure = |name: &str| node.figure(name).map(|figure| figure.mean).filter(|ms| ms.is_finite());
        let (mean, most) = (figure("replica_age_ms_mean")?, figure("replica_age_ms_max")?);
        let text = format!(": {} behind on average, {} at most", millis(mean), millis(most));
        (most > 0.0).then(|| vec![name(node.name.as_str()), plain(text)])
    });
    lines.collect()
}
