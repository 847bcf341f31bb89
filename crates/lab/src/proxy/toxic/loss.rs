use plimsoll_model::draw::Draw;

use super::{Attribute, nanos};

/// What TCP makes of lost packets: bytes that are late, and with them all that follow, by the time after which the
/// sender tries again; it doubles with each loss of the same packet (RFC 6298, 5.5). No byte is ever missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The share of packets that are lost, from 0 to 1. Default: 0.
    pub probability: f64,
    /// The time before the first retransmission, ms. Default: 200, Linux' least.
    pub rto: f64,
    /// The share of losses that end the connection with a reset, from 0 to 1. Default: 0.
    pub reset: f64,
}

impl Default for Loss {
    fn default() -> Self {
        Loss { probability: 0.0, rto: 200.0, reset: 0.0 }
    }
}

/// What becomes of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Fate {
    /// It is so much later, ns.
    Late(u64),
    /// The connection is reset.
    Reset,
}

/// Bytes of a packet: Ethernet's 1500 without the heads of IPv4 and TCP with timestamps.
const PACKET: usize = 1448;
/// Most losses of one packet in a row: 200 ms have become 51 s.
const MOST: i32 = 8;

impl Loss {
    pub(super) fn attributes(&mut self) -> Vec<Attribute<'_>> {
        vec![
            Attribute::share("probability", &mut self.probability),
            Attribute::millis("rto", &mut self.rto),
            Attribute::share("reset", &mut self.reset),
        ]
    }

    /// The fate of a chunk: that of its packet which is lost most often in a row. That this is more than k times
    /// has the probability `1 - (1 - p^(k+1))^packets`.
    pub fn fate(&self, draw: Draw, chunk: u64, bytes: usize) -> Fate {
        let packets = i32::try_from(bytes.div_ceil(PACKET)).unwrap_or(i32::MAX);
        let unit = draw.unit(chunk.wrapping_mul(2));
        let lost = |times: &i32| unit < 1.0 - (1.0 - self.probability.powi(*times)).powi(packets);
        let times = (1..=MOST).take_while(lost).last().unwrap_or(0);
        if times > 0 && draw.happens(chunk.wrapping_mul(2) + 1, self.reset) {
            return Fate::Reset;
        }
        Fate::Late(nanos(self.rto) * ((1 << times) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_late_as_often_as_their_packets_are_lost() {
        let draw = Draw::root(7, 0);
        let loss = Loss { probability: 0.1, rto: 200.0, reset: 0.0 };
        let count = 100_000;
        for (bytes, packets) in [(1, 1), (PACKET, 1), (PACKET + 1, 2), (10 * PACKET, 10)] {
            let late = |n: u64| {
                (0..count).filter(|chunk| loss.fate(draw, *chunk, bytes) >= Fate::Late(n * 200_000_000)).count()
            };
            for (rtos, times) in [(1, 1), (3, 2), (7, 3)] {
                let p = 1.0 - (1.0 - 0.1f64.powi(times)).powi(packets);
                let expected = p * count as f64;
                let error = (expected * (1.0 - p)).sqrt();
                let found = late(rtos) as f64;
                assert!(
                    (found - expected).abs() < 5.0 * error + 1.0,
                    "{bytes} bytes, {times} times: {found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn certain_loss_is_bounded_and_resets_come_from_losses_alone() {
        let draw = Draw::root(7, 0);
        assert_eq!(Loss { probability: 1.0, rto: 1.0, reset: 0.0 }.fate(draw, 1, 1), Fate::Late(255_000_000));
        assert_eq!(Loss { probability: 1.0, rto: 1.0, reset: 1.0 }.fate(draw, 1, 1), Fate::Reset);
        assert_eq!(Loss { probability: 0.0, rto: 1.0, reset: 1.0 }.fate(draw, 1, 1), Fate::Late(0));
    }
}
