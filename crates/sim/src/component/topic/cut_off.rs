//! Partitions between an instance and what no edge leads to: brokers and lease services. They stand
//! outside of every zone.

use plimsoll_model::system::{Component, Fault, FaultKind, Target};

use crate::component::instance::State;
use crate::world::World;

impl World<'_> {
    /// From when until when an instance is cut off from all others, if it is now.
    pub(crate) fn cut_off(&self, instance: u32) -> Option<(u64, u64)> {
        let plan = self.plan;
        let since = self.now.checked_sub(plan.warmup).filter(|_| plan.disturbed)?;
        let partitions = |fault: &&Fault| match &fault.kind {
            FaultKind::Partition(target) => {
                (fault.at..fault.until).contains(&since) && self.is_within(instance, target)
            }
            _ => false,
        };
        plan.faults
            .iter()
            .filter(partitions)
            .map(|fault| (fault.at + plan.warmup, fault.until + plan.warmup))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn is_within(&self, instance: u32, target: &Target) -> bool {
        let system = &self.plan.system;
        let state = &self.instances[instance as usize];
        let of = |component: Component| match component {
            Component::Service(id) => id.0 == state.service,
            Component::Consumer(id) => system.consumers[id.index()].service.0 == state.service,
            Component::Lease(id) => system.leases[id.index()].service.0 == state.service,
            Component::Client(_) | Component::Store(_) | Component::Topic(_) => false,
        };
        match *target {
            Target::All(component) => of(component),
            Target::Instance(component, number) => of(component) && number == state.number,
            Target::Share(component, share) => {
                let slots = self.slots(state.service);
                let present = slots.filter(|&i| self.instances[i].state != State::Absent).count();
                of(component) && (state.number as f64) < (present as f64 * share).ceil()
            }
            Target::Zone(zone) => state.zone == Some(zone.0),
            Target::Primary(_) | Target::Replicas(_) | Target::Edge(_) => false,
        }
    }
}
