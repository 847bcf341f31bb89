//! Deadline: until when a request's caller waits, told to its handler, which is dropped then.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use plimsoll_policy::deadline::{Config, Deadline, Timeouts};
use plimsoll_policy::{Counts, InvalidConfig};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::{self, Clock};
use crate::error::{Error, refuse};
use crate::{BoxFuture, lock, take_ready};

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

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner, layer: self.clone() }
    }
}

/// The service of a [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S, B, R> Service<Request<B>> for DeadlineService<S>
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let shared = self.layer.shared.clone();
        let clock = shared.clock;
        let now = clock.now();
        let wire = request.headers().get(&self.layer.field).and_then(on_wire);
        let caller = wire.map_or(Deadline::NEVER, |remaining| Deadline::from_wire(now, remaining));
        // A layer further out may have set one too.
        let caller = caller.min(clock.deadline(RequestDeadline::of(request.extensions()).instant()));
        let admitted = {
            let timeouts = &mut lock(&shared.state).timeouts;
            let total = timeouts.start(now, caller);
            timeouts.attempt(now, total).map(|enforced| (enforced, total.min(enforced)))
        };
        Box::pin(async move {
            let (enforced, wanted) = match admitted {
                Ok(deadlines) => deadlines,
                Err(rejected) => return Ok(refuse(Error::rejected(rejected, now))),
            };
            // In shadow mode nothing is enforced, and nobody further in is told to act on it either.
            if enforced != Deadline::NEVER || RequestDeadline::of(request.extensions()).0.is_none() {
                request.extensions_mut().insert(RequestDeadline(clock.instant(enforced.time())));
            }
            let mut handler = std::pin::pin!(inner.call(request));
            let mut timer = std::pin::pin!(clock.sleep_until(enforced.time()));
            let late = std::future::poll_fn(|cx| match handler.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
            });
            match late.await {
                Some(result) => {
                    // In shadow mode the handler goes on past its deadline, and is counted here.
                    if wanted.has_passed(clock.now()) {
                        lock(&shared.state).overran += 1;
                    }
                    result
                }
                None => {
                    lock(&shared.state).overran += 1;
                    Ok(Error::<S::Error>::TimedOut.to_response())
                }
            }
        })
    }
}
