//! The resolved file as text: every value, each with its origin as a comment.

use std::collections::{BTreeMap, BTreeSet};

use super::check::defaults;
use super::edge::{self, SERVICES_ONLY};
use super::filled::{Entry, Fields, Filled, Origin, Value};
use super::tree::{Key, Span};

/// Writes a checked file in block style. Reading it again gives the same system.
pub(crate) fn explain(root: &Filled, implied: &[(String, String)]) -> String {
    let mut root = root.clone();
    let stores: BTreeSet<String> = root.get("stores").map().iter().map(|(key, _)| key.text.clone()).collect();
    let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (caller, target) in implied {
        targets.entry(caller).or_default().push(target);
    }
    for section in ["services", "consumers"] {
        for (caller, filled) in entries(&mut root, section) {
            for (key, calls) in entries(filled, "calls") {
                settle(calls, stores.contains(&key.text));
            }
            for target in targets.get(caller.text.as_str()).into_iter().flatten() {
                let mut calls = defaults(&edge::CALL);
                settle(&mut calls, stores.contains(*target));
                let source = "it calls this, and the file gives no policies";
                calls.origin = Origin::Default { rule: None, source };
                add(filled, "calls", target, calls);
            }
        }
    }
    let mut out = String::new();
    match &root.value {
        Value::Object(fields) => object(fields, 0, &mut out),
        _ => unreachable!("a file without problems is a mapping"),
    }
    out
}

/// The entries of the mapping under a key, to change.
fn entries<'f>(filled: &'f mut Filled, key: &str) -> &'f mut [(Key, Filled)] {
    let Value::Object(fields) = &mut filled.value else { return &mut [] };
    match fields.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value.value) {
        Some(Value::Map(entries)) => entries,
        _ => &mut [],
    }
}

fn add(filled: &mut Filled, key: &str, name: &str, value: Filled) {
    let Value::Object(fields) = &mut filled.value else { return };
    let map = fields.entries.iter_mut().find(|entry| entry.key == key);
    if let Some(Entry { value: Filled { value: Value::Map(entries), .. }, .. }) = map {
        entries.push((Key { at: Span::NOWHERE, text: name.to_owned() }, value));
    }
}

/// Marks the policies that play no part in calls to a store.
fn settle(calls: &mut Filled, store: bool) {
    let Value::Object(fields) = &mut calls.value else { return };
    for entry in fields.entries.iter_mut().filter(|entry| store && SERVICES_ONLY.contains(&entry.key)) {
        entry.idle = Some("in calls to services");
    }
}

fn object(fields: &Fields, indent: usize, out: &mut String) {
    for entry in &fields.entries {
        let note = match (&entry.value.value, entry.idle) {
            (_, Some(words)) => Some(format!("plays a part only {words}")),
            (Value::Absent(means), None) => Some((*means).to_owned()),
            _ => None,
        };
        match note {
            Some(note) => out.push_str(&format!("{}# {}: {note}\n", " ".repeat(indent), entry.key)),
            None => value(&format!("{}:", entry.key), &entry.value, indent, out),
        }
    }
}

/// Writes a value behind `lead`, which is its key or a list's dash.
fn value(lead: &str, filled: &Filled, indent: usize, out: &mut String) {
    let margin = " ".repeat(indent);
    let comment = comment(filled);
    let line = |out: &mut String, text: &str| {
        let start = format!("{margin}{lead} {text}");
        out.push_str(&format!("{}  # {comment}\n", start.trim_end()));
    };
    match &filled.value {
        Value::Scalar { text, .. } => line(out, &scalar(text)),
        Value::None => line(out, "none"),
        Value::List(items) if items.is_empty() => line(out, "[]"),
        Value::Map(entries) if entries.is_empty() => line(out, "{}"),
        Value::List(items) => {
            line(out, "");
            for item in items {
                value("-", item, indent + 2, out);
            }
        }
        Value::Map(entries) => {
            line(out, "");
            for (key, item) in entries {
                value(&format!("{}:", scalar(&key.text)), item, indent + 2, out);
            }
        }
        Value::Object(fields) => {
            line(out, if has_keys(fields) { "" } else { "{}" });
            object(fields, indent + 2, out);
        }
        Value::Absent(_) | Value::Bad => {}
    }
}

/// Whether a mapping has a key that is written, and not only told about.
fn has_keys(fields: &Fields) -> bool {
    fields.entries.iter().any(|entry| entry.idle.is_none() && !matches!(entry.value.value, Value::Absent(_)))
}

fn comment(filled: &Filled) -> String {
    match filled.origin {
        Origin::File => format!("from the file, line {}", filled.at.line),
        Origin::Default { rule: Some(rule), source } => format!("default: {rule} ({source})"),
        Origin::Default { rule: None, source: "" } => "default".to_owned(),
        Origin::Default { rule: None, source } => format!("default: {source}"),
    }
}

/// A scalar as YAML: plain where that reads as the same text, else in double quotes.
fn scalar(text: &str) -> String {
    let first = text.chars().next().unwrap_or(' ');
    let safe_start = first.is_alphanumeric() || matches!(first, '/' | '$' | '_' | '+' | '(' | '<' | '.');
    let signed = first == '-' && text[1..].starts_with(|c: char| c.is_ascii_digit());
    let safe = (safe_start || signed)
        && !text.ends_with(char::is_whitespace)
        && !text.ends_with(':')
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().any(|c| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}'))
        && !matches!(text, "none" | "null")
        && !text.starts_with("---")
        && !text.starts_with("...");
    if safe {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}') => {
                quoted.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
