use plimsoll_model::system::{Dist, FaultKind, Target};

use super::link::Disturbance;
use super::target::Victim;
use crate::component::instance::Slowness;
use crate::world::World;

impl World<'_> {
    /// Processes take longer, or an edge does. A delay that is a distribution is drawn for each
    /// message of an edge; processes and stores take its mean.
    pub(super) fn start_slow(&mut self, fault: u32, target: &Target, factor: f64, added: &Dist) {
        if matches!(target, Target::Edge(_)) {
            return self.disturb(fault, target, Disturbance::Slow { factor, added: added.clone() });
        }
        let victims = self.victims(target);
        self.faults.victims.push((fault, victims.clone()));
        self.set_slowness(&victims);
    }

    pub(super) fn end_slow(&mut self, fault: u32) {
        self.settle_links(fault);
        let victims = self.take_victims(fault);
        self.set_slowness(&victims);
    }

    /// Everything is as slow as all faults under way make it: their factors multiplied, then what
    /// they add.
    fn set_slowness(&mut self, victims: &[Victim]) {
        for &victim in victims {
            let slowness = self.strikes(victim).fold(Slowness::NONE, |sum, kind| match kind {
                FaultKind::Slow { factor, added, .. } => {
                    Slowness { factor: sum.factor * factor, added: sum.added.saturating_add(added.mean() as u64) }
                }
                _ => sum,
            });
            match victim {
                Victim::Instance(instance) => self.instances[instance as usize].slow = slowness,
                Victim::Node(node) => self.nodes[node as usize].slow = slowness,
            }
        }
    }
}
