//! Answers that are kept: one store for each `cache` name, shared by all cores.
//!
//! The policy decides what is fresh, who fetches and who waits. What is kept is a whole answer to a `GET`
//! without credentials; what a request waits for is another's fetch, and if that is lost, the next one
//! that waits fetches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_policy::cache::{Cache, Config, Counts, Lookup, Ticket};
use plimsoll_policy::{InvalidConfig, Time};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::plan::Plan;

/// A kept answer.
#[derive(Debug)]
pub struct Kept {
    /// What it answers: host and target, so that two with one hash are not taken for each other.
    pub id: Box<str>,
    /// Its head as a client gets it, with its length, without what says how the connection goes on.
    pub head: Vec<u8>,
    /// Its body, without framing.
    pub body: Vec<u8>,
    /// Its status.
    pub status: u16,
    /// When it came.
    pub at: Time,
}

impl Kept {
    /// Seconds since it came.
    pub fn age(&self, now: Time) -> u64 {
        now.nanos_since(self.at) / 1_000_000_000
    }
}

/// A store of answers.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    cache: Cache<Arc<Kept>>,
    /// Requests that wait for another's fetch.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Found {
    /// Give this answer, and perhaps refresh it.
    Hit(Arc<Kept>, Option<Fetch>),
    /// The thing is known to be absent.
    Absent,
    /// Ask the upstream, and keep what it says.
    Miss(Fetch),
    /// Look again once another has fetched it, or at that time.
    Wait(oneshot::Receiver<()>, Time),
    /// Ask the upstream, and keep nothing.
    Pass,
}

/// The right to fetch something, which is given back if nothing comes of it.
#[derive(Debug)]
pub struct Fetch {
    store: Arc<Store>,
    key: u64,
    ticket: Option<Ticket>,
    since: Time,
}

impl Store {
    /// An empty store.
    pub fn new(config: Config, clock: Clock) -> Result<Store, InvalidConfig> {
        let state = State { cache: Cache::new(config)?, waiting: BTreeMap::new() };
        Ok(Store { state: Mutex::new(state), clock })
    }

    /// New rules; what is kept stays.
    pub fn reconfigure(&self, config: Config) -> Result<(), InvalidConfig> {
        self.lock().cache.set_config(config, self.clock.now())
    }

    /// What was decided so far, and how much is kept.
    pub fn counts(&self) -> (Counts, usize) {
        let state = self.lock();
        (state.cache.counts(), state.cache.len())
    }

    /// Looks something up.
    pub fn look_up(self: &Arc<Self>, now: Time, key: u64, id: &str, random: u64) -> Found {
        let mut state = self.lock();
        let (lookup, kept) = state.cache.lookup(now, key, random);
        let kept = kept.cloned();
        let fetch = |ticket| Fetch { store: self.clone(), key, ticket: Some(ticket), since: now };
        match lookup {
            Lookup::Fresh { refresh } | Lookup::Stale { refresh } => match kept {
                Some(kept) if *kept.id == *id => Found::Hit(kept, refresh.map(fetch)),
                // Another with the same hash has the place.
                Some(_) => {
                    drop(state);
                    drop(refresh.map(fetch));
                    Found::Pass
                }
                None => {
                    drop(state);
                    drop(refresh.map(fetch));
                    Found::Absent
                }
            },
            Lookup::Miss { fetch: ticket } => Found::Miss(fetch(ticket)),
            Lookup::Wait { until } => {
                let (sender, receiver) = oneshot::channel();
                let waiting = state.waiting.entry(key).or_default();
                waiting.retain(|sender| !sender.is_closed());
                waiting.push(sender);
                Found::Wait(receiver, until)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch {
    /// The answer that was fetched; none if there is no such thing.
    pub fn fill(mut self, now: Time, kept: Option<Arc<Kept>>, random: u64) {
        let Some(ticket) = self.ticket.take() else { return };
        let store = self.store.clone();
        let mut state = store.lock();
        let took = now.nanos_since(self.since);
        let _ = state.cache.fill(now, self.key, ticket, kept, took, random);
        state.wake(self.key);
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let mut state = self.store.lock();
            state.cache.give_up(self.key, ticket);
            state.wake(self.key);
        }
    }
}

impl State {
    fn wake(&mut self, key: u64) {
        for sender in self.waiting.remove(&key).unwrap_or_default() {
            let _ = sender.send(());
        }
    }
}

/// The stores of a plan, by name: those of the plan before, and new ones.
pub fn stores(
    plan: &Plan,
    old: &BTreeMap<String, Arc<Store>>,
    clock: Clock,
) -> Result<BTreeMap<String, Arc<Store>>, InvalidConfig> {
    let mut stores = BTreeMap::new();
    for (name, config) in plan.routes.iter().filter_map(|route| route.cache.as_ref()) {
        if stores.contains_key(name) {
            continue;
        }
        let store = match old.get(name) {
            Some(store) => {
                store.reconfigure(*config)?;
                store.clone()
            }
            None => Arc::new(Store::new(*config, clock)?),
        };
        stores.insert(name.clone(), store);
    }
    Ok(stores)
}
