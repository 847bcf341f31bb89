use plimsoll_model::system::{Component, Target};

use crate::component::instance::State;
use crate::world::World;

/// One thing that a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Instance(u32),
    Node(u32),
}

impl World<'_> {
    /// What a target is at this moment. A share is rounded up to whole instances, lowest numbers
    /// first; an edge has no victims.
    pub(crate) fn victims(&self, target: &Target) -> Vec<Victim> {
        match *target {
            Target::All(component) => self.members_of(component),
            Target::Instance(component, number) => {
                self.members_of(component).into_iter().filter(|victim| self.number_of(*victim) == number).collect()
            }
            Target::Share(component, share) => {
                let all = self.members_of(component);
                let count = (all.len() as f64 * share).ceil() as usize;
                all.into_iter().take(count).collect()
            }
            Target::Primary(store) => (0..self.stores[store.index()].shards)
                .map(|shard| Victim::Node(self.primary_node(store.0, shard)))
                .collect(),
            Target::Replicas(store) => {
                let state = &self.stores[store.index()];
                (state.first..state.first + state.nodes)
                    .filter(|&node| self.primary_node(store.0, self.nodes[node as usize].shard) != node)
                    .map(Victim::Node)
                    .collect()
            }
            Target::Zone(zone) => {
                let instances = (0..self.instances.len() as u32).filter(|&i| {
                    let instance = &self.instances[i as usize];
                    instance.zone == Some(zone.0) && instance.state != State::Absent
                });
                let nodes = (0..self.nodes.len() as u32).filter(|&n| self.nodes[n as usize].zone == Some(zone.0));
                instances.map(Victim::Instance).chain(nodes.map(Victim::Node)).collect()
            }
            Target::Edge(_) => Vec::new(),
        }
    }

    fn members_of(&self, component: Component) -> Vec<Victim> {
        let service = match component {
            Component::Service(id) => id.0,
            Component::Consumer(id) => self.plan.system.consumers[id.index()].service.0,
            Component::Lease(id) => self.plan.system.leases[id.index()].service.0,
            Component::Store(id) => {
                let state = &self.stores[id.index()];
                return (state.first..state.first + state.nodes).map(Victim::Node).collect();
            }
            Component::Client(_) | Component::Topic(_) => return Vec::new(),
        };
        self.slots(service)
            .filter(|&i| self.instances[i].state != State::Absent)
            .map(|i| Victim::Instance(i as u32))
            .collect()
    }

    fn number_of(&self, victim: Victim) -> u32 {
        match victim {
            Victim::Instance(i) => self.instances[i as usize].number,
            Victim::Node(n) => n - self.stores[self.nodes[n as usize].store as usize].first,
        }
    }
}
