//! What is remembered as absent: a gateway's store of answers decides what `plimsoll_policy::cache` decides. In the
//! simulation nothing is absent from an instance, so that its journal has none of this.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_gateway::answers::kept::{Fetch, Found, Kept, Store};
use plimsoll_gateway::clock::Clock;
use plimsoll_policy::Time;
use plimsoll_policy::cache::{Cache, Config, Lookup, Ticket};
use proptest::prelude::*;

/// A step: so many ms later, this key is looked up or the oldest fetch ends, with these random bits.
#[derive(Clone, Debug)]
enum Step {
    LooksUp { after: u64, key: u64, random: u64 },
    Ends { after: u64, what: Ended, random: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    Absent,
    Present,
    Lost,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ended = prop_oneof![4 => Just(Ended::Absent), 1 => Just(Ended::Present), 1 => Just(Ended::Lost)];
    let step = prop_oneof![
        3 => (0u64..120, 0u64..3, any::<u64>()).prop_map(|(after, key, random)| Step::LooksUp { after, key, random }),
        2 => (0u64..60, ended, any::<u64>()).prop_map(|(after, what, random)| Step::Ends { after, what, random }),
    ];
    prop::collection::vec(step, 1..120)
}

fn config() -> Config {
    Config {
        ttl: Duration::from_millis(500),
        negative_ttl_min: Duration::from_millis(100),
        negative_ttl_max: Duration::from_millis(300),
        lock: Some(Duration::from_millis(200)),
        ..Config::default()
    }
}

/// A fetch that is out, in both.
struct Out {
    key: u64,
    since: Time,
    ticket: Ticket,
    fetch: Fetch,
}

/// Both at once.
struct Pair {
    policy: Cache<()>,
    store: Arc<Store>,
    out: Vec<Out>,
}

impl Pair {
    fn new() -> Pair {
        let store = Arc::new(Store::new(config(), Clock::start()).unwrap());
        Pair { policy: Cache::new(config()).unwrap(), store, out: Vec::new() }
    }

    /// What both say; an error where they differ.
    fn look_up(&mut self, now: Time, key: u64, random: u64) -> Result<&'static str, String> {
        let (lookup, value) = self.policy.lookup(now, key, random);
        let there = value.is_some();
        let found = self.store.look_up(now, key, &format!("key {key}"), random);
        let said = format!("{lookup:?}, {there}: {found:?}");
        let out = |ticket, fetch| Out { key, since: now, ticket, fetch };
        match (lookup, found) {
            (Lookup::Miss { fetch: ticket }, Found::Miss(fetch)) => {
                self.out.push(out(ticket, fetch));
                Ok("miss")
            }
            (Lookup::Wait { until }, Found::Wait(_, got)) if got == until => Ok("wait"),
            (Lookup::Fresh { refresh } | Lookup::Stale { refresh }, Found::Absent) if !there => {
                // Nobody refreshes an absence: the next one who comes after it fetches.
                if let Some(ticket) = refresh {
                    self.policy.give_up(key, ticket);
                }
                Ok("absent")
            }
            (Lookup::Fresh { refresh } | Lookup::Stale { refresh }, Found::Hit(_, fetch)) if there => {
                if refresh.is_some() != fetch.is_some() {
                    return Err(said);
                }
                self.out.extend(refresh.zip(fetch).map(|(ticket, fetch)| out(ticket, fetch)));
                Ok("hit")
            }
            _ => Err(said),
        }
    }

    fn ends(&mut self, now: Time, what: Ended, random: u64) {
        if self.out.is_empty() {
            return;
        }
        let Out { key, since, ticket, fetch } = self.out.remove(0);
        let took = now.nanos_since(since);
        match what {
            Ended::Lost => {
                self.policy.give_up(key, ticket);
                drop(fetch);
            }
            Ended::Absent => {
                let _ = self.policy.fill(now, key, ticket, None, took, random);
                fetch.fill(now, None, random);
            }
            Ended::Present => {
                let _ = self.policy.fill(now, key, ticket, Some(()), took, random);
                let id = format!("key {key}").into();
                let kept = Kept { id, head: Vec::new(), body: Vec::new(), status: 200, at: now };
                fetch.fill(now, Some(Arc::new(kept)), random);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stores_decide_as_the_policy_does(steps in steps()) {
        let mut pair = Pair::new();
        let mut now = Time::ZERO;
        for step in steps {
            match step {
                Step::LooksUp { after, key, random } => {
                    now = now + Duration::from_millis(after);
                    let said = pair.look_up(now, key, random);
                    prop_assert!(said.is_ok(), "{step:?} at {now:?}: {}", said.unwrap_err());
                }
                Step::Ends { after, what, random } => {
                    now = now + Duration::from_millis(after);
                    pair.ends(now, what, random);
                }
            }
        }
    }
}

#[test]
fn an_absence_is_remembered_for_a_while() {
    let mut pair = Pair::new();
    let at = |ms| Time::ZERO + Duration::from_millis(ms);
    assert_eq!(pair.look_up(at(0), 1, 0), Ok("miss"));
    assert_eq!(pair.look_up(at(1), 1, 0), Ok("wait"));
    pair.ends(at(2), Ended::Absent, 0);
    assert_eq!(pair.look_up(at(50), 1, 0), Ok("absent"));
    assert_eq!(pair.look_up(at(302), 1, 0), Ok("miss"), "the longest time is over");
}
