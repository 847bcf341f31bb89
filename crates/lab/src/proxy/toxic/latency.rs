use plimsoll_model::draw::Draw;

use super::{Attribute, nanos};

/// Every byte arrives `latency` ± `jitter` later. The order stays: a chunk that is due before the one ahead of
/// it waits for that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// In ms. Default: 0.
    pub latency: f64,
    /// In ms, uniform to both sides. Default: 0.
    pub jitter: f64,
}

impl Latency {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![Attribute::millis("latency", &mut self.latency), Attribute::millis("jitter", &mut self.jitter)]
    }

    /// How much later a chunk arrives, ns.
    pub fn delay(&self, draw: Draw, chunk: u64) -> u64 {
        let jitter = if self.jitter > 0.0 { (draw.unit(chunk) * 2.0 - 1.0) * self.jitter } else { 0.0 };
        nanos((self.latency + jitter).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_goes_both_ways_and_never_back_in_time() {
        let draw = Draw::root(1, 0);
        let latency = Latency { latency: 10.0, jitter: 5.0 };
        let delays: Vec<u64> = (0..1000).map(|chunk| latency.delay(draw, chunk)).collect();
        assert!(delays.iter().all(|delay| (5_000_000..=15_000_000).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < 6_000_000) && delays.iter().any(|delay| *delay > 14_000_000));
        assert!((0..1000).any(|chunk| Latency { latency: 1.0, jitter: 5.0 }.delay(draw, chunk) == 0));
        assert_eq!(Latency { latency: 0.5, jitter: 0.0 }.delay(draw, 3), 500_000);
    }
}
