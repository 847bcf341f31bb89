//! Caching: freshness, stampedes, herds, late fills, eviction and the three ways to write.

use std::time::Duration;

use plimsoll_policy::cache::{Cache, Config, Fill, Lookup, Ticket, Write, WriteMode};
use plimsoll_policy::{Mode, Time};
use proptest::prelude::*;

fn at(seconds: f64) -> Time {
    Time::from_nanos((seconds * 1e9) as u64)
}

/// A TTL of 60 s without jitter, for tables.
fn config() -> Config {
    Config { ttl_jitter: 0.0, capacity: 100, ..Config::default() }
}

fn cache(config: Config) -> Cache<u32> {
    Cache::new(config).unwrap()
}

/// Random bits in the middle of every range.
const MIDDLE: u64 = 1 << 63;

fn fetch(cache: &mut Cache<u32>, now: f64, key: u64) -> Ticket {
    match cache.lookup(at(now), key, MIDDLE).0 {
        Lookup::Miss { fetch } => fetch,
        other => panic!("{other:?}"),
    }
}

fn fetch_and_fill(cache: &mut Cache<u32>, now: f64, key: u64, value: u32) {
    let ticket = fetch(cache, now, key);
    assert_eq!(cache.fill(at(now), key, ticket, Some(value), 1_000_000, MIDDLE), Fill::Stored);
}

#[test]
fn fresh_then_stale_then_gone() {
    let mut cache = cache(config());
    fetch_and_fill(&mut cache, 0.0, 1, 11);
    let fresh = Lookup::Fresh { refresh: None };
    assert_eq!(cache.lookup(at(59.999), 1, 0), (fresh, Some(&11)));
    let (first, value) = cache.lookup(at(60.0), 1, 0);
    let Lookup::Stale { refresh: Some(ticket) } = first else { panic!("{first:?}") };
    assert_eq!(value, Some(&11));
    let stale = Lookup::Stale { refresh: None };
    assert_eq!(cache.lookup(at(60.1), 1, 0), (stale, Some(&11)), "one refreshes, the others are served");
    assert_eq!(cache.fill(at(60.2), 1, ticket, Some(12), 1, MIDDLE), Fill::Stored);
    assert_eq!(cache.lookup(at(120.1), 1, 0), (fresh, Some(&12)));
    assert!(matches!(cache.lookup(at(180.1), 1, 0), (Lookup::Stale { .. }, Some(&12))));
    assert!(!cache.give_up(1, ticket), "used up");
    assert!(matches!(cache.lookup(at(180.3), 1, 0), (Lookup::Wait { .. }, None)), "its refresher is still at it");
    assert!(matches!(cache.lookup(at(240.3), 1, 0), (Lookup::Miss { .. }, None)));
    let counts = cache.counts();
    assert_eq!((counts.fresh, counts.stale, counts.misses, counts.waits, counts.refreshes), (2, 3, 2, 1, 2));
}

#[test]
fn stale_serving_can_be_off() {
    let mut cache = cache(Config { stale_while_revalidate: Some(Duration::ZERO), ..config() });
    fetch_and_fill(&mut cache, 0.0, 1, 11);
    assert!(matches!(cache.lookup(at(60.0), 1, 0), (Lookup::Miss { .. }, None)));
}

#[test]
fn a_stampede_on_a_missing_key_is_one_fetch() {
    let mut cache = cache(config());
    let ticket = fetch(&mut cache, 0.0, 1);
    for _ in 0..1_000 {
        assert_eq!(cache.lookup(at(0.1), 1, 0), (Lookup::Wait { until: at(5.0) }, None));
    }
    // The fetcher fails: exactly one takes over.
    assert!(cache.give_up(1, ticket));
    let second = fetch(&mut cache, 0.2, 1);
    assert!(matches!(cache.lookup(at(0.2), 1, 0).0, Lookup::Wait { .. }));
    // The second vanishes: after its lock, one takes over, and what comes late is refused.
    let third = fetch(&mut cache, 5.2, 1);
    assert_eq!(cache.fill(at(5.3), 1, second, Some(2), 1, 0), Fill::Refused);
    assert_eq!(cache.fill(at(5.4), 1, third, Some(3), 1, 0), Fill::Stored);
    assert_eq!(cache.lookup(at(5.5), 1, 0).1, Some(&3));
    assert_eq!((cache.counts().misses, cache.counts().void_fills), (3, 1));
}

