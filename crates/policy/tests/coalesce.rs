//! Coalescing: one call a key, whoever leaves, fails or vanishes.

use std::time::Duration;

use plimsoll_policy::coalesce::{Coalescer, Config, Flight, Handle, Join, Left, Next};
use plimsoll_policy::{Mode, Time};
use proptest::prelude::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn coalescer() -> Coalescer<u32> {
    Coalescer::new(Config::default()).unwrap()
}

fn start(coalescer: &mut Coalescer<u32>, now: u64, key: u64, waiter: u32) -> (Flight, Handle) {
    match coalescer.join(at(now), key, waiter) {
        Join::Start(flight, handle) => (flight, handle),
        other => panic!("{other:?}"),
    }
}

fn join(coalescer: &mut Coalescer<u32>, now: u64, key: u64, waiter: u32) -> (Flight, Handle) {
    match coalescer.join(at(now), key, waiter) {
        Join::Joined(flight, handle) => (flight, handle),
        other => panic!("{other:?}"),
    }
}

fn finish(coalescer: &mut Coalescer<u32>, flight: Flight) -> Vec<u32> {
    let mut waiters = Vec::new();
    let count = coalescer.finish(flight, |waiter| waiters.push(waiter));
    assert_eq!(count, waiters.len());
    waiters
}

#[test]
fn one_flight_a_key() {
    let mut flights = coalescer();
    let (a, _) = start(&mut flights, 0, 1, 10);
    assert_eq!(join(&mut flights, 0, 1, 11).0, a);
    let (b, _) = start(&mut flights, 0, 2, 20);
    join(&mut flights, 0, 1, 12);
    assert_eq!((flights.flights(), flights.waiting(1)), (2, 3));
    assert_eq!(finish(&mut flights, a), [10, 11, 12]);
    assert_eq!(finish(&mut flights, a), [0; 0], "over");
    let (again, _) = start(&mut flights, 0, 1, 13);
    assert_ne!(again, a);
    assert_eq!(finish(&mut flights, a), [0; 0], "the first call cannot end the second flight");
    assert_eq!((finish(&mut flights, b), finish(&mut flights, again)), (vec![20], vec![13]));
    assert_eq!((flights.counts().started, flights.counts().joined), (3, 2));
}

#[test]
fn the_flight_outlives_its_starter() {
    let mut flights = coalescer();
    let (flight, starter) = start(&mut flights, 0, 1, 10);
    let (_, second) = join(&mut flights, 0, 1, 11);
    assert_eq!(flights.leave(flight, starter), Left::Flying(10), "the call goes on for the other");
    assert_eq!(flights.leave(flight, starter), Left::Gone);
    assert_eq!(flights.leave(flight, second), Left::Last(11), "nobody left: cancel the call");
    assert_eq!(flights.flights(), 0);
    assert_eq!(finish(&mut flights, flight), [0; 0]);
    start(&mut flights, 0, 1, 12);
}

#[test]
fn an_error_of_one_caller_is_not_shared() {
    let mut flights = coalescer();
    let (flight, starter) = start(&mut flights, 0, 1, 10);
    join(&mut flights, 0, 1, 11);
    let (failed, next) = flights.caller_failed(at(1), flight, starter);
    assert_eq!(failed, Some(10));
    let Next::Restart(next) = next else { panic!("{next:?}") };
    assert_eq!(finish(&mut flights, flight), [0; 0], "the failed call reaches nobody");
    assert_eq!(finish(&mut flights, next), [11]);

    let (alone, starter) = start(&mut flights, 2, 1, 12);
    assert_eq!(flights.caller_failed(at(2), alone, starter), (Some(12), Next::Nothing));
    assert_eq!(flights.flights(), 0);
}

#[test]
fn a_lost_leader_is_replaced_a_few_times() {
    let mut flights = coalescer();
    let (first, starter) = start(&mut flights, 0, 1, 10);
    join(&mut flights, 5, 1, 11);
    assert_eq!((flights.next_wake(), flights.next_expired(at(29))), (Some(at(30)), None));
    assert_eq!(flights.next_expired(at(30)), Some(first));
    let Next::Restart(second) = flights.lost(at(30), first) else { panic!() };
    assert_eq!(flights.lost(at(30), first), Next::Nothing, "known already");
    assert_eq!(join(&mut flights, 31, 1, 12).0, second);
    // Whoever joined the first call waits for the second: leaving works with either.
    assert_eq!(flights.leave(first, starter), Left::Flying(10));
    let Next::Restart(third) = flights.lost(at(40), second) else { panic!() };
    assert_eq!(flights.lost(at(50), third), Next::GiveUp(third));
    assert_eq!(finish(&mut flights, third), [11, 12], "with an error");
    assert_eq!(flights.counts().restarted, 2);
}

