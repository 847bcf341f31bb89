//! Pages with a part that a command writes, between two marks.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::output::{write, wrote};

/// A page, taken apart at its marks `<!-- NAME -->` and `<!-- /NAME -->`.
#[derive(Debug)]
pub(super) struct Marked {
    path: PathBuf,
    /// What stands up to the first mark, the mark included.
    before: String,
    /// What stands between them.
    pub(super) old: String,
    /// What stands from the second mark on.
    after: String,
}

impl Marked {
    pub(super) fn read(path: &Path, mark: &str) -> anyhow::Result<Marked> {
        let (begin, end) = (format!("<!-- {mark} -->"), format!("<!-- /{mark} -->"));
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
        let Some((before, rest)) = text.split_once(&begin) else {
            bail!("{name}: expected a line `{begin}` where the table is to stand, and after it `{end}`");
        };
        let Some((old, after)) = rest.split_once(&end) else {
            bail!("{name}: expected a line `{end}` after `{begin}`");
        };
        Ok(Marked {
            path: path.to_owned(),
            before: format!("{before}{begin}"),
            old: old.trim().to_owned(),
            after: format!("{end}{after}"),
        })
    }

    /// Writes the page with this between its marks.
    pub(super) fn write(&self, table: &str) -> anyhow::Result<()> {
        write(&self.path, &format!("{}\n{table}{}", self.before, self.after))?;
        wrote(&self.path);
        Ok(())
    }
}
