use super::FaultState;
use crate::world::World;

impl World<'_> {
    /// The next process of the service that goes from one named step to the other dies between.
    pub(super) fn start_crash(&mut self, service: u32, done: &str, next: &str) {
        let code = &self.plan.code;
        if let (Some(done), Some(next)) = (code.name(done), code.name(next)) {
            self.faults.crashes.push((service, done, next));
        }
    }
}

impl FaultState {
    /// Whether a process dies here, once.
    #[inline]
    pub(crate) fn crashes(&mut self, service: u32, done: u32, next: u32) -> bool {
        match self.crashes.iter().position(|crash| *crash == (service, done, next)) {
            Some(at) => {
                self.crashes.remove(at);
                true
            }
            None => false,
        }
    }
}
