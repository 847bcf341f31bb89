use plimsoll_model::system::Target;

use super::target::Victim;
use crate::world::World;

impl World<'_> {
    /// Clocks are off; only what compares times of several machines notices.
    pub(super) fn start_skew(&mut self, fault: u32, target: &Target, by: i64) {
        let victims = self.victims(target);
        self.set_skew(&victims, by);
        self.faults.victims.push((fault, victims));
    }

    pub(super) fn end_skew(&mut self, fault: u32) {
        let victims = self.take_victims(fault);
        self.set_skew(&victims, 0);
    }

    fn set_skew(&mut self, victims: &[Victim], by: i64) {
        for &victim in victims {
            if let Victim::Instance(instance) = victim {
                self.instances[instance as usize].skew = by;
            }
        }
    }
}
