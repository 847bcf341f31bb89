//! 100 clients that contend for one optimistic lock, with AWS's five kinds of backoff.
//!
//! "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015) and its simulator: network delays of
//! 10 ms with a standard deviation of 2, a base of 5 ms and a cap of 2 s. There is no queue in it: our
//! retry policy is asked for each wait, and the rest is the lock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use plimsoll_policy::retry::{Backoff, Config, Hint, Jitter};
use plimsoll_policy::{Mode, Retry, Time};

const CLIENTS: usize = 100;
const RUNS: u64 = 100;

/// Writes that it takes until every client has written once, a run on average.
fn calls(backoff: Option<Backoff>) -> f64 {
    let retry = backoff.map(|backoff| {
        let config = Config { attempts: 100, backoff, mode: Mode::Enforce };
        Retry::new(config, Time::ZERO).unwrap()
    });
    (0..RUNS).map(|run| contend(retry.as_ref(), run) as f64).sum::<f64>() / RUNS as f64
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Read,
    HasRead(u32),
    Write(u32),
    Refused,
}

fn contend(retry: Option<&Retry>, seed: u64) -> u32 {
    let mut random = Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut events = BinaryHeap::new();
    let mut number = 0u32;
    let mut at = |events: &mut BinaryHeap<_>, time: u64, client: usize, step: Step| {
        number += 1;
        events.push(Reverse((time, number, client, step)));
    };
    let (mut version, mut calls) = (0u32, 0u32);
    let mut refused = [(0u32, 0u64); CLIENTS];
    for client in 0..CLIENTS {
        at(&mut events, random.delay(), client, Step::Read);
    }
    while let Some(Reverse((now, _, client, step))) = events.pop() {
        let there = now + random.delay();
        match step {
            Step::Read => at(&mut events, there, client, Step::HasRead(version)),
            Step::HasRead(seen) => at(&mut events, there, client, Step::Write(seen)),
            Step::Write(seen) => {
                calls += 1;
                if seen == version {
                    version += 1;
                } else {
                    at(&mut events, there, client, Step::Refused);
                }
            }
            Step::Refused => {
                let (retries, last) = &mut refused[client];
                // Their first wait has twice the base for a window: it counts as the second of ours.
                *retries += 1;
                if let Some(retry) = retry {
                    *last = retry.wait_ns(*retries, Hint::default(), *last, random.next());
                }
                let wait = *last;
                at(&mut events, there + wait, client, Step::Read);
            }
        }
    }
    assert_eq!(version as usize, CLIENTS);
    calls
}

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Normal, mean 10 ms, standard deviation 2 ms (Box and Muller), in ns.
    fn delay(&mut self) -> u64 {
        let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (a, b) = (unit(self.next()), unit(self.next()));
        let normal = (-2.0 * libm::log(a)).sqrt() * libm::cos(2.0 * std::f64::consts::PI * b);
        ((10.0 + 2.0 * normal).abs() * 1e6) as u64
    }
}

#[test]
fn jitter_saves_calls_as_aws_measured() {
    let backoff = |jitter| {
        Some(Backoff {
            base: Duration::from_millis(5),
            cap: Duration::from_secs(2),
            multiplier: 2.0,
            jitter,
            ..Backoff::default()
        })
    };
    for (name, backoff, expect) in [
        ("none", None, 2425.0),
        ("exponential", backoff(Jitter::None), 1846.0),
        ("decorrelated", backoff(Jitter::Decorrelated), 998.0),
        ("equal", backoff(Jitter::Equal), 812.0),
        ("full", backoff(Jitter::Full), 796.0),
    ] {
        let got = calls(backoff);
        println!("{name}: {got} calls, AWS {expect}");
        assert!((got / expect - 1.0).abs() < 0.05, "{name}: {got} calls, not {expect}");
    }
}
