//! What a system looks like: its components in layers from those who ask to those who keep data,
//! and who calls whom.

use std::collections::BTreeSet;

use plimsoll_model::run::SubjectKind;
use plimsoll_model::system::{Action, Component, Service, ServiceKind, Step, StoreKind, System};

/// The components and links of a system, as they are drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// The components.
    pub nodes: Vec<Node>,
    /// Who calls whom.
    pub links: Vec<Link>,
}

/// A component.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The reader's name for it.
    pub name: String,
    /// The kind of subject under which a run measures it.
    pub kind: SubjectKind,
    /// What it is: `gateway, 2 instances`.
    pub text: String,
}

/// A call from one component to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Position of the caller among the nodes.
    pub from: usize,
    /// Position of the one called.
    pub to: usize,
    /// The edge as a run names it: `api -> db`.
    pub name: String,
}

impl Topology {
    /// The topology of a system.
    pub fn of(system: &System) -> Self {
        let mut topology = Topology::default();
        let hidden: BTreeSet<u32> = system.consumers.iter().map(|consumer| consumer.service.0).collect();
        for client in &system.clients {
            topology.push(&client.name, SubjectKind::Client, "client".into());
        }
        for service in system.services.iter().enumerate().filter(|(at, _)| !hidden.contains(&(*at as u32))) {
            topology.push(&service.1.name, SubjectKind::Service, of_service(service.1));
        }
        for store in &system.stores {
            topology.push(&store.name, SubjectKind::Store, of_store(&store.kind));
        }
        for topic in &system.topics {
            topology.push(&topic.name, SubjectKind::Topic, counted("topic", topic.partitions, "partition"));
        }
        for consumer in &system.consumers {
            let text = counted("consumer", consumer.instances, "instance");
            topology.push(&consumer.name, SubjectKind::Consumer, text);
            let topic = &system.topics[consumer.topic.index()].name;
            topology.link((SubjectKind::Topic, topic), (SubjectKind::Consumer, &consumer.name));
        }
        for edge in &system.edges {
            if let (Some(from), Some(to)) = (place(system, edge.from), place(system, edge.to)) {
                topology.link(from, to);
            }
        }
        for (at, service) in system.services.iter().enumerate() {
            let Some(from) = place(system, Component::Service(at.into())) else {
                continue;
            };
            let mut topics = BTreeSet::new();
            service.endpoints.iter().for_each(|endpoint| publishes(&endpoint.program, &mut topics));
            for topic in topics {
                topology.link(from, (SubjectKind::Topic, &system.topics[topic as usize].name));
            }
        }
        for consumer in &system.consumers {
            let mut topics = BTreeSet::new();
            publishes(&consumer.handler, &mut topics);
            for topic in topics {
                let to = (SubjectKind::Topic, system.topics[topic as usize].name.as_str());
                topology.link((SubjectKind::Consumer, &consumer.name), to);
            }
        }
        topology
    }

    fn push(&mut self, name: &str, kind: SubjectKind, text: String) {
        self.nodes.push(Node { name: name.into(), kind, text });
    }

    fn link(&mut self, from: (SubjectKind, &str), to: (SubjectKind, &str)) {
        let at = |(kind, name)| self.nodes.iter().position(|node| node.kind == kind && node.name == name);
        if let (Some(from_at), Some(to_at)) = (at(from), at(to))
            && !self.links.iter().any(|link| (link.from, link.to) == (from_at, to_at))
        {
            self.links.push(Link { from: from_at, to: to_at, name: format!("{} -> {}", from.1, to.1) });
        }
    }

