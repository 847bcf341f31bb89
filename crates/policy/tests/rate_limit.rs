//! The rate limits' rules as tables, and their bounds over any window.

use std::time::Duration;

use plimsoll_policy::rate_limit::gcra::Gcra;
use plimsoll_policy::rate_limit::{Algorithm, Config, RateLimit, Scope, StoreAnswer, StoreDown};
use plimsoll_policy::{Counts, Mode, Reason, Time};
use proptest::prelude::*;

const fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

const SECOND: Duration = Duration::from_secs(1);
const GCRA: Algorithm = Algorithm::Gcra { burst: None };

fn limit(config: Config) -> RateLimit {
    RateLimit::new(config, Time::ZERO).unwrap()
}

fn ten_a_second(algorithm: Algorithm) -> Config {
    Config { algorithm, ..Config::new(10, SECOND) }
}

/// Calls admitted out of as many as are asked at one instant.
fn admitted(limit: &mut RateLimit, now: Time, key: u64, asked: u32) -> u32 {
    (0..asked).filter(|_| limit.admit(now, key, 1).is_ok()).count() as u32
}

#[test]
fn around_a_boundary_only_the_fixed_window_admits_twice_its_quota() {
    for (algorithm, worst) in [
        (Algorithm::FixedWindow, 20),
        (Algorithm::SlidingWindow, 10),
        (GCRA, 11), // the default burst is a tenth of the quota
        (Algorithm::Gcra { burst: Some(10) }, 20),
    ] {
        // A caller who asks all the time, after a pause: the most admitted in any second.
        let mut limit = limit(ten_a_second(algorithm));
        let times: Vec<u64> = (990..4_000).filter(|&ms| limit.admit(at(ms), 0, 1).is_ok()).collect();
        let in_second = |from: &u64| times.iter().filter(|&&t| (*from..from + 1_000).contains(&t)).count();
        let most = times.iter().map(in_second).max().unwrap();
        let burst = (0..10).filter(|_| limit.admit(at(9_999), 0, 1).is_ok()).count()
            + (0..10).filter(|_| limit.admit(at(10_000), 0, 1).is_ok()).count();
        assert!(most.max(burst) <= worst, "{algorithm:?}: {most} in a second, {burst} in 1 ms");
        if algorithm == Algorithm::FixedWindow {
            assert_eq!(burst, 20);
        }
    }
}

#[test]
fn a_rejection_says_when_to_come_back_and_coming_back_then_works() {
    for algorithm in [GCRA, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let mut limit = limit(ten_a_second(algorithm));
        admitted(&mut limit, at(5_050), 0, 100);
        let rejected = limit.admit(at(5_050), 0, 1).unwrap_err();
        assert_eq!(rejected.reason, Reason::RateLimited);
        let retry_at = rejected.retry_at.unwrap();
        assert!(limit.admit(Time::from_nanos(retry_at.as_nanos() - 1), 0, 1).is_err());
        assert!(limit.admit(retry_at, 0, 1).is_ok(), "{algorithm:?}");
        // What costs more than the quota holds is told no time at all.
        assert_eq!(limit.admit(at(9_000), 0, 11).unwrap_err().retry_at, None);
    }
}

#[test]
fn health_checks_are_exempt() {
    let mut limit = limit(ten_a_second(GCRA));
    assert_eq!(admitted(&mut limit, at(0), 0, 5), 1);
    assert!((0..1_000).all(|_| limit.admit(at(0), 0, 0).is_ok()));
    assert_eq!(limit.counts(), Counts { admitted: 1, rejected: 4, shadowed: 0 });
}

