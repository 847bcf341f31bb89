use super::{Attribute, nanos};

/// Bytes are dropped. After `timeout` the connection is closed; with 0 it stays open. When the toxic is removed,
/// connections that it was on are closed: bytes are missing in them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timeout {
    /// In ms. Default: 0.
    pub timeout: f64,
}

impl Timeout {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![Attribute::millis("timeout", &mut self.timeout)]
    }

    /// When a connection is closed that it has been on since then, ns; `None`: never.
    pub fn closes_at(&self, since: u64) -> Option<u64> {
        (self.timeout > 0.0).then(|| since.saturating_add(nanos(self.timeout)))
    }
}
