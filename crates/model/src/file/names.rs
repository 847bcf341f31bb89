//! Who is called what. Names are collected before anything refers to them, so that a file may put
//! its sections in any order.

use std::collections::BTreeMap;

use super::filled::{Filled, Value};
use super::problem::Report;
use super::suggest;
use super::table::Object;
use super::tree::Key;
use crate::system::{ClientId, Component, ConsumerId, EndpointId, LeaseId, ServiceId, StoreId, TopicId, ZoneId};

/// A table's name in a store where operations name none.
pub(crate) const MAIN_TABLE: &str = "main";
/// The one endpoint of a consumer's hidden service.
pub(crate) const HANDLE: &str = "handle";

#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    components: BTreeMap<&'a str, (Component, u32)>,
    pub(crate) clients: Vec<&'a Filled>,
    pub(crate) services: Vec<ServiceNames<'a>>,
    pub(crate) stores: Vec<StoreNames<'a>>,
    pub(crate) zones: Vec<String>,
}

/// A service, a gateway or, last, the hidden service of a consumer.
#[derive(Debug)]
pub(crate) struct ServiceNames<'a> {
    pub(crate) name: &'a str,
    pub(crate) filled: &'a Filled,
    pub(crate) hidden: bool,
    pub(crate) endpoints: Vec<String>,
    /// A gateway's: where each endpoint goes, and the route that says so.
    pub(crate) routes: Vec<(EndpointId, Option<&'a Filled>)>,
}

#[derive(Debug)]
pub(crate) struct StoreNames<'a> {
    pub(crate) name: &'a str,
    /// `postgres`, `redis` or `quorum`; empty where that was refused.
    pub(crate) kind: &'static str,
    pub(crate) filled: &'a Filled,
    pub(crate) operations: Vec<&'a str>,
    pub(crate) tables: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn collect(root: &'a Filled, report: &mut Report) -> Self {
        let mut names = Names::default();
        for (index, (key, filled)) in root.get("clients").map().iter().enumerate() {
            names.clients.push(filled);
            names.component(key, Component::Client(ClientId::from(index)), report);
        }
        for (index, (key, filled)) in root.get("services").map().iter().enumerate() {
            names.component(key, Component::Service(ServiceId::from(index)), report);
            let endpoints = filled.map_of("endpoints").iter().map(|(key, _)| key.text.clone()).collect();
            names.services.push(ServiceNames::new(key, filled, false, endpoints));
        }
        for (index, (key, filled)) in root.get("stores").map().iter().enumerate() {
            names.component(key, Component::Store(StoreId::from(index)), report);
            names.stores.push(StoreNames::collect(key, filled));
        }
        for (index, (key, _)) in root.get("topics").map().iter().enumerate() {
            names.component(key, Component::Topic(TopicId::from(index)), report);
        }
        for (index, (key, filled)) in root.get("consumers").map().iter().enumerate() {
            names.component(key, Component::Consumer(ConsumerId::from(index)), report);
            names.services.push(ServiceNames::new(key, filled, true, vec![HANDLE.to_owned()]));
        }
        for (index, (key, _)) in root.get("leases").map().iter().enumerate() {
            names.component(key, Component::Lease(LeaseId::from(index)), report);
        }
        for section in ["clients", "services", "stores", "consumers"] {
            for (_, filled) in root.get(section).map() {
                for zone in filled.list_of("zones").iter().chain(filled.maybe("zone")) {
                    if !zone.is_bad() && !names.zones.iter().any(|known| known == zone.text()) {
                        names.zones.push(zone.text().to_owned());
                    }
                }
            }
        }
        super::gateway::routes(&mut names, report);
        names
    }

    fn component(&mut self, key: &'a Key, component: Component, report: &mut Report) {
        match self.components.get(key.text.as_str()) {
            Some((_, line)) => {
                let help = format!("line {line} has it too; every component has a name of its own");
                report.at(key.at, format!("the name `{}` is taken", key.text)).help(help);
            }
            None => {
                self.components.insert(&key.text, (component, key.at.line));
            }
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Component> {
        self.components.get(name).map(|(component, _)| *component)
    }

    /// All components, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'a str, Component)> {
        self.components.iter().map(|(name, (component, _))| (*name, *component))
    }

    /// The name of a component that the file names.
    pub(crate) fn name_of(&self, component: Component) -> &'a str {
        self.all().find(|(_, other)| *other == component).map_or("", |(name, _)| name)
    }

    pub(crate) fn zone(&self, name: &str) -> Option<ZoneId> {
        self.zones.iter().position(|zone| zone == name).map(ZoneId::from)
    }

    /// The place of a consumer's hidden service.
    pub(crate) fn hidden(&self, consumer: ConsumerId) -> ServiceId {
        let visible = self.services.iter().filter(|service| !service.hidden).count();
        ServiceId::from(visible + consumer.index())
    }

    /// The one that calls and is called in a component's place: a consumer's hidden service.
    pub(crate) fn acting(&self, component: Component) -> Component {
        match component {
            Component::Consumer(id) => Component::Service(self.hidden(id)),
            other => other,
        }
    }

    pub(crate) fn endpoint_name(&self, endpoint: EndpointId) -> String {
        let service = &self.services[endpoint.service.index()];
        format!("{} {}", service.name, service.endpoints[endpoint.index as usize])
    }
}

impl<'a> ServiceNames<'a> {
    fn new(key: &'a Key, filled: &'a Filled, hidden: bool, endpoints: Vec<String>) -> Self {
        ServiceNames { name: &key.text, filled, hidden, endpoints, routes: Vec::new() }
    }

    pub(crate) fn is_gateway(&self) -> bool {
        self.filled.object().map(|object| object.name) == Some("gateway")
    }
}

impl<'a> StoreNames<'a> {
    fn collect(key: &'a Key, filled: &'a Filled) -> Self {
        let operations = filled.map_of("operations");
        let mut tables: Vec<&str> = Vec::new();
        for (_, operation) in operations {
            let table = operation.maybe("table").map_or(MAIN_TABLE, Filled::text);
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        if tables.is_empty() {
            tables.push(MAIN_TABLE);
        }
        let kind = filled.object().map_or("", |object| object.name);
        let name = &key.text;
        StoreNames { name, kind, filled, operations: operations.iter().map(|(key, _)| key.text.as_str()).collect(), tables }
    }
}

impl Filled {
    /// A key that only some tables have.
    pub(crate) fn maybe(&self, key: &str) -> Option<&Filled> {
        match &self.value {
            Value::Object(fields) if fields.of.field(key).is_some() => self.get(key).set(),
            _ => None,
        }
    }

    pub(crate) fn map_of(&self, key: &str) -> &[(Key, Filled)] {
        self.maybe(key).map_or(&[], Filled::map)
    }

    pub(crate) fn list_of(&self, key: &str) -> &[Filled] {
        self.maybe(key).map_or(&[], Filled::list)
    }

    /// Whether this mapping is of that table.
    pub(crate) fn is_a(&self, object: &'static Object) -> bool {
        self.object().is_some_and(|of| of.name == object.name)
    }
}

/// Reports a name that nothing has.
pub(crate) fn unknown(at: super::tree::Span, what: &str, name: &str, known: &[&str], report: &mut Report) {
    let help = suggest::help(name, known.iter().copied(), "the file has none");
    report.at(at, format!("there is no {what} `{}`", super::tree::shorten(name))).help(help);
}
