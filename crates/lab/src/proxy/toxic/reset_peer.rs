use super::{Attribute, nanos};

/// The first bytes that come are dropped, and after `timeout` both sides get a TCP reset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResetPeer {
    /// In ms, from the first bytes. Default: 0.
    pub timeout: f64,
}

impl ResetPeer {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![Attribute::millis("timeout", &mut self.timeout)]
    }

    /// When a connection is reset whose first bytes came then, ns.
    pub fn resets_at(&self, first: u64) -> u64 {
        first.saturating_add(nanos(self.timeout))
    }
}
