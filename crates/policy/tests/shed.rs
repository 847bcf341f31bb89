//! Load shedding: order, classes, what is dropped and what never is, and recovery.

use std::time::Duration;

use plimsoll_policy::shed::{Config, Discipline, Push, ShedQueue};
use plimsoll_policy::{Mode, Reason, Time};
use proptest::prelude::*;

fn ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn queue(discipline: Discipline, capacity: u32) -> ShedQueue<u64> {
    ShedQueue::new(Config { discipline, capacity, ..Config::default() }).unwrap()
}

fn push(queue: &mut ShedQueue<u64>, now: u64, item: u64) -> Push<u64> {
    queue.push(ms(now), item, 0, Time::MAX)
}

/// What is served and what is dropped on the way.
fn pop(queue: &mut ShedQueue<u64>, now: u64) -> (Option<u64>, Vec<(u64, Reason)>) {
    let mut dropped = Vec::new();
    let served = queue.pop(ms(now), |item, reason| dropped.push((item, reason)));
    (served, dropped)
}

fn drain(queue: &mut ShedQueue<u64>, now: u64) -> Vec<u64> {
    std::iter::from_fn(|| pop(queue, now).0).collect()
}

#[test]
fn orders() {
    let order = |discipline| {
        let mut queue = queue(discipline, 8);
        for item in 1..=4 {
            assert!(matches!(push(&mut queue, item, item), Push::Queued(_)));
        }
        drain(&mut queue, 5)
    };
    assert_eq!(order(Discipline::Fifo), [1, 2, 3, 4]);
    assert_eq!(order(Discipline::CoDel), [1, 2, 3, 4]);
    assert_eq!(order(Discipline::AdaptiveLifo), [1, 2, 3, 4], "calm");
    assert_eq!(order(Discipline::Lifo), [4, 3, 2, 1]);
}

#[test]
fn a_plain_queue_sheds_nothing_however_old() {
    for discipline in [Discipline::Fifo, Discipline::Lifo] {
        let mut queue = queue(discipline, 1_000);
        for item in 0..1_000 {
            let _ = push(&mut queue, 0, item);
        }
        for now in 0..1_000 {
            assert_eq!(pop(&mut queue, 1_000 + now * 10).1, []);
        }
    }
}

#[test]
fn full_is_full() {
    let mut fifo = queue(Discipline::Fifo, 2);
    let _ = (push(&mut fifo, 0, 1), push(&mut fifo, 0, 2));
    assert_eq!(push(&mut fifo, 0, 3), Push::Rejected(3));
    let mut lifo = queue(Discipline::Lifo, 2);
    let _ = (push(&mut lifo, 0, 1), push(&mut lifo, 0, 2));
    assert!(matches!(push(&mut lifo, 0, 3), Push::Displaced { item: 1, reason: Reason::Shed, .. }));
    assert_eq!(drain(&mut lifo, 0), [3, 2]);
    assert_eq!(push(&mut queue(Discipline::CoDel, 0), 0, 1), Push::Rejected(1), "no waiting at all");
}

/// A server that takes one request every 2 ms under arrivals every `every_ms`, for a while.
fn overload(queue: &mut ShedQueue<u64>, from: u64, to: u64, every_ms: f64) -> (Vec<u64>, Vec<u64>) {
    let (mut served, mut dropped) = (Vec::new(), Vec::new());
    let mut arrivals = 0.0;
    for now in from..to {
        while arrivals <= (now - from) as f64 {
            let _ = push(queue, now, now);
            arrivals += every_ms;
        }
        if now % 2 == 0 {
            let (item, gone) = pop(queue, now);
            served.extend(item.map(|since| now - since));
            dropped.extend(gone.iter().map(|(since, _)| now - since));
        }
    }
    (served, dropped)
}

