//! Gradient2 (Netflix concurrency-limits): the limit follows its recurrence, sample by sample.
//!
//! `g = clamp(1.5 long / current, 0.5, 1)`, `limit = 0.8 L + 0.2 (g L + 4)`, and nothing moves while less
//! than half of the limit is in flight.

use plimsoll_policy::adaptive_limit::{AdaptiveLimit, Algorithm, Config, QueueWhen};
use plimsoll_policy::{Mode, Outcome, Time};

const MS: u64 = 1_000_000;

fn limit() -> AdaptiveLimit {
    let Algorithm::Gradient2 { smoothing, queue, tolerance, long_window, .. } = Algorithm::GRADIENT2 else {
        unreachable!("it is its own name");
    };
    let algorithm = Algorithm::Gradient2 { smoothing, queue, tolerance, long_window, queue_when: QueueWhen::Always };
    let config = Config { algorithm, initial: 20, min: 20, max: 200, mode: Mode::Enforce };
    AdaptiveLimit::new(config, Time::ZERO).unwrap()
}

/// Settles a call of this length while `others` are in flight beside it.
fn sample(limit: &mut AdaptiveLimit, now: &mut u64, latency_ns: u64, others: u32) {
    let held: Vec<_> = (0..others).map(|_| limit.admit(Time::from_nanos(*now)).unwrap()).collect();
    let permit = limit.admit(Time::from_nanos(*now)).unwrap();
    *now += latency_ns;
    limit.settle(Time::from_nanos(*now), permit, Outcome::Success);
    for permit in held {
        limit.settle(Time::from_nanos(*now), permit, Outcome::Ignored);
    }
}

#[test]
fn an_even_latency_lets_the_limit_grow_by_its_queue() {
    let (mut limit, mut now, mut expect) = (limit(), 0, 20.0);
    for _ in 0..50 {
        let busy = limit.limit() as u32 - 1;
        sample(&mut limit, &mut now, 10 * MS, busy);
        expect = f64::min(0.8 * expect + 0.2 * (expect + 4.0), 200.0);
        assert!((limit.limit() - expect).abs() < 1e-6, "{} for {expect}", limit.limit());
    }
}

#[test]
fn a_latency_three_times_the_usual_halves_the_gradient() {
    let (mut limit, mut now) = (limit(), 0);
    while limit.limit() < 100.0 {
        let busy = limit.limit() as u32 - 1;
        sample(&mut limit, &mut now, 10 * MS, busy);
    }
    // The long average has hardly moved when a call takes ten times as long: the gradient is clamped.
    let before = limit.limit();
    sample(&mut limit, &mut now, 100 * MS, before as u32 - 1);
    let expect = 0.8 * before + 0.2 * (0.5 * before + 4.0);
    assert!((limit.limit() - expect).abs() < 1e-6, "{} for {expect}", limit.limit());
}

#[test]
fn it_is_frozen_while_little_is_in_flight() {
    let (mut limit, mut now) = (limit(), 0);
    for _ in 0..100 {
        sample(&mut limit, &mut now, 10 * MS, 5);
    }
    assert_eq!(limit.limit(), 20.0);
}
