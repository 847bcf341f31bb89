use crate::text::{clean, cut, width, wrap};

/// How to write for a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colours (ANSI escape sequences).
    pub color: bool,
    /// Columns that no line may exceed; at least 40 are used.
    pub width: usize,
    /// Whether the terminal shows box drawing and symbols; names are shown as they are.
    pub unicode: bool,
}

impl Default for Style {
    /// Plain text in 80 columns with symbols.
    fn default() -> Self {
        Style { color: false, width: 80, unicode: true }
    }
}

impl Style {
    /// One of two spellings.
    pub(super) fn pick(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }
}

/// What a piece of text stands for; it decides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Warn,
    Bad,
}

/// A piece of a line.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// A piece of text in a tone.
pub(super) fn span(text: impl Into<String>, tone: Tone) -> Span {
    Span { text: text.into(), tone }
}

/// A lead up to this width is a column of its own.
const LEAD: usize = 22;

/// Lines of output, none wider than the style says.
pub(super) struct Sheet {
    pub(super) style: Style,
    out: String,
}

impl Sheet {
    pub(super) fn new(style: Style) -> Self {
        Sheet { style: Style { width: style.width.max(40), ..style }, out: String::new() }
    }

    pub(super) fn width(&self) -> usize {
        self.style.width
    }

    /// An empty line, unless there is one already.
    pub(super) fn blank(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// A section's title after an empty line.
    pub(super) fn heading(&mut self, text: &str) {
        self.blank();
        self.row(&[span(text, Tone::Strong)]);
    }

    /// One line; what does not fit is cut.
    pub(super) fn row(&mut self, spans: &[Span]) {
        let mut left = self.style.width;
        let mut line = String::new();
        let last = spans.iter().rposition(|span| !span.text.trim_end().is_empty()).map_or(0, |at| at + 1);
        for (position, span) in spans[..last].iter().enumerate() {
            let text = clean(&span.text);
            let text = if position + 1 == last { text.trim_end() } else { &text };
            let text = cut(text, left);
            left -= width(&text).min(left);
            line.push_str(&self.paint(&text, span.tone));
        }
        self.out.push_str(&line);
        self.out.push('\n');
    }

    /// Text over as many lines as it takes, the first after `lead`, the others under its text, or
    /// a little to the right of a long lead's start.
    pub(super) fn paragraph(&mut self, lead: Span, text: &str, tone: Tone) {
        let text = clean(text);
        let taken = width(&clean(&lead.text));
        let start = lead.text.len() - lead.text.trim_start().len();
        let indent = if taken <= LEAD { taken } else { start + 2 };
        let room = |taken: usize| self.style.width.saturating_sub(taken).max(20);
        let Some(first) = wrap(&text, room(taken)).into_iter().next() else { return };
        let words = first.split_whitespace().count();
        let rest = text.split_whitespace().skip(words).collect::<Vec<_>>().join(" ");
        // A word that was broken to fit goes on below: then all lines are broken alike.
        let broken = !text.split_whitespace().take(words).eq(first.split_whitespace());
        let lines = if broken { wrap(&text, room(taken)).split_off(1) } else { wrap(&rest, room(indent)) };
        self.row(&[lead, span(first, tone)]);
        for line in lines {
            self.row(&[span(" ".repeat(indent), Tone::Plain), span(line, tone)]);
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => "",
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
        };
        if !self.style.color || code.is_empty() || text.trim().is_empty() {
            return text.into();
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
