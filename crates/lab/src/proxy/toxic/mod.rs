//! What is done to the bytes of a connection, in one direction.
//!
//! Names, attributes and their units are Toxiproxy's; `loss` and `partition` are ours.

mod bandwidth;
mod latency;
mod limit_data;
mod loss;
mod partition;
mod reset_peer;
mod slicer;
mod slow_close;
mod timeout;

use serde_json::{Map, Value};

pub use bandwidth::Bandwidth;
pub use latency::Latency;
pub use limit_data::LimitData;
pub use loss::{Fate, Loss};
pub use partition::Partition;
pub use reset_peer::ResetPeer;
pub use slicer::Slicer;
pub use slow_close::SlowClose;
pub use timeout::Timeout;

use super::Refusal;

/// The direction in which bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// From the client to the server.
    Upstream,
    /// From the server to the client.
    Downstream,
}

impl Stream {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Upstream => "upstream",
            Stream::Downstream => "downstream",
        }
    }
}

/// A toxic of a proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Toxic {
    /// Unique within the proxy. Default: `TYPE_STREAM`.
    pub name: String,
    /// The direction. Default: downstream.
    pub stream: Stream,
    /// The share of connections that it is applied to, from 0 to 1. Default: 1.
    pub toxicity: f64,
    /// What it does.
    pub kind: Kind,
}

/// What a toxic does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Delays all bytes.
    Latency(Latency),
    /// Lets only so many bytes a second through.
    Bandwidth(Bandwidth),
    /// Delays the end of the connection.
    SlowClose(SlowClose),
    /// Drops all bytes, and closes the connection after a while.
    Timeout(Timeout),
    /// Resets the connection.
    ResetPeer(ResetPeer),
    /// Hands bytes on in small pieces.
    Slicer(Slicer),
    /// Closes the connection after so many bytes.
    LimitData(LimitData),
    /// Makes bytes as late as if packets had been lost.
    Loss(Loss),
    /// Holds everything, the beginning and the end of connections too.
    Partition(Partition),
}

/// The types there are.
pub const TYPES: [&str; 9] =
    ["latency", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data", "loss", "partition"];

/// A number of a toxic, as it is set and shown.
struct Attribute<'k> {
    name: &'static str,
    value: &'k mut f64,
    max: f64,
}

/// The longest that a toxic may make anybody wait: a year, ms.
const LONGEST_MS: f64 = 365.0 * 86_400_000.0;

impl<'k> Attribute<'k> {
    fn millis(name: &'static str, value: &'k mut f64) -> Self {
        Attribute { name, value, max: LONGEST_MS }
    }

    fn count(name: &'static str, value: &'k mut f64) -> Self {
        Attribute { name, value, max: 1e15 }
    }

    fn share(name: &'static str, value: &'k mut f64) -> Self {
        Attribute { name, value, max: 1.0 }
    }
}

/// Milliseconds in ns.
fn nanos(millis: f64) -> u64 {
    (millis * 1e6) as u64
}

impl Kind {
    /// A toxic of this type with its defaults.
    pub fn new(name: &str) -> Option<Kind> {
        Some(match name {
            "latency" => Kind::Latency(Latency::default()),
            "bandwidth" => Kind::Bandwidth(Bandwidth::default()),
            "slow_close" => Kind::SlowClose(SlowClose::default()),
            "timeout" => Kind::Timeout(Timeout::default()),
            "reset_peer" => Kind::ResetPeer(ResetPeer::default()),
            "slicer" => Kind::Slicer(Slicer::default()),
            "limit_data" => Kind::LimitData(LimitData::default()),
            "loss" => Kind::Loss(Loss::default()),
            "partition" => Kind::Partition(Partition),
            _ => return None,
        })
    }

