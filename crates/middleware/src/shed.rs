//! Load shedding: at most so many requests at work, and a queue for the others that drops what is not worth serving.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use plimsoll_policy::shed::{self, Push, ShedQueue};
use plimsoll_policy::{InvalidConfig, Reason, Time};
use tokio::sync::oneshot;
use tower_layer::Layer;

use crate::clock::Clock;
use crate::deadline::RequestDeadline;
use crate::error::{Error, refuse};
use crate::guard::{Guard, Guarded};
use crate::held::Permit;
use crate::lock;

/// How many requests are at work, and how the others wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShedConfig {
    /// Requests at work at once; there is no default, since it is the service's own capacity.
    pub in_flight_max: u32,
    /// Those that wait.
    pub queue: shed::Config,
}

impl ShedConfig {
    /// `in_flight_max` at work, and a queue with CoDel, since a layer for shedding is there to shed.
    pub fn new(in_flight_max: u32) -> ShedConfig {
        let queue = shed::Config { discipline: shed::Discipline::CoDel, ..shed::Config::default() };
        ShedConfig { in_flight_max, queue }
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        if self.in_flight_max == 0 {
            return Err(InvalidConfig { field: "in_flight_max", expected: "at least 1" });
        }
        Ok(())
    }
}

type Class = Arc<dyn Fn(&Parts) -> u8 + Send + Sync>;
type Verdict = Result<(), Reason>;

/// Sheds load. What is shed is answered with 503, what waited past its deadline with 504. A request is at work until its
/// response's body has ended or is dropped.
#[derive(Clone)]
pub struct ShedLayer {
    shared: Arc<Shared>,
    class: Option<Class>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    queue: ShedQueue<oneshot::Sender<Verdict>>,
    in_flight: u32,
    in_flight_max: u32,
    late: u64,
}

impl fmt::Debug for ShedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShedLayer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl ShedLayer {
    /// Refuses to have nobody at work, and targets out of order.
    pub fn new(config: ShedConfig) -> Result<ShedLayer, InvalidConfig> {
        config.check()?;
        let state =
            State { queue: ShedQueue::new(config.queue)?, in_flight: 0, in_flight_max: config.in_flight_max, late: 0 };
        Ok(ShedLayer { shared: Arc::new(Shared { state: Mutex::new(state), clock: Clock::start() }), class: None })
    }

    /// A request's priority class, from 0, the most important, to 7. Without it all are of class 0.
    pub fn class(mut self, class: impl Fn(&Parts) -> u8 + Send + Sync + 'static) -> ShedLayer {
        self.class = Some(Arc::new(class));
        self
    }

    /// Changes the configuration and reads counts while the layer runs.
    pub fn handle(&self) -> ShedHandle {
        ShedHandle(self.shared.clone())
    }
}

/// A running [`ShedLayer`].
#[derive(Clone, Debug)]
pub struct ShedHandle(Arc<Shared>);

/// What a [`ShedLayer`] has done, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShedSnapshot {
    /// What the queue has done; a request that finds a free place does not get there.
    pub counts: shed::Counts,
    /// Requests that left the queue at their deadline, before the queue dropped them.
    pub late: u64,
    /// Requests at work.
    pub in_flight: u32,
    /// Requests that wait.
    pub waiting: usize,
    /// Whether a class is overloaded.
    pub overloaded: bool,
}

impl ShedHandle {
    /// Replaces the configuration; what waits stays.
    pub fn set_config(&self, config: ShedConfig) -> Result<(), InvalidConfig> {
        config.check()?;
        let mut state = lock(&self.0.state);
        state.queue.set_config(config.queue)?;
        state.in_flight_max = config.in_flight_max;
        state.fill(self.0.clock.now());
        Ok(())
    }

    /// What was done so far, and how it stands.
    pub fn snapshot(&self) -> ShedSnapshot {
        let state = lock(&self.0.state);
        ShedSnapshot {
            counts: *state.queue.counts(),
            late: state.late,
            in_flight: state.in_flight,
            waiting: state.queue.len(),
            overloaded: state.queue.is_overloaded(),
        }
    }
}

