//! Reads that want the same at once share one call.
//!
//! The call is nobody's in particular: whoever came first may leave, and it goes on for the others; with the
//! last of them it is called off. Its answer, an error too, is for all who waited. One that may not be shared
//! (it sets a cookie, says `private`, or is too large to be kept) sends everybody to ask for themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_policy::coalesce::{Coalescer, Config, Counts, Flight, Handle, Join, Left};
use plimsoll_policy::{InvalidConfig, Time};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::{Kept, OwnAnswer};

/// What a call has brought.
#[derive(Clone, Debug)]
pub enum Shared {
    /// An answer.
    Answer(Arc<Kept>),
    /// None, and this in its place.
    Own(OwnAnswer),
    /// Nothing that may be shared.
    Alone,
}

/// The flights of one target.
#[derive(Debug)]
pub struct Sharing(Mutex<State>);

#[derive(Debug)]
struct State {
    flights: Coalescer<oneshot::Sender<Shared>>,
    /// The tasks that make the calls.
    tasks: BTreeMap<u64, AbortHandle>,
}

/// One who waits. Dropped, it leaves.
#[derive(Debug)]
pub struct Waiter {
    sharing: Arc<Sharing>,
    flight: Flight,
    handle: Handle,
    /// What comes.
    pub receiver: oneshot::Receiver<Shared>,
}

/// What a request does.
#[derive(Debug)]
pub enum Joined {
    /// It waits.
    Waits(Waiter),
    /// It waits, and the call is to be made.
    Leads(Waiter, Flight),
    /// It makes a call of its own.
    Alone,
}

impl Sharing {
    /// No flights.
    pub fn new() -> Result<Sharing, InvalidConfig> {
        let flights = Coalescer::new(Config::default())?;
        Ok(Sharing(Mutex::new(State { flights, tasks: BTreeMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was shared so far.
    pub fn counts(&self) -> Counts {
        self.lock().flights.counts()
    }

    /// Joins the flight of a key, or begins one.
    pub fn join(self: &Arc<Self>, now: Time, key: u64) -> Joined {
        let (sender, receiver) = oneshot::channel();
        let waiter = |flight, handle| Waiter { sharing: self.clone(), flight, handle, receiver };
        match self.lock().flights.join(now, key, sender) {
            Join::Start(flight, handle) => Joined::Leads(waiter(flight, handle), flight),
            Join::Joined(flight, handle) => Joined::Waits(waiter(flight, handle)),
            Join::Alone => Joined::Alone,
        }
    }

    /// The task that makes a flight's call.
    pub fn made_by(&self, flight: Flight, task: AbortHandle) {
        // Flights of one key follow one another: the newest has the place.
        self.lock().tasks.insert(flight.key, task);
    }

    /// A flight that is about to be made. Whoever waits is told once it is dropped, however that comes about.
    pub fn landing(self: &Arc<Self>, flight: Flight) -> Landing {
        Landing { sharing: self.clone(), flight, shared: Shared::Alone }
    }
}

/// Tells all who wait, however the call's task ends.
#[derive(Debug)]
pub struct Landing {
    sharing: Arc<Sharing>,
    flight: Flight,
    /// What they are told.
    pub shared: Shared,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut state = self.sharing.lock();
        let shared = &self.shared;
        let waited = state.flights.finish(self.flight, |sender| {
            let _ = sender.send(shared.clone());
        });
        if waited > 0 {
            state.tasks.remove(&self.flight.key);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.sharing.lock();
        let last = matches!(state.flights.leave(self.flight, self.handle), Left::Last(_));
        let task = if last { state.tasks.remove(&self.flight.key) } else { None };
        drop(state);
        if let Some(task) = task {
            task.abort();
        }
    }
}