#[test]
fn a_clock_that_steps_neither_locks_out_nor_lets_in() {
    for algorithm in [GCRA, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let mut limit = limit(ten_a_second(algorithm));
        let hour = 3_600_000;
        admitted(&mut limit, at(hour), 0, 100);
        // An hour back: within one period the quota is there again, and until then it is not
        // there twice.
        let at_once = admitted(&mut limit, at(0), 0, 100);
        assert_eq!(at_once, 0, "{algorithm:?}");
        assert!(admitted(&mut limit, at(1_100), 0, 100) >= 1, "{algorithm:?}");
        // An hour ahead: the idle time is worth one burst.
        assert!(admitted(&mut limit, at(2 * hour), 0, 100) <= 10, "{algorithm:?}");
    }
}

#[test]
fn every_key_has_its_own_quota_and_the_keys_are_bounded() {
    for algorithm in [GCRA, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let scope = Scope::PerKey { max_keys: 3 };
        let mut limit = limit(Config { scope, ..ten_a_second(algorithm) });
        let quota = admitted(&mut limit, at(0), 1, 100);
        for key in [2, 3] {
            assert_eq!(admitted(&mut limit, at(0), key, 100), quota);
        }
        assert_eq!(admitted(&mut limit, at(0), 1, 100), 0);
        assert_eq!((limit.keys(), limit.evicted()), (3, 0));
        // A fourth takes the place of 2, unused for the longest; 1 and 3 remember.
        assert_eq!(admitted(&mut limit, at(0), 4, 100), quota);
        assert_eq!((limit.keys(), limit.evicted()), (3, 1));
        assert_eq!(admitted(&mut limit, at(0), 1, 100), 0);
        assert_eq!(admitted(&mut limit, at(0), 3, 100), 0);
        assert_eq!(admitted(&mut limit, at(0), 2, 100), quota);
    }
}

#[test]
fn with_the_store_down_it_does_what_it_was_told() {
    let retry_at = Some(at(70));
    for (store_down, answer, decision) in [
        (StoreDown::FailOpen, StoreAnswer::Allowed, Ok(())),
        (StoreDown::FailOpen, StoreAnswer::Denied { retry_at }, Err(retry_at)),
        (StoreDown::FailOpen, StoreAnswer::Down, Ok(())),
        (StoreDown::FailClosed, StoreAnswer::Allowed, Ok(())),
        (StoreDown::FailClosed, StoreAnswer::Down, Err(None)),
    ] {
        let mut limit = limit(Config { store_down, ..ten_a_second(GCRA) });
        let got = limit.admit_by_store(answer).map_err(|rejected| rejected.retry_at);
        assert_eq!(got, decision, "{store_down:?} {answer:?}");
        let mode = Mode::Shadow;
        limit.set_config(Config { mode, ..*limit.config() }, at(0)).unwrap();
        assert!(limit.admit_by_store(answer).is_ok());
        let counts = limit.counts();
        let shadowed = u64::from(decision.is_err());
        assert_eq!((counts.rejected, counts.shadowed), (shadowed, shadowed));
    }
}

#[test]
fn shadow_counts_and_uses_nothing_up() {
    let mut limit = limit(Config { mode: Mode::Shadow, ..ten_a_second(GCRA) });
    assert_eq!(admitted(&mut limit, at(0), 0, 100), 100);
    assert_eq!(limit.counts(), Counts { admitted: 1, rejected: 0, shadowed: 99 });
    assert_eq!(admitted(&mut limit, at(100), 0, 1), 1);
    assert_eq!(limit.counts().admitted, 2);
}

#[test]
fn a_new_configuration_keeps_what_was_used() {
    for algorithm in [GCRA, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        for scope in [Scope::Shared, Scope::PerKey { max_keys: 10 }] {
            let config = Config { scope, ..ten_a_second(algorithm) };
            let mut limit = limit(config);
            assert!(admitted(&mut limit, at(10_000), 7, 100) > 0);
            limit.set_config(config, at(10_000)).unwrap();
            assert_eq!(admitted(&mut limit, at(10_000), 7, 100), 0, "{algorithm:?} {scope:?}");
            let half_as_long = Config { per: SECOND / 2, ..config };
            limit.set_config(half_as_long, at(10_000)).unwrap();
            assert_eq!(admitted(&mut limit, at(10_000), 7, 100), 0, "{algorithm:?} {scope:?}");
            assert!(admitted(&mut limit, at(10_600), 7, 100) > 0, "{algorithm:?} {scope:?}");
        }
    }
    // Fewer keys: the most recent stay.
    let keyed = |max_keys| Config { scope: Scope::PerKey { max_keys }, ..ten_a_second(GCRA) };
    let mut limit = limit(keyed(100));
    for key in 0..100 {
        admitted(&mut limit, at(0), key, 1);
    }
    limit.set_config(keyed(10), at(0)).unwrap();
    assert_eq!((limit.keys(), limit.evicted()), (10, 90));
    assert!((90..100).all(|key| admitted(&mut limit, at(0), key, 1) == 0));
}