#[test]
fn without_a_lock_everyone_fetches_and_the_first_fills() {
    let mut cache = cache(Config { lock: None, ..config() });
    let tickets: Vec<_> = (0..3).map(|_| fetch(&mut cache, 0.0, 1)).collect();
    assert_eq!(cache.fill(at(1.0), 1, tickets[2], Some(7), 1, 0), Fill::Stored);
    assert_eq!(cache.fill(at(1.0), 1, tickets[0], Some(8), 1, 0), Fill::Refused);
    let mut cache = self::cache(Config { lock: None, ..config() });
    let before = fetch(&mut cache, 0.0, 1);
    cache.invalidate(1);
    let after = fetch(&mut cache, 0.0, 1);
    assert_eq!(cache.fill(at(1.0), 1, before, Some(7), 1, 0), Fill::Refused, "it may hold the old value");
    assert_eq!(cache.fill(at(1.0), 1, after, Some(8), 1, 0), Fill::Stored);
}

#[test]
fn a_herd_after_a_flush_is_one_fetch_a_key_and_does_not_expire_together() {
    let mut cache =
        cache(Config { capacity: 10_000, ttl_jitter: 0.1, stale_while_revalidate: Some(Duration::ZERO), ..config() });
    cache.flush();
    let mut random = 1u64;
    let mut draw = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random
    };
    let mut fetches = 0;
    for _ in 0..20 {
        for key in 0..1_000 {
            if let (Lookup::Miss { fetch }, _) = cache.lookup(at(0.0), key, draw()) {
                fetches += 1;
                if key % 2 == 0 {
                    cache.fill(at(0.0), key, fetch, Some(1), 1, draw());
                }
            }
        }
    }
    assert_eq!(fetches, 1_000, "one a key, answered or not");
    for key in (1..1_000).step_by(2) {
        cache.put(at(0.0), key, 1, draw());
    }
    let mut expired = Vec::new();
    let mut left: Vec<u64> = (0..1_000).collect();
    for tenth in 530..=670 {
        let before = left.len();
        left.retain(|&key| {
            let lookup = cache.lookup(at(f64::from(tenth) / 10.0), key, 0).0;
            !matches!(lookup, Lookup::Miss { .. })
        });
        expired.push(before - left.len());
    }
    assert_eq!(expired.iter().sum::<usize>(), 1_000);
    assert_eq!(expired[..10].iter().sum::<usize>() + expired[131..].iter().sum::<usize>(), 0, "54 s to 66 s");
    assert!(expired.iter().all(|&n| n < 30), "no tenth of a second has a herd: {expired:?}");
}

#[test]
fn absence_is_remembered_for_one_to_five_seconds_and_never_stale() {
    for (random, seconds) in [(0, 1.0), (MIDDLE, 3.0), (u64::MAX, 5.0)] {
        let mut cache = cache(config());
        let ticket = fetch(&mut cache, 0.0, 1);
        assert_eq!(cache.fill(at(0.0), 1, ticket, None, 1, random), Fill::Stored);
        assert_eq!(cache.lookup(at(seconds - 0.001), 1, 0), (Lookup::Fresh { refresh: None }, None));
        assert!(matches!(cache.lookup(at(seconds), 1, 0).0, Lookup::Miss { .. }), "{seconds}");
    }
}

