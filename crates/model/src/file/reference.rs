//! The tables as a page for people: `docs/system-file.md`.

use super::check::expected;
use super::expectation::{METRICS, Unit};
use super::root::SYSTEM;
use super::table::{Default, Field, Kind, Object};

/// The reference of the system file, as Markdown.
pub fn reference() -> String {
    let mut pages = Pages { order: Vec::new() };
    pages.visit(&SYSTEM);
    let mut out = String::from(INTRODUCTION);
    for page in pages.order {
        match page {
            Page::Object(object) => section(object, &mut out),
            Page::Forms { name, doc, options } => {
                out.push_str(&format!("\n## {name}\n\n"));
                if !doc.is_empty() {
                    out.push_str(&format!("{doc}\n\n"));
                }
                let links: Vec<String> = options.iter().map(|object| link(object)).collect();
                out.push_str(&format!("One of: {}.\n", links.join(", ")));
            }
        }
    }
    out.push_str("\n## Figures that an expectation can name\n\n| figure | unit | meaning |\n|---|---|---|\n");
    for row in METRICS {
        let unit = match row.unit {
            Unit::Share => "percentage",
            Unit::Duration => "duration",
            Unit::Rate => "rate",
            Unit::Number => "number",
        };
        out.push_str(&format!("| `{}` | {unit} | {} |\n", row.name, row.doc));
    }
    out
}

const INTRODUCTION: &str = "# The system file

<!-- Generated from the tables that read the file. After a change there:
     PLIMSOLL_WRITE=1 cargo test -p plimsoll-model --test file reference -->

A system file is YAML 1.2. Every quantity carries its unit, and needs no quotes. Every name is your own. A key that is
not listed here is an error, and so is a key that would change nothing. What is left out has the default given here;
`plimsoll explain FILE` shows a file with all of them filled in, and `plimsoll schema` prints a JSON Schema for your
editor.

Quantities: numbers `20k`, `1.5M`; durations `250us`, `5ms`, `2s`, `10min`, `24h`, `7d`; rates `300/s`, `100/min`; sizes
`2KiB`, `100GB`; percentages `99.9%`; factors `5x`; prices `$0.04/h`. Where a value may be `none`, the table says so.
";

enum Page {
    Object(&'static Object),
    Forms { name: &'static str, doc: &'static str, options: Vec<&'static Object> },
}

struct Pages {
    order: Vec<Page>,
}

impl Pages {
    fn visit(&mut self, object: &'static Object) {
        let seen = |page: &Page| matches!(page, Page::Object(other) if other.name == object.name);
        if self.order.iter().any(seen) {
            return;
        }
        self.order.push(Page::Object(object));
        object.fields().for_each(|field| self.kind(field.kind));
    }

    fn kind(&mut self, kind: Kind) {
        match kind {
            Kind::Scalar(_) | Kind::Words(_) => {}
            Kind::Object(object) | Kind::Short(object, _) => self.visit(object),
            Kind::Choice(choice) => self.forms(choice.name, choice.doc, choice.options.to_vec()),
            Kind::Tagged(tagged) => {
                self.forms(tagged.name, "", tagged.options.iter().map(|(_, object)| *object).collect());
            }
            Kind::List(item) | Kind::OrNone(item) => self.kind(*item),
            Kind::Map { value, .. } => self.kind(*value),
            Kind::Or(kinds) => kinds.iter().for_each(|kind| self.kind(*kind)),
        }
    }

    fn forms(&mut self, name: &'static str, doc: &'static str, options: Vec<&'static Object>) {
        let seen = |page: &Page| matches!(page, Page::Forms { name: other, .. } if *other == name);
        if self.order.iter().any(seen) {
            return;
        }
        self.order.push(Page::Forms { name, doc, options: options.clone() });
        options.into_iter().for_each(|object| self.visit(object));
    }
}

fn section(object: &'static Object, out: &mut String) {
    out.push_str(&format!(
        "\n## {}\n\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
        object.name, object.doc
    ));
    for field in object.fields() {
        let mut meaning = field.doc.to_owned();
        if let Kind::Words(words) = field.kind {
            let words: Vec<String> = words.iter().map(|(word, doc)| format!("`{word}`: {doc}")).collect();
            meaning.push_str(&format!(" {}.", words.join("; ")));
        }
        if let Some(when) = field.when {
            meaning.push_str(&format!(" Only {}.", when.words));
        }
        let cells = [format!("`{}`", field.key), value(field), default(field), meaning];
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

fn value(field: &Field) -> String {
    let text = kind(field.kind);
    if matches!(field.default, Default::None { .. }) { format!("{text} or `none`") } else { text }
}

fn kind(value: Kind) -> String {
    match value {
        Kind::Object(object) => link(object),
        Kind::Short(object, key) => {
            let short = object.field(key).map(|field| kind(field.kind)).unwrap_or_default();
            format!("{short}, or {}", link(object))
        }
        Kind::Choice(choice) => format!("[{}](#{})", choice.name, anchor(choice.name)),
        Kind::Tagged(tagged) => format!("[{}](#{})", tagged.name, anchor(tagged.name)),
        Kind::List(item) => format!("list of {}", kind(*item)),
        Kind::Map { key, value } => format!("mapping from {} to {}", key.what, kind(*value)),
        Kind::Or(kinds) => kinds.iter().map(|value| kind(*value)).collect::<Vec<_>>().join(", or "),
        Kind::OrNone(value) => format!("{} or `none`", kind(*value)),
        Kind::Words(words) => words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Kind::Scalar(_) => expected(value),
    }
}

fn default(field: &Field) -> String {
    match field.default {
        Default::Required => "required".to_owned(),
        Default::Value { text, source } => format!("`{text}` ({source})"),
        Default::Derived { rule, source, .. } => format!("{rule} ({source})"),
        Default::None { source } => format!("`none` ({source})"),
        Default::Absent { means } => means.to_owned(),
    }
}

fn link(object: &Object) -> String {
    format!("[{}](#{})", object.name, anchor(object.name))
}

/// A heading's anchor as GitHub makes it.
fn anchor(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}
