//! From bytes to a tree.
//!
//! The limits keep a hostile file from costing more than its own size: on its bytes, on the depth
//! of nesting, and on the number of nodes once every alias is written out.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::problem::Report;
use super::tree::{Content, Key, Node, Span, shorten};

/// Largest file that is read, bytes.
pub(crate) const BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of lists and mappings.
const DEPTH_MAX: usize = 100;
/// Most nodes of a document, aliases written out.
const NODES_MAX: usize = 250_000;

/// Reads one YAML document. On failure the reason is in `report`.
pub(crate) fn read(bytes: &[u8], report: &mut Report) -> Option<Node> {
    let text = text_of(bytes, report)?;
    Builder { report, stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, root: None }.build(text)
}

/// Reads a default's text, which is part of this program.
pub(crate) fn read_default(text: &str) -> Node {
    // Most defaults are scalars or empty, and need no YAML parser.
    match text {
        "{}" => return Node { at: Span::NOWHERE, content: Content::Map(Vec::new()) },
        "[]" => return Node { at: Span::NOWHERE, content: Content::List(Vec::new()) },
        _ if !text.starts_with(['{', '[']) => return Node::scalar(text, Span::NOWHERE),
        _ => {}
    }
    let mut report = Report::default();
    let mut node = read(text.as_bytes(), &mut report).unwrap_or_else(|| Node::scalar(text, Span::NOWHERE));
    forget_places(&mut node);
    node
}

fn forget_places(node: &mut Node) {
    node.at = Span::NOWHERE;
    match &mut node.content {
        Content::Scalar { .. } => {}
        Content::List(items) => items.iter_mut().for_each(forget_places),
        Content::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            key.at = Span::NOWHERE;
            forget_places(value);
        }),
    }
}

/// The bytes as text, refusing what no text editor writes.
fn text_of<'a>(bytes: &'a [u8], report: &mut Report) -> Option<&'a str> {
    if bytes.len() > BYTES_MAX {
        report.file(format!("the file has {} bytes; a system file has at most {} MiB", bytes.len(), BYTES_MAX >> 20));
        return None;
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        report.file("the file is UTF-16; save it as UTF-8".to_owned());
        return None;
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let place = |offset: usize| {
        let before = &bytes[..offset];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
        Span {
            line: before.iter().filter(|&&b| b == b'\n').count() as u32 + 1,
            column: String::from_utf8_lossy(&before[line_start..]).chars().count() as u32 + 1,
            length: 1,
        }
    };
    let control = bytes.iter().position(|&b| b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r') || b == 0x7F);
    if let Some(offset) = control {
        let message = format!("byte {:#04x} has no place in a text file: is this binary data?", bytes[offset]);
        report.at(place(offset), message);
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            report.at(place(error.valid_up_to()), "the file is not UTF-8 from here on".to_owned());
            None
        }
    }
}

/// An open list or mapping.
struct Open {
    at: Span,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    /// `seen` has the line of each key.
    Map {
        entries: Vec<(Key, Node)>,
        seen: BTreeMap<String, u32>,
        key: Option<Key>,
    },
}