    /// The type's name.
    pub fn name(&self) -> &'static str {
        TYPES[match self {
            Kind::Latency(_) => 0,
            Kind::Bandwidth(_) => 1,
            Kind::SlowClose(_) => 2,
            Kind::Timeout(_) => 3,
            Kind::ResetPeer(_) => 4,
            Kind::Slicer(_) => 5,
            Kind::LimitData(_) => 6,
            Kind::Loss(_) => 7,
            Kind::Partition(_) => 8,
        }]
    }

    fn attributes(&mut self) -> Vec<Attribute<'_>> {
        match self {
            Kind::Latency(toxic) => toxic.attributes(),
            Kind::Bandwidth(toxic) => toxic.attributes(),
            Kind::SlowClose(toxic) => toxic.attributes(),
            Kind::Timeout(toxic) => toxic.attributes(),
            Kind::ResetPeer(toxic) => toxic.attributes(),
            Kind::Slicer(toxic) => toxic.attributes(),
            Kind::LimitData(toxic) => toxic.attributes(),
            Kind::Loss(toxic) => toxic.attributes(),
            Kind::Partition(_) => Vec::new(),
        }
    }

    /// Sets some attributes, all of them or none.
    pub fn set(&mut self, values: &Map<String, Value>) -> Result<(), Refusal> {
        let mut changed = *self;
        let kind = self.name();
        for (name, value) in values {
            let mut attributes = changed.attributes();
            let names = attributes.iter().map(|attribute| attribute.name).collect::<Vec<_>>().join(", ");
            let Some(attribute) = attributes.iter_mut().find(|attribute| attribute.name == name) else {
                let expected = if names.is_empty() { "it has none".to_owned() } else { format!("expected {names}") };
                return Err(Refusal::bad(format!("unknown attribute `{name}` of {kind}: {expected}")));
            };
            match value.as_f64().filter(|number| (0.0..=attribute.max).contains(number)) {
                Some(number) => *attribute.value = number,
                None => {
                    let max = attribute.max;
                    return Err(Refusal::bad(format!(
                        "`{name}` of {kind}: expected a number from 0 to {max}, found {value}"
                    )));
                }
            }
        }
        if let Kind::Slicer(slicer) = &changed {
            slicer.check().map_err(|why| Refusal::bad(why.to_owned()))?;
        }
        *self = changed;
        Ok(())
    }

    /// The attributes as the API shows them.
    pub fn shown(&self) -> Map<String, Value> {
        let mut copy = *self;
        let whole = |value: f64| value.fract() == 0.0 && value < 9e15;
        let number = |value: f64| if whole(value) { Value::from(value as u64) } else { Value::from(value) };
        copy.attributes().iter().map(|attribute| (attribute.name.to_owned(), number(*attribute.value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kind: &str, attributes: Value) -> Result<Kind, String> {
        let mut kind = Kind::new(kind).expect("a type");
        let before = kind;
        let map = attributes.as_object().expect("an object");
        kind.set(map).map(|()| kind).map_err(|refusal| {
            assert_eq!(kind, before);
            refusal.message
        })
    }

    #[test]
    fn every_type_is_found_by_its_name_and_shows_what_was_set() {
        for name in TYPES {
            let mut kind = Kind::new(name).expect("it is there");
            assert_eq!(kind.name(), name);
            let mut shown = kind.shown();
            // 1 is in every range; a slicer's variation has to be smaller than its average.
            shown.iter_mut().filter(|(name, _)| *name != "size_variation").for_each(|(_, value)| *value = 1.into());
            kind.set(&shown).expect(name);
            assert_eq!(kind.shown(), shown);
        }
        assert!(Kind::new("noop").is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use serde_json::json;
        assert_eq!(
            set("latency", json!({ "latency": 5, "delay": 1 })).expect_err("no such attribute"),
            "unknown attribute `delay` of latency: expected latency, jitter"
        );
        assert_eq!(
            set("loss", json!({ "probability": 2 })).expect_err("too likely"),
            "`probability` of loss: expected a number from 0 to 1, found 2"
        );
        assert!(set("timeout", json!({ "timeout": -1 })).is_err());
        assert!(set("timeout", json!({ "timeout": "1" })).is_err());
        assert!(set("slicer", json!({ "average_size": 4, "size_variation": 4 })).is_err());
        assert!(set("slicer", json!({ "average_size": 0 })).is_err());
        assert_eq!(
            set("partition", json!({ "x": 1 })).expect_err("none"),
            "unknown attribute `x` of partition: it has none"
        );
    }
}
