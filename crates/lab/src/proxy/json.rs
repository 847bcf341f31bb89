//! What the API reads and shows, as JSON. A key that is not known is refused: a typing error must not look like a
//! network without faults.

use serde_json::{Map, Value, json};

use super::Refusal;
use super::set::Shown;
use super::toxic::{Kind, Stream, TYPES, Toxic};

/// A proxy to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewProxy {
    /// Its name, without `/`.
    pub name: String,
    /// Where it listens. Default: a free port of 127.0.0.1.
    pub listen: String,
    /// Where it connects to: `HOST:PORT`.
    pub upstream: String,
    /// Whether it listens. Default: yes.
    pub enabled: bool,
    /// What is on from the beginning; `None` is nothing, and for a proxy that is there whatever is on.
    pub toxics: Option<Vec<Toxic>>,
}

impl NewProxy {
    /// A proxy on a free port.
    pub fn to(name: &str, upstream: &str) -> NewProxy {
        let (name, upstream) = (name.to_owned(), upstream.to_owned());
        NewProxy { name, upstream, listen: "127.0.0.1:0".to_owned(), enabled: true, toxics: None }
    }

    pub(super) fn read(value: &Value) -> Result<NewProxy, Refusal> {
        let map = object(value, "a proxy", &["name", "listen", "upstream", "enabled", "toxics"])?;
        let required = |key: &str| match text(map, key)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(Refusal::bad(format!("missing required field: {key}"))),
        };
        let (name, upstream) = (required("name")?, required("upstream")?);
        if name.contains('/') {
            return Err(Refusal::bad(format!("name: expected one without `/`, found {name}")));
        }
        let listen = text(map, "listen")?.filter(|listen| !listen.is_empty()).unwrap_or("127.0.0.1:0".to_owned());
        Ok(NewProxy {
            name,
            listen: address("listen", listen)?,
            upstream: address("upstream", upstream)?,
            enabled: flag(map, "enabled")?.unwrap_or(true),
            toxics: toxics(map)?,
        })
    }
}

/// What is to change of a proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Where it listens.
    pub listen: Option<String>,
    /// Where it connects to.
    pub upstream: Option<String>,
    /// Whether it listens.
    pub enabled: Option<bool>,
    /// Those that are on already; no others.
    pub toxics: Option<Vec<Toxic>>,
}

impl Change {
    /// `down`: nobody can connect, and connections are closed. Or back up.
    pub fn enable(enabled: bool) -> Change {
        Change { enabled: Some(enabled), ..Change::default() }
    }

    pub(super) fn read(value: &Value, name: &str) -> Result<Change, Refusal> {
        let map = object(value, "a proxy", &["name", "listen", "upstream", "enabled", "toxics"])?;
        if text(map, "name")?.is_some_and(|other| other != name) {
            return Err(Refusal::bad("a proxy's name cannot be changed: delete it, and create another".to_owned()));
        }
        let optional = |key: &str| match text(map, key)? {
            Some(text) => address(key, text).map(Some),
            None => Ok(None),
        };
        Ok(Change {
            listen: optional("listen")?,
            upstream: optional("upstream")?,
            enabled: flag(map, "enabled")?,
            toxics: toxics(map)?,
        })
    }
}

/// A toxic to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    value: Value,
}

impl From<Toxic> for Addition {
    fn from(toxic: Toxic) -> Addition {
        Addition { value: shown_toxic(&toxic) }
    }
}

impl Addition {
    pub(super) fn read(value: Value) -> Addition {
        Addition { value }
    }

    pub(super) fn toxic(&self) -> Result<Toxic, Refusal> {
        read_toxic(&self.value)
    }
}

fn read_toxic(value: &Value) -> Result<Toxic, Refusal> {
    let map = object(value, "a toxic", &["name", "type", "stream", "toxicity", "attributes"])?;
    let stream = match text(map, "stream")?.as_deref() {
        None | Some("" | "downstream") => Stream::Downstream,
        Some("upstream") => Stream::Upstream,
        Some(_) => {
            let why = "stream was invalid, can be either upstream or downstream";
            return Err(Refusal::bad(why.to_owned()));
        }
    };
    let kind = text(map, "type")?.unwrap_or_default();
    let invalid = || Refusal::bad(format!("invalid toxic type `{kind}`: expected one of {}", TYPES.join(", ")));
    let mut kind = Kind::new(&kind).ok_or_else(invalid)?;
    kind.set(&attributes(map)?)?;
    let name = text(map, "name")?.filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| format!("{}_{}", kind.name(), stream.name()));
    if name.contains('/') {
        return Err(Refusal::bad(format!("name: expected one without `/`, found {name}")));
    }
    Ok(Toxic { name, stream, toxicity: toxicity(map)?.unwrap_or(1.0), kind })
}

