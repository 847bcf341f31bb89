//! How busy everything was, and what gave way.

use plimsoll_model::run::{Run, SubjectKind, SubjectRun};

use super::document::{Block, Piece, figures, name, plain, table as rows_of, words};
use crate::number::percent;
use crate::words::{gives_way_why, kind, resource};

/// What limited the system, most first.
pub(super) fn gave_way(run: &Run) -> Option<Block> {
    let first = run.bottlenecks.first()?;
    let when = if run.faults.is_empty() { "" } else { " while the faults lasted" };
    let owner = first.owner.as_ref().map_or(String::new(), |owner| format!(" Owner: {owner}."));
    let text = format!("Gives way first{when}: {}.{owner}", gives_way_why(first));
    Some(Block::Text(vec![plain(text)]))
}

/// Busy shares of instances, stores and their nodes, pools, topics and consumers.
pub(super) fn table(run: &Run) -> Vec<Block> {
    let during = super::seconds_of_faults(run);
    let mut columns = vec![words(""), words("busy"), figures("whole run")];
    if during.is_some() {
        columns.push(figures("during faults"));
    }
    columns.push(figures("busiest second"));
    let mut rows = Vec::new();
    for subject in run.subjects.iter().filter(|subject| stands_alone(subject, run)) {
        let Some(figure) = subject.figure("utilization").filter(|figure| figure.mean.abs() < MOST) else { continue };
        let series = &subject.series.utilization;
        // Nobody looked: a gateway's own connections in a real run.
        if series.is_empty() && figure.mean == 0.0 {
            continue;
        }
        let share = |share: Option<f64>| plain(share.map_or(String::new(), percent));
        let mut cells: Vec<Piece> = vec![
            name(subject.name.as_str()),
            plain(resource(figure.detail.as_deref().unwrap_or(kind(subject.kind)))),
            share(Some(figure.mean)),
        ];
        if let Some(during) = &during {
            cells.push(share(mean(series.get(during.start..during.end.min(series.len())).unwrap_or_default())));
        }
        let finite = series.iter().copied().map(f64::from).filter(|value| value.abs() < MOST);
        cells.push(share(finite.reduce(f64::max)));
        rows.push(cells);
    }
    rows_of(columns, rows)
}

/// A busy share that is none any more.
const MOST: f64 = 1e6;

/// A service is its instances, a store its nodes, and the only node of a store is the store.
fn stands_alone(subject: &SubjectRun, run: &Run) -> bool {
    use SubjectKind::{Consumer, Edge, Instance, Node, Service, Store, Topic};
    let parts = |of: SubjectKind, whole: &str| {
        run.subjects.iter().filter(|part| part.kind == of && whole_of(&part.name) == Some(whole)).count()
    };
    match subject.kind {
        Instance | Edge | Topic | Consumer => true,
        Store => parts(Node, &subject.name) < 2,
        Service => parts(Instance, &subject.name) == 0,
        Node => whole_of(&subject.name).is_none_or(|store| parts(Node, store) > 1),
        _ => false,
    }
}

/// The service of an instance, the store of a node.
pub(super) fn whole_of(part: &str) -> Option<&str> {
    part.rsplit_once('/').map(|(whole, _)| whole)
}

fn mean(values: &[f32]) -> Option<f64> {
    let finite = values.iter().copied().map(f64::from).filter(|value| value.abs() < MOST);
    let (sum, n) = finite.fold((0.0, 0u32), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}
