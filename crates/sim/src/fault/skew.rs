use plimsoll_model::system::{FaultKind, Target};

use super::target::Victim;
use crate::world::World;

impl World<'_> {
    /// Clocks are off; only what compares times of several machines notices.
    pub(super) fn start_skew(&mut self, fault: u32, target: &Target) {
        let victims = self.victims(target);
        self.faults.victims.push((fault, victims.clone()));
        self.set_skew(&victims);
    }

    pub(super) fn end_skew(&mut self, fault: u32) {
        let victims = self.take_victims(fault);
        self.set_skew(&victims);
    }

    /// The clocks are off by what all faults under way come to.
    fn set_skew(&mut self, victims: &[Victim]) {
        for &victim in victims {
            let by = |kind: &FaultKind| if let FaultKind::Skew { by, .. } = kind { *by } else { 0 };
            let total = self.strikes(victim).map(by).fold(0, i64::saturating_add);
            if let Victim::Instance(instance) = victim {
                self.instances[instance as usize].skew = total;
            }
        }
    }
}
