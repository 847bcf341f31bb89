use plimsoll_model::system::{Dist, Target};

use super::link::Disturbance;
use super::target::Victim;
use crate::component::instance::Slowness;
use crate::world::World;

impl World<'_> {
    /// Work takes longer, or an edge does. A delay that is a distribution is drawn for each message
    /// of an edge; work takes its mean.
    pub(super) fn start_slow(&mut self, fault: u32, target: &Target, factor: f64, added: &Dist) {
        if matches!(target, Target::Edge(_)) {
            return self.disturb(fault, target, Disturbance::Slow { factor, added: added.clone() });
        }
        let victims = self.victims(target);
        self.set_slowness(&victims, Slowness { factor, added: added.mean() as u64 });
        self.faults.victims.push((fault, victims));
    }

    pub(super) fn end_slow(&mut self, fault: u32) {
        self.settle_links(fault);
        let victims = self.take_victims(fault);
        self.set_slowness(&victims, Slowness::NONE);
    }

    fn set_slowness(&mut self, victims: &[Victim], slowness: Slowness) {
        for &victim in victims {
            match victim {
                Victim::Instance(instance) => self.instances[instance as usize].slow = slowness,
                Victim::Node(node) => self.nodes[node as usize].slow = slowness,
            }
        }
    }
}
