//! The top of a system file.

use super::client::CLIENT;
use super::consumer::CONSUMER;
use super::decode::Decoder;
use super::distribution::DURATIONS;
use super::experiment::EXPERIMENT;
use super::filled::Filled;
use super::growth::{GROWS, GROWTH_KEY};
use super::lease::LEASE;
use super::objective::OBJECTIVE;
use super::owners::OWNER;
use super::prices::PRICES;
use super::quantity::{NAME, TEXT};
use super::service::SERVICE_OR_GATEWAY;
use super::store::STORE;
use super::table::{Kind, MapKey, Object, absent, required, value};
use super::topic::TOPIC;
use crate::system::Network;

pub(crate) static SYSTEM: Object = Object {
    name: "system_file",
    doc: "A system: who asks, what answers, what is promised, and what may go wrong. All components share one space of \
          names.",
    groups: &[&[
        required("system", Kind::Scalar(&TEXT), "The system's name."),
        absent(
            "owner",
            Kind::Scalar(&TEXT),
            "nobody",
            "Who answers for it, where a component names no owner of its own.",
        ),
        required(
            "clients",
            Kind::Map { key: &MapKey { what: "a client's name", scalar: &NAME }, value: &Kind::Object(&CLIENT) },
            "Those who ask, by name.",
        ),
        required(
            "services",
            Kind::Map {
                key: &MapKey { what: "a service's name", scalar: &NAME },
                value: &Kind::Tagged(&SERVICE_OR_GATEWAY),
            },
            "Services and gateways, by name.",
        ),
        value(
            "stores",
            Kind::Map { key: &MapKey { what: "a store's name", scalar: &NAME }, value: &Kind::Tagged(&STORE) },
            "{}",
            "a system may keep nothing",
            "What keeps data, by name.",
        ),
        value(
            "topics",
            Kind::Map { key: &MapKey { what: "a topic's name", scalar: &NAME }, value: &Kind::Object(&TOPIC) },
            "{}",
            "a system may send no messages",
            "Logs of messages, by name.",
        ),
        value(
            "consumers",
            Kind::Map { key: &MapKey { what: "a consumer's name", scalar: &NAME }, value: &Kind::Object(&CONSUMER) },
            "{}",
            "a system may handle no messages",
            "Those who handle messages, by name.",
        ),
        value(
            "leases",
            Kind::Map { key: &MapKey { what: "a lease's name", scalar: &NAME }, value: &Kind::Object(&LEASE) },
            "{}",
            "a system may have no leader",
            "Leases, by name.",
        ),
        value("network", Kind::Object(&NETWORK), "{}", "a cloud region", "Network delays."),
        absent(
            "objectives",
            Kind::List(&Kind::Object(&OBJECTIVE)),
            "`success(all)` of 99.9% and `latency(all) < 1s` of 99%, over 30d",
            "What is promised to users.",
        ),
        value(
            "experiments",
            Kind::Map {
                key: &MapKey { what: "an experiment's name", scalar: &NAME },
                value: &Kind::Object(&EXPERIMENT),
            },
            "{}",
            "the built-in weathers remain",
            "Questions put to the system, by name.",
        ),
        value(
            "growth",
            Kind::Map { key: &GROWTH_KEY, value: &Kind::Short(&GROWS, "how") },
            "{}",
            "nothing grows but the load",
            "What is added as the load grows, as `api.instances: linear`.",
        ),
        value(
            "prices",
            Kind::Object(&PRICES),
            "{}",
            "list prices of a large cloud in its cheapest region",
            "Prices in US$; those that the file states replace the defaults.",
        ),
        value(
            "owners",
            Kind::Map { key: &MapKey { what: "an owner's name", scalar: &TEXT }, value: &Kind::Object(&OWNER) },
            "{}",
            "`owner:` may be any text",
            "Who answers for components, by name. Where the file has any, every `owner:` must be one of them.",
        ),
    ]],
};

static NETWORK: Object = Object {
    name: "network",
    doc: "One-way network delays between components.",
    groups: &[&[
        value(
            "same_zone",
            DURATIONS,
            "250us",
            "half of the 0.5 ms round trip in a data centre of Jeff Dean's list",
            "Within a zone, and where a side has no zone.",
        ),
        value(
            "cross_zone",
            DURATIONS,
            "500us",
            "half of the 1 ms round trip that clouds give for zones of a region",
            "Between zones.",
        ),
    ]],
};

impl Decoder<'_> {
    pub(super) fn network(&mut self, root: &Filled) -> Network {
        let network = root.get("network");
        Network { same_zone: self.dist(network.get("same_zone")), cross_zone: self.dist(network.get("cross_zone")) }
    }
}
