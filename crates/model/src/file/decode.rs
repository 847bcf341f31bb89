//! Turns a checked file into a [`System`], section by section.

use std::collections::{BTreeMap, BTreeSet};

use super::check::defaults;
use super::filled::Filled;
use super::names::{Names, unknown};
use super::problem::Report;
use super::tree::{Key, Span};
use super::{Source, edge, keyspace::Keyspaces};
use crate::system::{
    ClientId, Component, Edge, EdgeId, EndpointId, LeaseId, RetryWhen, ServiceId, StoreId, System, TopicId, ZoneId,
};

pub(crate) struct Decoder<'a> {
    pub(super) report: &'a mut Report,
    pub(super) source: &'a Source<'a>,
    pub(super) names: Names<'a>,
    pub(super) hash: Hash,
    pub(super) keyspaces: Keyspaces,
    /// What is worth a retry where a file does not say it, once it was needed.
    pub(super) default_when: Option<RetryWhen>,
    edges: Vec<Edge>,
    edge_of: BTreeMap<(Component, Component), EdgeId>,
    /// Targets whose policies a caller's `calls:` states and that it calls.
    called: BTreeSet<(ServiceId, String)>,
    /// Calls without policies in the file.
    implied: Vec<(String, String)>,
}

/// The system, and the calls without policies in the file as names of caller and target. It is
/// whole only if nothing was reported.
pub(crate) fn decode<'a>(
    source: &'a Source<'a>,
    root: &'a Filled,
    report: &'a mut Report,
) -> (System, Vec<(String, String)>) {
    let names = Names::collect(root, report);
    let mut hash = Hash::new();
    hash.add(source.bytes);
    let decoder = Decoder {
        report,
        source,
        names,
        hash,
        keyspaces: Keyspaces::default(),
        default_when: None,
        edges: Vec::new(),
        edge_of: BTreeMap::new(),
        called: BTreeSet::new(),
        implied: Vec::new(),
    };
    decoder.system(root)
}

impl<'a> Decoder<'a> {
    fn system(mut self, root: &'a Filled) -> (System, Vec<(String, String)>) {
        let owners = self.owners(root);
        // The order of the sections here is the order of the edges.
        let clients = self.clients(root);
        let mut services = self.services(root);
        let stores = self.stores(root);
        let topics = self.topics(root);
        let consumers = self.consumers(root, &mut services);
        let leases = self.leases(root);
        self.unused_calls();
        self.cycles(&services);
        let keyspaces = self.keyspaces(&clients, &services, &consumers);
        let mut system = System {
            name: root.get("system").text().to_owned(),
            owner: root.get("owner").set().map(|owner| owner.text().to_owned()),
            hash: 0,
            zones: self.names.zones.clone(),
            network: self.network(root),
            clients,
            services,
            stores,
            topics,
            consumers,
            leases,
            edges: Vec::new(),
            keyspaces,
            objectives: Vec::new(),
            experiments: Vec::new(),
            growth: Vec::new(),
            prices: super::prices::prices(root.get("prices")),
            owners,
        };
        system.objectives = self.objectives(root);
        system.experiments = self.experiments(root, &system);
        system.growth = self.growth(root, &system);
        system.edges = std::mem::take(&mut self.edges);
        system.hash = self.hash.0;
        (system, self.implied)
    }

    /// The edge from a caller to a target, made when first used.
    pub(super) fn edge(&mut self, from: Component, to: Component) -> EdgeId {
        if let Some(id) = self.edge_of.get(&(from, to)) {
            return *id;
        }
        let (policies, line) = self.policies_between(from, to);
        let id = self.push_edge(Edge { from, to, policies, line });
        self.edge_of.insert((from, to), id);
        id
    }

    /// An edge beside the first of its pair, with policies of its own.
    pub(super) fn push_edge(&mut self, edge: Edge) -> EdgeId {
        let id = EdgeId::from(self.edges.len());
        self.edges.push(edge);
        id
    }

    /// The edge between two named components, if one calls the other.
    pub(super) fn existing_edge(&self, from: Component, to: Component) -> Option<EdgeId> {
        self.edge_of.get(&(self.names.acting(from), self.names.acting(to))).copied()
    }

    /// The first edges of all pairs, as files name them.
    pub(super) fn edge_names(&self) -> Vec<String> {
        self.edge_of.keys().map(|(from, to)| format!("{} -> {}", self.name_of(*from), self.name_of(*to))).collect()
    }

    fn policies_between(&mut self, from: Component, to: Component) -> (crate::system::EdgePolicies, u32) {
        let target = self.name_of(to).to_owned();
        match from {
            Component::Client(id) => {
                let client = self.names.clients[id.index()];
                (self.policies(client, to), client.at.line)
            }
            Component::Service(id) => {
                let caller = self.names.services[id.index()].filled;
                if self.names.services[id.index()].is_gateway() && matches!(to, Component::Service(_)) {
                    return (self.policies(caller, to), caller.at.line);
                }
                match self.names.services[id.index()].calls.get(target.as_str()).copied() {
                    Some((key, filled)) => {
                        self.called.insert((id, target));
                        (self.policies(filled, to), key.at.line)
                    }
                    None => {
                        self.implied.push((self.names.services[id.index()].name.to_owned(), target));
                        (self.policies(&defaults(&edge::CALL), to), 0)
                    }
                }
            }
            _ => (self.policies(&defaults(&edge::CALL), to), 0),
        }
    }

