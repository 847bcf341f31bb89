//! The bulkhead's rules as tables, and its invariants over random histories.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_policy::bulkhead::{Admission, Bulkhead, Config, Permit, Ticket};
use plimsoll_policy::{Counts, Mode, Outcome, Reason, Time};
use proptest::prelude::*;

const fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn bulkhead(permits: u32, queue: u32, mode: Mode) -> Bulkhead {
    let max_wait = Duration::from_millis(100);
    Bulkhead::new(Config { permits, queue, max_wait, mode }, Time::ZERO).unwrap()
}

fn queued(bulkhead: &mut Bulkhead, now: u64, deadline: Time) -> (Ticket, Time) {
    match bulkhead.admit_or_queue(at(now), deadline).unwrap() {
        Admission::Queued { ticket, until } => (ticket, until),
        Admission::Now(permit) => panic!("{permit:?}"),
    }
}

fn admitted(bulkhead: &mut Bulkhead, now: u64) -> Permit {
    match bulkhead.admit_or_queue(at(now), Time::MAX).unwrap() {
        Admission::Now(permit) => permit,
        Admission::Queued { .. } => panic!("queued"),
    }
}

#[test]
fn by_default_25_run_and_nobody_waits() {
    let mut bulkhead = Bulkhead::new(Config::default(), Time::ZERO).unwrap();
    let mut permits: Vec<Permit> = (0..25).map(|_| admitted(&mut bulkhead, 0)).collect();
    let full = bulkhead.admit_or_queue(at(0), Time::MAX).unwrap_err();
    assert_eq!((full.reason, full.retry_at), (Reason::BulkheadFull, None));
    // Whatever the outcome, the place is free again.
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Ignored, Outcome::Cancelled] {
        assert!(bulkhead.settle(at(1), permits.pop().unwrap(), outcome).is_none());
        permits.push(admitted(&mut bulkhead, 1));
        assert!(bulkhead.admit(at(1)).is_err());
    }
    assert_eq!(bulkhead.counts(), Counts { admitted: 29, rejected: 5, shadowed: 0 });
}

#[test]
fn waiters_are_served_in_order_and_those_who_left_are_not() {
    let mut bulkhead = bulkhead(1, 3, Mode::Enforce);
    let running = admitted(&mut bulkhead, 0);
    let (first, until) = queued(&mut bulkhead, 0, Time::MAX);
    assert_eq!(until, at(100));
    let (second, _) = queued(&mut bulkhead, 10, Time::MAX);
    let (third, until) = queued(&mut bulkhead, 20, at(90));
    assert_eq!(until, at(90), "the call's own deadline is nearer");
    assert!(bulkhead.admit_or_queue(at(20), Time::MAX).is_err(), "the queue is bounded");
    assert!(bulkhead.leave(second, false));
    assert!(!bulkhead.leave(second, false), "nobody leaves twice");
    let granted = bulkhead.settle(at(30), running, Outcome::Success).unwrap();
    assert_eq!(granted.ticket, first);
    assert!(!bulkhead.leave(first, true), "it has its permit");
    let granted = bulkhead.settle(at(40), granted.permit, Outcome::Success).unwrap();
    assert_eq!(granted.ticket, third);
    assert!(bulkhead.settle(at(50), granted.permit, Outcome::Success).is_none());
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    assert_eq!(bulkhead.counts(), Counts { admitted: 3, rejected: 1, shadowed: 0 });
}

#[test]
fn a_waiter_whose_time_is_over_gets_no_permit() {
    let mut bulkhead = bulkhead(1, 2, Mode::Enforce);
    let running = admitted(&mut bulkhead, 0);
    let (late, _) = queued(&mut bulkhead, 0, Time::MAX);
    let (in_time, _) = queued(&mut bulkhead, 50, Time::MAX);
    let granted = bulkhead.settle(at(100), running, Outcome::Success).unwrap();
    assert_eq!(granted.ticket, in_time);
    assert!(!bulkhead.leave(late, true), "it has left already, and counts once");
    assert_eq!(bulkhead.counts(), Counts { admitted: 2, rejected: 1, shadowed: 0 });
    // Nor does it keep the living out of a full queue.
    let _waiting = [queued(&mut bulkhead, 100, Time::MAX), queued(&mut bulkhead, 100, Time::MAX)];
    assert!(bulkhead.admit_or_queue(at(199), Time::MAX).is_err());
    let _ = queued(&mut bulkhead, 200, Time::MAX);
    assert_eq!(bulkhead.waiting(), 1);
    let _held = granted.permit;
}

#[test]
fn nobody_overtakes_the_queue() {
    let mut bulkhead = bulkhead(1, 5, Mode::Enforce);
    let running = admitted(&mut bulkhead, 0);
    let (first, _) = queued(&mut bulkhead, 0, Time::MAX);
    let (second, _) = queued(&mut bulkhead, 0, Time::MAX);
    let grown = Config { permits: 3, ..*bulkhead.config() };
    bulkhead.set_config(grown, at(1)).unwrap();
    // Two places are free now, and they belong to those who wait.
    assert!(bulkhead.admit(at(1)).is_err());
    let (third, _) = queued(&mut bulkhead, 1, Time::MAX);
    let granted: Vec<_> = std::iter::from_fn(|| bulkhead.grant(at(2))).collect();
    assert_eq!(granted.iter().map(|g| g.ticket).collect::<Vec<_>>(), [first, second]);
    // Shrunk again: those in flight finish, and nobody follows them until there is room.
    bulkhead.set_config(Config { permits: 1, ..grown }, at(3)).unwrap();
    assert!(bulkhead.settle(at(3), running, Outcome::Success).is_none());
    let mut granted = granted.into_iter().map(|g| g.permit);
    assert!(bulkhead.settle(at(3), granted.next().unwrap(), Outcome::Success).is_none());
    let next = bulkhead.settle(at(3), granted.next().unwrap(), Outcome::Success).unwrap();
    assert_eq!(next.ticket, third);
    let _held = next.permit;
}

