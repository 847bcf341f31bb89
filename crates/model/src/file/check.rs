//! Checks a tree against the tables and fills in the defaults.

use super::filled::{Entry, Fields, Filled, Origin, Value};
use super::problem::Report;
use super::quantity::Quantity;
use super::reader::read_default;
use super::suggest;
use super::table::{Choice, Default, Field, Kind, MapKey, Object, Scalar, Tagged};
use super::tree::{Content, Key, Node, Span, shorten};

/// The tree with every value typed and every default filled in.
pub(crate) fn check(node: &Node, kind: Kind, report: &mut Report) -> Filled {
    Checker { report, origin: Origin::File }.check(node, kind)
}

/// A mapping that the file does not have, with all its defaults; `None` if a key is required.
pub(crate) fn defaults(of: &'static Object) -> Filled {
    let empty = Node { at: Span::NOWHERE, content: Content::Map(Vec::new()) };
    let origin = Origin::Default { rule: None, source: "" };
    let mut report = Report::default();
    let mut filled = Checker { report: &mut report, origin }.check(&empty, Kind::Object(of));
    filled.origin = origin;
    filled
}

struct Checker<'r> {
    report: &'r mut Report,
    origin: Origin,
}

impl Checker<'_> {
    fn filled(&self, at: Span, value: Value) -> Filled {
        Filled { at, origin: self.origin, value }
    }

    fn check(&mut self, node: &Node, kind: Kind) -> Filled {
        match kind {
            Kind::Scalar(scalar) => self.scalar(node, scalar),
            Kind::Words(words) => self.word(node, words),
            Kind::Object(object) => match &node.content {
                Content::Map(entries) => self.object(node.at, entries, object),
                _ => self.mismatch(node, kind),
            },
            Kind::Short(object, key) => match &node.content {
                Content::Map(entries) => self.object(node.at, entries, object),
                _ if node.is_nothing() => self.mismatch(node, kind),
                _ => {
                    let entries = [(Key { at: node.at, text: key.to_owned() }, node.clone())];
                    self.object(node.at, &entries, object)
                }
            },
            Kind::Choice(choice) => match &node.content {
                Content::Map(entries) => self.choice(node.at, entries, choice),
                _ => self.mismatch(node, kind),
            },
            Kind::Tagged(tagged) => match &node.content {
                Content::Map(entries) => self.tagged(node.at, entries, tagged),
                _ => self.mismatch(node, kind),
            },
            Kind::List(item) => match &node.content {
                Content::List(items) => {
                    let items = items.iter().map(|node| self.check(node, *item)).collect();
                    self.filled(node.at, Value::List(items))
                }
                _ => self.mismatch(node, kind),
            },
            Kind::Map { key, value } => match &node.content {
                Content::Map(entries) => {
                    let entries = entries.iter().map(|(name, node)| {
                        self.map_key(name, key);
                        (name.clone(), self.check(node, *value))
                    });
                    let entries = entries.collect();
                    self.filled(node.at, Value::Map(entries))
                }
                _ => self.mismatch(node, kind),
            },
            Kind::Or(kinds) => match kinds.iter().find(|kind| has_shape(node, **kind)) {
                Some(kind) => self.check(node, *kind),
                None => self.mismatch(node, kind),
            },
            Kind::OrNone(kind) => match &node.content {
                Content::Scalar { text, quoted: false } if text == "none" => self.filled(node.at, Value::None),
                _ => self.check(node, *kind),
            },
        }
    }

    fn mismatch(&mut self, node: &Node, kind: Kind) -> Filled {
        self.report.mismatch(node.at, &expected(kind), &node.describe(), None);
        Filled::bad(node.at)
    }

    fn scalar(&mut self, node: &Node, scalar: &'static Scalar) -> Filled {
        let Content::Scalar { text, .. } = &node.content else {
            return self.mismatch(node, Kind::Scalar(scalar));
        };
        if node.is_nothing() {
            return self.mismatch(node, Kind::Scalar(scalar));
        }
        match (scalar.parse)(text) {
            Ok(quantity) => self.filled(node.at, Value::Scalar { text: text.clone(), quantity }),
            Err(wrong) => {
                let expected = expected(Kind::Scalar(scalar));
                let problem = self.report.mismatch(node.at, &expected, &node.describe(), Some(&wrong.why));
                problem.help = wrong.help;
                Filled::bad(node.at)
            }
        }
    }

    fn word(&mut self, node: &Node, words: &'static [(&'static str, &'static str)]) -> Filled {
        match &node.content {
            Content::Scalar { text, .. } if words.iter().any(|(word, _)| word == text) => {
                self.filled(node.at, Value::Scalar { text: text.clone(), quantity: Quantity::Text })
            }
            Content::Scalar { text, .. } => {
                let expected = expected(Kind::Words(words));
                let near = suggest::nearest(text, words.iter().map(|(word, _)| *word));
                let problem = self.report.mismatch(node.at, &expected, &node.describe(), None);
                problem.help = near.map(|word| format!("did you mean `{word}`?"));
                Filled::bad(node.at)
            }
            _ => self.mismatch(node, Kind::Words(words)),
        }
    }

    fn map_key(&mut self, key: &Key, rule: &MapKey) {
        if let Err(wrong) = (rule.scalar.parse)(&key.text) {
            let message = format!("expected {}, found `{}`: {}", rule.what, shorten(&key.text), wrong.why);
            self.report.at(key.at, message).help = wrong.help;
        }
    }

    fn object(&mut self, at: Span, entries: &[(Key, Node)], of: &'static Object) -> Filled {
        let mut fields = Fields { of, entries: Vec::with_capacity(of.fields().count()), unknown: false };
        let mut slips = Vec::new();
        let free: Vec<&'static str> = of
            .fields()
            .map(|field| field.key)
            .filter(|known| !entries.iter().any(|(key, _)| key.text == *known))
            .collect();
        for (key, _) in entries {
            if of.field(&key.text).is_none() {
                fields.unknown = true;
                slips.extend(self.unknown_key(key, of, &free));
            }
        }
        // Derived defaults look at what stands before them, so the filled mapping grows in place.
        let mut whole = self.filled(at, Value::Bad);
        for field in of.fields() {
            let stated = entries.iter().find(|(key, _)| key.text == field.key);
            let value = match stated {
                Some((_, node)) => self.stated(node, field),
                None if slips.contains(&field.key) => Filled::bad(at),
                None => {
                    whole.value = Value::Object(fields);
                    let value = self.left_out(&whole, field);
                    fields = match whole.value {
                        Value::Object(fields) => fields,
                        _ => Fields { of, entries: Vec::new(), unknown: false },
                    };
                    value
                }
            };
            let key_at = stated.map_or(Span::NOWHERE, |(key, _)| key.at);
            fields.entries.push(Entry { key: field.key, key_at, value, idle: None });
        }
        whole.value = Value::Object(fields);
        self.idle(&mut whole, of);
        whole
    }

    /// Refuses keys that play no part beside the others, and marks their defaults.
    fn idle(&mut self, whole: &mut Filled, of: &'static Object) {
        let conditions = of.fields().enumerate().filter_map(|(index, field)| Some((index, field.when?)));
        let idle: Vec<(usize, &'static str)> =
            conditions.filter(|(_, when)| !(when.holds)(whole)).map(|(index, when)| (index, when.words)).collect();
        let Value::Object(fields) = &mut whole.value else { return };
        for (index, words) in idle {
            let entry = &mut fields.entries[index];
            if entry.key_at != Span::NOWHERE {
                self.report.at(entry.key_at, format!("`{}` plays a part only {words}", entry.key));
            }
            entry.idle = Some(words);
        }
    }

    fn stated(&mut self, node: &Node, field: &'static Field) -> Filled {
        match (&node.content, field.default) {
            (Content::Scalar { text, quoted: false }, Default::None { .. }) if text == "none" => {
                self.filled(node.at, Value::None)
            }
            _ => self.check(node, field.kind),
        }
    }

    fn left_out(&mut self, whole: &Filled, field: &'static Field) -> Filled {
        let (text, rule, source) = match field.default {
            Default::Required => {
                let message =
                    format!("the key `{}` is missing: {}", field.key, uncapitalised(field.doc).trim_end_matches('.'));
                self.report.at(whole.at, message).expected = Some(expected(field.kind));
                return Filled::bad(whole.at);
            }
            Default::Absent { means } => {
                return Filled { at: Span::NOWHERE, origin: self.origin, value: Value::Absent(means) };
            }
            Default::None { source } => {
                let origin = Origin::Default { rule: None, source };
                return Filled { at: Span::NOWHERE, origin, value: Value::None };
            }
            Default::Value { text, source } => (text.to_owned(), None, source),
            Default::Derived { from, rule, source } => (from(whole), Some(rule), source),
        };
        let node = read_default(&text);
        Checker { report: self.report, origin: Origin::Default { rule, source } }.check(&node, field.kind)
    }

    fn choice(&mut self, at: Span, entries: &[(Key, Node)], choice: &'static Choice) -> Filled {
        let leads: Vec<(&Key, &'static Object)> = entries
            .iter()
            .filter_map(|(key, _)| {
                choice.options.iter().find(|option| option.lead() == key.text).map(|option| (key, *option))
            })
            .collect();
        let names = choice.options.iter().map(|option| option.lead());
        match leads.as_slice() {
            [(_, option)] => self.object(at, entries, option),
            [] => {
                // The nearest slip of any key is the best guess at what was meant.
                let slip = entries
                    .iter()
                    .find_map(|(key, _)| suggest::nearest(&key.text, names.clone()).map(|name| (key, name)));
                let (at, found) = match (slip, entries.first()) {
                    (Some((key, _)), _) | (None, Some((key, _))) => (key.at, format!("`{}`", shorten(&key.text))),
                    (None, None) => (at, "an empty mapping".to_owned()),
                };
                let all: Vec<&str> = names.collect();
                let expected = format!("{} with one of {}", choice.what, suggest::quoted(&all, "or"));
                let problem = self.report.mismatch(at, &expected, &found, None);
                problem.help = slip.map(|(_, name)| format!("did you mean `{name}`?"));
                Filled::bad(at)
            }
            [(first, _), (second, _), ..] => {
                let message = format!("{} has either `{}` or `{}`, not both", choice.what, first.text, second.text);
                self.report.at(second.at, message).help("write one entry for each".to_owned());
                Filled::bad(at)
            }
        }
    }

    fn tagged(&mut self, at: Span, entries: &[(Key, Node)], tagged: &'static Tagged) -> Filled {
        let kinds = || tagged.options.iter().map(|(kind, _)| *kind);
        let stated = entries.iter().find(|(key, _)| key.text == "kind");
        let kind = match (stated.map(|(_, node)| node), tagged.default) {
            (Some(Node { content: Content::Scalar { text, .. }, .. }), _) => text.as_str(),
            (Some(node), _) => {
                self.report.mismatch(node.at, "a word", &node.describe(), None);
                return Filled::bad(at);
            }
            (None, Some(default)) => default,
            (None, None) => {
                let all: Vec<&str> = kinds().collect();
                let message = format!("the key `kind` of {} is missing: {}", tagged.what, suggest::quoted(&all, "or"));
                self.report.at(at, message);
                return Filled::bad(at);
            }
        };
        match tagged.options.iter().find(|(name, _)| *name == kind) {
            Some((_, object)) => self.object(at, entries, object),
            None => {
                let all: Vec<&str> = kinds().collect();
                let at = stated.map_or(at, |(_, node)| node.at);
                let expected = format!("the kind of {}: {}", tagged.what, suggest::quoted(&all, "or"));
                let problem = self.report.mismatch(at, &expected, &format!("`{}`", shorten(kind)), None);
                problem.help = suggest::nearest(kind, kinds()).map(|kind| format!("did you mean `{kind}`?"));
                Filled::bad(at)
            }
        }
    }

    /// Reports it, and returns the key that was probably meant.
    fn unknown_key(&mut self, key: &Key, of: &'static Object, free: &[&'static str]) -> Option<&'static str> {
        if self.report.is_long() {
            self.report.at(key.at, format!("{} has no key `{}`", of.name, shorten(&key.text)));
            return None;
        }
        let free = free.iter().copied();
        let help = match key.text.as_str() {
            "<<" => "merge keys belong to YAML 1.1; write the keys out".to_owned(),
            word => suggest::help(word, free.clone(), "there are no further keys here"),
        };
        let problem = self.report.at(key.at, format!("{} has no key `{}`", of.name, shorten(&key.text)));
        problem.help(help);
        suggest::nearest(&key.text, free)
    }
}

