use plimsoll_model::system::Target;

use super::target::Victim;
use crate::world::World;

impl World<'_> {
    /// Others take every connection that is left: who needs a new one is refused.
    pub(super) fn start_exhaust(&mut self, fault: u32, target: &Target) {
        let victims = self.victims(target);
        for &victim in &victims {
            if let Victim::Node(node) = victim {
                self.nodes[node as usize].exhausted += 1;
            }
        }
        self.faults.victims.push((fault, victims));
    }

    pub(super) fn end_exhaust(&mut self, fault: u32) {
        for victim in self.take_victims(fault) {
            if let Victim::Node(node) = victim {
                self.nodes[node as usize].exhausted -= 1;
            }
        }
    }
}
