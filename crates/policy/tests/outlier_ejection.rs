//! Outlier ejection: who is ejected, for how long, and that the cap, the last endpoint and panic hold.

use std::time::Duration;

use plimsoll_policy::outlier_ejection::{Cause, Config, OutlierEjection, Transition};
use plimsoll_policy::{Mode, Outcome, Time};
use proptest::prelude::*;

fn at(seconds: f64) -> Time {
    Time::from_nanos((seconds * 1e9) as u64)
}

/// Half of the endpoints may go, and nothing starts slowly: the ejections by themselves.
fn config() -> Config {
    Config { max_ejected: 0.5, slow_start: Duration::ZERO, ..Config::default() }
}

fn outliers(config: Config, endpoints: usize) -> OutlierEjection {
    OutlierEjection::new(config, endpoints, Time::ZERO).unwrap()
}

fn fail(outliers: &mut OutlierEjection, seconds: f64, i: usize, times: u32) -> Vec<Transition> {
    (0..times).flat_map(|_| outliers.record(at(seconds), i, Outcome::Failure).to_vec()).collect()
}

fn eligible(outliers: &OutlierEjection) -> Vec<usize> {
    outliers.eligible().iter().collect()
}

#[test]
fn five_failures_in_a_row_eject_for_a_while_that_grows() {
    let mut outliers = outliers(config(), 4);
    fail(&mut outliers, 0.0, 1, 4);
    outliers.record(at(0.0), 1, Outcome::Success);
    assert_eq!(fail(&mut outliers, 0.0, 1, 4), [], "a success breaks the row");
    outliers.record(at(0.0), 1, Outcome::Ignored);
    outliers.record(at(0.0), 1, Outcome::Cancelled);
    let ejected = fail(&mut outliers, 1.0, 1, 1);
    let cause = Cause::ConsecutiveFailures;
    assert_eq!(ejected, [Transition::Ejected { endpoint: 1, cause, until: at(31.0) }]);
    assert_eq!(eligible(&outliers), [0, 2, 3]);

    // What was sent before the ejection and fails during it does not count.
    assert_eq!(fail(&mut outliers, 30.0, 1, 50), []);
    for second in 2..=30 {
        assert_eq!(outliers.on_wake(at(f64::from(second))), [], "{second}");
    }
    assert_eq!(outliers.next_wake(), Some(at(31.0)));
    assert_eq!(outliers.on_wake(at(31.0)), [Transition::Returned { endpoint: 1 }]);
    assert_eq!(outliers.on_wake(at(31.0)), [], "idempotent");
    assert_eq!(eligible(&outliers), [0, 1, 2, 3]);

    // Again before a sweep forgives the first: twice as long.
    let ejected = fail(&mut outliers, 32.0, 1, 5);
    assert_eq!(ejected, [Transition::Ejected { endpoint: 1, cause, until: at(92.0) }]);
}

#[test]
fn ejections_grow_up_to_the_limit() {
    let never = Duration::from_secs(1_000_000);
    let mut outliers = outliers(Config { sweep_every: never, ..config() }, 4);
    let mut now = 0.0;
    for n in 1..=12 {
        fail(&mut outliers, now, 3, 5);
        now += f64::min(30.0 * f64::from(n), 300.0);
        assert_eq!(outliers.next_wake(), Some(at(now)), "ejection {n}");
        outliers.on_wake(at(now));
        assert!(!outliers.is_ejected(3));
    }
}

#[test]
fn good_behaviour_is_forgiven_sweep_by_sweep() {
    let mut outliers = outliers(config(), 4);
    fail(&mut outliers, 1.0, 0, 5);
    outliers.on_wake(at(31.0));
    for second in [40.0, 50.0, 60.0] {
        outliers.on_wake(at(second));
    }
    let ejected = fail(&mut outliers, 61.0, 0, 5);
    let cause = Cause::ConsecutiveFailures;
    assert_eq!(ejected, [Transition::Ejected { endpoint: 0, cause, until: at(91.0) }], "a first one again");
}

