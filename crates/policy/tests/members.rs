//! Members: active health, passive ejection, draining and panic make one eligibility.

use std::time::Duration;

use plimsoll_policy::health::{self, Change, HealthCheck, Poll};
use plimsoll_policy::members::{Config, Members};
use plimsoll_policy::outlier_ejection::{self, Transition};
use plimsoll_policy::{Mode, Outcome, Time};

fn at(seconds: f64) -> Time {
    Time::from_nanos((seconds * 1e9) as u64)
}

fn health() -> health::Config {
    health::Config { jitter: 0.0, ..health::Config::default() }
}

fn members(health: health::Config, endpoints: usize) -> Members {
    let ejection = outlier_ejection::Config { max_ejected: 0.5, slow_start: Duration::ZERO, ..Default::default() };
    Members::new(Config { health: Some(health), ejection }, endpoints, Time::ZERO, 1).unwrap()
}

fn eligible(members: &Members) -> Vec<usize> {
    members.eligible().iter().collect()
}

/// Runs checks until `until`; `passes` says how each target answers (`None`: not at all).
fn run(members: &mut Members, until: f64, passes: impl Fn(usize) -> Option<bool>) -> Vec<Transition> {
    let mut transitions = Vec::new();
    while let Some(now) = members.next_wake().filter(|at_| *at_ <= at(until)) {
        transitions.extend_from_slice(members.on_wake(now));
        while let Some((i, probe)) = members.poll_check(now, 0) {
            if let Some(passed) = passes(i) {
                transitions.extend_from_slice(members.settle_check(now, i, probe, passed));
            }
        }
    }
    transitions
}

#[test]
fn a_target_falls_after_three_and_rises_after_two() {
    let mut check = HealthCheck::new(health(), true, Time::ZERO, 0).unwrap();
    let answers = [
        (false, None),
        (false, None),
        (true, None),
        (false, None),
        (false, None),
        (false, Some(Change::Unhealthy)),
        (false, None),
        (true, None),
        (false, None),
        (true, None),
        (true, Some(Change::Healthy)),
    ];
    for (k, (passed, expected)) in answers.into_iter().enumerate() {
        let now = at(k as f64 * 5.0);
        assert_eq!(check.next_wake(), now);
        let Poll::Send(probe) = check.poll(now, 0) else { panic!("a probe is due") };
        assert_eq!(check.poll(now, 0), Poll::Idle);
        assert_eq!(check.settle(probe, passed), expected, "answer {k}");
        assert_eq!(check.settle(probe, false), None, "only once");
    }
    assert_eq!((check.counts().passed, check.counts().failed), (4, 7));
}

#[test]
fn a_probe_without_an_answer_fails_and_its_late_answer_does_not_count() {
    let mut check = HealthCheck::new(health::Config { unhealthy_after: 1, ..health() }, true, Time::ZERO, 0).unwrap();
    let Poll::Send(probe) = check.poll(at(0.0), 0) else { panic!() };
    assert_eq!(check.next_wake(), at(1.0));
    assert_eq!(check.poll(at(0.9), 0), Poll::Idle);
    assert_eq!(check.poll(at(1.0), 0), Poll::TimedOut(Some(Change::Unhealthy)));
    assert_eq!(check.settle(probe, true), None);
    assert!(!check.is_healthy() && !check.in_service());
    let Poll::Send(second) = check.poll(at(5.0), 0) else { panic!() };
    assert_eq!(check.settle(probe, true), None, "nor while the next one is out");
    assert_eq!(check.counts().passed, 0);
    assert_eq!(check.settle(second, true), None);
    assert_eq!(check.counts().passed, 1);
}

#[test]
fn probes_are_spread_and_jittered() {
    let config = health::Config { jitter: 0.2, ..health::Config::default() };
    let first = |random| HealthCheck::new(config, true, Time::ZERO, random).unwrap().next_wake();
    assert_eq!((first(0), first(1 << 63)), (at(0.0), at(2.5)));
    let next = |random| {
        let mut check = HealthCheck::new(config, true, Time::ZERO, 0).unwrap();
        let Poll::Send(probe) = check.poll(at(0.0), random) else { panic!() };
        check.settle(probe, true);
        check.next_wake()
    };
    assert_eq!((next(0), next(1 << 63)), (at(4.0), at(5.0)));
    assert!(next(u64::MAX) <= at(6.0));
}

#[test]
fn all_lights_count() {
    let mut members = members(health(), 4);
    let changes = run(&mut members, 20.0, |i| Some(i != 3));
    assert_eq!(changes, [Transition::Unhealthy { endpoint: 3 }]);
    assert_eq!(eligible(&members), [0, 1, 2]);
    for _ in 0..5 {
        members.record(at(20.0), 0, Outcome::Failure, false);
    }
    assert_eq!(eligible(&members), [1, 2]);
    assert_eq!(members.set_draining(2, true), [Transition::PanicEntered], "1 of 3");
    assert_eq!(eligible(&members), [0, 1, 3], "the draining one stays out");
    let changes = run(&mut members, 40.0, |_| Some(true));
    assert_eq!(changes, [Transition::Healthy { endpoint: 3 }, Transition::PanicLeft]);
    assert_eq!(eligible(&members), [1, 3]);
    assert_eq!(run(&mut members, 51.0, |_| Some(true)), [Transition::Returned { endpoint: 0 }]);
    assert_eq!(eligible(&members), [0, 1, 3]);
}