    /// The layer of each node, from 0: one further than the furthest caller. Calls back to an
    /// earlier component do not move it.
    pub(crate) fn layers(&self) -> Vec<usize> {
        let mut layers = vec![0; self.nodes.len()];
        let callers: Vec<usize> = (0..self.nodes.len()).filter(|at| !self.links.iter().any(|l| l.to == *at)).collect();
        // A system in which everything is called by something has no callers: start with the first.
        let starts = if callers.is_empty() && !self.nodes.is_empty() { vec![0] } else { callers };
        let forward = self.forward(&starts);
        // The longest path: as many rounds as there are nodes reach all of a graph without cycles.
        for _ in 0..self.nodes.len() {
            let mut moved = false;
            for link in self.links.iter().zip(&forward).filter(|(_, forward)| **forward).map(|(link, _)| link) {
                if layers[link.to] <= layers[link.from] {
                    layers[link.to] = layers[link.from] + 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        layers
    }

    /// Which links lead on: those that do not close a cycle, and that no consumer makes, since what
    /// a consumer calls stands before it.
    fn forward(&self, starts: &[usize]) -> Vec<bool> {
        let mut forward = vec![true; self.links.len()];
        let mut state = vec![State::New; self.nodes.len()];
        for start in starts.iter().copied().chain(0..self.nodes.len()) {
            self.visit(start, &mut state, &mut forward);
        }
        for (at, link) in self.links.iter().enumerate() {
            if self.nodes[link.from].kind == SubjectKind::Consumer {
                forward[at] = false;
            }
        }
        forward
    }

    /// Depth first without recursion, so that a long chain of services can't exhaust the stack.
    fn visit(&self, start: usize, state: &mut [State], forward: &mut [bool]) {
        if state[start] != State::New {
            return;
        }
        let mut path = vec![(start, 0)];
        state[start] = State::Open;
        while let Some((node, next)) = path.pop() {
            match self.links.iter().enumerate().skip(next).find(|(_, link)| link.from == node) {
                None => state[node] = State::Done,
                Some((at, link)) => {
                    path.push((node, at + 1));
                    match state[link.to] {
                        State::Open => forward[at] = false,
                        State::New => {
                            state[link.to] = State::Open;
                            path.push((link.to, 0));
                        }
                        State::Done => {}
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

/// The node that stands for a component; the hidden service of a consumer is the consumer.
fn place(system: &System, component: Component) -> Option<(SubjectKind, &str)> {
    let name = system.component_name(component);
    match component {
        Component::Client(_) => Some((SubjectKind::Client, name)),
        Component::Service(id) => Some(match system.consumers.iter().find(|consumer| consumer.service == id) {
            Some(consumer) => (SubjectKind::Consumer, &consumer.name),
            None => (SubjectKind::Service, name),
        }),
        Component::Store(_) => Some((SubjectKind::Store, name)),
        Component::Topic(_) => Some((SubjectKind::Topic, name)),
        Component::Consumer(_) => Some((SubjectKind::Consumer, name)),
        Component::Lease(_) => None,
    }
}

/// The topics that a program publishes to.
fn publishes(program: &[Step], topics: &mut BTreeSet<u32>) {
    for step in program {
        match &step.action {
            Action::Publish { topic, .. } => {
                topics.insert(topic.0);
            }
            Action::Cache { on_miss, .. } => publishes(on_miss, topics),
            Action::CacheWrite { write, .. } => publishes(write, topics),
            Action::Transaction { steps, .. } | Action::ForEach { steps, .. } | Action::Lease { steps, .. } => {
                publishes(steps, topics);
            }
            Action::Parallel { branches, .. } => branches.iter().for_each(|branch| publishes(branch, topics)),
            Action::Choice(choices) => choices.iter().for_each(|(_, program)| publishes(program, topics)),
            Action::Fallback { attempt, otherwise } => {
                publishes(attempt, topics);
                publishes(otherwise, topics);
            }
            Action::Work(_) | Action::Wait(_) | Action::Fail(_) | Action::Call { .. } | Action::Query { .. } => {}
        }
    }
}

fn of_service(service: &Service) -> String {
    let kind = match service.kind {
        ServiceKind::Service => "service",
        ServiceKind::Gateway(_) => "gateway",
    };
    counted(kind, service.instances, "instance")
}

fn of_store(kind: &StoreKind) -> String {
    match kind {
        StoreKind::Postgres(postgres) => {
            let shards = if postgres.shards > 1 { format!(", {} shards", postgres.shards) } else { String::new() };
            format!("{}{shards}", counted("postgres", postgres.replicas, "replica"))
        }
        StoreKind::Redis(_) => "redis".into(),
        StoreKind::Quorum(quorum) => counted("quorum", quorum.nodes, "node"),
    }
}

fn counted(what: &str, n: u32, one: &str) -> String {
    match n {
        0 => what.into(),
        1 => format!("{what}, 1 {one}"),
        n => format!("{what}, {n} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(nodes: &[(&str, SubjectKind)], links: &[(usize, usize)]) -> Topology {
        Topology {
            nodes: nodes
                .iter()
                .map(|(name, kind)| Node { name: (*name).into(), kind: *kind, text: String::new() })
                .collect(),
            links: links.iter().map(|(from, to)| Link { from: *from, to: *to, name: String::new() }).collect(),
        }
    }

    #[test]
    fn a_component_stands_after_its_furthest_caller() {
        use SubjectKind::{Client, Consumer, Service, Store, Topic};
        let nodes = [
            ("web", Client),
            ("edge", Service),
            ("api", Service),
            ("sessions", Store),
            ("created", Topic),
            ("activity", Consumer),
        ];
        // The consumer calls a store that stands before it.
        let links = [(0, 1), (1, 2), (1, 3), (2, 3), (2, 4), (4, 5), (5, 3)];
        assert_eq!(topology(&nodes, &links).layers(), [0, 1, 2, 3, 3, 4]);
    }

    #[test]
    fn cycles_end() {
        use SubjectKind::Service;
        let nodes = [("a", Service), ("b", Service), ("c", Service)];
        assert_eq!(topology(&nodes, &[(0, 1), (1, 2), (2, 0), (1, 1)]).layers(), [0, 1, 2]);
    }
}
