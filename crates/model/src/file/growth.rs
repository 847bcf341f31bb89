//! `growth:` — what is added as the load grows.

use super::decode::Decoder;
use super::filled::Filled;
use super::quantity::{COUNT, Quantity, Wrong};
use super::suggest;
use super::table::{Json, Kind, MapKey, Object, Scalar, none, value};
use crate::grow::can_grow;
use crate::system::{Component, Growth, GrowthKey, System};

pub(crate) static GROWTH_KEY: MapKey = MapKey { what: "a component and one of its numbers", scalar: &COMPONENT_NUMBER };

static COMPONENT_NUMBER: Scalar = Scalar {
    what: "a component and one of its numbers",
    example: "api.instances",
    pattern: r"^[^.]+\.[a-z_]+$",
    json: Json::String,
    parse: |text| match text.split_once('.') {
        Some((component, number)) if !component.is_empty() && !number.is_empty() => Ok(Quantity::Text),
        _ => Err(Wrong { why: "it has the form `api.instances`".to_owned(), help: None }),
    },
};

pub(crate) static GROWS: Object = Object {
    name: "grows",
    doc: "How a number of a component grows with the load. `linear` alone may stand in place of the mapping.",
    groups: &[&[
        value(
            "how",
            Kind::Words(&[("linear", "twice the load, twice the number, rounded up")]),
            "linear",
            "the simplest plan",
            "By what law.",
        ),
        none("max", Kind::Scalar(&COUNT), "nothing bounds it", "Most that it can grow to."),
    ]],
};

const KEYS: [(&str, GrowthKey); 11] = [
    ("instances", GrowthKey::Instances),
    ("workers", GrowthKey::Workers),
    ("cores", GrowthKey::Cores),
    ("replicas", GrowthKey::Replicas),
    ("shards", GrowthKey::Shards),
    ("max_connections", GrowthKey::MaxConnections),
    ("concurrency", GrowthKey::Concurrency),
    ("max_rate", GrowthKey::MaxRate),
    ("capacity", GrowthKey::Capacity),
    ("partitions", GrowthKey::Partitions),
    ("nodes", GrowthKey::Nodes),
];

impl Decoder<'_> {
    pub(super) fn growth(&mut self, root: &Filled, system: &System) -> Vec<Growth> {
        let mut growth = Vec::new();
        for (key, filled) in root.get("growth").map() {
            let Some((name, number)) = key.text.split_once('.') else { continue };
            let length = |text: &str| text.chars().count();
            let sort = |component| match component {
                Component::Client(_) | Component::Lease(_) => None,
                other => Some(other),
            };
            let at = key.at.part(0, length(name));
            let Some(component) = self.named(at, name, "component that can grow", sort) else { continue };
            let known: Vec<&str> =
                KEYS.iter().filter(|(_, what)| can_grow(system, component, *what)).map(|(key, _)| *key).collect();
            match KEYS.iter().find(|(key, _)| *key == number && known.contains(key)) {
                Some((_, what)) => {
                    growth.push(Growth { component, what: *what, max: filled.get("max").set().map(Filled::count) });
                }
                None => {
                    let at = key.at.part(length(name) + 1, length(number));
                    let help = suggest::help(number, known.iter().copied(), "nothing of it can grow");
                    self.report
                        .at(at, format!("`{name}` has no number `{}` that can grow", super::tree::shorten(number)))
                        .help(help);
                }
            }
        }
        growth
    }
}
