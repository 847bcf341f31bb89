//! Autoscaling: tables of what is seen and what is decided.

use std::time::Duration;

use plimsoll_policy::Time;
use plimsoll_policy::autoscale::{Autoscaler, Config, Decision, Seen};
use proptest::prelude::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn config() -> Config {
    Config { min: 2, max: 8, target: 0.5, cooldown: Duration::from_secs(60) }
}

fn seen(serving: u32, wanted: u32, utilization: f64) -> Seen {
    Seen { serving, wanted, utilization, deploying: false }
}

#[test]
fn it_grows_at_once_and_shrinks_when_it_has_been_quiet() {
    let mut scaler = Autoscaler::new(config(), Time::ZERO).unwrap();
    for (now, seen, decision) in [
        (1, seen(2, 2, 0.5), Decision::Keep),
        (2, seen(2, 2, 0.51), Decision::Grow(1)),
        (3, seen(2, 2, 1.0), Decision::Grow(2)),
        // Those that are on their way count, and are not asked for twice.
        (4, seen(2, 4, 1.0), Decision::Keep),
        (5, seen(2, 3, 1.0), Decision::Grow(1)),
        (6, seen(8, 8, 1.0), Decision::Keep),
        (59, seen(4, 4, 0.0), Decision::Keep),
        (60, seen(4, 4, 0.0), Decision::Shrink(2)),
        (60, seen(6, 6, 0.25), Decision::Shrink(3)),
        // Nothing serves: nothing is known.
        (60, seen(0, 4, 0.0), Decision::Keep),
        (60, seen(4, 4, f64::NAN), Decision::Keep),
    ] {
        assert_eq!(scaler.decide(at(now), &seen), decision, "{now} {seen:?}");
    }
    scaler.changed(at(100));
    assert_eq!(scaler.decide(at(159), &seen(4, 4, 0.0)), Decision::Keep);
    assert_eq!(scaler.decide(at(160), &seen(4, 4, 0.0)), Decision::Shrink(2));
}

#[test]
fn a_deploy_is_not_disturbed() {
    let scaler = Autoscaler::new(config(), Time::ZERO).unwrap();
    let deploying = |seen| Seen { deploying: true, ..seen };
    assert_eq!(scaler.decide(at(100), &deploying(seen(4, 4, 0.0))), Decision::Keep);
    assert_eq!(scaler.decide(at(100), &deploying(seen(4, 4, 0.6))), Decision::Grow(1));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (field, config) in [
        ("min", Config { min: 0, ..config() }),
        ("max", Config { max: 1, ..config() }),
        ("target", Config { target: 0.0, ..config() }),
        ("target", Config { target: f64::NAN, ..config() }),
    ] {
        assert_eq!(Autoscaler::new(config, Time::ZERO).unwrap_err().field, field, "{config:?}");
    }
}

proptest! {
    /// Whatever is seen, what is wanted afterwards lies within the bounds, or comes closer to them.
    #[test]
    fn it_leads_into_its_bounds(serving in 0u32..20, more in 0u32..20, utilization in 0.0f64..4.0, now in 0u64..200) {
        let scaler = Autoscaler::new(config(), Time::ZERO).unwrap();
        let seen = seen(serving, serving + more, utilization);
        match scaler.decide(at(now), &seen) {
            Decision::Keep => {}
            Decision::Grow(by) => prop_assert!(by > 0 && seen.wanted + by <= 8),
            Decision::Shrink(by) => prop_assert!(by > 0 && seen.wanted - by >= 2 && now >= 60),
        }
    }
}
