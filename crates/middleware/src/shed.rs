//! Load shedding: at most so many requests at work, and a queue for the others that drops what is not worth serving.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use plimsoll_policy::shed::{self, Push, ShedQueue};
use plimsoll_policy::{InvalidConfig, Reason, Time};
use tokio::sync::oneshot;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::Clock;
use crate::deadline::RequestDeadline;
use crate::error::{Error, refuse};
use crate::{BoxFuture, lock, take_ready};

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

/// Sheds load. What is shed is answered with 503, what waited past its deadline with 504.
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
struct Place {
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

impl<S> Layer<S> for ShedLayer {
    type Service = ShedService<S>;

    fn layer(&self, inner: S) -> ShedService<S> {
        ShedService { inner, layer: self.clone() }
    }
}

/// The service of a [`ShedLayer`].
#[derive(Clone, Debug)]
pub struct ShedService<S> {
    inner: S,
    layer: ShedLayer,
}

impl<S, B, R> Service<Request<B>> for ShedService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<Bytes> + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let shared = self.layer.shared.clone();
        let (parts, body) = request.into_parts();
        let class = self.layer.class.as_ref().map_or(0, |class| class(&parts));
        let clock = shared.clock;
        let deadline = clock.deadline(RequestDeadline::of(&parts.extensions).instant()).time();
        Box::pin(async move {
            // Asked when it is polled, and not before: a future that nobody polls would keep its place.
            let mut place = match shared.admit(clock.now(), class, deadline) {
                Ok(place) => place,
                Err(reason) => return Ok(refuse(Error::reason(reason))),
            };
            match place.seated(deadline).await {
                Ok(()) => inner.call(Request::from_parts(parts, body)).await,
                Err(reason) => Ok(refuse(Error::reason(reason))),
            }
        })
    }
}