#[test]
fn early_expiration_spreads_refreshes_before_the_expiry() {
    let mut cache = cache(Config { early_expiration: 1.0, ..config() });
    let ticket = fetch(&mut cache, 0.0, 1);
    cache.fill(at(0.0), 1, ticket, Some(1), 2_000_000_000, MIDDLE);
    // A fetch of 2 s: with 4 s left, one lookup in e^2 refreshes.
    let chance = 0.864_664_716_763_387_3; // 1 - exp(-2)
    let below = ((chance - 0.001) * 2f64.powi(64)) as u64;
    let above = ((chance + 0.001) * 2f64.powi(64)) as u64;
    assert_eq!(cache.lookup(at(56.0), 1, below).0, Lookup::Fresh { refresh: None });
    assert_eq!(cache.lookup(at(0.0), 1, above).0, Lookup::Fresh { refresh: None }, "with 60 s left, next to never");
    assert!(matches!(cache.lookup(at(56.0), 1, above), (Lookup::Fresh { refresh: Some(_) }, Some(1))));
    assert_eq!(cache.lookup(at(56.0), 1, u64::MAX).0, Lookup::Fresh { refresh: None }, "one refresher");
}

#[test]
fn a_write_aside_or_through_beats_a_fetch_that_began_before_it() {
    for mode in [WriteMode::Aside, WriteMode::Through] {
        let mut cache = cache(Config { write: mode, ..config() });
        let old = fetch(&mut cache, 0.0, 1);
        let written = cache.write(at(0.5), 1, 20, MIDDLE);
        assert_eq!(cache.fill(at(1.0), 1, old, Some(10), 1, 0), Fill::Refused, "{mode:?}");
        match mode {
            WriteMode::Aside => {
                assert_eq!(written, Write::Invalidated);
                assert!(matches!(cache.lookup(at(1.0), 1, 0).0, Lookup::Miss { .. }));
            }
            _ => {
                assert_eq!(written, Write::Stored);
                assert_eq!(cache.lookup(at(1.0), 1, 0).1, Some(&20));
            }
        }
    }
}

fn behind(buffer: u32) -> Config {
    Config { write: WriteMode::Behind { flush_every: Duration::from_secs(1), buffer }, ..config() }
}

#[test]
fn writes_behind_wait_for_their_batch() {
    let mut cache = cache(behind(3));
    assert_eq!(cache.next_wake(), None);
    assert_eq!(cache.write(at(0.0), 1, 10, 0), Write::Buffered);
    assert_eq!(cache.write(at(0.5), 2, 20, 0), Write::Buffered);
    assert_eq!(cache.write(at(0.6), 1, 11, 0), Write::Buffered, "the same key again costs no place");
    assert_eq!((cache.at_risk(), cache.next_wake()), (2, Some(at(1.0))));
    assert_eq!(cache.start_flush(at(0.9)), []);
    assert_eq!(cache.start_flush(at(1.0)), [1, 2]);
    assert_eq!((cache.value(1), cache.next_wake()), (Some(&11), None));
    assert_eq!(cache.start_flush(at(1.0)), [], "one batch at a time");
    assert_eq!(cache.write(at(1.1), 1, 12, 0), Write::Buffered, "during the flush: into the next batch");
    assert_eq!(cache.write(at(1.2), 3, 30, 0), Write::BufferFull);
    cache.end_flush(at(1.3), true);
    assert_eq!((cache.at_risk(), cache.next_wake()), (1, Some(at(2.1))));
    assert!(!cache.invalidate(1), "its newer write still waits");
    assert_eq!(cache.start_flush(at(2.1)), [1]);
    cache.end_flush(at(2.2), false);
    assert_eq!(cache.at_risk(), 1, "a failed batch waits for the next one");
    assert_eq!(cache.start_flush(at(3.2)), [1]);
    cache.end_flush(at(3.3), true);
    assert_eq!((cache.at_risk(), cache.next_wake()), (0, None));
}

#[test]
fn a_buffered_write_outlives_ttl_eviction_and_invalidation() {
    let mut cache = cache(Config { capacity: 4, ..behind(2) });
    cache.write(at(0.0), 1, 10, 0);
    cache.write(at(0.0), 2, 20, 0);
    for key in 100..200 {
        fetch_and_fill(&mut cache, 1.0, key, 1);
    }
    assert_eq!(cache.len(), 4);
    assert!(!cache.invalidate(1));
    assert_eq!(cache.lookup(at(500.0), 1, 0), (Lookup::Fresh { refresh: None }, Some(&10)));
    assert_eq!(cache.lookup(at(500.0), 2, 0).1, Some(&20));
    let aside = Config { capacity: 4, ..config() };
    assert_eq!(cache.set_config(aside, at(500.0)).unwrap_err().field, "write", "that would forget them");
    cache.start_flush(at(500.0));
    cache.end_flush(at(501.0), true);
    assert!(cache.set_config(aside, at(501.0)).is_ok());
    assert!(matches!(cache.lookup(at(501.0), 1, 0).0, Lookup::Miss { .. }), "an entry like any other now");
}