#[test]
fn the_cap_holds_after_the_ejection() {
    // (endpoints, cap, how many of them can be ejected)
    for (endpoints, cap, expected) in [
        (10, 0.1, 1),
        (9, 0.1, 0),
        (19, 0.1, 1),
        (20, 0.1, 2),
        (3, 0.5, 1),
        (4, 0.5, 2),
        (100, 0.29, 29),
        (4, 1.0, 3),
        (1, 1.0, 0),
        (5, 0.0, 0),
    ] {
        let mut outliers = outliers(Config { max_ejected: cap, ..config() }, endpoints);
        for i in 0..endpoints {
            fail(&mut outliers, 1.0, i, 7);
        }
        assert_eq!(outliers.ejected(), expected, "{endpoints} endpoints, cap {cap}");
        assert!(outliers.counts().capped > 0);
    }
}

#[test]
fn the_cap_holds_when_endpoints_leave() {
    let mut outliers = outliers(config(), 6);
    for i in [0, 1, 2] {
        fail(&mut outliers, 1.0 + i as f64, i, 5);
    }
    assert_eq!(outliers.ejected(), 3);
    assert_eq!(outliers.remove(at(5.0), 5), [Transition::Returned { endpoint: 0 }], "the first to end");
    assert_eq!(eligible(&outliers), [0, 3, 4]);
    let lower = Config { max_ejected: 0.2, ..config() };
    assert_eq!(outliers.set_config(lower, at(6.0)).unwrap(), [Transition::Returned { endpoint: 1 }]);
}

/// A sweep over endpoints with these success rates in percent.
fn sweep(config: Config, requests: u32, percent: &[u32]) -> Vec<usize> {
    let mut outliers = outliers(Config { consecutive_failures: 0, ..config }, percent.len());
    for (i, &percent) in percent.iter().enumerate() {
        for k in 0..requests {
            let outcome = if k * percent / 100 < (k + 1) * percent / 100 { Outcome::Success } else { Outcome::Failure };
            outliers.record(at(5.0), i, outcome);
        }
    }
    outliers.on_wake(at(10.0));
    (0..percent.len()).filter(|&i| outliers.is_ejected(i)).collect()
}

#[test]
fn success_rates_are_compared() {
    assert_eq!(sweep(config(), 200, &[100, 100, 80, 100, 100]), [2]);
    assert_eq!(sweep(config(), 99, &[100, 100, 80, 100, 100]), [], "too few requests to say");
    assert_eq!(sweep(config(), 200, &[100, 100, 80, 100]), [], "too few endpoints to compare");
    assert_eq!(sweep(config(), 200, &[80, 80, 80, 80, 80]), [], "all alike");
    assert_eq!(sweep(config(), 100, &[100, 100, 99, 100, 100]), [], "one failure is chance, whatever the sigmas");
    assert_eq!(sweep(Config { success_rate_sigmas: 0.0, ..config() }, 200, &[100, 100, 0, 100, 100]), [], "off");
    let ten = [100, 100, 100, 100, 100, 50, 100, 100, 50, 100];
    assert_eq!(sweep(config(), 200, &ten), [5, 8]);
    assert_eq!(sweep(Config { max_ejected: 0.1, ..config() }, 200, &ten), [5], "the cap holds here too");
}

#[test]
fn one_sweep_counts_only_its_own_requests() {
    let mut outliers = outliers(Config { consecutive_failures: 0, ..config() }, 5);
    for sweep in 0..10 {
        for i in 0..5 {
            for k in 0..60 {
                let outcome = if i == 3 && k % 3 == 0 { Outcome::Failure } else { Outcome::Success };
                outliers.record(at(sweep as f64 * 10.0 + 1.0), i, outcome);
            }
        }
        outliers.on_wake(at((sweep + 1) as f64 * 10.0));
    }
    assert_eq!(outliers.counts().ejections, 0, "60 requests a sweep never make 100");
}

#[test]
fn one_host_stays() {
    let mut outliers = outliers(Config { max_ejected: 1.0, ..config() }, 1);
    assert_eq!(fail(&mut outliers, 0.0, 0, 100), []);
    assert_eq!(eligible(&outliers), [0]);
}

