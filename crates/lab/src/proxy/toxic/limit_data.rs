use super::Attribute;

/// The connection is closed once so many bytes have passed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LimitData {
    /// Counted from when the toxic was added. Default: 0.
    pub bytes: f64,
}

impl LimitData {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![Attribute::count("bytes", &mut self.bytes)]
    }

    /// How many may still pass.
    pub fn left(&self, passed: u64) -> u64 {
        (self.bytes as u64).saturating_sub(passed)
    }
}