#[test]
fn codel_waits_an_interval_and_keeps_the_wait_short() {
    let mut queue = queue(Discipline::CoDel, 10_000);
    // Twice what it can serve: the oldest passes 5 ms at 10 ms.
    let (_, dropped) = overload(&mut queue, 0, 105, 1.0);
    assert_eq!(dropped, [], "a burst of less than an interval is let through");
    assert!(!queue.is_overloaded());
    overload(&mut queue, 105, 200, 1.0);
    assert!(queue.is_overloaded());
    let (served, dropped) = overload(&mut queue, 200, 1_200, 1.0);
    assert!(served.iter().all(|&wait| wait <= 10), "nothing older than two targets: {:?}", served.iter().max());
    assert!(dropped.iter().all(|&wait| wait > 10));
    assert_eq!(served.len(), 500, "shedding costs no throughput");
    assert_eq!(queue.counts().overloads, 1);
}

#[test]
fn adaptive_lifo_serves_the_newest_while_overloaded_and_the_oldest_after() {
    let mut queue = queue(Discipline::AdaptiveLifo, 10_000);
    overload(&mut queue, 0, 200, 1.0);
    assert!(queue.is_overloaded());
    let (served, _) = overload(&mut queue, 200, 400, 1.0);
    assert!(served.iter().all(|&wait| wait <= 1), "{served:?}");
    // Recovery: at half load the backlog goes, and order is restored.
    let (_, _) = overload(&mut queue, 400, 600, 4.0);
    assert!(!queue.is_overloaded());
    let shed = queue.counts().shed[0];
    let (_, dropped) = overload(&mut queue, 600, 2_000, 2.5);
    assert_eq!(dropped, [], "nothing is shed after recovery");
    assert_eq!(queue.counts().shed[0], shed);
    for item in 1..=3 {
        let _ = push(&mut queue, 2_000, item);
    }
    let mut order = drain(&mut queue, 2_000);
    order.retain(|item| *item <= 3);
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn a_paused_server_does_not_shed_what_nobody_waits_behind() {
    for discipline in [Discipline::CoDel, Discipline::AdaptiveLifo] {
        let mut queue = queue(discipline, 10);
        for round in 0..50 {
            let _ = push(&mut queue, round * 1_000, round);
            assert_eq!(pop(&mut queue, round * 1_000 + 900), (Some(round), vec![]), "alone, if late");
        }
        assert_eq!(pop(&mut queue, 100_000), (None, vec![]));
        assert_eq!(queue.counts().shed[0] + queue.counts().overloads, 0);
    }
}

#[test]
fn the_last_one_is_served_even_under_overload() {
    let mut queue = queue(Discipline::CoDel, 10_000);
    overload(&mut queue, 0, 300, 1.0);
    assert!(queue.is_overloaded());
    let waiting = queue.len();
    let (served, dropped) = pop(&mut queue, 5_000);
    assert_eq!((served, dropped.len()), (Some(299), waiting - 1));
    assert!(!queue.is_overloaded(), "empty is calm");
}

#[test]
fn expired_go_first() {
    let mut queue = queue(Discipline::Fifo, 3);
    let deadline = |d| ms(d);
    let _ = queue.push(ms(0), 1, 0, deadline(10));
    let _ = queue.push(ms(0), 2, 0, deadline(100));
    let _ = queue.push(ms(0), 3, 0, deadline(20));
    let pushed = queue.push(ms(15), 4, 0, deadline(100));
    assert!(matches!(pushed, Push::Displaced { item: 1, reason: Reason::DeadlineExceeded, .. }));
    assert_eq!(pop(&mut queue, 16), (Some(2), vec![]));
    assert_eq!(pop(&mut queue, 20), (Some(4), vec![(3, Reason::DeadlineExceeded)]), "at its deadline it is over");
    assert_eq!(queue.counts().expired[0], 2);

    let mut lifo = self::queue(Discipline::Lifo, 3);
    let _ = lifo.push(ms(0), 1, 0, deadline(10));
    let _ = lifo.push(ms(0), 2, 0, deadline(100));
    let _ = lifo.push(ms(0), 3, 0, deadline(10));
    let (served, mut dropped) = pop(&mut lifo, 50);
    dropped.sort();
    let late = Reason::DeadlineExceeded;
    assert_eq!((served, dropped), (Some(2), vec![(1, late), (3, late)]));
}

#[test]
fn important_classes_first_and_the_least_important_yield() {
    let mut queue = queue(Discipline::CoDel, 4);
    for (item, class) in [(10, 1), (11, 1), (20, 2), (21, 2)] {
        let _ = queue.push(ms(0), item, class, Time::MAX);
    }
    assert_eq!(queue.push(ms(0), 22, 2, Time::MAX), Push::Rejected(22), "an equal does not yield");
    assert_eq!(queue.push(ms(0), 30, 9, Time::MAX), Push::Rejected(30), "nor a better one");
    let displaced = |push| match push {
        Push::Displaced { item, reason: Reason::Shed, .. } => item,
        other => panic!("{other:?}"),
    };
    assert_eq!(displaced(queue.push(ms(0), 1, 0, Time::MAX)), 21, "the newest of the lowest");
    assert_eq!(displaced(queue.push(ms(0), 2, 0, Time::MAX)), 20);
    assert_eq!(displaced(queue.push(ms(0), 3, 0, Time::MAX)), 11);
    assert_eq!(drain(&mut queue, 1), [1, 2, 3, 10]);
    let counts = queue.counts();
    assert_eq!((counts.displaced[1], counts.displaced[2], counts.rejected[2], counts.rejected[7]), (1, 2, 1, 1));
}

#[test]
fn under_overload_the_low_class_is_shed_and_the_high_one_is_not() {
    let mut queue = queue(Discipline::AdaptiveLifo, 10_000);
    let mut shed = [0, 0];
    let mut served = [0, 0];
    for now in 0..2_000u64 {
        // Class 0 asks for 40% of the server, class 5 for 120%.
        if now % 5 == 0 {
            let _ = queue.push(ms(now), 0, 0, Time::MAX);
        }
        if now % 5 != 1 && now % 5 != 3 {
            let _ = queue.push(ms(now), 1, 5, Time::MAX);
        }
        if now % 2 == 0 {
            let item = queue.pop(ms(now), |item, reason| {
                assert_eq!(reason, Reason::Shed);
                shed[item as usize] += 1;
            });
            served[item.unwrap() as usize] += 1;
        }
    }
    assert_eq!((shed[0], served[0]), (0, 400));
    assert!(shed[1] > 500 && served[1] == 600, "{shed:?} {served:?}");
    assert_eq!(queue.counts().shed[5], shed[1]);
}

#[test]
fn a_caller_that_leaves_takes_its_request_along() {
    let mut queue = queue(Discipline::Fifo, 3);
    let handles: Vec<_> = (1..=3)
        .map(|item| match push(&mut queue, 0, item) {
            Push::Queued(handle) => handle,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(queue.remove(handles[1]), Some(2));
    assert_eq!(queue.remove(handles[1]), None, "once");
    assert!(matches!(push(&mut queue, 0, 4), Push::Queued(_)), "its place is free");
    assert_eq!(queue.remove(handles[1]), None, "and stays the new one's");
    assert_eq!(drain(&mut queue, 0), [1, 3, 4]);
    assert_eq!(queue.remove(handles[0]), None);
}

#[test]
fn shadow_counts_and_serves() {
    let config =
        Config { discipline: Discipline::AdaptiveLifo, capacity: 10_000, mode: Mode::Shadow, ..Config::default() };
    let mut shadow = ShedQueue::new(config).unwrap();
    let mut plain = queue(Discipline::Fifo, 10_000);
    let got = overload(&mut shadow, 0, 1_000, 1.0);
    assert_eq!(got, overload(&mut plain, 0, 1_000, 1.0));
    assert!(shadow.counts().shadowed[0] > 300, "{:?}", shadow.counts());
    assert_eq!(shadow.counts().shed[0], 0);
}

#[test]
fn settings_change_while_requests_wait() {
    let mut queue = queue(Discipline::AdaptiveLifo, 10_000);
    overload(&mut queue, 0, 300, 1.0);
    let waiting = queue.len();
    queue.set_config(Config { capacity: 1, ..Config::default() }).unwrap();
    assert_eq!((queue.len(), queue.is_overloaded()), (waiting, false));
    assert!(matches!(push(&mut queue, 300, 1), Push::Rejected(1)));
    assert_eq!(drain(&mut queue, 400).len(), waiting);
}

#[test]
fn bad_settings_are_refused() {
    let zero = Config { target: Duration::ZERO, ..Config::default() };
    assert_eq!(ShedQueue::<()>::new(zero).map(|_| ()).unwrap_err().field, "target");
    let short = Config { interval: Duration::from_millis(1), ..Config::default() };
    assert_eq!(ShedQueue::<()>::new(short).map(|_| ()).unwrap_err().field, "interval");
}

proptest! {
    #[test]
    fn every_request_leaves_once_and_shedding_never_empties_a_queue(
        which in 0usize..4,
        capacity in 1u32..20,
        steps in prop::collection::vec((0u8..4, 0u8..9, 0u64..60, 0usize..64), 1..400),
    ) {
        let discipline = [Discipline::Fifo, Discipline::Lifo, Discipline::CoDel, Discipline::AdaptiveLifo][which];
        let mut queue = queue(discipline, capacity);
        let mut waiting = std::collections::BTreeMap::new();
        let mut now = 0;
        for (item, (what, class, wait, which)) in steps.into_iter().enumerate() {
            let item = item as u64;
            now += wait / 10;
            match what {
                0 => {
                    let served = queue.pop(ms(now), |item, reason| {
                        let (_, deadline) = waiting.remove(&item).expect("it was waiting");
                        let expired = deadline <= ms(now);
                        assert_eq!(reason == Reason::DeadlineExceeded, expired);
                        assert!(expired || which_sheds(discipline));
                    });
                    // Whatever was shed, someone was served for it.
                    prop_assert_eq!(served.is_none(), queue.is_empty() && served.is_none());
                    if let Some(item) = served {
                        let (_, deadline) = waiting.remove(&item).expect("it was waiting");
                        prop_assert!(deadline > ms(now));
                    }
                }
                1 if !waiting.is_empty() => {
                    let (&item, &(handle, _)) = waiting.iter().nth(which % waiting.len()).unwrap();
                    prop_assert_eq!(queue.remove(handle), Some(item));
                    waiting.remove(&item);
                }
                _ => {
                    let deadline = ms(now + wait);
                    match queue.push(ms(now), item, class, deadline) {
                        Push::Queued(handle) => { waiting.insert(item, (handle, deadline)); }
                        Push::Displaced { handle, item: gone, .. } => {
                            prop_assert!(waiting.remove(&gone).is_some());
                            waiting.insert(item, (handle, deadline));
                        }
                        Push::Rejected(back) => prop_assert_eq!(back, item),
                    }
                }
            }
            prop_assert_eq!(queue.len(), waiting.len());
            prop_assert!(queue.len() <= capacity as usize);
        }
    }

    #[test]
    fn nothing_is_shed_from_a_queue_that_each_pop_empties(
        waits in prop::collection::vec((0u64..1_000, 0u64..1_000), 1..100),
        adaptive: bool,
    ) {
        let mut queue = queue(if adaptive { Discipline::AdaptiveLifo } else { Discipline::CoDel }, 10);
        let mut now = 0;
        for (item, (wait, idle)) in waits.into_iter().enumerate() {
            let _ = push(&mut queue, now, item as u64);
            now += wait;
            prop_assert_eq!(pop(&mut queue, now), (Some(item as u64), vec![]));
            now += idle;
            prop_assert_eq!(pop(&mut queue, now), (None, vec![]));
        }
    }
}

fn which_sheds(discipline: Discipline) -> bool {
    matches!(discipline, Discipline::CoDel | Discipline::AdaptiveLifo)
}