struct Builder<'r> {
    report: &'r mut Report,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn build(mut self, text: &str) -> Option<Node> {
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.syntax(text, error.marker(), error.info());
                    return None;
                }
            };
            let at = Span {
                line: span.start.line() as u32,
                column: span.start.col() as u32 + 1,
                length: if span.start.line() == span.end.line() {
                    span.end.col().saturating_sub(span.start.col()) as u32
                } else {
                    1
                },
            };
            let done = match event {
                Event::DocumentStart(_) if self.root.is_some() => {
                    self.report.at(at, "a second document starts here; a system file is one document".to_owned());
                    None
                }
                Event::Scalar(value, style, anchor, tag) => {
                    let quoted = style != ScalarStyle::Plain;
                    let content = Content::Scalar { text: value.into_owned(), quoted };
                    self.untagged(tag.is_some(), at).and_then(|()| self.take(Node { at, content }, anchor, 1))
                }
                Event::SequenceStart(anchor, tag) => {
                    self.untagged(tag.is_some(), at).and_then(|()| self.open(at, anchor, Items::List(Vec::new())))
                }
                Event::MappingStart(anchor, tag) => {
                    let items = Items::Map { entries: Vec::new(), seen: BTreeMap::new(), key: None };
                    self.untagged(tag.is_some(), at).and_then(|()| self.open(at, anchor, items))
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(),
                Event::Alias(anchor) => self.alias(anchor, at),
                _ => Some(()),
            };
            done?;
        }
        if self.root.is_none() {
            self.report.file("the file is empty; the least it needs is `system:` and `clients:`".to_owned());
        }
        self.root
    }

    fn untagged(&mut self, tagged: bool, at: Span) -> Option<()> {
        if tagged {
            self.report.at(at, "tags such as `!name` have no meaning here".to_owned());
            return None;
        }
        Some(())
    }

    fn open(&mut self, at: Span, anchor: usize, items: Items) -> Option<()> {
        if self.stack.len() == DEPTH_MAX {
            self.report.at(at, format!("lists and mappings are nested more than {DEPTH_MAX} deep"));
            return None;
        }
        self.stack.push(Open { at: Span { length: 1, ..at }, anchor, items });
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let open = self.stack.pop()?;
        let content = match open.items {
            Items::List(items) => Content::List(items),
            Items::Map { entries, .. } => Content::Map(entries),
        };
        self.take(Node { at: open.at, content }, open.anchor, 1)
    }

    fn alias(&mut self, anchor: usize, at: Span) -> Option<()> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.report.at(at, "an alias cannot stand within what it names".to_owned());
            return None;
        };
        let size = size(node);
        if self.nodes + size > NODES_MAX {
            self.report.at(at, format!("with its aliases written out, the file has more than {NODES_MAX} values"));
            return None;
        }
        let node = node.clone();
        self.take(node, 0, size)
    }

    /// Puts a finished node where it belongs.
    fn take(&mut self, node: Node, anchor: usize, size: usize) -> Option<()> {
        self.nodes += size;
        if self.nodes > NODES_MAX {
            self.report.at(node.at, format!("the file has more than {NODES_MAX} values"));
            return None;
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map { entries, seen, key }) => match key.take() {
                Some(key) => match seen.get(&key.text) {
                    None => {
                        seen.insert(key.text.clone(), key.at.line);
                        entries.push((key, node));
                    }
                    Some(line) => {
                        self.report
                            .at(key.at, format!("the key `{}` is here twice", shorten(&key.text)))
                            .help(format!("it first stands on line {line}"));
                    }
                },
                None => match node.content {
                    Content::Scalar { text, .. } => *key = Some(Key { at: node.at, text }),
                    _ => {
                        self.report
                            .at(node.at, "a key must be a plain word".to_owned())
                            .help("text that starts with `{` or `[` needs quotes".to_owned());
                        return None;
                    }
                },
            },
        }
        Some(())
    }

    /// Reports what the YAML parser refuses, with advice for the usual slips.
    fn syntax(&mut self, text: &str, marker: &saphyr_parser::Marker, info: &str) {
        let at = Span { line: marker.line() as u32, column: marker.col() as u32 + 1, length: 1 };
        let lines: Vec<&str> = text.lines().collect();
        let near = (at.line as usize).saturating_sub(2)..(at.line as usize).min(lines.len());
        for number in near {
            let indentation = &lines[number][..lines[number].len() - lines[number].trim_start().len()];
            if let Some(column) = indentation.find('\t') {
                let at = Span { line: number as u32 + 1, column: column as u32 + 1, length: 1 };
                self.report
                    .at(at, "a tab in the indentation; YAML allows only spaces there".to_owned())
                    .help("replace each tab by two spaces".to_owned());
                return;
            }
        }
        let problem = self.report.at(at, format!("this is not YAML: {info}"));
        if info.contains("mapping values are not allowed") {
            problem.help("text that contains `: ` needs quotes; otherwise check the indentation".to_owned());
        } else if info.contains("cannot start any token") {
            problem.help("text that starts with `@`, `%` or a backtick needs quotes".to_owned());
        } else {
            problem.help("check the indentation and that brackets and quotes are closed".to_owned());
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Content::Map(entries) => 1 + entries.iter().map(|(_, value)| 1 + size(value)).sum::<usize>(),
    }
}