#[test]
fn a_crash_loses_at_most_rate_times_interval() {
    // 100 writes/s to distinct keys, flushed every second within 200 ms, and a crash at every phase.
    let bound = behind(10_000).write.loss_bound(100.0, Duration::from_millis(200));
    assert_eq!(bound, 120.0);
    let mut most = 0;
    for crash in 0..400u32 {
        let mut cache = cache(Config { capacity: 50_000, ..behind(10_000) });
        let mut flushed_at = None;
        for write in 0..600 + crash {
            let now = f64::from(write) / 100.0;
            if flushed_at.is_some_and(|end| end <= now) {
                cache.end_flush(at(now), true);
                flushed_at = None;
            }
            if !cache.start_flush(at(now)).is_empty() {
                flushed_at = Some(now + 0.2);
            }
            cache.write(at(now), write.into(), 1, 0);
        }
        let lost = cache.flush();
        assert!(lost as f64 <= bound + 1.0, "{lost} lost at {crash}");
        assert_eq!(cache.counts().lost, lost as u64);
        most = most.max(lost);
    }
    assert!(most >= 115, "the bound is no exaggeration: {most}");
    assert_eq!(WriteMode::Through.loss_bound(100.0, Duration::from_secs(9)), 0.0);
}

#[test]
fn shadow_decides_counts_and_always_goes_to_the_origin() {
    let mut cache = cache(Config { mode: Mode::Shadow, ..config() });
    fetch_and_fill(&mut cache, 0.0, 1, 11);
    assert_eq!(cache.lookup(at(1.0), 1, 0), (Lookup::Miss { fetch: Ticket::VOID }, None));
    assert_eq!(cache.fill(at(1.0), 1, Ticket::VOID, Some(12), 1, 0), Fill::Refused);
    let ticket = fetch(&mut cache, 61.0, 1);
    assert_eq!(cache.lookup(at(61.0), 1, 0), (Lookup::Miss { fetch: Ticket::VOID }, None));
    assert_eq!(cache.fill(at(61.0), 1, ticket, Some(13), 1, 0), Fill::Stored);
    assert_eq!(cache.value(1), Some(&13), "the state is what enforcing would make it");
    let counts = cache.counts();
    assert_eq!((counts.fresh, counts.stale, counts.misses, counts.void_fills), (1, 2, 1, 0));
}

#[test]
fn eviction_spares_what_is_used() {
    let mut cache = cache(config());
    for key in 0..100 {
        fetch_and_fill(&mut cache, 0.0, key, 1);
    }
    for key in 100..2_000 {
        for hot in 0..20 {
            cache.lookup(at(1.0), hot, 0);
        }
        let ticket = fetch(&mut cache, 1.0, key);
        cache.fill(at(1.0), key, ticket, Some(1), 1, 0);
    }
    assert_eq!(cache.len(), 100);
    assert_eq!(cache.counts().evictions, 1_900);
    let kept = (0..20).filter(|&hot| cache.value(hot).is_some()).count();
    assert!(kept >= 18, "{kept} of 20 hot keys survived 1,900 cold ones");
}

#[test]
fn keys_that_nobody_could_fetch_leave_before_values() {
    let mut cache = cache(config());
    for key in 0..60 {
        fetch_and_fill(&mut cache, 0.0, key, 1);
    }
    // 40 fetches that vanish, later than the values were last used.
    for key in 60..100 {
        fetch(&mut cache, 1.0, key);
    }
    for key in 100..120 {
        fetch_and_fill(&mut cache, 10.0, key, 1);
    }
    let values = (0..60).filter(|&key| cache.value(key).is_some()).count();
    // By last use alone, nearly all of the 20 evictions would have hit values.
    assert!(values >= 52, "{values} of 60");
}

