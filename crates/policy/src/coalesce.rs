//! Request coalescing (single flight): callers that want the same thing share one call.
//!
//! ```text
//!   join ──► Start ──► call under way ──► finish: everyone gets the result
//!   join ──► Joined ──────┤
//!                         ├─ caller_failed: that caller alone gets its error, the next one leads
//!                         ├─ lost (or the lease ran out): a new call for the same callers
//!                         └─ leave by the last: cancel the call
//! ```
//!
//! The flight owns its context: whoever started it may leave, and the call goes on for the others;
//! its deadline and cancellation are the flight's, not the first caller's. An error that belongs to one
//! caller (its deadline, its credentials) is not handed to the others. Every call carries a number, so
//! that one that was given up on cannot finish its successor's flight.

use std::collections::VecDeque;
use std::time::Duration;

pub use crate::linked::Handle;

use crate::keyed::Keyed;
use crate::linked::{List, Slab};
use crate::{InvalidConfig, Mode, Time, nanos};

/// How much may be shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Keys with a call under way; past it, callers go alone. Default: 10,000.
    pub flights_max: u32,
    /// Callers that share one call; past it, callers go alone. Default: 1,000.
    pub callers_max: u32,
    /// How long a call may take before it counts as lost. Default: 30 s, above any sensible timeout:
    /// it catches calls whose end nobody reports, not slow ones.
    pub lease: Duration,
    /// New calls that one flight gets after lost ones. Default: 2.
    pub restarts_max: u32,
    /// Shadow: count who would have joined, and let everyone go alone.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            flights_max: 10_000,
            callers_max: 1_000,
            lease: Duration::from_secs(30),
            restarts_max: 2,
            mode: Mode::Enforce,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if self.flights_max == 0 {
            return refuse("flights_max", "at least 1");
        }
        if self.callers_max == 0 {
            return refuse("callers_max", "at least 1");
        }
        if nanos(self.lease) == 0 {
            return refuse("lease", "above zero");
        }
        Ok(())
    }
}

/// One call for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    /// What it fetches.
    pub key: u64,
    number: u64,
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Join {
    /// Start the flight's call; the caller shares its result like any other.
    Start(Flight, Handle),
    /// Wait for the flight's result.
    Joined(Flight, Handle),
    /// Make a call of one's own and share nothing: the table or the flight is full, or
    /// [`Mode::Shadow`].
    Alone,
}

/// What a caller's leaving means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left<W> {
    /// Others wait for it: it goes on.
    Flying(W),
    /// Nobody waits for it: cancel it.
    Last(W),
    /// The flight is over, or the caller had left.
    Gone,
}

/// What follows a call that brought nothing to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Start this call in its place.
    Restart(Flight),
    /// Enough calls were lost: finish this flight with an error.
    GiveUp(Flight),
    /// There is nothing to do: nobody waits, or the call was given up on before.
    Nothing,
}

/// What was shared so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that began a flight.
    pub started: u64,
    /// Callers that needed no call of their own.
    pub joined: u64,
    /// Callers that went alone because of a bound.
    pub alone: u64,
    /// Calls that replaced a lost one or one that failed for its own caller.
    pub restarted: u64,
    /// Callers that would have joined, in [`Mode::Shadow`].
    pub shadowed: u64,
}

#[derive(Clone, Debug)]
struct State {
    number: u64,
    callers: List,
    restarts: u32,
}

#[derive(Clone, Debug)]
struct Caller<W> {
    flight: u64,
    waiter: W,
}

/// Shares calls between callers `W`, by key.
#[derive(Clone, Debug)]
pub struct Coalescer<W> {
    config: Config,
    flights: Keyed<State>,
    callers: Slab<Caller<W>>,
    /// In the order of their ends; flights that are over are skipped.
    leases: VecDeque<(Time, Flight)>,
    last_number: u64,
    counts: Counts,
}

