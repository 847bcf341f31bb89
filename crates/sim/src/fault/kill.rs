use plimsoll_model::system::{FaultKind, Target};

use super::target::Victim;
use crate::component::instance::State;
use crate::world::World;

impl World<'_> {
    /// Processes die at once.
    pub(super) fn start_kill(&mut self, fault: u32, target: &Target) {
        let victims = self.victims(target);
        for &victim in &victims {
            match victim {
                Victim::Instance(instance) => self.kill_instance(instance),
                Victim::Node(node) => self.kill_node(node),
            }
        }
        self.faults.victims.push((fault, victims));
    }

    /// They start again, unless another fault has killed them too.
    pub(super) fn end_kill(&mut self, fault: u32) {
        for victim in self.take_victims(fault) {
            if self.strikes(victim).any(|kind| matches!(kind, FaultKind::Kill(_))) {
                continue;
            }
            match victim {
                Victim::Instance(instance) if self.instances[instance as usize].state == State::Down => {
                    self.boot(instance);
                }
                Victim::Instance(_) => {}
                Victim::Node(node) => self.revive_node(node),
            }
        }
    }
}