#[test]
fn a_permit_from_before_a_reset_changes_nothing() {
    let mut bulkhead = bulkhead(1, 1, Mode::Enforce);
    let stale = admitted(&mut bulkhead, 0);
    let (waiter, _) = queued(&mut bulkhead, 0, Time::MAX);
    bulkhead.reset();
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    let running = admitted(&mut bulkhead, 1);
    assert!(bulkhead.settle(at(1), stale, Outcome::Success).is_none());
    assert!(!bulkhead.leave(waiter, true));
    assert_eq!(bulkhead.in_flight(), 1);
    assert!(bulkhead.admit(at(1)).is_err());
    assert!(bulkhead.settle(at(2), running, Outcome::Success).is_none());
}

#[test]
fn shadow_counts_what_it_would_reject() {
    let mut bulkhead = bulkhead(2, 0, Mode::Shadow);
    let permits: Vec<Permit> = (0..5).map(|_| bulkhead.admit(at(0)).unwrap()).collect();
    assert_eq!(bulkhead.counts(), Counts { admitted: 2, rejected: 0, shadowed: 3 });
    assert_eq!(bulkhead.in_flight(), 2, "the others would not have been in flight");
    for permit in permits {
        assert!(bulkhead.settle(at(1), permit, Outcome::Success).is_none());
    }
    assert_eq!(bulkhead.in_flight(), 0);
}

#[test]
fn bad_configurations_are_refused() {
    let default = Config::default();
    for (config, field) in [
        (Config { permits: 0, ..default }, "permits"),
        (Config { queue: u32::MAX, ..default }, "queue"),
        (Config { queue: 1, max_wait: Duration::ZERO, ..default }, "max_wait"),
    ] {
        assert_eq!(Bulkhead::new(config, Time::ZERO).unwrap_err().field, field);
    }
    assert!(std::mem::size_of::<Permit>() <= 16);
}

#[derive(Clone, Debug)]
enum Event {
    Arrive { patience_ms: u64 },
    Finish(prop::sample::Index),
    Leave(prop::sample::Index),
    Advance(u64),
    Resize { permits: u32 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (1u64..300).prop_map(|patience_ms| Event::Arrive { patience_ms }),
        4 => any::<prop::sample::Index>().prop_map(Event::Finish),
        1 => any::<prop::sample::Index>().prop_map(Event::Leave),
        2 => (1u64..80).prop_map(Event::Advance),
        1 => (1u32..6).prop_map(|permits| Event::Resize { permits }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Against a plain list of waiters: never more in flight than permitted, never more waiting
    /// than allowed, first come first served among those whose time is not over.
    #[test]
    fn permits_are_bounded_and_waiters_served_in_order(
        events in prop::collection::vec(event(), 1..300),
    ) {
        let mut bulkhead = bulkhead(3, 4, Mode::Enforce);
        let mut now = 0u64;
        let mut permits = 3u32;
        let mut running: Vec<Permit> = Vec::new();
        let mut waiting: VecDeque<(Ticket, Time)> = VecDeque::new();
        let granted = |waiting: &mut VecDeque<(Ticket, Time)>, now: u64, ticket: Ticket| {
            while waiting.front().is_some_and(|&(_, until)| until <= at(now)) {
                waiting.pop_front();
            }
            waiting.pop_front().map(|(next, _)| next) == Some(ticket)
        };
        for event in events {
            match event {
                Event::Arrive { patience_ms } => {
                    let deadline = at(now + patience_ms);
                    match bulkhead.admit_or_queue(at(now), deadline) {
                        Ok(Admission::Now(permit)) => {
                            prop_assert!((running.len() as u32) < permits);
                            running.push(permit);
                        }
                        Ok(Admission::Queued { ticket, until }) => {
                            prop_assert_eq!(until, deadline.min(at(now + 100)));
                            waiting.push_back((ticket, until));
                        }
                        Err(_) => prop_assert!(waiting.len() >= 4),
                    }
                }
                Event::Finish(which) if !running.is_empty() => {
                    let permit = running.swap_remove(which.index(running.len()));
                    if let Some(next) = bulkhead.settle(at(now), permit, Outcome::Success) {
                        prop_assert!(granted(&mut waiting, now, next.ticket));
                        running.push(next.permit);
                        prop_assert!(running.len() as u32 <= permits);
                    } else if running.len() < permits as usize {
                        prop_assert!(waiting.iter().all(|&(_, until)| until <= at(now)));
                        waiting.clear();
                    }
                }
                Event::Leave(which) if !waiting.is_empty() => {
                    let (ticket, _) = waiting.remove(which.index(waiting.len())).unwrap();
                    bulkhead.leave(ticket, false);
                    prop_assert!(!bulkhead.leave(ticket, false));
                }
                Event::Finish(_) | Event::Leave(_) => {}
                Event::Advance(ms) => now += ms,
                Event::Resize { permits: new } => {
                    permits = new;
                    let config = Config { permits, ..*bulkhead.config() };
                    bulkhead.set_config(config, at(now)).unwrap();
                    while let Some(next) = bulkhead.grant(at(now)) {
                        prop_assert!(granted(&mut waiting, now, next.ticket));
                        running.push(next.permit);
                        prop_assert!(running.len() as u32 <= permits);
                    }
                }
            }
            prop_assert_eq!(bulkhead.in_flight() as usize, running.len());
            prop_assert!(bulkhead.waiting() <= 4);
        }
    }
}