impl<W> Coalescer<W> {
    /// No flights.
    pub fn new(config: Config) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(Coalescer {
            config,
            flights: Keyed::new(),
            callers: Slab::new(),
            leases: VecDeque::new(),
            last_number: 0,
            counts: Counts::default(),
        })
    }

    /// A caller wants `key`; `waiter` is how to reach it.
    pub fn join(&mut self, now: Time, key: u64, waiter: W) -> Join {
        if let Some(state) = self.flights.get_mut(key) {
            if self.config.mode == Mode::Shadow {
                self.counts.shadowed += 1;
                return Join::Alone;
            }
            if state.callers.len() >= self.config.callers_max as usize {
                self.counts.alone += 1;
                return Join::Alone;
            }
            let number = state.number;
            let caller = Caller { flight: key, waiter };
            let handle = self.callers.push_back(&mut state.callers, caller);
            self.counts.joined += 1;
            return Join::Joined(Flight { key, number }, handle);
        }
        if self.flights.len() >= self.config.flights_max as usize {
            self.counts.alone += 1;
            return Join::Alone;
        }
        let flight = self.launch(now, key);
        let mut callers = List::EMPTY;
        let handle = self.callers.push_back(&mut callers, Caller { flight: key, waiter });
        self.flights.insert_new(key, State { number: flight.number, callers, restarts: 0 });
        self.counts.started += 1;
        Join::Start(flight, handle)
    }

    /// A call has ended with something to share, a value or an error of the origin's. Everyone who
    /// waits is passed to `each`; how many those were. A call that was given up on reaches nobody.
    pub fn finish(&mut self, flight: Flight, mut each: impl FnMut(W)) -> usize {
        if self.state(flight).is_none() {
            return 0;
        }
        let Some(mut state) = self.flights.remove(flight.key) else {
            return 0;
        };
        let count = state.callers.len();
        while let Some(caller) = self.callers.pop_front(&mut state.callers) {
            each(caller.waiter);
        }
        count
    }

    /// A call has failed for reasons of the caller it was made for (its deadline, its rights): that
    /// caller leaves with its error, and the others get another call.
    pub fn caller_failed(&mut self, now: Time, flight: Flight, caller: Handle) -> (Option<W>, Next) {
        if self.state(flight).is_none() {
            return (None, Next::Nothing);
        }
        match self.leave(flight, caller) {
            Left::Last(waiter) => (Some(waiter), Next::Nothing),
            // Not counted as lost: each such failure has cost the flight one caller.
            Left::Flying(waiter) => (Some(waiter), self.relaunch(now, flight)),
            Left::Gone => (None, self.relaunch(now, flight)),
        }
    }

    /// A call will never end: its process has gone. The callers get another, up to `restarts_max`.
    pub fn lost(&mut self, now: Time, flight: Flight) -> Next {
        let restarts_max = self.config.restarts_max;
        let Some(state) = self.state(flight) else {
            return Next::Nothing;
        };
        if state.restarts >= restarts_max {
            return Next::GiveUp(flight);
        }
        state.restarts += 1;
        self.relaunch(now, flight)
    }

    /// A caller stops waiting.
    pub fn leave(&mut self, flight: Flight, caller: Handle) -> Left<W> {
        if self.callers.get(caller).is_none_or(|c| c.flight != flight.key) {
            return Left::Gone;
        }
        // The call may have been replaced since this caller joined; it waits for the successor.
        let Some(state) = self.flights.get_mut(flight.key) else {
            return Left::Gone;
        };
        let Some(caller) = self.callers.remove(&mut state.callers, caller) else {
            return Left::Gone;
        };
        if state.callers.is_empty() {
            self.flights.remove(flight.key);
            return Left::Last(caller.waiter);
        }
        Left::Flying(caller.waiter)
    }

    /// When the next lease may run out.
    pub fn next_wake(&self) -> Option<Time> {
        self.leases.front().map(|(at, _)| *at)
    }

    /// A call whose lease has run out, to be passed to [`lost`](Self::lost). Call until `None`.
    pub fn next_expired(&mut self, now: Time) -> Option<Flight> {
        while let Some(&(at, flight)) = self.leases.front() {
            let over = self.state(flight).is_none();
            if !over && at > now {
                return None;
            }
            self.leases.pop_front();
            if !over {
                return Some(flight);
            }
        }
        None
    }

    /// Calls under way.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Callers that wait for a flight's result.
    pub fn waiting(&self, key: u64) -> usize {
        self.flights.get(key).map_or(0, |s| s.callers.len())
    }

    /// What was shared so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the settings; flights go on, with the leases they have.
    pub fn set_config(&mut self, config: Config) -> Result<(), InvalidConfig> {
        config.check()?;
        self.config = config;
        Ok(())
    }

    fn state(&mut self, flight: Flight) -> Option<&mut State> {
        self.flights.get_mut(flight.key).filter(|s| s.number == flight.number)
    }

    fn relaunch(&mut self, now: Time, flight: Flight) -> Next {
        let next = self.launch(now, flight.key);
        let Some(state) = self.flights.get_mut(flight.key) else {
            return Next::Nothing;
        };
        state.number = next.number;
        self.counts.restarted += 1;
        Next::Restart(next)
    }

    fn launch(&mut self, now: Time, key: u64) -> Flight {
        self.last_number += 1;
        let flight = Flight { key, number: self.last_number };
        // Leases of flights that are over leave with the next launch, so that the queue stays as
        // short as the calls under way.
        while let Some(&(_, first)) = self.leases.front() {
            if self.state(first).is_some() {
                break;
            }
            self.leases.pop_front();
        }
        self.leases.push_back((now + self.config.lease, flight));
        flight
    }
}
