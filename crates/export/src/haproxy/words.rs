//! How HAProxy's lines are written: quotes, conditions, lists.

use crate::text::Text;

/// A condition from its words, if there are any.
pub(super) fn condition(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" if{words}") }
}

/// An ACL for some endpoints, in as many lines as HAProxy's 64 words a line take.
pub(super) fn numbered(out: &mut Text, acl: &str, numbers: &[usize]) {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let words: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}:{last}") })
        .collect();
    for words in words.chunks(32) {
        out.line(1, format!("acl {acl} var(txn.endpoint) -m int {}", words.join(" ")));
    }
}

/// In HAProxy's strong quotes, within which nothing has a meaning.
pub(super) fn strong(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// In weak quotes, where a line break has an escape.
pub(super) fn weak(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_few_enough_words() {
        let mut out = Text::new("");
        let odd: Vec<usize> = (1..200).step_by(2).collect();
        numbered(&mut out, "odd", &odd);
        numbered(&mut out, "row", &[1, 2, 3, 5]);
        let text = out.finish();
        assert!(text.lines().all(|line| line.split(' ').count() <= 64), "{text}");
        assert_eq!(text.lines().last(), Some("acl row var(txn.endpoint) -m int 1:3 5"));
    }

    #[test]
    fn paths_cannot_leave_their_quotes() {
        assert_eq!(strong("/it's"), "'/it'\\''s'");
    }
}
