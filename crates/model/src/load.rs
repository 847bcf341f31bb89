//! How much load comes when: rates over time, and when the next request is due. Both worlds draw their load by this.

use crate::draw::{Draw, exponential};
use crate::system::{Arrivals, Client, Load};

/// A part of a load: the rate rises linearly within it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateSegment {
    /// Its start, ns.
    pub start: u64,
    /// Its end, ns.
    pub end: u64,
    /// Events a ns at its start; of closed loops and traces a factor.
    pub from: f64,
    /// The same at its end.
    pub to: f64,
}

/// A client's load over a warm-up and the time after it, ns each: its own or an experiment's, times a scale. Surges
/// are a start, an end and a factor.
pub fn segments(
    client: &Client,
    own: Option<&Load>,
    scale: f64,
    (warmup, duration): (u64, u64),
    surges: &[(u64, u64, f64)],
) -> Vec<RateSegment> {
    let end = warmup + duration;
    let level = |start, end, rate: f64| RateSegment { start, end, from: rate, to: rate };
    let per_ns = scale / 1e9;
    let parts = match own {
        None => vec![level(
            0,
            end,
            match &client.arrivals {
                Arrivals::Open { rate, .. } => rate / 1e9 * scale,
                Arrivals::Trace { .. } => scale,
                Arrivals::Closed { .. } => 1.0,
            },
        )],
        Some(Load::Users(_)) => vec![level(0, end, 1.0)],
        Some(Load::Rate(rate)) => vec![level(0, end, rate * per_ns)],
        Some(Load::Ramp(from, to)) => vec![
            level(0, warmup, from * per_ns),
            RateSegment { start: warmup, end, from: from * per_ns, to: to * per_ns },
        ],
        Some(Load::Steps(rates)) => {
            let mut parts = vec![level(0, warmup, rates.first().copied().unwrap_or(0.0) * per_ns)];
            for (i, rate) in rates.iter().enumerate() {
                let at = |i: usize| warmup + duration * i as u64 / rates.len() as u64;
                parts.push(level(at(i), at(i + 1), rate * per_ns));
            }
            parts
        }
    };
    surged(&parts, surges)
}

/// Splits segments at the surges' ends and multiplies the rate within them.
fn surged(parts: &[RateSegment], surges: &[(u64, u64, f64)]) -> Vec<RateSegment> {
    let mut times: Vec<u64> = surges.iter().flat_map(|&(from, to, _)| [from, to]).collect();
    times.extend(parts.iter().flat_map(|part| [part.start, part.end]));
    times.sort_unstable();
    times.dedup();
    let mut out = Vec::new();
    for part in parts {
        for pair in times.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            if start < part.start || end > part.end {
                continue;
            }
            let inside = surges.iter().filter(|&&(from, to, _)| from <= start && end <= to);
            let factor: f64 = inside.map(|&(_, _, factor)| factor).product();
            out.push(RateSegment { start, end, from: part.rate_at(start) * factor, to: part.rate_at(end) * factor });
        }
    }
    out
}

impl RateSegment {
    fn rate_at(&self, time: u64) -> f64 {
        let share = (time - self.start) as f64 / (self.end - self.start).max(1) as f64;
        self.from + share * (self.to - self.from)
    }
}

/// The rate at a time; one past the end.
pub fn rate_at(segments: &[RateSegment], now: u64) -> f64 {
    let at = segments.partition_point(|segment| segment.end <= now);
    segments.get(at).map_or(1.0, |segment| segment.rate_at(now))
}

/// How far a client is along its load.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Position in the segments.
    at: usize,
    /// The burst state: the rate's factor and when that ends, ns.
    burst: (f64, f64),
    bursts: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { at: 0, burst: (1.0, 0.0), bursts: 0 }
    }
}

impl Progress {
    /// The time at which the rate, integrated from `now`, reaches `area`; none past the end. `bursty` is the peak's
    /// factor and the mean lengths of bursts and of what lies between, ns; `draw` is where those come from.
    #[inline]
    pub fn advance(
        &mut self,
        segments: &[RateSegment],
        now: u64,
        mut area: f64,
        bursty: Option<(f64, f64, f64)>,
        draw: Draw,
    ) -> Option<u64> {
        let mut time = now as f64;
        loop {
            while segments.get(self.at).is_some_and(|segment| segment.end as f64 <= time) {
                self.at += 1;
            }
            let segment = segments.get(self.at)?;
            let mut end = segment.end as f64;
            let mut factor = 1.0;
            if let Some((peak, burst, quiet)) = bursty {
                while self.burst.1 <= time {
                    let long = self.bursts % 2 == 1;
                    let length = if long { burst } else { quiet };
                    let rest = ((burst + quiet) - peak * burst).max(0.0) / quiet;
                    let until = self.burst.1 + length * exponential(draw.bits(self.bursts));
                    self.burst = (if long { peak } else { rest }, until);
                    self.bursts += 1;
                }
                factor = self.burst.0;
                end = end.min(self.burst.1);
            }
            let slope = if segment.from == segment.to {
                0.0
            } else {
                (segment.to - segment.from) / (segment.end - segment.start) as f64 * factor
            };
            let rate = segment.from * factor + slope * (time - segment.start as f64);
            let available = (end - time) * (rate + slope * (end - time) / 2.0);
            if available >= area && available > 0.0 {
                let wait = if slope == 0.0 {
                    area / rate
                } else {
                    // slope/2 x^2 + rate x = area, in the form that does not cancel.
                    2.0 * area / (rate + (rate * rate + 2.0 * slope * area).max(0.0).sqrt())
                };
                return Some((time + wait) as u64);
            }
            area -= available.max(0.0);
            time = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surge_multiplies_its_part_of_a_ramp() {
        let parts = [RateSegment { start: 0, end: 100, from: 1.0, to: 2.0 }];
        let got = surged(&parts, &[(40, 60, 3.0)]);
        let expect = [
            RateSegment { start: 0, end: 40, from: 1.0, to: 1.4 },
            RateSegment { start: 40, end: 60, from: 1.4 * 3.0, to: 1.6 * 3.0 },
            RateSegment { start: 60, end: 100, from: 1.6, to: 2.0 },
        ];
        assert_eq!(got.len(), 3);
        for (got, expect) in got.iter().zip(&expect) {
            assert_eq!((got.start, got.end), (expect.start, expect.end));
            assert!((got.from - expect.from).abs() < 1e-12 && (got.to - expect.to).abs() < 1e-12);
        }
        assert!((rate_at(&got, 50) - 4.5).abs() < 1e-12);
    }
}
