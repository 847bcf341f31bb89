//! The tables as a JSON Schema, so that editors complete and check a system file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::root::SYSTEM;
use super::table::{Default, Field, Json, Kind, Object, Scalar};
use super::tree::{Content, Node, read_default};

/// The JSON Schema (draft 2020-12) of a system file. It describes what a YAML 1.2 parser makes of
/// the file; what needs more than one place to judge (names, bounds between keys) is left to
/// [`parse`](super::parse).
pub fn schema() -> Value {
    let mut definitions = BTreeMap::new();
    let root = Writer { definitions: &mut definitions }.object(&SYSTEM);
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Plimsoll system file"));
    if let Value::Object(root) = root {
        schema.extend(root);
    }
    let definitions = definitions.into_iter().map(|(name, definition)| (name, definition.unwrap_or(json!({}))));
    schema.insert("$defs".to_owned(), Value::Object(definitions.collect()));
    Value::Object(schema)
}

struct Writer<'d> {
    /// `None` while a definition is being written: tables may contain themselves.
    definitions: &'d mut BTreeMap<String, Option<Value>>,
}

impl Writer<'_> {
    fn kind(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Scalar(scalar) => self::scalar(scalar),
            Kind::Words(words) => {
                let all = words.iter().map(|(word, _)| self::word(word));
                let docs: Vec<String> = words.iter().map(|(word, doc)| format!("`{word}`: {doc}")).collect();
                json!({ "enum": all.collect::<Vec<Value>>(), "description": docs.join("; ") })
            }
            Kind::Object(object) => self.reference(object),
            Kind::Short(object, key) => {
                let short = object.field(key).map(|field| self.kind(field.kind)).unwrap_or(json!({}));
                any_of(vec![short, self.reference(object)])
            }
            Kind::Choice(choice) => {
                let name = choice.name.to_owned();
                self.define(&name, |writer| {
                    let options = choice.options.iter().map(|option| writer.reference(option)).collect();
                    let mut schema = any_of(options);
                    schema["description"] = json!(choice.doc);
                    schema
                })
            }
            Kind::Tagged(tagged) => {
                let name = tagged.name.to_owned();
                self.define(&name, |writer| any_of(tagged.options.iter().map(|(_, object)| writer.reference(object)).collect()))
            }
            Kind::List(item) => json!({ "type": "array", "items": self.kind(*item) }),
            Kind::Map { key, value } => {
                let mut names = json!({ "description": key.what });
                if !key.scalar.pattern.is_empty() {
                    names["pattern"] = json!(key.scalar.pattern);
                }
                json!({ "type": "object", "propertyNames": names, "additionalProperties": self.kind(*value) })
            }
            Kind::Or(kinds) => any_of(kinds.iter().map(|kind| self.kind(*kind)).collect()),
            Kind::OrNone(kind) => any_of(vec![self.kind(*kind), json!({ "const": "none" })]),
        }
    }

    fn reference(&mut self, object: &'static Object) -> Value {
        self.define(object.name, |writer| writer.object(object))
    }

    fn define(&mut self, name: &str, write: impl FnOnce(&mut Self) -> Value) -> Value {
        let name = name.replace(' ', "_");
        if !self.definitions.contains_key(&name) {
            self.definitions.insert(name.clone(), None);
            let definition = write(self);
            self.definitions.insert(name.clone(), Some(definition));
        }
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    fn object(&mut self, object: &'static Object) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in object.fields() {
            properties.insert(field.key.to_owned(), self.field(field));
            if matches!(field.default, Default::Required) {
                required.push(json!(field.key));
            }
        }
        let mut schema = json!({
            "type": "object",
            "description": object.doc,
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = Value::Array(required);
        }
        schema
    }

    fn field(&mut self, field: &'static Field) -> Value {
        let mut schema = self.kind(field.kind);
        let mut doc = field.doc.to_owned();
        if let Some(when) = field.when {
            doc.push_str(&format!(" Plays a part only {}.", when.words));
        }
        match field.default {
            Default::Required => {}
            Default::Value { text, source } => {
                schema["default"] = json_of(&read_default(text));
                doc.push_str(&format!(" Default: {text} ({source})."));
            }
            Default::Derived { rule, source, .. } => doc.push_str(&format!(" Default: {rule} ({source}).")),
            Default::None { source } => {
                schema = any_of(vec![schema, json!({ "const": "none" })]);
                schema["default"] = json!("none");
                doc.push_str(&format!(" Default: none ({source})."));
            }
            Default::Absent { means } => doc.push_str(&format!(" Left out: {means}.")),
        }
        schema["description"] = json!(doc);
        schema
    }
}

fn scalar(scalar: &'static Scalar) -> Value {
    let mut text = json!({ "type": "string" });
    if !scalar.pattern.is_empty() {
        text["pattern"] = json!(scalar.pattern);
    }
    let number = json!({ "type": "number", "minimum": 0 });
    match scalar.json {
        Json::Boolean => json!({ "type": "boolean" }),
        Json::String => text,
        Json::NumberOr => any_of(vec![number, text]),
        Json::StringOrNumber => any_of(vec![text, json!({ "type": "number" })]),
        Json::Any => json!({ "type": ["string", "number", "boolean"] }),
    }
}

/// A word that YAML reads as a number is one.
fn word(word: &str) -> Value {
    word.parse::<u64>().map_or_else(|_| json!(word), |number| json!(number))
}

fn any_of(mut options: Vec<Value>) -> Value {
    if options.len() == 1 {
        return options.remove(0);
    }
    json!({ "anyOf": options })
}

/// A value as a YAML 1.2 parser with the core schema makes it.
pub(crate) fn json_of(node: &Node) -> Value {
    match &node.content {
        Content::Scalar { text, quoted: true } => json!(text),
        Content::Scalar { text, .. } => match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => json!(true),
            "false" | "False" | "FALSE" => json!(false),
            _ => {
                let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'));
                let whole = text.parse::<i64>().ok().filter(|_| plain);
                let number = text.parse::<f64>().ok().filter(|number| plain && number.is_finite());
                match (whole, number) {
                    (Some(whole), _) => json!(whole),
                    (None, Some(number)) => json!(number),
                    (None, None) => json!(text),
                }
            }
        },
        Content::List(items) => Value::Array(items.iter().map(json_of).collect()),
        Content::Map(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.text.clone(), json_of(value))).collect())
        }
    }
}
