use plimsoll_model::draw::Draw;

use super::{Attribute, nanos};

/// Bytes are handed on in pieces of `average_size` ± `size_variation`, with `delay` after each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slicer {
    /// In bytes. Default: 1.
    pub average_size: f64,
    /// In bytes, less than the average. Default: 0.
    pub size_variation: f64,
    /// In us. Default: 0.
    pub delay: f64,
}

impl Default for Slicer {
    fn default() -> Self {
        Slicer { average_size: 1.0, size_variation: 0.0, delay: 0.0 }
    }
}

impl Slicer {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![
            Attribute::count("average_size", &mut self.average_size),
            Attribute::count("size_variation", &mut self.size_variation),
            Attribute::millis("delay", &mut self.delay),
        ]
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.average_size < 1.0 {
            return Err("`average_size` of slicer: expected at least 1");
        }
        if self.size_variation >= self.average_size {
            return Err("`size_variation` of slicer: expected less than `average_size`");
        }
        Ok(())
    }

    /// The bytes of a piece.
    pub fn piece(&self, draw: Draw, number: u64) -> usize {
        let varied = self.average_size + (draw.unit(number) * 2.0 - 1.0) * self.size_variation;
        (varied.round() as usize).max(1)
    }

    /// The pause after it, ns.
    pub fn pause(&self) -> u64 {
        nanos(self.delay / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_vary_around_their_average() {
        let slicer = Slicer { average_size: 100.0, size_variation: 50.0, delay: 10.0 };
        let sizes: Vec<usize> = (0..1000).map(|piece| slicer.piece(Draw::root(1, 0), piece)).collect();
        assert!(sizes.iter().all(|size| (50..=150).contains(size)));
        assert!(sizes.iter().any(|size| *size < 60) && sizes.iter().any(|size| *size > 140));
        assert_eq!(slicer.pause(), 10_000);
    }
}