#[test]
fn an_endpoint_that_is_down_is_no_reason_to_eject_the_last_one_up() {
    let mut outliers = outliers(Config { max_ejected: 1.0, panic_below: 0.0, ..config() }, 3);
    outliers.set_available(at(0.0), 0, false);
    outliers.set_draining(1, true);
    fail(&mut outliers, 0.0, 2, 20);
    assert_eq!(eligible(&outliers), [2]);
}

#[test]
fn panic_enters_and_leaves() {
    let mut outliers = outliers(config(), 4);
    outliers.set_available(at(0.0), 0, false);
    assert_eq!(outliers.set_available(at(0.0), 1, false), [], "half is enough");
    assert_eq!(eligible(&outliers), [2, 3]);
    assert_eq!(outliers.set_available(at(0.0), 1, false), [], "no news");
    let entered = fail(&mut outliers, 1.0, 2, 5);
    assert_eq!(entered.last(), Some(&Transition::PanicEntered));
    assert!(outliers.in_panic());
    assert_eq!(eligible(&outliers), [0, 1, 2, 3], "all of them, ejected and unhealthy ones too");
    assert_eq!(outliers.set_draining(3, true), [], "a draining one is not of the fleet: 0 of 3 serve");
    assert_eq!(eligible(&outliers), [0, 1, 2], "and gets nothing even now");
    assert_eq!(outliers.set_draining(3, false), []);
    assert_eq!(outliers.set_available(at(2.0), 0, true), [Transition::PanicLeft]);
    assert_eq!(eligible(&outliers), [0, 3]);
    assert_eq!(outliers.counts().panics, 1);
}

#[test]
fn coming_back_starts_slowly() {
    let mut outliers = outliers(Config { slow_start: Duration::from_secs(20), ..config() }, 4);
    fail(&mut outliers, 0.0, 2, 5);
    let returned = outliers.on_wake(at(30.0)).to_vec();
    assert_eq!(returned, [Transition::Returned { endpoint: 2 }, Transition::SlowStart { endpoint: 2, factor: 0.1 }]);
    let mut factors = Vec::new();
    let mut now = at(30.0);
    while now < at(60.0) {
        now = outliers.next_wake().unwrap();
        let changes = outliers.on_wake(now).to_vec();
        for change in changes {
            let Transition::SlowStart { endpoint: 2, factor } = change else { panic!("{change:?}") };
            factors.push((now.as_nanos() / 1_000_000_000, factor));
        }
    }
    let expected: Vec<_> = (1..=20).map(|k| (30 + k, (f64::from(k as u32) / 20.0).max(0.1))).collect();
    assert_eq!(factors, expected);
    // A late wake-up goes straight to what is due.
    fail(&mut outliers, 60.0, 2, 5);
    outliers.on_wake(at(120.0));
    assert_eq!(outliers.on_wake(at(135.0)), [Transition::SlowStart { endpoint: 2, factor: 0.75 }]);
}

#[test]
fn a_window_of_any_length_is_climbed_in_twenty_wake_ups() {
    let odd = Duration::from_nanos(10_000_000_007);
    let far = Duration::from_secs(1_000);
    let mut outliers = outliers(Config { slow_start: odd, sweep_every: far, ..config() }, 2);
    outliers.add(at(0.0), 2, true);
    let mut last = 0.0;
    for _ in 0..20 {
        let now = outliers.next_wake().unwrap();
        for change in outliers.on_wake(now) {
            let Transition::SlowStart { factor, .. } = change else { panic!("{change:?}") };
            last = *factor;
        }
    }
    assert_eq!((last, outliers.next_wake()), (1.0, Some(at(1_000.0))));
}

#[test]
fn an_ejection_in_a_slow_start_ends_it() {
    let mut outliers = outliers(Config { slow_start: Duration::from_secs(20), ..config() }, 4);
    outliers.set_available(at(0.0), 1, false);
    outliers.set_available(at(1.0), 1, true);
    let changes = fail(&mut outliers, 2.0, 1, 5);
    assert_eq!(changes[0], Transition::SlowStart { endpoint: 1, factor: 1.0 });
    assert!(matches!(changes[1], Transition::Ejected { endpoint: 1, .. }));
}

