//! What was expected, and what came.

use plimsoll_model::run::Run;

use super::document::{Section, figures, name, plain, table, words};

pub(super) fn section(run: &Run) -> Section {
    let columns = vec![words(""), words("expected"), figures("measured"), words("why")];
    let mut verdicts: Vec<_> = run.verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| verdict.passed);
    let rows = verdicts.into_iter().map(|verdict| {
        vec![
            plain(if verdict.passed { "held" } else { "did not hold" }),
            name(verdict.text.as_str()),
            plain(verdict.measured.as_str()),
            plain(verdict.why.as_deref().unwrap_or("")),
        ]
    });
    Section { heading: "What held and what did not", on_page: false, blocks: table(columns, rows.collect()) }
}
