use plimsoll_model::system::{FaultKind, Target};

use super::target::Victim;
use crate::world::World;

impl World<'_> {
    /// Processes stop, as by SIGSTOP: the kernel goes on accepting connections for them.
    pub(super) fn start_pause(&mut self, fault: u32, target: &Target) {
        let victims = self.victims(target);
        for &victim in &victims {
            match victim {
                Victim::Instance(instance) => self.pause_instance(instance),
                Victim::Node(node) => self.pause_node(node),
            }
        }
        self.faults.victims.push((fault, victims));
    }

    /// They go on where they were, unless another fault has stopped them too.
    pub(super) fn end_pause(&mut self, fault: u32) {
        for victim in self.take_victims(fault) {
            if self.strikes(victim).any(|kind| matches!(kind, FaultKind::Pause(_))) {
                continue;
            }
            match victim {
                Victim::Instance(instance) => self.unpause_instance(instance),
                Victim::Node(node) => self.unpause_node(node),
            }
        }
    }
}
