//! Lines with indentation, comments that are wrapped, and quantities as proxies and people write them.

use std::collections::BTreeSet;
use std::time::Duration;

/// Where a comment is wrapped.
const WIDTH: usize = 100;

/// A configuration in the making.
#[derive(Debug)]
pub(crate) struct Text {
    out: String,
    indent: &'static str,
    /// What was said once.
    said: BTreeSet<String>,
}

impl Text {
    /// Each level is indented by `indent`.
    pub(crate) fn new(indent: &'static str) -> Self {
        Text { out: String::new(), indent, said: BTreeSet::new() }
    }

    /// One line.
    pub(crate) fn line(&mut self, level: usize, line: impl AsRef<str>) {
        for _ in 0..level {
            self.out.push_str(self.indent);
        }
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    /// An empty line between sections.
    pub(crate) fn gap(&mut self) {
        self.out.push('\n');
    }

    /// A comment, wrapped. Names in it are the file's: nothing of them may start a line of its own.
    pub(crate) fn note(&mut self, level: usize, note: impl AsRef<str>) {
        let room = WIDTH.saturating_sub(level * self.indent.len() + 2).max(40);
        let mut line = String::new();
        for word in note.as_ref().split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                self.line(level, format!("# {line}"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.line(level, format!("# {line}"));
        }
    }

    /// A comment that holds for all places like this one, and stands at the first.
    pub(crate) fn once(&mut self, level: usize, note: impl AsRef<str>) {
        if self.said.insert(note.as_ref().to_owned()) {
            self.note(level, note);
        }
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }
}

/// A text of the file where a line break would begin something else.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A duration as the system file writes it: in the largest unit that leaves no fraction.
pub(crate) fn people(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "min"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let (size, unit) =
        units.into_iter().find(|(size, _)| nanos >= *size && nanos.is_multiple_of(*size)).unwrap_or((1, "ns"));
    format!("{}{unit}", nanos / size)
}

/// Whole milliseconds, rounded up: a timeout may come late, and must not become nothing.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up.
pub(crate) fn seconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

/// `5s` or `1500ms`, as nginx and HAProxy read it, and at most `most`.
pub(crate) fn short(duration: Duration, most: Duration) -> String {
    let millis = millis(duration.min(most));
    if millis.is_multiple_of(1_000) { format!("{}s", millis / 1_000) } else { format!("{millis}ms") }
}

/// A number without a fraction where it has none.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share of one as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{}%", number(share * 100.0))
}

/// `1 instance`, `3 instances`
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `a`, `b` and `c`, in backticks.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// A path of the file as it goes over the wire: what cannot stand in a request line is escaped.
pub(crate) fn escaped(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_graphic() {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (nanos, expected, proxy) in [
            (5_000_000_000, "5s", "5s"),
            (1_500_000_000, "1500ms", "1500ms"),
            (90_000_000_000, "90s", "90s"),
            (120_000_000_000, "2min", "120s"),
            (250_000, "250us", "1ms"),
            (86_400_000_000_000, "1d", "86400s"),
            (0, "0ns", "0s"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(people(duration), expected);
            assert_eq!(short(duration, Duration::MAX), proxy, "{expected}");
        }
        assert_eq!(short(Duration::from_secs(100), Duration::from_secs(9)), "9s");
    }

    #[test]
    fn numbers_have_no_idle_digits() {
        assert_eq!([number(2.0), number(1.25), number(0.1 + 0.2)], ["2", "1.25", "0.3"]);
        assert_eq!(percent(0.1), "10%");
        assert_eq!(percent(0.999), "99.9%");
    }

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(escaped("/a b\n\u{e9}"), "/a%20b%0A%C3%A9");
    }

    /// A name with a line break in it would otherwise become a directive.
    #[test]
    fn a_comment_stays_a_comment() {
        let mut text = Text::new("  ");
        text.note(1, format!("a\nload_module evil;\r{}", "word ".repeat(40)));
        for line in text.finish().lines() {
            assert!(line.starts_with("  # "), "{line}");
            assert!(line.len() <= WIDTH, "{line}");
        }
    }
}
