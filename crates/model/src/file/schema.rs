//! The tables as a JSON Schema, so that editors complete and check a system file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::reader::read_default;
use super::root::SYSTEM;
use super::table::{Default, Field, Json, Kind, Object, Scalar};
use super::tree::{Content, Node};

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
                self.define(&name, |writer| {
                    any_of(tagged.options.iter().map(|(_, object)| writer.reference(object)).collect())
                })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::file::problem::Report;
    use crate::file::reader;

    /// As much of JSON Schema as the schema uses.
    struct Validator<'s> {
        schema: &'s Value,
        /// Properties that an instance had, by definition.
        seen: BTreeSet<(String, String)>,
    }

    impl Validator<'_> {
        fn check(&mut self, schema: &Value, home: &str, instance: &Value, path: &str) -> Result<(), String> {
            let fail = |why: &str| Err(format!("{path}: {why}: {instance}"));
            if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
                let name = reference.strip_prefix("#/$defs/").expect("a local reference");
                let definition = self.schema["$defs"].get(name).unwrap_or_else(|| panic!("no {reference}"));
                self.check(definition, name, instance, path)?;
            }
            if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
                let seen = self.seen.clone();
                let mut problems = Vec::new();
                let fits = options.iter().any(|option| {
                    self.seen = seen.clone();
                    self.check(option, home, instance, path).map_err(|problem| problems.push(problem)).is_ok()
                });
                if !fits {
                    return fail(&format!("none of {problems:#?}"));
                }
            }
            if schema.get("const").is_some_and(|only| only != instance) {
                return fail("not that word");
            }
            if schema.get("enum").and_then(Value::as_array).is_some_and(|all| !all.contains(instance)) {
                return fail("none of the words");
            }
            let has_type = |name: &Value| match name.as_str() {
                Some("object") => instance.is_object(),
                Some("array") => instance.is_array(),
                Some("string") => instance.is_string(),
                Some("number") => instance.is_number(),
                Some("boolean") => instance.is_boolean(),
                other => panic!("type {other:?}"),
            };
            match schema.get("type") {
                Some(Value::Array(types)) if !types.iter().any(has_type) => return fail("wrong type"),
                Some(name @ Value::String(_)) if !has_type(name) => return fail("wrong type"),
                _ => {}
            }
            if let (Some(pattern), Some(text)) = (schema.get("pattern").and_then(Value::as_str), instance.as_str())
                && !regex_lite::Regex::new(pattern).expect("a pattern").is_match(text)
            {
                return fail(&format!("does not match {pattern}"));
            }
            if let (Some(least), Some(number)) = (schema.get("minimum").and_then(Value::as_f64), instance.as_f64())
                && number < least
            {
                return fail("too small");
            }
            for item in instance.as_array().into_iter().flatten() {
                if let Some(items) = schema.get("items") {
                    self.check(items, home, item, &format!("{path}[]"))?;
                }
            }
            let none = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            for (key, value) in instance.as_object().into_iter().flatten() {
                let path = format!("{path}.{key}");
                if let Some(names) = schema.get("propertyNames") {
                    self.check(names, home, &json!(key), &path)?;
                }
                match (properties.get(key), schema.get("additionalProperties")) {
                    (Some(property), _) => {
                        self.seen.insert((home.to_owned(), key.clone()));
                        self.check(property, home, value, &path)?;
                    }
                    (None, Some(Value::Bool(false))) => return fail(&format!("unknown key {key}")),
                    (None, Some(more)) => self.check(more, home, value, &path)?,
                    (None, None) => {}
                }
            }
            for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if instance.get(key.as_str().expect("a key")).is_none() && instance.is_object() {
                    return fail(&format!("no {key}"));
                }
            }
            Ok(())
        }
    }

    fn instance(text: &str) -> Value {
        let mut report = Report::default();
        json_of(&reader::read(text.as_bytes(), &mut report).expect("YAML"))
    }

    fn validate(text: &str) -> Result<BTreeSet<(String, String)>, String> {
        let schema = schema();
        let mut validator = Validator { schema: &schema, seen: BTreeSet::new() };
        validator.check(&schema, "", &instance(text), "").map(|()| validator.seen)
    }

    /// The schema and the parser read the same tables; the fixture has every key of them, so it
    /// finds a key whose value one of the two takes differently.
    #[test]
    fn the_file_with_every_key_has_every_property() {
        let text = include_str!("../../tests/data/everything.yaml");
        let seen = validate(text).unwrap_or_else(|problem| panic!("{problem}"));
        let schema = schema();
        let definitions = schema["$defs"].as_object().expect("definitions").iter();
        let all = definitions.map(|(name, definition)| (name.as_str(), definition)).chain([("", &schema)]);
        let properties = all.flat_map(|(name, definition)| {
            let properties = definition.get("properties").and_then(Value::as_object);
            properties.into_iter().flatten().map(move |(key, _)| (name.to_owned(), key.clone()))
        });
        let missing: Vec<(String, String)> = properties.filter(|property| !seen.contains(property)).collect();
        assert!(missing.is_empty(), "no file of the tests has these: {missing:#?}");
    }

    #[test]
    fn the_examples_validate() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let mut count = 0;
        for entry in std::fs::read_dir(examples).expect("the examples") {
            let path = entry.expect("an example").path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&path).expect("a text");
                validate(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
                count += 1;
            }
        }
        assert!(count > 0);
    }

    #[test]
    fn the_schema_refuses_what_the_parser_refuses_by_its_form() {
        let good = "system: s\nclients: { c: { rate: 1/s, calls: [ a GET / ] } }\nservices: { a: { endpoints: { GET /: [] } } }\n";
        validate(good).unwrap();
        for (from, to) in [
            ("rate: 1/s", "rate: 1"),
            ("rate:", "rat:"),
            ("system: s", "sytem: s"),
            ("[ a GET / ]", "a GET /"),
            ("[] } }", "[ { wrok: 1ms } ] } }"),
            ("{ a:", "{ a b:"),
        ] {
            assert!(validate(&good.replace(from, to)).is_err(), "{to}");
        }
    }

    /// A default that the schema names must be one that the parser takes.
    #[test]
    fn defaults_have_the_form_of_their_keys() {
        let schema = schema();
        let definitions = schema["$defs"].as_object().expect("definitions").iter();
        for (name, definition) in definitions {
            for (key, property) in definition["properties"].as_object().into_iter().flatten() {
                let Some(default) = property.get("default") else { continue };
                let mut validator = Validator { schema: &schema, seen: BTreeSet::new() };
                validator.check(property, name, default, &format!("{name}.{key}")).unwrap();
            }
        }
    }
}
