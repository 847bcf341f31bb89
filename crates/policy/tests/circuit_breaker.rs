//! The circuit breaker's rules as tables, and its invariants over random histories.

use std::time::Duration;

use plimsoll_policy::circuit_breaker::{CircuitBreaker, Config, Permit, State, Transition};
use plimsoll_policy::{Counts, Mode, Outcome, Reason, Time};
use proptest::prelude::*;

const fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn breaker(config: Config) -> CircuitBreaker {
    CircuitBreaker::new(config, Time::ZERO).unwrap()
}

/// `n` calls made and settled at one instant.
fn calls(breaker: &mut CircuitBreaker, now: Time, n: u32, outcome: Outcome) {
    for _ in 0..n {
        let permit = breaker.admit(now).expect("admitted");
        breaker.settle(now, permit, outcome, 0);
    }
}

fn tripped(config: Config) -> CircuitBreaker {
    let mut breaker = breaker(config);
    calls(&mut breaker, at(0), config.minimum_calls, Outcome::Failure);
    assert_eq!(breaker.state(), State::Open);
    breaker
}

/// Open since 0 ms for 5 s, then half-open with every probe out.
fn probing(config: Config) -> (CircuitBreaker, Vec<Permit>) {
    let mut breaker = tripped(config);
    let probes = (0..config.half_open_probes).map(|_| breaker.admit(at(5_000)).unwrap()).collect();
    assert_eq!(breaker.state(), State::HalfOpen);
    (breaker, probes)
}

#[test]
fn trips_at_the_rate_and_not_below_the_minimum() {
    use Outcome::{Cancelled, Failure, Ignored, Success};
    for (name, history, state) in [
        ("19 calls are too few", vec![(19, Failure)], State::Closed),
        ("20 calls, all failed", vec![(20, Failure)], State::Open),
        ("half of them failed", vec![(10, Success), (10, Failure)], State::Open),
        ("less than half failed", vec![(11, Success), (9, Failure)], State::Closed),
        ("a success makes the minimum", vec![(19, Failure), (1, Success)], State::Open),
        ("4xx do not count", vec![(100, Ignored), (19, Failure)], State::Closed),
        ("nor do callers who left", vec![(100, Cancelled), (19, Failure)], State::Closed),
    ] {
        let mut breaker = breaker(Config::default());
        for (n, outcome) in history {
            calls(&mut breaker, at(0), n, outcome);
        }
        assert_eq!(breaker.state(), state, "{name}");
    }
}