impl State {
    /// Gives free places to those that wait.
    fn fill(&mut self, now: Time) {
        while self.in_flight < self.in_flight_max && !self.queue.is_empty() {
            let next = self.queue.pop(now, |waiter, reason| {
                let _ = waiter.send(Err(reason));
            });
            let Some(next) = next else { return };
            // Who has gone takes no place.
            self.in_flight += u32::from(next.send(Ok(())).is_ok());
        }
    }
}

impl Shared {
    /// A place among those at work, or in the queue.
    fn admit(self: &Arc<Self>, now: Time, class: u8, deadline: Time) -> Result<Place, Reason> {
        let mut state = lock(&self.state);
        if state.in_flight < state.in_flight_max && state.queue.is_empty() {
            state.in_flight += 1;
            return Ok(Place { shared: self.clone(), waiting: None, working: true });
        }
        let (sender, receiver) = oneshot::channel();
        let handle = match state.queue.push(now, sender, class, deadline) {
            Push::Queued(handle) => handle,
            Push::Displaced { handle, item, reason } => {
                let _ = item.send(Err(reason));
                handle
            }
            Push::Rejected(_) => return Err(Reason::Shed),
        };
        Ok(Place { shared: self.clone(), waiting: Some((handle, receiver)), working: false })
    }
}

/// A place, which is given up with it.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    waiting: Option<(shed::Handle, oneshot::Receiver<Verdict>)>,
    working: bool,
}

impl Place {
    /// Waits for a place among those at work.
    async fn seated(&mut self, deadline: Time) -> Result<(), Reason> {
        let Some((_, receiver)) = &mut self.waiting else { return Ok(()) };
        let mut timer = std::pin::pin!(self.shared.clock.sleep_until(deadline));
        let mut receiver = std::pin::pin!(receiver);
        std::future::poll_fn(|cx| match receiver.as_mut().poll(cx) {
            Poll::Ready(verdict) => Poll::Ready(verdict.unwrap_or(Err(Reason::Shed))),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| {
                lock(&self.shared.state).late += 1;
                Err(Reason::DeadlineExceeded)
            }),
        })
        .await?;
        self.waiting = None;
        self.working = true;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if let Some((handle, receiver)) = &mut self.waiting {
            // One that was given a place just now has it, though nobody has told it.
            self.working = state.queue.remove(*handle).is_none() && matches!(receiver.try_recv(), Ok(Ok(())));
        }
        if self.working {
            state.in_flight -= 1;
            state.fill(self.shared.clock.now());
        }
    }
}

/// The service of a [`ShedLayer`].
pub type ShedService<S> = Guarded<S, ShedLayer>;

impl<S> Layer<S> for ShedLayer {
    type Service = ShedService<S>;

    fn layer(&self, inner: S) -> ShedService<S> {
        Guarded::new(inner, self.clone())
    }
}

/// A request that wants a place.
#[derive(Debug)]
pub struct Visit {
    class: u8,
    deadline: Time,
    place: Option<Place>,
}

impl Guard for ShedLayer {
    type Visit = Visit;

    fn arrive(&self, parts: &mut Parts) -> Visit {
        let class = self.class.as_ref().map_or(0, |class| class(parts));
        let deadline = self.shared.clock.deadline(RequestDeadline::of(&parts.extensions).instant()).time();
        Visit { class, deadline, place: None }
    }

    async fn admit(&self, visit: &mut Visit) -> Result<(), Response<Bytes>> {
        let refused = |reason| refuse(Error::reason(reason));
        let place = self.shared.admit(self.shared.clock.now(), visit.class, visit.deadline).map_err(refused)?;
        visit.place.insert(place).seated(visit.deadline).await.map_err(refused)
    }

    fn answered(&self, visit: Visit, _status: Option<StatusCode>) -> Permit {
        visit.place.map_or(Permit::none(), Permit::place)
    }
}
