//! The pipeline around a client.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use plimsoll_policy::pipeline::{Config, Next};
use plimsoll_policy::{InvalidConfig, Outcome, Time};
use tower_layer::Layer;
use tower_service::Service;

use crate::call::Call;
use crate::classify::{ByStatus, Classify};
use crate::deadline::RequestDeadline;
use crate::error::Error;
use crate::held::Permit;
use crate::requests::{Http, Requests};
use crate::shared::{Shared, Snapshot};
use crate::{BoxFuture, take_ready};

/// The policies around the calls to one target, in their one order: deadline, retry within a budget, breaker, rate
/// limit, adaptive limit, bulkhead, hedge.
///
/// `Q` knows requests, `C` results: by default those of HTTP. [`requests`](Self::requests) and
/// [`classify`](Self::classify) put others in their place.
#[derive(Clone)]
pub struct PipelineLayer<Q = Http, C = ByStatus> {
    shared: Arc<Shared>,
    requests: Q,
    classify: C,
}

impl<Q, C> fmt::Debug for PipelineLayer<Q, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineLayer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl PipelineLayer {
    /// A pipeline for HTTP. Refuses what any of its policies refuses.
    pub fn new(config: Config) -> Result<PipelineLayer, InvalidConfig> {
        Ok(PipelineLayer { shared: Shared::new(config)?, requests: Http, classify: ByStatus })
    }
}

impl<Q, C> PipelineLayer<Q, C> {
    /// Who says which requests are repeated.
    pub fn requests<Q2>(self, requests: Q2) -> PipelineLayer<Q2, C> {
        PipelineLayer { shared: self.shared, requests, classify: self.classify }
    }

    /// Who says what a result means.
    pub fn classify<C2>(self, classify: C2) -> PipelineLayer<Q, C2> {
        PipelineLayer { shared: self.shared, requests: self.requests, classify }
    }

    /// Changes the configuration and reads counts while the layer runs.
    pub fn handle(&self) -> PipelineHandle {
        PipelineHandle(self.shared.clone())
    }
}

/// A running [`PipelineLayer`].
#[derive(Clone, Debug)]
pub struct PipelineHandle(Arc<Shared>);

impl PipelineHandle {
    /// Replaces the configuration and keeps the state of every policy that stays; nothing changes if any part is
    /// invalid.
    pub fn set_config(&self, config: Config) -> Result<(), InvalidConfig> {
        self.0.set_config(config)
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.0.config()
    }

    /// What was decided so far, and how the policies stand.
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }
}

impl<S, Q: Clone, C: Clone> Layer<S> for PipelineLayer<Q, C> {
    type Service = PipelineService<S, Q, C>;

    fn layer(&self, inner: S) -> PipelineService<S, Q, C> {
        PipelineService { inner, layer: self.clone() }
    }
}

/// The service of a [`PipelineLayer`].
#[derive(Clone, Debug)]
pub struct PipelineService<S, Q = Http, C = ByStatus> {
    inner: S,
    layer: PipelineLayer<Q, C>,
}

impl<S, R, Q, C> Service<R> for PipelineService<S, Q, C>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    R: Send + 'static,
    Q: Requests<R> + Clone + Send + Sync + 'static,
    C: Classify<S::Response, S::Error> + Clone + Send + Sync + 'static,
{
    type Response = C::Held;
    type Error = Error<S::Error>;
    type Future = BoxFuture<Result<C::Held, Error<S::Error>>>;

    /// Ready when the client is. No policy is asked before there is a request.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let ready = take_ready(&mut self.inner);
        Box::pin(drive(ready, request, self.layer.clone()))
    }
}

/// What happened to the attempts that are out.
enum Event<T> {
    /// One has ended.
    Ended(usize, T),
    /// It is time to abort one, or to ask for another.
    Timer,
}