#[test]
fn who_refuses_by_a_quota_is_not_ill() {
    let mut members = members(health(), 4);
    for _ in 0..100 {
        members.record(at(1.0), 0, Outcome::Failure, true);
    }
    assert_eq!(eligible(&members), [0, 1, 2, 3]);
    // Nor is it well: failures before and after are in a row.
    for throttled in [false, false, true, false, true, false, false] {
        members.record(at(2.0), 0, Outcome::Failure, throttled);
    }
    assert_eq!(eligible(&members), [1, 2, 3]);
}

#[test]
fn silence_is_failure() {
    let mut members = members(health(), 3);
    let changes = run(&mut members, 30.0, |i| (i != 1).then_some(true));
    assert_eq!(changes, [Transition::Unhealthy { endpoint: 1 }]);
}

#[test]
fn a_newcomer_serves_once_its_checks_pass_and_starts_slowly() {
    let mut config = Config { health: Some(health()), ..Config::default() };
    config.ejection.slow_start = Duration::from_secs(10);
    let mut members = Members::new(config, 2, Time::ZERO, 1).unwrap();
    assert_eq!(members.add(at(0.0), 2, false).unwrap(), []);
    assert_eq!(eligible(&members), [0, 1]);
    let changes = run(&mut members, 11.0, |_| Some(true));
    assert_eq!(changes[..2], [Transition::Healthy { endpoint: 2 }, Transition::SlowStart { endpoint: 2, factor: 0.1 }]);
    assert_eq!(eligible(&members), [0, 1, 2]);
    members.remove(at(12.0), 1);
    assert_eq!(eligible(&members), [0, 2]);
    assert!(
        run(&mut members, 60.0, |i| Some(i != 1))
            .iter()
            .all(|t| matches!(t, Transition::SlowStart { endpoint: 2, .. }))
    );
}

#[test]
fn shadow_checks_take_nobody_out() {
    let mut members = members(health::Config { mode: Mode::Shadow, ..health() }, 3);
    assert_eq!(run(&mut members, 30.0, |i| Some(i != 1)), [Transition::Unhealthy { endpoint: 1 }]);
    assert_eq!(eligible(&members), [0, 1, 2]);
    assert_eq!(members.check(1).unwrap().counts().shadowed, 1);
    let enforce = Config { health: Some(health()), ejection: members.ejection().config().clone() };
    assert_eq!(members.set_config(enforce, at(30.0)).unwrap(), []);
    assert_eq!(eligible(&members), [0, 2], "the state was kept");
    let none = Config { health: None, ejection: members.ejection().config().clone() };
    members.set_config(none, at(31.0)).unwrap();
    assert_eq!(eligible(&members), [0, 1, 2], "without checks nobody is known to be ill");
    assert_eq!(members.poll_check(at(100.0), 0), None);
}

#[test]
fn checks_can_begin_at_run_time() {
    let mut members = Members::new(Config::default(), 2, Time::ZERO, 1).unwrap();
    assert_eq!(members.poll_check(at(100.0), 0), None);
    let with = Config { health: Some(health()), ..Config::default() };
    members.set_config(with, at(100.0)).unwrap();
    let changes = run(&mut members, 130.0, |i| Some(i == 0));
    assert_eq!(changes, [Transition::Unhealthy { endpoint: 1 }]);
}

#[test]
fn bad_settings_are_refused() {
    let refused = |change: fn(&mut health::Config)| {
        let mut config = health::Config::default();
        change(&mut config);
        let config = Config { health: Some(config), ..Config::default() };
        Members::new(config, 1, Time::ZERO, 0).map(|_| ()).unwrap_err().field
    };
    assert_eq!(refused(|c| c.every = Duration::ZERO), "every");
    assert_eq!(refused(|c| c.timeout = Duration::from_secs(6)), "timeout");
    assert_eq!(refused(|c| c.timeout = Duration::ZERO), "timeout");
    assert_eq!(refused(|c| c.unhealthy_after = 0), "unhealthy_after");
    assert_eq!(refused(|c| c.healthy_after = 0), "healthy_after");
    assert_eq!(refused(|c| c.jitter = 1.0), "jitter");
}

#[test]
fn what_was_at_work_before_starts_at_full_weight() {
    let ejection = outlier_ejection::Config { slow_start: Duration::from_secs(30), ..Default::default() };
    let mut members = Members::new(Config { health: None, ejection }, 0, Time::ZERO, 1).unwrap();
    assert_eq!(members.add(Time::ZERO, 0, true).unwrap().len(), 1, "a slow start");
    members.add(Time::ZERO, 1, true).unwrap();
    members.skip_slow_start(0);
    let slow = run(&mut members, 40.0, |_| None);
    assert!(slow.iter().all(|t| matches!(t, Transition::SlowStart { endpoint: 1, .. })), "{slow:?}");
    assert!(!slow.is_empty());
}