/// Whether a node can be meant as this kind, by its shape alone.
fn has_shape(node: &Node, kind: Kind) -> bool {
    match (kind, &node.content) {
        (Kind::Scalar(_) | Kind::Words(_), Content::Scalar { .. }) => true,
        (Kind::Object(_) | Kind::Choice(_) | Kind::Tagged(_) | Kind::Map { .. }, Content::Map(_)) => true,
        (Kind::List(_), Content::List(_)) => true,
        (Kind::Short(..), _) => true,
        (Kind::Or(kinds), _) => kinds.iter().any(|kind| has_shape(node, *kind)),
        (Kind::OrNone(kind), _) => has_shape(node, *kind),
        _ => false,
    }
}

/// A kind in words, for "expected ...".
pub(crate) fn expected(kind: Kind) -> String {
    match kind {
        Kind::Scalar(scalar) if scalar.example.is_empty() || scalar.what.contains('`') => scalar.what.to_owned(),
        Kind::Scalar(scalar) => format!("{} such as `{}`", scalar.what, scalar.example),
        Kind::Words(words) => {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            match words.as_slice() {
                [one] => format!("`{one}`"),
                all => format!("one of {}", suggest::quoted(all, "or")),
            }
        }
        Kind::Object(object) => format!("a mapping ({})", object.name),
        Kind::Short(object, key) => {
            let short = object.field(key).map(|field| expected(field.kind)).unwrap_or_default();
            format!("{short}, or a mapping ({})", object.name)
        }
        Kind::Choice(choice) => {
            let leads: Vec<&str> = choice.options.iter().map(|option| option.lead()).collect();
            format!("{}, a mapping with one of {}", choice.what, suggest::quoted(&leads, "or"))
        }
        Kind::Tagged(tagged) => format!("a mapping ({})", tagged.name),
        Kind::List(item) => match item {
            Kind::Scalar(scalar) => format!("a list, each item {}", scalar.what),
            Kind::Choice(choice) => format!("a list, each item {}", choice.what),
            _ => "a list".to_owned(),
        },
        Kind::Map { key, .. } => format!("a mapping with {} as key", key.what),
        Kind::Or(kinds) => expected(kinds[0]),
        Kind::OrNone(kind) => format!("{} or `none`", expected(*kind)),
    }
}

pub(crate) fn uncapitalised(text: &str) -> String {
    let mut chars = text.chars();
    let second_is_capital = text.chars().nth(1).is_some_and(char::is_uppercase);
    match chars.next() {
        Some(first) if !second_is_capital => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