async fn drive<S, R, Q, C>(mut service: S, request: R, layer: PipelineLayer<Q, C>) -> Result<C::Held, Error<S::Error>>
where
    S: Service<R> + Clone,
    Q: Requests<R>,
    C: Classify<S::Response, S::Error>,
{
    let PipelineLayer { shared, requests, classify } = layer;
    let clock = shared.clock;
    // Before the first attempt has it: afterwards there is nothing left to repeat.
    let spare = shared.repeats().then(|| requests.repeat(&request)).flatten();
    let caller = clock.deadline(requests.deadline(&request).instant());
    let mut call = Call::new(shared, caller, spare.is_some(), requests.key(&request));
    let mut next_request = Some(request);
    loop {
        let Some(mut request) = next_request.take().or_else(|| requests.repeat(spare.as_ref()?)) else {
            return Err(Error::TimedOut);
        };
        call.attempt().await.map_err(|rejected| Error::rejected(rejected, clock.now()))?;
        announce(&requests, &mut request, &call, 0);
        // A hedge asks a client of its own. It becomes ready while the first attempt is out, and holds no permit.
        let mut extra = spare.is_some().then(|| service.clone());
        let mut first = std::pin::pin!(Some(service.call(request)));
        let mut extras: Vec<Option<Pin<Box<S::Future>>>> = Vec::new();
        let mut result = Err(Error::TimedOut);
        let retry_at = 'race: loop {
            let wake = wake(&call, extras.len() + 1);
            let event = {
                let mut timer = std::pin::pin!(clock.sleep_until(wake));
                std::future::poll_fn(|cx| {
                    if let Some(future) = first.as_mut().as_pin_mut()
                        && let Poll::Ready(result) = future.poll(cx)
                    {
                        return Poll::Ready(Event::Ended(0, result));
                    }
                    for (at, future) in extras.iter_mut().enumerate() {
                        if let Some(future) = future
                            && let Poll::Ready(result) = future.as_mut().poll(cx)
                        {
                            return Poll::Ready(Event::Ended(at + 1, result));
                        }
                    }
                    if wake == Time::MAX {
                        return Poll::Pending;
                    }
                    timer.as_mut().poll(cx).map(|()| Event::Timer)
                })
                .await
            };
            // An attempt itself goes first, and then its permit.
            let mut next = Next::Wait;
            match event {
                Event::Ended(slot, answer) => {
                    let reply = classify.classify(&answer);
                    if reply.outcome != Outcome::Failure
                        && let Ok(answer) = answer
                    {
                        first.set(None);
                        extras.clear();
                        return Ok(classify.hold(answer, Permit::call(call.answered(slot, reply))));
                    }
                    match slot {
                        0 => first.set(None),
                        slot => extras[slot - 1] = None,
                    }
                    result = answer.map_err(Error::Inner);
                    next = call.settle(slot, reply);
                }
                Event::Timer => {
                    let now = clock.now();
                    for slot in 0..=extras.len() {
                        if next == Next::Wait && call.abort_at(slot).has_passed(now) {
                            match slot {
                                0 => first.set(None),
                                slot => extras[slot - 1] = None,
                            }
                            result = Err(Error::TimedOut);
                            next = call.time_out(slot);
                        }
                    }
                }
            }
            match next {
                Next::Wait => {}
                Next::Retry { at } => break 'race at,
                // A failure that is the caller's answer has given its permit back: a retry had to be decided.
                Next::Done | Next::Exhausted(_) => {
                    return result.map(|answer| classify.hold(answer, Permit::none()));
                }
            }
            if call.hedge_at().is_some_and(|at| at <= clock.now()) {
                call.no_hedge();
                let Some(extra) = &mut extra else { continue };
                // One that is not ready by now would come too late to help.
                let ready = std::future::poll_fn(|cx| Poll::Ready(extra.poll_ready(cx))).await;
                if let Poll::Ready(Ok(())) = ready
                    && let Some(mut request) = spare.as_ref().and_then(|spare| requests.repeat(spare))
                    && let Some(slot) = call.hedge()
                {
                    announce(&requests, &mut request, &call, slot);
                    let mut ready = take_ready(extra);
                    extras.resize_with(slot, || None);
                    extras[slot - 1] = Some(Box::pin(ready.call(request)));
                }
            }
        };
        drop(extras);
        first.set(None);
        clock.sleep_until(retry_at).await;
        let Some(next) = extra else { return result.map(|answer| classify.hold(answer, Permit::none())) };
        service = next;
        ready(&mut service, clock.sleep_until(call.deadline().time())).await?;
    }
}

/// When the next attempt is to be aborted, or a hedge to be asked for.
fn wake(call: &Call, slots: usize) -> Time {
    let aborts = (0..slots).map(|slot| call.abort_at(slot).time());
    aborts.chain(call.hedge_at()).min().unwrap_or(Time::MAX)
}

fn announce<R>(requests: &impl Requests<R>, request: &mut R, call: &Call, slot: usize) {
    let deadline = call.abort_at(slot).time();
    if let Some(instant) = call.instant(deadline) {
        requests.announce(request, RequestDeadline::at(instant));
    }
}

/// Waits until a client is ready, without a permit, and no longer than the call may take.
async fn ready<S: Service<R>, R>(service: &mut S, end: impl Future<Output = ()>) -> Result<(), Error<S::Error>> {
    let mut end = std::pin::pin!(end);
    std::future::poll_fn(|cx| match service.poll_ready(cx) {
        Poll::Ready(ready) => Poll::Ready(ready.map_err(Error::Inner)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| Err(Error::TimedOut)),
    })
    .await
}
