use super::FaultState;
use crate::world::World;

impl World<'_> {
    /// The next process of the service that goes from one named step to the other dies between.
    pub(super) fn start_crash(&mut self, fault: u32, service: u32, done: &str, next: &str) {
        let code = &self.plan.code;
        if let (Some(done), Some(next)) = (code.name(done), code.name(next)) {
            self.faults.crashes.push((fault, service, done, next));
        }
    }

    pub(super) fn end_crash(&mut self, fault: u32) {
        self.faults.crashes.retain(|(of, ..)| *of != fault);
    }
}

impl FaultState {
    /// Whether a process dies here, once.
    #[inline]
    pub(crate) fn crashes(&mut self, service: u32, done: u32, next: u32) -> bool {
        let wanted = |&(_, s, d, n): &(u32, u32, u32, u32)| s == service && d == done && n == next;
        match self.crashes.iter().position(wanted) {
            Some(at) => {
                self.crashes.remove(at);
                true
            }
            None => false,
        }
    }
}