    /// Policies for a target that its caller never calls would be read and never act.
    fn unused_calls(&mut self) {
        let mut called: BTreeMap<Component, Vec<String>> = BTreeMap::new();
        for (from, to) in self.edge_of.keys() {
            called.entry(*from).or_default().push(self.name_of(*to).to_owned());
        }
        for index in 0..self.names.services.len() {
            let service = &self.names.services[index];
            let (name, filled) = (service.name, service.filled);
            let id = ServiceId::from(index);
            let targets = called.remove(&Component::Service(id)).unwrap_or_default();
            for (key, _) in filled.map_of("calls") {
                // A step that was refused may have made the call.
                let refused = !self.report.is_empty() && self.names.find(&key.text).is_some();
                if !refused && !self.called.contains(&(id, key.text.clone())) {
                    let targets = targets.iter().map(String::as_str);
                    let help = super::suggest::help(&key.text, targets, "it calls nothing");
                    self.report
                        .at(key.at, format!("`{name}` never calls `{}`", super::tree::shorten(&key.text)))
                        .help(help);
                }
            }
        }
    }

    pub(super) fn name_of(&self, component: Component) -> &str {
        match component {
            // A consumer's hidden service has the consumer's name.
            Component::Service(id) => self.names.services[id.index()].name,
            other => self.names.name_of(other),
        }
    }

    pub(super) fn store(&mut self, filled: &Filled) -> Option<StoreId> {
        self.store_named(filled.at, filled.text())
    }

    pub(super) fn store_named(&mut self, at: Span, name: &str) -> Option<StoreId> {
        self.named(at, name, "store", |component| match component {
            Component::Store(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn service(&mut self, filled: &Filled) -> Option<ServiceId> {
        self.named(filled.at, filled.text(), "service", |component| match component {
            Component::Service(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn topic(&mut self, filled: &Filled) -> Option<TopicId> {
        self.named(filled.at, filled.text(), "topic", |component| match component {
            Component::Topic(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn lease(&mut self, filled: &Filled) -> Option<LeaseId> {
        self.named(filled.at, filled.text(), "lease", |component| match component {
            Component::Lease(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn client_named(&mut self, at: Span, name: &str) -> Option<ClientId> {
        self.named(at, name, "client", |component| match component {
            Component::Client(id) => Some(id),
            _ => None,
        })
    }

    /// The component of that name and sort; an empty name was refused already.
    pub(super) fn named<T>(&mut self, at: Span, name: &str, what: &str, sort: fn(Component) -> Option<T>) -> Option<T> {
        if name.is_empty() {
            return None;
        }
        let found = self.names.find(name);
        match found.and_then(sort) {
            Some(id) => Some(id),
            None => {
                let known = self.names.all().filter(|(_, c)| sort(*c).is_some()).map(|(name, _)| name);
                match found {
                    Some(other) => {
                        let message = format!("expected a {what}, but `{name}` is a {}", sort_of(other));
                        let help = super::suggest::help(name, known, &format!("the file has no {what}"));
                        self.report.at(at, message).help(help);
                    }
                    None => unknown(at, what, name, known, self.report),
                }
                None
            }
        }
    }

    /// `edge GET /notes/:id`, or a service's name alone if it has one endpoint.
    pub(super) fn endpoint(&mut self, filled: &Filled) -> Option<EndpointId> {
        self.endpoint_named(filled.at, filled.text())
    }

    pub(super) fn endpoint_named(&mut self, at: Span, text: &str) -> Option<EndpointId> {
        let (name, endpoint) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let endpoint = endpoint.trim();
        let service = self.named(at.part(0, name.chars().count()), name, "service", |component| match component {
            Component::Service(id) => Some(id),
            _ => None,
        })?;
        let known = &self.names.services[service.index()].endpoints;
        let index = match (endpoint, known.as_slice()) {
            ("", [_]) => Some(0),
            ("", _) => None,
            (endpoint, _) => self.names.services[service.index()].position(endpoint),
        };
        if let Some(index) = index {
            return Some(EndpointId::new(service, index));
        }
        if known.is_empty() {
            // A gateway whose upstream was refused: that is reported where it stands.
            return None;
        }
        if endpoint.is_empty() {
            let help = format!("write `{name} {}`, for one", known[0]);
            self.report.at(at, format!("`{name}` has several endpoints, and none is named")).help(help);
        } else {
            let skip = text.chars().count() - endpoint.chars().count();
            unknown(
                at.part(skip, endpoint.chars().count()),
                &format!("endpoint of `{name}` called"),
                endpoint,
                known.iter().map(String::as_str),
                self.report,
            );
        }
        None
    }

    pub(super) fn zones(&self, filled: &Filled) -> Vec<ZoneId> {
        filled.list().iter().filter_map(|zone| self.names.zone(zone.text())).collect()
    }

    /// The name of an owner, who must be listed if any is.
    pub(super) fn owner(&mut self, filled: &Filled, owners: &[(Key, Filled)]) -> Option<String> {
        let owner = filled.maybe("owner")?;
        if owner.is_bad() {
            return None;
        }
        if !owners.is_empty() && !owners.iter().any(|(key, _)| key.text == owner.text()) {
            let known = owners.iter().map(|(key, _)| key.text.as_str());
            unknown(owner.at, "owner", owner.text(), known, self.report);
        }
        Some(owner.text().to_owned())
    }
}

/// A component's sort in a word.
pub(crate) fn sort_of(component: Component) -> &'static str {
    match component {
        Component::Client(_) => "client",
        Component::Service(_) => "service",
        Component::Store(_) => "store",
        Component::Topic(_) => "topic",
        Component::Consumer(_) => "consumer",
        Component::Lease(_) => "lease",
    }
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo): short, stable between versions and platforms, and
/// nothing here is secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0xCBF2_9CE4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hash = Hash::new();
        hash.add(b"foobar");
        assert_eq!(hash.0, 0x8594_4171_F739_67E8);
    }
}
