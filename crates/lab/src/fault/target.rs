use plimsoll_model::system::{Component, StoreKind, Target};

use crate::layout::nodes;
use crate::run::Lab;
use crate::stack::Part;

impl Lab {
    /// What a target is at this moment. A share is rounded up to whole instances, lowest numbers first.
    pub(super) fn victims(&self, target: &Target) -> Vec<Part> {
        let system = &self.stack.system;
        match *target {
            Target::All(component) => self.members_of(component),
            Target::Instance(component, number) => {
                let is = |part: &Part| matches!(part, Part::Instance(_, n) | Part::Node(_, n) if *n == number);
                self.members_of(component).into_iter().filter(is).collect()
            }
            Target::Share(component, share) => {
                let all = self.members_of(component);
                let count = (all.len() as f64 * share).ceil() as usize;
                all.into_iter().take(count).collect()
            }
            Target::Primary(store) => self.primaries_of(store.0),
            Target::Replicas(store) => {
                let primaries = self.primaries_of(store.0);
                let all = (0..nodes(&system.stores[store.index()].kind)).map(|node| Part::Node(store.0, node));
                all.filter(|part| !primaries.contains(part)).collect()
            }
            Target::Zone(zone) => {
                let in_zone = |zones: &[plimsoll_model::system::ZoneId], at: u32| {
                    !zones.is_empty() && zones[at as usize % zones.len()] == zone
                };
                let parts = self.stack.parts();
                let is = |part: &Part| match *part {
                    Part::Instance(service, n) => in_zone(&system.services[service as usize].zones, n),
                    Part::Node(store, n) => in_zone(&system.stores[store as usize].zones, n),
                    Part::Topic(_) | Part::Lease(_) => false,
                };
                parts.into_iter().filter(is).collect()
            }
            Target::Edge(_) => Vec::new(),
        }
    }

    fn primaries_of(&self, store: u32) -> Vec<Part> {
        match &self.stack.system.stores[store as usize].kind {
            StoreKind::Postgres(_) => {
                self.stack.primaries(store).into_iter().map(|(node, _)| Part::Node(store, node)).collect()
            }
            _ => vec![Part::Node(store, 0)],
        }
    }

    fn members_of(&self, component: Component) -> Vec<Part> {
        let system = &self.stack.system;
        let service = match component {
            Component::Service(id) => id.0,
            Component::Consumer(id) => system.consumers[id.index()].service.0,
            Component::Lease(id) => system.leases[id.index()].service.0,
            Component::Store(id) => {
                return (0..nodes(&system.stores[id.index()].kind)).map(|node| Part::Node(id.0, node)).collect();
            }
            Component::Client(_) | Component::Topic(_) => return Vec::new(),
        };
        let parts = self.stack.parts().into_iter();
        parts
            .filter(|part| matches!(part, Part::Instance(of, _) if *of == service) && !self.stack.has_left(*part))
            .collect()
    }
}
