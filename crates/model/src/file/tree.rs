//! A YAML document as a tree in which every node knows where it stands.

/// A place in a file: a line and a column from 1, and a length in characters on that line.
///
/// A value that no file states (a default) has line 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) length: u32,
}

impl Span {
    pub(crate) const NOWHERE: Span = Span { line: 0, column: 0, length: 0 };

    /// The part of a one-line value from `offset`, `length` characters long.
    pub(crate) fn part(self, offset: usize, length: usize) -> Span {
        if self.line == 0 || offset + length > self.length as usize {
            return self;
        }
        Span { line: self.line, column: self.column + offset as u32, length: length as u32 }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Span,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// `quoted` keeps `"none"` and `""` apart from the words and from nothing.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) at: Span,
    pub(crate) text: String,
}

impl Node {
    pub(crate) fn scalar(text: &str, at: Span) -> Node {
        Node { at, content: Content::Scalar { text: text.to_owned(), quoted: false } }
    }

    /// Whether there is nothing after the key.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, quoted: false } if text.is_empty() || text == "~" || text == "null")
    }

    /// The node in a few words, for "found ...".
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            _ if self.is_nothing() => "nothing".to_owned(),
            Content::Scalar { text, .. } => format!("`{}`", shorten(text)),
            Content::List(items) => format!("a list of {}", items.len()),
            Content::Map(entries) => match entries.first() {
                Some((key, _)) => format!("a mapping with `{}`", shorten(&key.text)),
                None => "an empty mapping".to_owned(),
            },
        }
    }

    /// The keys that lead to the deepest node at this place, joined by dots; list items by number.
    pub(crate) fn path_to(&self, at: Span) -> String {
        let mut path = String::new();
        self.descend(at, &mut path);
        path
    }

    fn descend(&self, at: Span, path: &mut String) {
        let place = (at.line, at.column);
        let starts = |span: Span| (span.line, span.column) <= place;
        match &self.content {
            Content::Scalar { .. } => {}
            Content::List(items) => {
                let next = items.partition_point(|item| starts(item.at));
                if let Some((index, item)) = items.get(next.wrapping_sub(1)).map(|item| (next - 1, item)) {
                    path.push_str(&format!("[{index}]"));
                    item.descend(at, path);
                }
            }
            Content::Map(entries) => {
                let next = entries.partition_point(|(key, _)| starts(key.at));
                if let Some((key, value)) = entries.get(next.wrapping_sub(1)) {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&key.text);
                    if (key.at.line, key.at.column) != place && starts(value.at) {
                        value.descend(at, path);
                    }
                }
            }
        }
    }
}

/// At most 40 characters of `text`, on one line.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(41).collect();
    if short.chars().count() == 41 {
        short.pop();
        short.push('…');
    }
    short
}