#[test]
fn what_a_removed_endpoint_still_answers_does_not_count() {
    let mut outliers = outliers(config(), 4);
    outliers.remove(at(0.0), 1);
    assert_eq!(fail(&mut outliers, 1.0, 1, 50), []);
    assert_eq!(outliers.counts().capped, 0);
    outliers.add(at(2.0), 1, true);
    assert_eq!(fail(&mut outliers, 3.0, 1, 4), [], "the newcomer has a clean slate");
}

#[test]
fn shadow_reports_and_leaves_everyone_in() {
    let mut outliers = outliers(Config { mode: Mode::Shadow, ..config() }, 3);
    let ejected = fail(&mut outliers, 0.0, 1, 5);
    assert!(matches!(ejected[..], [Transition::Ejected { endpoint: 1, .. }]));
    assert_eq!(eligible(&outliers), [0, 1, 2]);
    assert_eq!(outliers.counts().shadowed, 1);
    let enforced = outliers.set_config(config(), at(1.0)).unwrap();
    assert_eq!(enforced, [], "acting on it from now on");
    assert_eq!(eligible(&outliers), [0, 2]);
}

#[test]
fn bad_settings_are_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        OutlierEjection::new(config, 3, Time::ZERO).map(|_| ()).unwrap_err().field
    };
    assert_eq!(refused(|c| c.sweep_every = Duration::ZERO), "sweep_every");
    assert_eq!(refused(|c| c.success_rate_sigmas = f64::NAN), "success_rate_sigmas");
    assert_eq!(refused(|c| c.success_rate_hosts_min = 1), "success_rate_hosts_min");
    assert_eq!(refused(|c| c.success_rate_requests_min = 0), "success_rate_requests_min");
    assert_eq!(refused(|c| c.base_ejection = Duration::ZERO), "base_ejection");
    assert_eq!(refused(|c| c.max_ejection = Duration::from_secs(1)), "max_ejection");
    assert_eq!(refused(|c| c.max_ejected = 1.1), "max_ejected");
    assert_eq!(refused(|c| c.panic_below = -0.1), "panic_below");
    assert_eq!(refused(|c| c.slow_start_min = 0.0), "slow_start_min");
}

proptest! {
    #[test]
    fn neither_cap_nor_last_endpoint_ever_falls(
        endpoints in 1usize..20,
        cap in 0.0f64..=1.0,
        steps in prop::collection::vec((0u8..10, 0usize..20, 1u32..40), 1..300),
    ) {
        let config = Config { max_ejected: cap, panic_below: 0.0, slow_start: Duration::from_secs(5), ..Config::default() };
        let mut outliers = outliers(config, endpoints);
        let mut present = vec![true; endpoints];
        let mut up = vec![true; endpoints];
        let mut now = 0.0;
        for (what, i, times) in steps {
            let i = i % present.len();
            let serving = |outliers: &OutlierEjection, present: &[bool], up: &[bool]| {
                (0..present.len()).filter(|&i| present[i] && up[i] && !outliers.is_ejected(i)).count()
            };
            let before = serving(&outliers, &present, &up);
            match what {
                0 => { now += f64::from(times); outliers.on_wake(at(now)); }
                1 => {
                    up[i] = times % 2 == 0;
                    outliers.set_available(at(now), i, up[i]);
                }
                2 if present.iter().filter(|p| **p).count() > 1 => {
                    present[i] = false;
                    outliers.remove(at(now), i);
                }
                3 => {
                    (present[i], up[i]) = (true, true);
                    outliers.add(at(now), i, true);
                }
                4 => for _ in 0..times * 10 { outliers.record(at(now), i, Outcome::Success); },
                _ => {
                    fail(&mut outliers, now, i, times);
                    // Recording is the only thing that ejects here; it must leave someone.
                    prop_assert!(before == 0 || serving(&outliers, &present, &up) > 0);
                }
            }
            let fleet = present.iter().filter(|p| **p).count();
            prop_assert!(outliers.ejected() as f64 <= cap * fleet as f64 + 1e-6);
            let expected: Vec<_> = (0..present.len()).filter(|&i| present[i] && up[i] && !outliers.is_ejected(i)).collect();
            prop_assert_eq!(eligible(&outliers), expected);
            prop_assert!(outliers.next_wake().unwrap() > at(now) || what != 0, "a wake-up does all that is due");
        }
    }
}