#[test]
fn leases_of_what_is_over_do_not_pile_up() {
    let mut flights = coalescer();
    for k in 0..1_000 {
        let (flight, _) = start(&mut flights, k, 1, 1);
        finish(&mut flights, flight);
    }
    assert_eq!(flights.next_expired(at(5_000)), None);
    assert_eq!(flights.next_wake(), None);
}

#[test]
fn bounds_send_callers_alone() {
    let config = Config { flights_max: 1, callers_max: 2, ..Config::default() };
    let mut flights = Coalescer::new(config).unwrap();
    let (flight, _) = start(&mut flights, 0, 1, 10);
    join(&mut flights, 0, 1, 11);
    assert_eq!(flights.join(at(0), 1, 12), Join::Alone);
    assert_eq!(flights.join(at(0), 2, 20), Join::Alone);
    assert_eq!(flights.counts().alone, 2);
    flights.set_config(Config::default()).unwrap();
    join(&mut flights, 0, 1, 13);
    assert_eq!(finish(&mut flights, flight), [10, 11, 13]);
}

#[test]
fn shadow_counts_and_everyone_goes() {
    let mut flights = Coalescer::new(Config { mode: Mode::Shadow, ..Config::default() }).unwrap();
    let (flight, _) = start(&mut flights, 0, 1, 10);
    assert_eq!(flights.join(at(0), 1, 11), Join::Alone);
    assert_eq!(finish(&mut flights, flight), [10]);
    assert_eq!((flights.counts().shadowed, flights.counts().alone), (1, 0));
}

#[test]
fn bad_settings_are_refused() {
    let refused = |config| Coalescer::<u32>::new(config).map(|_| ()).unwrap_err().field;
    assert_eq!(refused(Config { flights_max: 0, ..Config::default() }), "flights_max");
    assert_eq!(refused(Config { callers_max: 0, ..Config::default() }), "callers_max");
    assert_eq!(refused(Config { lease: Duration::ZERO, ..Config::default() }), "lease");
}

proptest! {
    #[test]
    fn every_caller_leaves_exactly_once(steps in prop::collection::vec((0u8..8, 0u64..4, any::<usize>()), 1..300)) {
        let mut flights = coalescer();
        // Waiters still inside, with how they came in; calls under way.
        let mut inside: Vec<(u32, Flight, Handle)> = Vec::new();
        let mut calls: Vec<Flight> = Vec::new();
        for (step, (what, key, which)) in steps.into_iter().enumerate() {
            let now = at(step as u64);
            let waiter = step as u32;
            let call = (!calls.is_empty()).then(|| which % calls.len());
            let gone = |inside: &mut Vec<(u32, Flight, Handle)>, waiter| {
                let place = inside.iter().position(|c| c.0 == waiter).expect("inside, and only once");
                inside.swap_remove(place)
            };
            match (what, call) {
                (0, Some(call)) => {
                    let flight = calls.swap_remove(call);
                    flights.finish(flight, |waiter| { gone(&mut inside, waiter); });
                }
                (1, Some(call)) => match flights.lost(now, calls[call]) {
                    Next::Restart(next) => calls[call] = next,
                    Next::GiveUp(flight) => {
                        calls.swap_remove(call);
                        flights.finish(flight, |waiter| { gone(&mut inside, waiter); });
                    }
                    Next::Nothing => prop_assert!(false, "the call was under way"),
                },
                (2, Some(_)) if !inside.is_empty() => {
                    let (waiter, flight, handle) = inside[which % inside.len()];
                    let left = flights.leave(flight, handle);
                    gone(&mut inside, waiter);
                    match left {
                        Left::Flying(w) => prop_assert_eq!(w, waiter),
                        Left::Last(w) => {
                            prop_assert_eq!(w, waiter);
                            calls.retain(|c| c.key != flight.key);
                        }
                        Left::Gone => prop_assert!(false, "{} was inside", waiter),
                    }
                }
                _ => match flights.join(now, key, waiter) {
                    Join::Start(flight, handle) => {
                        prop_assert!(calls.iter().all(|c| c.key != key), "one call a key");
                        calls.push(flight);
                        inside.push((waiter, flight, handle));
                    }
                    Join::Joined(flight, handle) => {
                        prop_assert!(calls.contains(&flight));
                        inside.push((waiter, flight, handle));
                    }
                    Join::Alone => prop_assert!(false, "no bound is near"),
                },
            }
            prop_assert_eq!(flights.flights(), calls.len());
            prop_assert_eq!((0..4).map(|key| flights.waiting(key)).sum::<usize>(), inside.len());
        }
    }
}
