//! Idempotency keys: duplicates, reuse, crashes, bounds and time.

use std::time::Duration;

use plimsoll_policy::idempotency::{Begin, Config, Idempotency, Ticket};
use plimsoll_policy::{Mode, Reason, Rejected, Time};
use proptest::prelude::*;

const KEY: u64 = 7;
const BODY: u64 = 100;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn keys(config: Config) -> Idempotency<u32> {
    Idempotency::new(config).unwrap()
}

fn proceed(keys: &mut Idempotency<u32>, now: u64, key: u64) -> Ticket {
    match keys.begin(at(now), key, BODY) {
        Begin::Proceed(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn duplicates_wait_and_then_get_the_same_answer() {
    let mut keys = keys(Config::default());
    let ticket = proceed(&mut keys, 0, KEY);
    let in_progress = Begin::Refused(Rejected::until(Reason::InProgress, at(60)));
    assert_eq!(keys.begin(at(1), KEY, BODY), in_progress, "concurrent: neither runs nor waits");
    assert!(keys.complete(at(2), ticket, 201));
    assert_eq!(keys.begin(at(3), KEY, BODY), Begin::Replay(&201));
    assert_eq!(keys.begin(at(86_401), KEY, BODY), Begin::Replay(&201), "a day after the answer");
    let _ = proceed(&mut keys, 86_402, KEY);
    let counts = keys.counts();
    assert_eq!((counts.proceeded, counts.replayed, counts.in_progress), (2, 2, 1));
}

#[test]
fn the_same_key_with_another_body_is_an_error_at_every_stage() {
    let mut keys = keys(Config::default());
    let reused = || Begin::Refused(Rejected::new(Reason::KeyReused));
    let ticket = proceed(&mut keys, 0, KEY);
    assert_eq!(keys.begin(at(1), KEY, BODY + 1), reused());
    assert_eq!(keys.begin(at(100), KEY, BODY + 1), reused(), "even when the first has died");
    keys.complete(at(100), ticket, 201);
    assert_eq!(keys.begin(at(101), KEY, BODY + 1), reused());
    assert_eq!(keys.counts().reused, 3);
}

#[test]
fn a_crash_between_effect_and_record_is_said_aloud() {
    let mut keys = keys(Config::default());
    let dead = proceed(&mut keys, 0, KEY);
    assert!(matches!(keys.begin(at(59), KEY, BODY), Begin::Refused(_)));
    let Begin::Unresolved(ticket) = keys.begin(at(60), KEY, BODY) else { panic!("its lease is over") };
    assert!(matches!(keys.begin(at(61), KEY, BODY), Begin::Refused(_)), "one resolves it, not two");
    // It was slow and not dead: what it says now comes too late.
    assert!(!keys.complete(at(62), dead, 500));
    assert!(keys.complete(at(63), ticket, 201));
    assert_eq!(keys.begin(at(64), KEY, BODY), Begin::Replay(&201));
    assert_eq!((keys.counts().unresolved, keys.counts().late), (1, 1));
}

#[test]
fn a_slow_request_nobody_has_followed_may_still_record() {
    let mut keys = keys(Config::default());
    let slow = proceed(&mut keys, 0, KEY);
    assert!(keys.complete(at(300), slow, 201));
    assert_eq!(keys.begin(at(301), KEY, BODY), Begin::Replay(&201));
}

#[test]
fn an_abandoned_key_is_free() {
    let mut keys = keys(Config::default());
    let ticket = proceed(&mut keys, 0, KEY);
    assert!(keys.abandon(ticket));
    assert!(keys.is_empty());
    let _ = proceed(&mut keys, 1, KEY);
}

#[test]
fn memory_is_bounded_and_promises_are_kept() {
    let mut keys = keys(Config { keys_max: 2, keep: Duration::from_secs(100), ..Config::default() });
    let (a, b) = (proceed(&mut keys, 0, 1), proceed(&mut keys, 0, 2));
    keys.complete(at(10), a, 1);
    keys.complete(at(20), b, 2);
    let full = Begin::Refused(Rejected::until(Reason::LimitReached, at(110)));
    assert_eq!(keys.begin(at(109), 3, BODY), full, "dropping a promise silently would run it twice");
    assert_eq!(keys.begin(at(109), 1, BODY), Begin::Replay(&1));
    let _ = proceed(&mut keys, 110, 3);
    assert_eq!(keys.len(), 2);
}

#[test]
fn a_shorter_keep_applies_to_what_comes_after() {
    let mut keys = keys(Config::default());
    let old = proceed(&mut keys, 0, 1);
    keys.complete(at(0), old, 1);
    keys.set_config(Config { keep: Duration::from_secs(10), ..Config::default() }).unwrap();
    let new = proceed(&mut keys, 0, 2);
    keys.complete(at(0), new, 2);
    let _ = proceed(&mut keys, 10, 2);
    assert_eq!(keys.begin(at(86_000), 1, BODY), Begin::Replay(&1));
}

#[test]
fn shadow_counts_and_runs_everything() {
    let mut keys = keys(Config { mode: Mode::Shadow, keys_max: 1, ..Config::default() });
    let first = proceed(&mut keys, 0, KEY);
    let duplicate = proceed(&mut keys, 1, KEY);
    let crowded_out = proceed(&mut keys, 1, KEY + 1);
    assert!(!keys.complete(at(2), duplicate, 1) && !keys.complete(at(2), crowded_out, 1));
    assert!(keys.complete(at(2), first, 201));
    let _ = proceed(&mut keys, 3, KEY);
    let counts = keys.counts();
    assert_eq!((counts.in_progress, counts.full, counts.replayed, counts.shadowed, counts.late), (1, 1, 1, 3, 0));
}

#[test]
fn bad_settings_are_refused() {
    let refused = |config| Idempotency::<u32>::new(config).map(|_| ()).unwrap_err().field;
    assert_eq!(refused(Config { keep: Duration::ZERO, ..Config::default() }), "keep");
    assert_eq!(refused(Config { lease: Duration::ZERO, ..Config::default() }), "lease");
    assert_eq!(refused(Config { keys_max: 0, ..Config::default() }), "keys_max");
}

proptest! {
    #[test]
    fn an_effect_happens_once_unless_its_driver_died(steps in prop::collection::vec((0u8..6, 0u64..5, 0u64..50, any::<usize>()), 1..300)) {
        let mut keys = keys(Config { keep: Duration::from_secs(1_000_000), ..Config::default() });
        let mut running: Vec<(u64, Ticket)> = Vec::new();
        let mut answers = std::collections::BTreeMap::new();
        let mut now = 0;
        for (step, (what, key, wait, which)) in steps.into_iter().enumerate() {
            now += wait;
            match what {
                0 | 1 if !running.is_empty() => {
                    let (key, ticket) = running.swap_remove(which % running.len());
                    if what == 0 {
                        if keys.complete(at(now), ticket, step as u32) {
                            prop_assert!(answers.insert(key, step as u32).is_none(), "one answer a key, forever");
                        }
                    } else if keys.abandon(ticket) {
                        prop_assert!(!answers.contains_key(&key));
                    }
                }
                _ => match keys.begin(at(now), key, BODY) {
                    Begin::Proceed(ticket) => {
                        prop_assert!(!answers.contains_key(&key));
                        running.push((key, ticket));
                    }
                    Begin::Unresolved(ticket) => {
                        prop_assert!(running.iter().any(|r| r.0 == key), "someone began it and never said how it ended");
                        running.push((key, ticket));
                    }
                    Begin::Replay(answer) => prop_assert_eq!(Some(answer), answers.get(&key)),
                    Begin::Refused(rejected) => {
                        prop_assert_eq!(rejected.reason, Reason::InProgress);
                        prop_assert!(rejected.retry_at > Some(at(now)));
                    }
                },
            }
        }
    }
}