#[test]
fn the_window_slides() {
    // 19 failures, then silence, then one more: a window of the last 20 calls would trip.
    let mut breaker = breaker(Config::default());
    calls(&mut breaker, at(0), 19, Outcome::Failure);
    assert_eq!(breaker.failure_rate(at(9_000)), Some(1.0));
    calls(&mut breaker, at(10_500), 1, Outcome::Failure);
    assert_eq!(breaker.state(), State::Closed);
    // Old successes do not dilute either: they left before these failures came.
    calls(&mut breaker, at(20_000), 1_000, Outcome::Success);
    calls(&mut breaker, at(31_000), 20, Outcome::Failure);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn an_open_breaker_says_when_to_come_back() {
    let mut breaker = tripped(Config::default());
    let rejected = breaker.admit(at(1)).unwrap_err();
    assert_eq!((rejected.reason, rejected.retry_at), (Reason::BreakerOpen, Some(at(5_000))));
    assert!(breaker.admit(at(4_999)).is_err());
    let probe = breaker.admit(at(5_000)).unwrap();
    breaker.settle(at(5_000), probe, Outcome::Success, 0);
    assert_eq!(breaker.counts(), Counts { admitted: 21, rejected: 2, shadowed: 0 });
}

#[test]
fn half_open_admits_its_probes_and_no_more() {
    let (mut breaker, probes) = probing(Config::default());
    for _ in 0..10_000 {
        assert!(breaker.admit(at(5_001)).is_err());
    }
    assert_eq!(probes.len(), 3);
    for (n, probe) in probes.into_iter().enumerate() {
        assert_eq!(breaker.state(), State::HalfOpen, "after {n} of 3 probes");
        breaker.settle(at(5_100), probe, Outcome::Success, 0);
    }
    assert_eq!(breaker.state(), State::Ramping);
}

#[test]
fn bad_probes_open_it_again_as_soon_as_they_decide() {
    let (mut breaker, mut probes) = probing(Config::default());
    let mut settle = |outcome| {
        breaker.settle(at(5_100), probes.pop().unwrap(), outcome, 0);
        breaker.state()
    };
    assert_eq!(settle(Outcome::Failure), State::HalfOpen); // one of three is below half
    assert_eq!(settle(Outcome::Failure), State::Open);
    assert_eq!(settle(Outcome::Success), State::Open); // too late to matter
}

#[test]
fn results_from_before_the_trip_change_nothing() {
    for late in [Outcome::Failure, Outcome::Success, Outcome::Ignored, Outcome::Cancelled] {
        let mut breaker = breaker(Config::default());
        let mut stale: Vec<Permit> = (0..50).map(|_| breaker.admit(at(0)).unwrap()).collect();
        calls(&mut breaker, at(0), 20, Outcome::Failure);
        let mut settle_ten = |breaker: &mut CircuitBreaker, now| {
            let before = format!("{breaker:?}");
            for permit in stale.drain(..10) {
                breaker.settle(now, permit, late, 7);
            }
            assert_eq!(before, format!("{breaker:?}"), "{late:?} at {now:?}");
        };
        settle_ten(&mut breaker, at(100)); // open
        let probes = [(); 3].map(|()| breaker.admit(at(5_000)).unwrap());
        settle_ten(&mut breaker, at(5_001)); // half-open
        for probe in probes {
            breaker.settle(at(5_002), probe, Outcome::Success, 0);
        }
        settle_ten(&mut breaker, at(5_003)); // ramping
        breaker.on_wake(at(16_000));
        assert_eq!(breaker.state(), State::Closed);
        settle_ten(&mut breaker, at(16_000));
    }
}

#[test]
fn a_probe_that_never_comes_back_loses_its_slot() {
    let (mut breaker, lost) = probing(Config::default());
    assert_eq!(breaker.admit(at(34_999)).unwrap_err().retry_at, Some(at(35_000)));
    assert_eq!(breaker.next_wake(), Some(at(35_000)));
    let probes = [(); 3].map(|()| breaker.admit(at(35_000)).unwrap());
    assert!(breaker.admit(at(35_000)).is_err());
    // The lost ones turn up after all: their slots belong to others now.
    for probe in lost {
        breaker.settle(at(35_001), probe, Outcome::Failure, 0);
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    for probe in probes {
        breaker.settle(at(35_002), probe, Outcome::Success, 0);
    }
    assert_eq!(breaker.state(), State::Ramping);
}

#[test]
fn a_probe_that_proves_nothing_frees_its_slot() {
    for outcome in [Outcome::Ignored, Outcome::Cancelled] {
        let (mut breaker, mut probes) = probing(Config::default());
        breaker.settle(at(5_001), probes.pop().unwrap(), outcome, 0);
        let again = breaker.admit(at(5_001)).unwrap();
        assert!(breaker.admit(at(5_001)).is_err());
        for probe in probes.into_iter().chain([again]) {
            breaker.settle(at(5_002), probe, Outcome::Success, 0);
        }
        assert_eq!(breaker.state(), State::Ramping);
    }
}

#[test]
fn the_open_time_doubles_up_to_its_maximum_and_is_jittered() {
    for (random, open_ms) in [
        (0, [5_000, 10_000, 20_000, 40_000, 50_000, 50_000]),
        (u64::MAX, [6_000, 12_000, 24_000, 48_000, 60_000, 60_000]),
    ] {
        let mut breaker = breaker(Config { minimum_calls: 1, ..Config::default() });
        let mut now = at(0);
        for expected in open_ms {
            while breaker.state() != State::Open {
                let permit = breaker.admit(now).unwrap();
                breaker.settle(now, permit, Outcome::Failure, random);
            }
            let until = breaker.next_wake().unwrap();
            assert_eq!((until.nanos_since(now) + 500_000) / 1_000_000, expected);
            now = until;
            breaker.on_wake(now);
        }
    }
    // No room between the first and the longest time: jitter goes up, never below the first.
    let fixed = Config { open_for: ms(30_000), open_for_max: ms(30_000), ..Config::default() };
    let until = tripped(fixed).next_wake().unwrap();
    assert_eq!(until, at(30_000));
}

#[test]
fn a_recovery_that_lasts_starts_the_open_time_anew() {
    let config = Config { minimum_calls: 1, half_open_probes: 1, ramp: ms(1_000), ..Config::default() };
    for (trip_again_at, open_ms) in [
        (5_500, 10_000), // on the ramp: no recovery
        (9_000, 10_000), // closed for less than a window
        (17_000, 5_000), // closed for more
    ] {
        let mut breaker = tripped(config);
        calls(&mut breaker, at(5_000), 1, Outcome::Success);
        breaker.on_wake(at(6_000));
        let now = at(trip_again_at);
        while breaker.state() != State::Open {
            if let Ok(permit) = breaker.admit(now) {
                breaker.settle(now, permit, Outcome::Failure, 0);
            }
        }
        assert_eq!(breaker.next_wake().unwrap().since(now), ms(open_ms), "at {now:?}");
    }
}

#[test]
fn no_burst_at_close() {
    let (mut breaker, probes) = probing(Config::default());
    for probe in probes {
        breaker.settle(at(5_000), probe, Outcome::Success, 0);
    }
    // 1000 callers at each instant; the share grows from 10% to all within 10 s.
    for (now_ms, admitted) in [(5_000, 100), (7_500, 325), (10_000, 550), (14_999, 999)] {
        let passed = (0..1_000).filter(|_| breaker.admit(at(now_ms)).is_ok()).count();
        assert!(passed.abs_diff(admitted) <= 2, "{passed} of 1000 at {now_ms} ms");
    }
    assert_eq!(breaker.state(), State::Ramping);
    assert!((0..1_000).all(|_| breaker.admit(at(15_000)).is_ok()));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_target_that_fails_on_the_ramp_trips_it() {
    let (mut breaker, probes) = probing(Config::default());
    for probe in probes {
        breaker.settle(at(5_000), probe, Outcome::Success, 0);
    }
    let mut admitted = 0;
    while breaker.state() == State::Ramping {
        if let Ok(permit) = breaker.admit(at(6_000)) {
            admitted += 1;
            breaker.settle(at(6_000), permit, Outcome::Failure, 0);
        }
    }
    assert_eq!((breaker.state(), admitted), (State::Open, 20));
}

#[test]
fn slow_calls_trip_it_and_slow_probes_keep_it_open() {
    let config = Config { slow_call: ms(500), slow_call_rate: 0.5, ..Config::default() };
    let mut breaker = breaker(config);
    let run = |breaker: &mut CircuitBreaker, n, took| {
        for _ in 0..n {
            let permit = breaker.admit(at(0)).unwrap();
            breaker.settle(at(took), permit, Outcome::Success, 0);
        }
    };
    run(&mut breaker, 10, 499);
    run(&mut breaker, 9, 500);
    assert_eq!(breaker.state(), State::Closed);
    run(&mut breaker, 1, 500);
    assert_eq!(breaker.state(), State::Open);
    let probes = [(); 3].map(|()| breaker.admit(at(6_000)).unwrap());
    for probe in probes {
        breaker.settle(at(6_600), probe, Outcome::Success, 0);
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn transitions_are_polled_in_order() {
    let (mut breaker, probes) = probing(Config::default());
    for probe in probes {
        breaker.settle(at(5_100), probe, Outcome::Success, 0);
    }
    assert_eq!(breaker.next_wake(), Some(at(15_100)));
    breaker.on_wake(at(15_099));
    breaker.on_wake(at(15_100));
    let before = format!("{breaker:?}");
    breaker.on_wake(at(15_100));
    assert_eq!(before, format!("{breaker:?}"), "waking twice changes nothing");
    use State::{Closed, HalfOpen, Open, Ramping};
    for (ms, from, to) in
        [(0, Closed, Open), (5_000, Open, HalfOpen), (5_100, HalfOpen, Ramping), (15_100, Ramping, Closed)]
    {
        assert_eq!(breaker.poll_transition(), Some(Transition { at: at(ms), from, to }));
    }
    assert_eq!(breaker.poll_transition(), None);
    assert_eq!(breaker.next_wake(), None);
}

#[test]
fn a_new_configuration_keeps_the_state() {
    // The window's counts stay: 15 failures before, 5 after.
    let mut breaker = breaker(Config::default());
    calls(&mut breaker, at(0), 15, Outcome::Failure);
    let held = breaker.admit(at(0)).unwrap();
    breaker.set_config(Config { window: ms(20_000), ..Config::default() }, at(1)).unwrap();
    calls(&mut breaker, at(2), 4, Outcome::Failure);
    breaker.settle(at(3), held, Outcome::Failure, 0); // an old permit is as good as a new one
    assert_eq!(breaker.state(), State::Open);
    // It stays open for as long as it was to be.
    breaker.set_config(Config { open_for: ms(1), ..Config::default() }, at(4)).unwrap();
    assert_eq!(breaker.next_wake(), Some(at(5_003)));
    // Fewer probes while two of three are done: the trial starts again and can end.
    let _lost = breaker.admit(at(6_000)).unwrap();
    calls(&mut breaker, at(6_000), 2, Outcome::Success);
    breaker.set_config(Config { half_open_probes: 1, ..Config::default() }, at(6_000)).unwrap();
    calls(&mut breaker, at(6_000), 1, Outcome::Success);
    assert_eq!(breaker.state(), State::Ramping);
    // A bad one is refused and changes nothing.
    let bad = Config { failure_rate: 0.0, ..Config::default() };
    assert_eq!(breaker.set_config(bad, at(6_000)).unwrap_err().field, "failure_rate");
    assert_eq!(breaker.config().half_open_probes, 1);
}

#[test]
fn shadow_lets_all_through_and_goes_through_the_same_states() {
    let mut shadow = breaker(Config { mode: Mode::Shadow, ..Config::default() });
    let mut enforcing = breaker(Config::default());
    for now in (0..40_000).step_by(10) {
        // The target is down for 12 s.
        let outcome = if now < 12_000 { Outcome::Failure } else { Outcome::Success };
        if let Ok(permit) = enforcing.admit(at(now)) {
            enforcing.settle(at(now), permit, outcome, 0);
        }
        let permit = shadow.admit(at(now)).expect("nothing is turned away");
        shadow.settle(at(now), permit, outcome, 0);
        assert_eq!(shadow.state(), enforcing.state(), "at {now} ms");
    }
    let (shadow, enforcing) = (shadow.counts(), enforcing.counts());
    assert!(enforcing.rejected > 1_000);
    assert_eq!((shadow.admitted, shadow.shadowed), (enforcing.admitted, enforcing.rejected));
}

#[test]
fn bad_configurations_are_refused() {
    let default = Config::default();
    for (config, field) in [
        (Config { failure_rate: 1.1, ..default }, "failure_rate"),
        (Config { failure_rate: f64::NAN, ..default }, "failure_rate"),
        (Config { slow_call_rate: 0.0, ..default }, "slow_call_rate"),
        (Config { minimum_calls: 0, ..default }, "minimum_calls"),
        (Config { window: ms(0), ..default }, "window"),
        (Config { open_for: ms(0), ..default }, "open_for"),
        (Config { open_for_max: ms(4_999), ..default }, "open_for_max"),
        (Config { open_jitter: -0.1, ..default }, "open_jitter"),
        (Config { half_open_probes: 0, ..default }, "half_open_probes"),
        (Config { probe_lease: ms(0), ..default }, "probe_lease"),
        (Config { slow_call: ms(0), ..default }, "slow_call"),
        (Config { ramp_from: 0.0, ..default }, "ramp_from"),
    ] {
        assert_eq!(CircuitBreaker::new(config, Time::ZERO).unwrap_err().field, field);
    }
    let permit = std::mem::size_of::<Permit>();
    assert!(permit <= 16, "a permit is {permit} bytes");
}

#[derive(Clone, Debug)]
enum Event {
    Advance(u16),
    Admit,
    Settle { which: prop::sample::Index, outcome: Outcome, random: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Failure),
        3 => Just(Outcome::Success),
        1 => Just(Outcome::Ignored),
        1 => Just(Outcome::Cancelled),
    ];
    prop_oneof![
        1 => (1u16..2_000).prop_map(Event::Advance),
        4 => Just(Event::Admit),
        3 => (any::<prop::sample::Index>(), outcome, any::<u64>())
            .prop_map(|(which, outcome, random)| Event::Settle { which, outcome, random }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens: half-open never has more probes out and done than it may, and a permit
    /// from an earlier state changes nothing.
    #[test]
    fn probes_are_bounded_and_stale_permits_are_inert(
        events in prop::collection::vec(event(), 1..400),
    ) {
        let config = Config {
            minimum_calls: 4,
            window: ms(2_000),
            open_for: ms(500),
            open_for_max: ms(2_000),
            probe_lease: ms(1_500),
            ramp: ms(1_000),
            ..Config::default()
        };
        let mut breaker = breaker(config);
        let mut now = Time::ZERO;
        let mut epoch = 0; // states entered, those that keep permits alive not counted
        let mut out: Vec<(Permit, i32, State)> = Vec::new();
        let mut done = 0; // probes of this half-open state that counted
        for event in events {
            match event {
                Event::Advance(by) => now = now + ms(by.into()),
                Event::Admit => {
                    if let Ok(permit) = breaker.admit(now) {
                        while let Some(t) = breaker.poll_transition() {
                            epoch += i32::from(t.from != State::Ramping || t.to != State::Closed);
                            done = 0;
                        }
                        out.push((permit, epoch, breaker.state()));
                    }
                }
                Event::Settle { which, outcome, random } if !out.is_empty() => {
                    let (permit, given, state) = out.swap_remove(which.index(out.len()));
                    let stale = given != epoch;
                    let expired = state == State::HalfOpen
                        && now >= permit.started() + config.probe_lease;
                    let before = format!("{breaker:?}");
                    breaker.settle(now, permit, outcome, random);
                    if stale {
                        prop_assert_eq!(before, format!("{breaker:?}"));
                    } else if state == State::HalfOpen
                        && !expired
                        && matches!(outcome, Outcome::Success | Outcome::Failure)
                    {
                        done += 1;
                    }
                }
                Event::Settle { .. } => {}
            }
            while let Some(t) = breaker.poll_transition() {
                epoch += i32::from(t.from != State::Ramping || t.to != State::Closed);
                done = 0;
            }
            if breaker.state() == State::HalfOpen {
                let leased = out.iter().filter(|(permit, given, _)| {
                    *given == epoch && now < permit.started() + config.probe_lease
                });
                prop_assert!(leased.count() + done <= config.half_open_probes as usize);
            }
        }
    }
}
