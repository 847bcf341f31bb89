use super::{Attribute, nanos};

/// The end of what one side sends reaches the other `delay` later.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SlowClose {
    /// In ms. Default: 0.
    pub delay: f64,
}

impl SlowClose {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![Attribute::millis("delay", &mut self.delay)]
    }

    /// How much later the end comes, ns.
    pub fn delay(&self) -> u64 {
        nanos(self.delay)
    }
}
