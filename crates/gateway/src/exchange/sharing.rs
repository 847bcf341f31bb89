//! Reads that want the same at once share one call.
//!
//! The call is nobody's in particular: whoever came first may leave, and it goes on for the others; with the
//! last of them it is called off. Its answer, an error too, is for all who waited. One that may not be shared
//! (it sets a cookie, says `private`, or is too large to be kept) sends everybody to ask for themselves.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_policy::coalesce::{Coalescer, Config, Counts, Flight, Handle, Join, Left};
use plimsoll_policy::{InvalidConfig, Time};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

use super::answer::OwnAnswer;
use super::cached::{self, Kept};
use super::fetch::{Fetched, Outgoing, Tried, discard, fetch};
use super::hedge::Nobody;
use crate::core::{Core, Current};
use crate::net::Alarm;
use crate::upstream::call::Ended;

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

/// A call that is made for others, as [`Sharing::fly`] needs it.
pub struct Call {
    /// The plan that it is made by.
    pub current: Rc<Current>,
    /// The route.
    pub route: usize,
    /// The head for the upstream.
    pub head: Vec<u8>,
    /// `GET` or `HEAD`.
    pub method: &'static str,
    /// For balancing.
    pub key: u64,
    /// What is asked for.
    pub id: String,
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

    /// Makes a flight's call.
    pub fn fly(self: &Arc<Self>, core: &Rc<Core>, flight: Flight, call: Call) {
        let landing = Landing { sharing: self.clone(), flight, shared: Shared::Alone };
        let core = core.clone();
        let task = spawn_local(async move {
            let mut landing = landing;
            landing.shared = call.make(&core).await;
        });
        let mut state = self.lock();
        // Flights of one key follow one another: the newest has the place.
        state.tasks.insert(flight.key, task.abort_handle());
    }
}

/// Tells all who wait, however the call's task ends.
struct Landing {
    sharing: Arc<Sharing>,
    flight: Flight,
    shared: Shared,
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

impl Call {
    async fn make(mut self, core: &Rc<Core>) -> Shared {
        let plan = &self.current.live.plan;
        let now = core.clock.now();
        let timeout = plan.serving.limits.body_timeout;
        let mut alarm = Alarm::new(core.clock, now.plus_nanos(timeout));
        let route = &plan.routes[self.route];
        let outgoing = Outgoing {
            head: &mut self.head,
            deadline_field: &plan.serving.headers.deadline,
            body: &[],
            streamed: false,
            method: self.method,
            upgrade: false,
            hedges: plan.targets[route.target].policies.pipeline.hedge.is_some(),
            repeatable: route.repeatable,
            caller_deadline: None,
            key: self.key,
        };
        let upstream = &self.current.live.upstreams[route.target];
        let mut tried = Tried::default();
        let (mut call, fetched) = fetch(core, upstream, outgoing, &mut Nobody, &mut alarm, now, &mut tried).await;
        let shared = match fetched {
            Fetched::Answer(mut answered, slot) => {
                let whole = match answered.private {
                    true => None,
                    false => cached::whole(&mut answered, &self.id, &mut alarm, core.clock, timeout).await,
                };
                let ended = Ended::Answered(answered.status, answered.retry_after);
                let (end, at) = (core.clock.now(), answered.at);
                call.settle(slot, end, at, ended, core.random.bits());
                discard(core, *answered, end);
                whole.map_or(Shared::Alone, |kept| Shared::Answer(Arc::new(kept)))
            }
            Fetched::Own(own) => Shared::Own(own),
            Fetched::Body(_) => Shared::Alone,
        };
        core.put_head(self.head);
        shared
    }
}