#[test]
fn bad_configurations_are_refused() {
    let good = Config::new(10, SECOND);
    for (config, field) in [
        (Config { limit: 0, ..good }, "limit"),
        (Config { per: Duration::from_nanos(9), ..good }, "per"),
        (Config { algorithm: Algorithm::Gcra { burst: Some(0) }, ..good }, "burst"),
        (Config { scope: Scope::PerKey { max_keys: 0 }, ..good }, "scope.max_keys"),
    ] {
        assert_eq!(RateLimit::new(config, Time::ZERO).unwrap_err().field, field);
    }
}

fn asks() -> impl Strategy<Value = Vec<(u64, u32)>> {
    // Waits around the quota's own scale, many of them zero.
    prop::collection::vec((prop_oneof![Just(0), 0u64..50, 0u64..2_000], 1u32..4), 1..300)
}

proptest! {
    /// At most `burst + t / interval` units in any stretch of time `t`, whatever is asked and when.
    #[test]
    fn gcra_stays_below_its_line(asks in asks(), rate in 1u32..50, burst in 1u32..20) {
        let algorithm = Algorithm::Gcra { burst: Some(burst) };
        let mut limit = limit(Config { algorithm, ..Config::new(rate, SECOND) });
        let interval = Gcra::new(rate, SECOND, burst).interval_ns();
        let mut now = Time::ZERO;
        let mut passed: Vec<(Time, u32)> = Vec::new();
        for (wait_ms, cost) in asks {
            now = now + Duration::from_millis(wait_ms);
            if limit.admit(now, 0, cost).is_ok() {
                passed.push((now, cost));
                let mut units = 0;
                for &(from, cost) in passed.iter().rev() {
                    units += u64::from(cost);
                    prop_assert!(units <= u64::from(burst) + now.nanos_since(from) / interval);
                }
            }
        }
    }

    /// At most the limit in any stretch of `per`.
    #[test]
    fn the_sliding_window_never_exceeds_its_limit(asks in asks(), rate in 1u32..50) {
        let algorithm = Algorithm::SlidingWindow;
        let mut limit = limit(Config { algorithm, ..Config::new(rate, SECOND) });
        let mut now = Time::ZERO;
        let mut passed: Vec<(Time, u32)> = Vec::new();
        for (wait_ms, cost) in asks {
            now = now + Duration::from_millis(wait_ms);
            if limit.admit(now, 0, cost).is_ok() {
                passed.push((now, cost));
                let recent = passed.iter().filter(|(t, _)| now.since(*t) < SECOND);
                prop_assert!(recent.map(|(_, cost)| cost).sum::<u32>() <= rate);
            }
        }
    }

    /// Who is evicted, and so what is decided, depends on the sequence of keys alone.
    #[test]
    fn keyed_decisions_replay(keys in prop::collection::vec(0u64..60, 1..500)) {
        let scope = Scope::PerKey { max_keys: 20 };
        let decide = || {
            let mut limit = limit(Config { scope, ..ten_a_second(GCRA) });
            let ask = |(i, key): (usize, &u64)| limit.admit(at(i as u64), *key, 1);
            keys.iter().enumerate().map(ask).collect::<Vec<_>>()
        };
        prop_assert_eq!(decide(), decide());
    }
}
