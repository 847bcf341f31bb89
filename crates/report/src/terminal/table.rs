use super::sheet::{Sheet, Span, Tone, span};
use crate::text::{clean, cut, width, wrap};

/// A table whose text columns wrap when the page is narrow.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// A column of a table.
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Numbers stand to the right.
    pub(super) right: bool,
    /// Whether it gives way when the table is too wide: its text wraps.
    pub(super) wraps: bool,
}

struct Row {
    cells: Vec<Span>,
    note: Option<Span>,
}

/// A column of numbers.
pub(super) const fn figure(title: &'static str) -> Column {
    Column { title, right: true, wraps: false }
}

/// A column of text.
pub(super) const fn words(title: &'static str) -> Column {
    Column { title, right: false, wraps: true }
}

/// A column of drawings, which can't be broken.
pub(super) const fn drawing() -> Column {
    Column { title: "", right: false, wraps: false }
}

const INDENT: usize = 2;
const GAP: usize = 2;
/// A wrapping column is not made narrower than this while others can give.
const NARROWEST: usize = 9;

impl Table {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row with one cell for each column.
    pub(super) fn row(&mut self, cells: Vec<Span>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(Row { cells, note: None });
    }

    /// Adds a sentence under the last row.
    pub(super) fn note(&mut self, text: impl Into<String>, tone: Tone) {
        if let Some(row) = self.rows.last_mut() {
            row.note = Some(span(text, tone));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn write(self, sheet: &mut Sheet) {
        let widths = self.widths(sheet.width());
        if self.columns.iter().any(|column| !column.title.is_empty()) {
            let titles = self.columns.iter().map(|column| span(column.title, Tone::Dim)).collect::<Vec<_>>();
            self.cells(&titles, &widths, sheet);
        }
        for row in &self.rows {
            self.cells(&row.cells, &widths, sheet);
            if let Some(note) = &row.note {
                sheet.paragraph(span(" ".repeat(INDENT + 2), Tone::Plain), &note.text, note.tone);
            }
        }
    }

    fn cells(&self, cells: &[Span], widths: &[usize], sheet: &mut Sheet) {
        let lines: Vec<Vec<String>> = cells
            .iter()
            .zip(&self.columns)
            .zip(widths)
            .map(|((cell, column), &columns)| {
                let text = clean(&cell.text);
                if column.wraps { wrap(&text, columns) } else { vec![cut(&text, columns).into_owned()] }
            })
            .collect();
        let height = lines.iter().map(Vec::len).max().unwrap_or(0).max(1);
        for at in 0..height {
            let mut spans = vec![span(" ".repeat(INDENT), Tone::Plain)];
            for (position, (cell, column)) in cells.iter().zip(&self.columns).enumerate() {
                let text = lines[position].get(at).map_or("", String::as_str);
                let fill = " ".repeat(widths[position].saturating_sub(width(text)));
                let gap = if position > 0 { " ".repeat(GAP) } else { String::new() };
                if column.right {
                    spans.push(span(gap + &fill, Tone::Plain));
                    spans.push(span(text, cell.tone));
                } else {
                    spans.push(span(gap, Tone::Plain));
                    spans.push(span(text, cell.tone));
                    spans.push(span(fill, Tone::Plain));
                }
            }
            sheet.row(&spans);
        }
    }

    /// Natural widths, with the widest of the wrapping columns made narrower until it all fits.
    fn widths(&self, available: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = self.rows.iter().map(|row| width(&clean(&row.cells[at].text)));
                cells.max().unwrap_or(0).max(width(column.title)).min(available)
            })
            .collect();
        let budget = available.saturating_sub(INDENT + GAP * self.columns.len().saturating_sub(1));
        for narrowest in [NARROWEST, 4] {
            while widths.iter().sum::<usize>() > budget {
                let widest = (0..widths.len())
                    .filter(|at| (self.columns[*at].wraps || narrowest < NARROWEST) && widths[*at] > narrowest)
                    .max_by_key(|at| widths[*at]);
                let Some(widest) = widest else { break };
                widths[widest] -= 1;
            }
        }
        widths
    }
}
