//! A document as Markdown, with the tables that GitHub and GitLab draw.

use super::document::{Block, Column, Document, Piece, Table};
use crate::markup::put;
use crate::text::clean;

pub(super) fn write(document: &Document) -> String {
    let mut out = format!("# {}\n", escape(&document.title));
    for section in &document.sections {
        put!(&mut out, "\n## {}\n", section.heading);
        for block in &section.blocks {
            out.push('\n');
            match block {
                Block::Text(pieces) => put!(&mut out, "{}\n", line(pieces)),
                Block::Items(items) => items.iter().for_each(|item| put!(&mut out, "- {}\n", line(item))),
                Block::Table(table) => write_table(table, &mut out),
                Block::Prompt(text) => put!(&mut out, "_{text}_\n"),
            }
        }
    }
    out
}

fn write_table(table: &Table, out: &mut String) {
    let titles: Vec<&str> = table.columns.iter().map(|column| column.title).collect();
    put!(out, "| {} |\n", titles.join(" | "));
    let rule = |column: &Column| if column.figures { "---:" } else { "---" };
    let rules: Vec<&str> = table.columns.iter().map(rule).collect();
    put!(out, "| {} |\n", rules.join(" | "));
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(piece).collect();
        put!(out, "| {} |\n", cells.join(" | "));
    }
}

fn line(pieces: &[Piece]) -> String {
    pieces.iter().map(piece).collect()
}

fn piece(piece: &Piece) -> String {
    match piece {
        Piece::Plain(text) => escape(text),
        Piece::Name(text) => code(text),
    }
}

/// Text that Markdown takes for nothing else. What has a meaning at the start of a line only can do nothing: lines
/// start with words of ours.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '|' | '~' | '&' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A name between more backticks than it has in a row. Bars end a table's cell there too, unless they are escaped; which
/// a backslash of the name's own before them would undo.
fn code(text: &str) -> String {
    let text = clean(text);
    if text.trim().is_empty() || text.contains("\\|") {
        return escape(&text);
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let room = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{room}{}{room}{fence}", text.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        assert_eq!(code("api -> db"), "`api -> db`");
        assert_eq!(code("a|b`c"), "``a\\|b`c``");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(code("a\nb"), "`a b`");
        assert_eq!(code("a\\|b"), "a\\\\\\|b");
        assert_eq!(escape("<b>*x* [y](z)"), "\\<b>\\*x\\* \\[y\\](z)");
    }
}
