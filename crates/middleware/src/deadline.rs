//! Deadline: until when a request's caller waits, told to its handler, which is dropped then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use plimsoll_policy::deadline::{Config, Deadline, Timeouts};
use plimsoll_policy::{Counts, InvalidConfig};
use tokio::time::Instant;
use tower_layer::Layer;

use crate::clock::{self, Clock};
use crate::error::{Error, refuse};
use crate::guard::{Guard, Guarded};
use crate::held::Permit;
use crate::lock;

/// The field with the milliseconds that the caller still waits, as the gateway names it. There is no standard.
pub const DEADLINE_FIELD: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// When a request's caller stops waiting: an extension of every request that passed a [`DeadlineLayer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDeadline(Option<Instant>);

impl RequestDeadline {
    /// No deadline.
    pub const NEVER: RequestDeadline = RequestDeadline(None);

    /// The deadline at an instant.
    pub const fn at(instant: Instant) -> RequestDeadline {
        RequestDeadline(Some(instant))
    }

    /// The point in time; `None` if there is no deadline.
    pub const fn instant(self) -> Option<Instant> {
        self.0
    }

    /// The time left, zero once it has passed; `None` if there is no deadline.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(clock::remaining)
    }

    /// The deadline that a request carries as an extension.
    pub fn of(extensions: &http::Extensions) -> RequestDeadline {
        extensions.get().copied().unwrap_or(RequestDeadline::NEVER)
    }
}

/// The milliseconds of a [`DEADLINE_FIELD`]; what is no plain number says nothing.
fn on_wire(value: &HeaderValue) -> Option<Duration> {
    let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))?;
    Some(Duration::from_millis(digits.parse().unwrap_or(u64::MAX)))
}

/// Gives requests their deadlines, and takes the time away from those that have none left.
///
/// The deadline is the earlier of the caller's and our own, from the request's arrival. What it is late for is
/// answered with 504, before the handler or by dropping it.
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    shared: Arc<Shared>,
    field: HeaderName,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    timeouts: Timeouts,
    overran: u64,
}

/// What a [`DeadlineLayer`] has decided so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadlineCounts {
    /// Requests that came in time and too late.
    pub arrived: Counts,
    /// Requests whose deadline passed while their handler was at work.
    pub overran: u64,
}

impl DeadlineLayer {
    /// Refuses a zero duration.
    pub fn new(config: Config) -> Result<DeadlineLayer, InvalidConfig> {
        let clock = Clock::start();
        let state = State { timeouts: Timeouts::new(config, clock.now())?, overran: 0 };
        Ok(DeadlineLayer { shared: Arc::new(Shared { state: Mutex::new(state), clock }), field: DEADLINE_FIELD })
    }

    /// Reads the caller's deadline from another field than [`DEADLINE_FIELD`].
    pub fn field(mut self, name: HeaderName) -> DeadlineLayer {
        self.field = name;
        self
    }

    /// Changes the configuration and reads counts while the layer runs.
    pub fn handle(&self) -> DeadlineHandle {
        DeadlineHandle(self.shared.clone())
    }
}

/// A running [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineHandle(Arc<Shared>);

impl DeadlineHandle {
    /// Replaces the configuration; requests under way keep their deadlines.
    pub fn set_config(&self, config: Config) -> Result<(), InvalidConfig> {
        lock(&self.0.state).timeouts.set_config(config, self.0.clock.now())
    }

    /// What was decided so far.
    pub fn counts(&self) -> DeadlineCounts {
        let state = lock(&self.0.state);
        DeadlineCounts { arrived: state.timeouts.counts(), overran: state.overran }
    }
}

/// The service of a [`DeadlineLayer`].
pub type DeadlineService<S> = Guarded<S, DeadlineLayer>;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        Guarded::new(inner, self.clone())
    }
}

/// A request's deadlines: the one that is enforced, and the one that is wanted, which shadow mode only counts. Or why it
/// came too late.
#[derive(Debug)]
pub struct Visit(Result<(Deadline, Deadline), Error>);

impl Guard for DeadlineLayer {
    type Visit = Visit;

    fn arrive(&self, parts: &mut Parts) -> Visit {
        let clock = self.shared.clock;
        let now = clock.now();
        let wire = parts.headers.get(&self.field).and_then(on_wire);
        let caller = wire.map_or(Deadline::NEVER, |remaining| Deadline::from_wire(now, remaining));
        // A layer further out may have set one too.
        let outer = RequestDeadline::of(&parts.extensions);
        let caller = caller.min(clock.deadline(outer.instant()));
        let timeouts = &mut lock(&self.shared.state).timeouts;
        let total = timeouts.start(now, caller);
        let admitted = timeouts.attempt(now, total);
        // In shadow mode nothing is enforced, and nobody further in is told to act on it either.
        if let Ok(enforced) = admitted
            && (enforced != Deadline::NEVER || outer == RequestDeadline::NEVER)
        {
            parts.extensions.insert(RequestDeadline(clock.instant(enforced.time())));
        }
        let deadlines = admitted.map(|enforced| (enforced, total.min(enforced)));
        Visit(deadlines.map_err(|rejected| Error::rejected(rejected, now)))
    }

    async fn admit(&self, visit: &mut Visit) -> Result<(), Response<Bytes>> {
        visit.0.map(|_| ()).map_err(refuse)
    }

    fn until(&self, visit: &Visit) -> Option<Instant> {
        let (enforced, _) = visit.0.ok()?;
        self.shared.clock.instant(enforced.time())
    }

    fn answered(&self, visit: Visit, _status: Option<StatusCode>) -> Permit {
        // In shadow mode the handler goes on past its deadline, and is counted here.
        if visit.0.is_ok_and(|(_, wanted)| wanted.has_passed(self.shared.clock.now())) {
            lock(&self.shared.state).overran += 1;
        }
        Permit::none()
    }

    fn overran(&self, _visit: Visit) {
        lock(&self.shared.state).overran += 1;
    }
}