/// What is to change of a toxic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToxicChange {
    /// The share of connections that it is applied to.
    pub toxicity: Option<f64>,
    /// Attributes; those that are not named stay.
    pub attributes: Map<String, Value>,
    same: Vec<(&'static str, String)>,
}

impl ToxicChange {
    pub(super) fn read(value: &Value) -> Result<ToxicChange, Refusal> {
        let map = object(value, "a toxic", &["name", "type", "stream", "toxicity", "attributes"])?;
        let mut same = Vec::new();
        for key in ["name", "type", "stream"] {
            same.extend(text(map, key)?.map(|text| (key, text)));
        }
        Ok(ToxicChange { toxicity: toxicity(map)?, attributes: attributes(map)?, same })
    }

    pub(super) fn apply(&self, toxic: &Toxic) -> Result<Toxic, Refusal> {
        for (key, value) in &self.same {
            let now = match *key {
                "name" => &toxic.name,
                "type" => toxic.kind.name(),
                _ => toxic.stream.name(),
            };
            if now != value {
                return Err(Refusal::bad(format!("a toxic's {key} cannot be changed: remove it, and add another")));
            }
        }
        let mut changed = toxic.clone();
        changed.kind.set(&self.attributes)?;
        changed.toxicity = self.toxicity.unwrap_or(changed.toxicity);
        Ok(changed)
    }
}

/// A toxic as it is shown.
pub(super) fn shown_toxic(toxic: &Toxic) -> Value {
    json!({
        "attributes": toxic.kind.shown(),
        "name": toxic.name,
        "type": toxic.kind.name(),
        "stream": toxic.stream.name(),
        "toxicity": if toxic.toxicity == 1.0 { json!(1) } else { json!(toxic.toxicity) },
    })
}

/// A proxy as it is shown.
pub(super) fn shown_proxy(proxy: &Shown) -> Value {
    json!({
        "name": proxy.name,
        "listen": proxy.listen,
        "upstream": proxy.upstream,
        "enabled": proxy.enabled,
        "toxics": proxy.toxics.iter().map(shown_toxic).collect::<Vec<_>>(),
    })
}

fn object<'v>(value: &'v Value, what: &str, keys: &[&str]) -> Result<&'v Map<String, Value>, Refusal> {
    let bad = |why: String| Refusal::bad(format!("bad request body: {why}"));
    let map = value.as_object().ok_or_else(|| bad(format!("expected {what} as an object")))?;
    match map.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(bad(format!("unknown field `{key}` of {what}: expected {}", keys.join(", ")))),
        None => Ok(map),
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Refusal {
    Refusal::bad(format!("bad request body: {key}: expected {expected}, found {found}"))
}

fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>, Refusal> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(key, "text", other)),
    }
}

fn flag(map: &Map<String, Value>, key: &str) -> Result<Option<bool>, Refusal> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(wrong(key, "true or false", other)),
    }
}

fn toxicity(map: &Map<String, Value>) -> Result<Option<f64>, Refusal> {
    match map.get("toxicity") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok(Some(share)),
            None => Err(wrong("toxicity", "a number from 0 to 1", value)),
        },
    }
}

fn attributes(map: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    match map.get("attributes") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(attributes)) => Ok(attributes.clone()),
        Some(other) => Err(wrong("attributes", "an object", other)),
    }
}

fn toxics(map: &Map<String, Value>) -> Result<Option<Vec<Toxic>>, Refusal> {
    match map.get("toxics") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(toxics)) => toxics.iter().map(read_toxic).collect::<Result<_, _>>().map(Some),
        Some(other) => Err(wrong("toxics", "a list", other)),
    }
}

/// `HOST:PORT`, as it is.
fn address(key: &str, text: String) -> Result<String, Refusal> {
    let port = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match port {
        Some((_, 0)) if key == "upstream" => {
            Err(Refusal::bad(format!("{key}: expected a port other than 0, found {text}")))
        }
        Some(_) => Ok(text),
        None => Err(Refusal::bad(format!("{key}: expected HOST:PORT, found {text}"))),
    }
}
