//! A document before it is Markdown or HTML.

/// Sections under a title.
pub(super) struct Document {
    pub(super) title: String,
    pub(super) sections: Vec<Section>,
}

/// A heading, and what stands below it.
pub(super) struct Section {
    pub(super) heading: &'static str,
    /// Whether a run's page shows it: some things stand there elsewhere, and some are for people to write.
    pub(super) on_page: bool,
    pub(super) blocks: Vec<Block>,
}

/// A part of a section.
pub(super) enum Block {
    /// A paragraph.
    Text(Vec<Piece>),
    /// Lines.
    Items(Vec<Vec<Piece>>),
    /// Columns and rows.
    Table(Table),
    /// What people should write here.
    Prompt(&'static str),
}

/// A table. Every row has as many cells as there are columns.
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Piece>>,
}

/// A column's title, and whether it has figures.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) figures: bool,
}

/// Text of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// Words of our own.
    Plain(String),
    /// Something as a file names it.
    Name(String),
}

/// Words of our own.
pub(super) fn plain(text: impl Into<String>) -> Piece {
    Piece::Plain(text.into())
}

/// Something as a file names it.
pub(super) fn name(text: impl Into<String>) -> Piece {
    Piece::Name(text.into())
}

/// A column of words.
pub(super) fn words(title: &'static str) -> Column {
    Column { title, figures: false }
}

/// A column of figures.
pub(super) fn figures(title: &'static str) -> Column {
    Column { title, figures: true }
}

/// Rows of a table at most.
const ROWS: usize = 60;

/// A table, and a remark if it has more rows than are shown; nothing without rows.
pub(super) fn table(columns: Vec<Column>, mut rows: Vec<Vec<Piece>>) -> Vec<Block> {
    let more = rows.len().saturating_sub(ROWS);
    rows.truncate(ROWS);
    let mut blocks = Vec::new();
    if !rows.is_empty() {
        blocks.push(Block::Table(Table { columns, rows }));
    }
    if more > 0 {
        blocks.push(Block::Text(vec![plain(format!("And {more} more: see the JSON."))]));
    }
    blocks
}
