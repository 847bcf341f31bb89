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
    /// By name, with the line.
    components: BTreeMap<&'a str, (Component, u32)>,
    by_component: BTreeMap<Component, &'a str>,
    pub(crate) clients: Vec<&'a Filled>,
    pub(crate) services: Vec<ServiceNames<'a>>,
    visible_services: usize,
    pub(crate) stores: Vec<StoreNames<'a>>,
    pub(crate) zones: Vec<String>,
    zone_ids: BTreeMap<String, ZoneId>,
}

/// A service, a gateway or, last, the hidden service of a consumer.
#[derive(Debug)]
pub(crate) struct ServiceNames<'a> {
    pub(crate) name: &'a str,
    pub(crate) filled: &'a Filled,
    pub(crate) hidden: bool,
    pub(crate) endpoints: Vec<String>,
    positions: BTreeMap<String, u32>,
    /// The policies that it states under `calls:`, by target.
    pub(crate) calls: BTreeMap<&'a str, (&'a Key, &'a Filled)>,
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
    operation_positions: BTreeMap<&'a str, u32>,
    pub(crate) tables: Vec<&'a str>,
    table_positions: BTreeMap<&'a str, u32>,
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
            let mut service = ServiceNames::new(key, filled, false);
            for (key, _) in filled.map_of("endpoints") {
                service.add(&key.text);
            }
            names.services.push(service);
        }
        names.visible_services = names.services.len();
        for (index, (key, filled)) in root.get("stores").map().iter().enumerate() {
            names.component(key, Component::Store(StoreId::from(index)), report);
            names.stores.push(StoreNames::collect(key, filled));
        }
        for (index, (key, _)) in root.get("topics").map().iter().enumerate() {
            names.component(key, Component::Topic(TopicId::from(index)), report);
        }
        for (index, (key, filled)) in root.get("consumers").map().iter().enumerate() {
            names.component(key, Component::Consumer(ConsumerId::from(index)), report);
            let mut service = ServiceNames::new(key, filled, true);
            service.add(HANDLE);
            names.services.push(service);
        }
        for (index, (key, _)) in root.get("leases").map().iter().enumerate() {
            names.component(key, Component::Lease(LeaseId::from(index)), report);
        }
        for section in ["clients", "services", "stores", "consumers"] {
            for (_, filled) in root.get(section).map() {
                for zone in filled.list_of("zones").iter().chain(filled.maybe("zone")) {
                    if !zone.is_bad() && !names.zone_ids.contains_key(zone.text()) {
                        names.zone_ids.insert(zone.text().to_owned(), ZoneId::from(names.zones.len()));
                        names.zones.push(zone.text().to_owned());
                    }
                }
            }
        }
        super::routes::routes(&mut names, report);
        names
    }

    fn component(&mut self, key: &'a Key, component: Component, report: &mut Report) {
        self.by_component.insert(component, &key.text);
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
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'a str, Component)> + Clone {
        self.components.iter().map(|(name, (component, _))| (*name, *component))
    }

    /// The name of a component that the file names.
    pub(crate) fn name_of(&self, component: Component) -> &'a str {
        self.by_component.get(&component).copied().unwrap_or_default()
    }

    pub(crate) fn zone(&self, name: &str) -> Option<ZoneId> {
        self.zone_ids.get(name).copied()
    }

    /// The place of a consumer's hidden service.
    pub(crate) fn hidden(&self, consumer: ConsumerId) -> ServiceId {
        ServiceId::from(self.visible_services + consumer.index())
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
    fn new(key: &'a Key, filled: &'a Filled, hidden: bool) -> Self {
        let calls = filled.map_of("calls").iter().map(|(key, filled)| (key.text.as_str(), (key, filled)));
        ServiceNames {
            name: &key.text,
            filled,
            hidden,
            endpoints: Vec::new(),
            positions: BTreeMap::new(),
            calls: calls.collect(),
            routes: Vec::new(),
        }
    }

    /// Adds an endpoint, unless there is one of that name.
    pub(crate) fn add(&mut self, endpoint: &str) -> bool {
        if self.positions.contains_key(endpoint) {
            return false;
        }
        self.positions.insert(endpoint.to_owned(), self.endpoints.len() as u32);
        self.endpoints.push(endpoint.to_owned());
        true
    }

    /// The position of an endpoint.
    pub(crate) fn position(&self, endpoint: &str) -> Option<u32> {
        self.positions.get(endpoint).copied()
    }

    pub(crate) fn is_gateway(&self) -> bool {
        self.filled.object().map(|object| object.name) == Some("gateway")
    }
}

impl<'a> StoreNames<'a> {
    fn collect(key: &'a Key, filled: &'a Filled) -> Self {
        let mut names = StoreNames {
            name: &key.text,
            kind: filled.object().map_or("", |object| object.name),
            filled,
            operations: Vec::new(),
            operation_positions: BTreeMap::new(),
            tables: Vec::new(),
            table_positions: BTreeMap::new(),
        };
        for (key, operation) in filled.map_of("operations") {
            names.operation_positions.insert(&key.text, names.operations.len() as u32);
            names.operations.push(&key.text);
            names.add_table(operation.maybe("table").map_or(MAIN_TABLE, Filled::text));
        }
        if names.tables.is_empty() {
            names.add_table(MAIN_TABLE);
        }
        names
    }

    fn add_table(&mut self, table: &'a str) {
        if !self.table_positions.contains_key(table) {
            self.table_positions.insert(table, self.tables.len() as u32);
            self.tables.push(table);
        }
    }

    pub(crate) fn operation(&self, name: &str) -> Option<u32> {
        self.operation_positions.get(name).copied()
    }

    pub(crate) fn table(&self, name: &str) -> Option<u32> {
        self.table_positions.get(name).copied()
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
pub(crate) fn unknown<'k>(
    at: super::tree::Span,
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'k str> + Clone,
    report: &mut Report,
) {
    let message = format!("there is no {what} `{}`", super::tree::shorten(name));
    if report.is_long() {
        report.at(at, message);
        return;
    }
    let help = suggest::help(name, known, "the file has none");
    report.at(at, message).help(help);
}
