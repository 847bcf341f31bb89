//! A document as a section of a run's page.

use super::document::{Block, Document, Piece, Table};
use crate::markup::{escape, put};

/// What comes first stays open; the rest is folded away.
pub(super) fn write(document: &Document, out: &mut String) {
    let mut sections = document.sections.iter().filter(|section| section.on_page);
    out.push_str("<section class=\"postmortem\"><h2>Postmortem</h2>\n");
    if let Some(first) = sections.next() {
        first.blocks.iter().for_each(|block| write_block(block, out));
    }
    out.push_str(
        "<details class=\"minor\"><summary>Impact, detection and recovery, limits, policies, data</summary>\n",
    );
    for section in sections {
        put!(out, "<h3>{}</h3>\n", escape(section.heading));
        section.blocks.iter().for_each(|block| write_block(block, out));
    }
    out.push_str("</details></section>\n");
}

fn write_block(block: &Block, out: &mut String) {
    match block {
        Block::Text(pieces) => put!(out, "<p>{}</p>\n", line(pieces)),
        Block::Items(items) => {
            out.push_str("<ul>");
            items.iter().for_each(|item| put!(out, "<li>{}</li>", line(item)));
            out.push_str("</ul>\n");
        }
        Block::Table(table) => write_table(table, out),
        Block::Prompt(_) => {}
    }
}

fn write_table(table: &Table, out: &mut String) {
    out.push_str("<div class=\"scroll\"><table class=\"figures\"><thead><tr>");
    let class = |figures: bool| if figures { " class=\"n\"" } else { "" };
    for column in &table.columns {
        put!(out, "<th{}>{}</th>", class(column.figures), escape(column.title));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (column, cell) in table.columns.iter().zip(row) {
            put!(out, "<td{}>{}</td>", class(column.figures), piece(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn line(pieces: &[Piece]) -> String {
    pieces.iter().map(piece).collect()
}

fn piece(piece: &Piece) -> String {
    match piece {
        Piece::Plain(text) => escape(text),
        Piece::Name(text) if text.is_empty() => String::new(),
        Piece::Name(text) => format!("<code>{}</code>", escape(text)),
    }
}