#[test]
fn settings_change_and_entries_stay() {
    let mut cache = cache(config());
    for key in 0..100 {
        fetch_and_fill(&mut cache, 0.0, key, 1);
    }
    cache.set_config(Config { capacity: 40, ttl: Duration::from_secs(1), ..config() }, at(1.0)).unwrap();
    assert_eq!(cache.len(), 40);
    let key = (0..100).find(|&key| cache.value(key).is_some()).unwrap();
    assert_eq!(cache.lookup(at(59.0), key, 0).0, Lookup::Fresh { refresh: None }, "its life was promised");
}

#[test]
fn bad_settings_are_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        Cache::<u32>::new(config).map(|_| ()).unwrap_err().field
    };
    assert_eq!(refused(|c| c.ttl = Duration::ZERO), "ttl");
    assert_eq!(refused(|c| c.ttl_jitter = 1.0), "ttl_jitter");
    assert_eq!(refused(|c| c.negative_ttl_max = Duration::ZERO), "negative_ttl_max");
    assert_eq!(refused(|c| c.lock = Some(Duration::ZERO)), "lock");
    assert_eq!(refused(|c| c.early_expiration = f64::NAN), "early_expiration");
    assert_eq!(refused(|c| c.capacity = 0), "capacity");
    let second = Duration::from_secs(1);
    assert_eq!(refused(|c| c.write = WriteMode::Behind { flush_every: Duration::ZERO, buffer: 1 }), "flush_every");
    let too_many =
        Config { capacity: 10, write: WriteMode::Behind { flush_every: second, buffer: 6 }, ..Config::default() };
    assert_eq!(Cache::<u32>::new(too_many).map(|_| ()).unwrap_err().field, "buffer");
}

proptest! {
    #[test]
    fn nothing_is_served_past_ttl_and_stale_time_and_one_fetches_at_a_time(
        ttl_ms in 10u64..1_000,
        stale_ms in 0u64..1_000,
        jitter in 0.0f64..0.5,
        steps in prop::collection::vec((0u8..6, 0u64..5, any::<u64>(), 0u64..300), 1..300),
    ) {
        let config = Config {
            ttl: Duration::from_millis(ttl_ms),
            ttl_jitter: jitter,
            stale_while_revalidate: Some(Duration::from_millis(stale_ms)),
            early_expiration: 1.0,
            lock: Some(Duration::from_millis(100)),
            capacity: 3,
            ..Config::default()
        };
        let life_ns = ttl_ms as f64 * 1e6 * (1.0 + jitter) + stale_ms as f64 * 1e6;
        let mut cache = cache(config);
        let mut now_ms = 0;
        // By key: the ticket that is out, with its end.
        let mut out: Vec<Option<(Ticket, u64)>> = vec![None; 5];
        for (what, key, random, wait) in steps {
            now_ms += wait / 10;
            let now = Time::from_nanos(now_ms * 1_000_000);
            match what {
                0 | 1 => if let Some((ticket, _)) = out[key as usize].take() {
                    // The value is when it was filled.
                    cache.fill(now, key, ticket, Some(now_ms as u32), wait * 1_000, random);
                },
                2 => {
                    cache.invalidate(key);
                    out[key as usize] = None;
                }
                _ => {
                    let (lookup, value) = cache.lookup(now, key, random);
                    if let Some(&filled) = value {
                        let age_ns = (now_ms - u64::from(filled)) as f64 * 1e6;
                        prop_assert!(age_ns < life_ns, "served at {age_ns} ns of {life_ns}");
                    }
                    let evictions = cache.counts().evictions;
                    if let Lookup::Miss { fetch } | Lookup::Stale { refresh: Some(fetch) } | Lookup::Fresh { refresh: Some(fetch) } = lookup {
                        // An evicted entry takes its lock along.
                        prop_assert!(evictions > 0 || out[key as usize].is_none_or(|(_, end)| end <= now_ms));
                        out[key as usize] = Some((fetch, now_ms + 100));
                    }
                }
            }
            prop_assert!(cache.len() <= 3);
        }
    }
}
