use super::Attribute;

/// Bytes leave at this rate and no faster.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bandwidth {
    /// In KB/s, of 1000 bytes. 0 lets nothing through. Default: 0.
    pub rate: f64,
}

impl Bandwidth {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![Attribute::count("rate", &mut self.rate)]
    }

    /// How long so many bytes take, ns; `None`: for ever.
    pub fn takes(&self, bytes: usize) -> Option<u64> {
        // KB/s are bytes a ms.
        (self.rate > 0.0).then(|| (bytes as f64 / self.rate * 1e6) as u64)
    }

    /// The bytes that are handed on at once: what goes through in 10 ms, so that a slow link trickles.
    pub fn piece(&self) -> usize {
        ((self.rate * 10.0) as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kilobyte_a_second_is_a_byte_a_millisecond() {
        let slow = Bandwidth { rate: 1.0 };
        assert_eq!((slow.takes(1000), slow.piece()), (Some(1_000_000_000), 10));
        let slower = Bandwidth { rate: 0.01 };
        assert_eq!((slower.takes(1), slower.piece()), (Some(100_000_000), 1));
        assert_eq!(Bandwidth { rate: 0.0 }.takes(1), None);
    }
}
