//! From an endpoint's name to what a proxy can match: `GET /notes/:id` to a method and a path.

use std::fmt::Write;

/// What requests an endpoint gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// A `GET` endpoint answers `HEAD` too. Empty: any method.
    pub(crate) methods: Vec<String>,
    path: Vec<Part>,
}

/// A piece of a path. The order is that of precedence: what is said literally wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// These characters.
    Literal(String),
    /// `:id` or `{id}`: one segment.
    Segment,
    /// `*`: anything.
    Rest,
}

impl Pattern {
    /// None where the name is no method and path.
    pub(crate) fn read(name: &str) -> Option<Pattern> {
        let (method, path) = name.trim().split_once(' ')?;
        let any = method == "*";
        if !any && (method.is_empty() || !method.chars().all(|c| c.is_ascii_uppercase())) {
            return None;
        }
        let path = path.trim();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let mut methods = if any { Vec::new() } else { vec![method.to_owned()] };
        if method == "GET" {
            methods.push("HEAD".to_owned());
        }
        Some(Pattern { methods, path: parts(path)? })
    }

    /// The path if it is one and the same for all requests.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.path.as_slice() {
            [Part::Literal(path)] => Some(path),
            _ => None,
        }
    }

    /// The whole path as a regular expression without anchors. Only brackets escape, so that no format's
    /// own backslashes get in the way.
    pub(crate) fn regex(&self) -> String {
        let mut out = String::new();
        for part in &self.path {
            match part {
                Part::Segment => out.push_str("[^/]+"),
                Part::Rest => out.push_str(".*"),
                Part::Literal(text) => {
                    for c in text.chars() {
                        if ".+*?()[]{}$|".contains(c) {
                            let _ = write!(out, "[{c}]");
                        } else {
                            out.push(c);
                        }
                    }
                }
            }
        }
        out
    }

    /// Sorts what is more specific first, so that the first that matches is the right one: `/notes/recent`
    /// before `/notes/:id`, a method before any, and a `HEAD` of its own before the `GET` that would answer it.
    pub(crate) fn precedence(&self) -> impl Ord + use<> {
        let kinds: Vec<u8> = self
            .path
            .iter()
            .flat_map(|part| match part {
                // As many marks as segments, so that patterns are compared segment by segment.
                Part::Literal(text) => vec![0; text.split('/').filter(|segment| !segment.is_empty()).count()],
                Part::Segment => vec![1],
                Part::Rest => vec![2],
            })
            .collect();
        (kinds, self.methods.is_empty(), self.methods != ["HEAD"])
    }
}

/// None where a character can be no part of a path.
fn parts(path: &str) -> Option<Vec<Part>> {
    if !path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut literal = String::new();
    let mut flush = |literal: &mut String, part: Option<Part>| {
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(literal)));
        }
        parts.extend(part);
    };
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            literal.push('/');
        }
        let named = segment.strip_prefix(':').or_else(|| segment.strip_prefix('{')?.strip_suffix('}'));
        if named.is_some_and(|name| !name.is_empty()) {
            flush(&mut literal, Some(Part::Segment));
            continue;
        }
        for c in segment.chars() {
            match c {
                '*' => flush(&mut literal, Some(Part::Rest)),
                // RFC 3986, section 3.3: pchar, without escapes, which proxies decode or not.
                c if c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(c) => literal.push(c),
                _ => return None,
            }
        }
    }
    flush(&mut literal, None);
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_methods_and_paths() {
        for (name, methods, regex) in [
            ("GET /notes/:id", "GET HEAD", "/notes/[^/]+"),
            ("GET /notes/{id}/tags", "GET HEAD", "/notes/[^/]+/tags"),
            ("POST /notes", "POST", "/notes"),
            ("DELETE /a.b/*", "DELETE", "/a[.]b/.*"),
            ("GET /", "GET HEAD", "/"),
            ("* /all", "", "/all"),
            ("GET /find?q=:q", "GET HEAD", "/find"),
            ("GET /$it(s)", "GET HEAD", "/[$]it[(]s[)]"),
        ] {
            let pattern = Pattern::read(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((pattern.methods.join(" ").as_str(), pattern.regex().as_str()), (methods, regex), "{name}");
        }
    }

    #[test]
    fn what_no_proxy_can_match_is_refused() {
        for name in ["any", "get /notes", "GET notes", "GET /a b", "GET /a\"b", "GET /a\\b", "GET /é", "GET /%20", " /"]
        {
            assert_eq!(Pattern::read(name), None, "{name}");
        }
    }

    #[test]
    fn the_specific_comes_first() {
        let mut names =
            ["* /notes", "GET /*", "GET /notes/:id", "GET /notes/recent", "HEAD /notes/recent", "GET /notes"];
        names.sort_by_key(|name| Pattern::read(name).unwrap().precedence());
        assert_eq!(
            names,
            ["GET /notes", "* /notes", "HEAD /notes/recent", "GET /notes/recent", "GET /notes/:id", "GET /*"]
        );
    }
}
