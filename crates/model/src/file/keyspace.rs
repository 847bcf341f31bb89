//! The kinds of thing that caches hold, and how many of each there are.

use std::collections::BTreeMap;

use super::decode::Decoder;
use super::filled::Filled;
use crate::system::{
    Action, Client, ClientCall, Consumer, EndpointId, KeyDist, Keyspace, KeyspaceId, Program, Service, ServiceId,
    ServiceKind, Step, TopicId,
};

#[derive(Debug, Default)]
pub(crate) struct Keyspaces {
    list: Vec<Stated>,
    by_name: BTreeMap<String, KeyspaceId>,
}

#[derive(Debug)]
struct Stated {
    name: String,
    /// As the file says, and on which line.
    keys: Option<(u32, u32)>,
}

impl Decoder<'_> {
    /// The kind of thing by that name, with the number of keys where the step says it.
    pub(super) fn keyspace(&mut self, key: &Filled, keys: Option<&Filled>) -> KeyspaceId {
        let name = key.text();
        let id = match self.keyspaces.by_name.get(name) {
            Some(id) => *id,
            None => {
                let id = KeyspaceId::from(self.keyspaces.list.len());
                self.keyspaces.list.push(Stated { name: name.to_owned(), keys: None });
                self.keyspaces.by_name.insert(name.to_owned(), id);
                id
            }
        };
        if let Some(keys) = keys.filter(|keys| !keys.is_bad()) {
            let stated = &mut self.keyspaces.list[id.index()].keys;
            match *stated {
                Some((count, line)) if count != keys.count() => {
                    let message = format!("line {line} says that `{name}` has {count} keys");
                    self.report.at(keys.at, message);
                }
                Some(_) => {}
                None => *stated = Some((keys.count(), keys.at.line)),
            }
        }
        id
    }

    /// All kinds, each with the number of its keys: stated, or the most of any client's requests
    /// that lead to it.
    pub(super) fn keyspaces(&self, clients: &[Client], services: &[Service], consumers: &[Consumer]) -> Vec<Keyspace> {
        // A request with a key of its own meets a number of things that nothing bounds.
        let most = |call: &ClientCall| call.key.as_ref().map_or(u32::MAX, KeyDist::keys);
        let mut calls: Vec<&ClientCall> = clients.iter().flat_map(|client| &client.calls).collect();
        // The most first, so that each endpoint needs to be walked through only once.
        calls.sort_by_key(|call| std::cmp::Reverse(most(call)));
        let mut keys = vec![0; self.keyspaces.list.len()];
        let mut walk = Walk { services, consumers: Default::default(), seen: Default::default(), found: Vec::new() };
        for consumer in consumers {
            walk.consumers.entry(consumer.topic).or_default().push(consumer.service);
        }
        for call in calls {
            walk.endpoint(call.endpoint);
            for id in walk.found.drain(..) {
                keys[id.index()] = keys[id.index()].max(most(call));
            }
        }
        let named = self.keyspaces.list.iter().zip(keys);
        named
            .map(|(stated, reached)| Keyspace {
                name: stated.name.clone(),
                keys: stated.keys.map_or(reached, |(keys, _)| keys).max(1),
            })
            .collect()
    }
}

/// Everything that calls lead to.
struct Walk<'s> {
    services: &'s [Service],
    consumers: BTreeMap<TopicId, Vec<ServiceId>>,
    seen: std::collections::BTreeSet<EndpointId>,
    found: Vec<KeyspaceId>,
}

impl Walk<'_> {
    fn endpoint(&mut self, endpoint: EndpointId) {
        // A stack of its own: a chain of calls may be as long as the file.
        let mut pending = vec![endpoint];
        while let Some(endpoint) = pending.pop() {
            if !self.seen.insert(endpoint) {
                continue;
            }
            let Some(service) = self.services.get(endpoint.service.index()) else { continue };
            if let ServiceKind::Gateway(routes) = &service.kind
                && let Some(route) = routes.get(endpoint.index as usize)
            {
                pending.push(route.to);
                self.found.extend(route.cache.as_ref().map(|cache| cache.keyspace));
            }
            if let Some(endpoint) = service.endpoints.get(endpoint.index as usize) {
                self.program(&endpoint.program, &mut pending);
            }
        }
    }

    fn program(&mut self, steps: &Program, pending: &mut Vec<EndpointId>) {
        for step in steps {
            match &step.action {
                Action::Call { endpoint, .. } => pending.push(*endpoint),
                Action::Cache { keyspace, .. } | Action::CacheWrite { keyspace, .. } => self.found.push(*keyspace),
                Action::Publish { topic, .. } => {
                    // Taken out: whoever publishes next leads to the same consumers.
                    let consumers = self.consumers.remove(topic).into_iter().flatten();
                    pending.extend(consumers.map(|service| EndpointId::new(service, 0)));
                }
                _ => {}
            }
            for inner in inner(step) {
                self.program(inner, pending);
            }
        }
    }
}

/// The programs within a step.
pub(crate) fn inner(step: &Step) -> Vec<&Program> {
    match &step.action {
        Action::Cache { on_miss, .. } => vec![on_miss],
        Action::CacheWrite { write, .. } => vec![write],
        Action::Transaction { steps, .. } | Action::ForEach { steps, .. } | Action::Lease { steps, .. } => vec![steps],
        Action::Parallel { branches, .. } => branches.iter().collect(),
        Action::Choice(alternatives) => alternatives.iter().map(|(_, program)| program).collect(),
        Action::Fallback { attempt, otherwise } => vec![attempt, otherwise],
        Action::Work(_)
        | Action::Wait(_)
        | Action::Fail(_)
        | Action::Call { .. }
        | Action::Query { .. }
        | Action::Publish { .. } => Vec::new(),
    }
}
