//! How a request gets to its worker: through the middleware's layers, in the simulation's order: quota, adaptive
//! limit, bulkhead, a seat or a place in the queue.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::task::{Context as Waker, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use plimsoll_gateway::redis::Script;
use plimsoll_middleware::{
    ConcurrencyConfig, ConcurrencyLayer, DeadlineLayer, HeldBody, RateLimitLayer, RequestDeadline, ShedConfig,
    ShedLayer,
};
use plimsoll_model::run::EventKind;
use plimsoll_model::system::{RateLimitKey, Service};
use plimsoll_policy::rate_limit::StoreDown;
use plimsoll_policy::{InvalidConfig, deadline};
use tower_layer::Layer;
use tower_service::Service as Tower;

use super::Instance;
use super::store::What;
use crate::answer::Answer;
use crate::context::Context;
use crate::tally::Held;
use crate::wire::resp::Value;
use crate::wire::server::Boxed;

/// What answers a request.
pub(super) type Next = Arc<dyn Fn(Request<Bytes>) -> Boxed<Response<Bytes>> + Send + Sync>;

/// On requests: what they are for.
#[derive(Clone)]
pub(super) enum Asked {
    /// A health check.
    Probe,
    /// An endpoint, with the request's context.
    Endpoint(u32, Context),
}

/// On requests that wait.
#[derive(Clone)]
pub(super) struct Queued(#[allow(dead_code, reason = "it is there to be dropped")] Arc<Held>);

/// The layers.
pub(super) struct Admission {
    seat: Next,
    /// By endpoint.
    all: Vec<Next>,
    /// What limits the requests at work.
    pub(super) resource: &'static str,
}

#[derive(Clone)]
struct Adapted(Next);

impl Tower<Request<Bytes>> for Adapted {
    type Response = Response<Bytes>;
    type Error = Infallible;
    type Future = Boxed<Result<Response<Bytes>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Waker<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = (self.0)(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// A body that has come whole.
trait Whole {
    fn bytes(self) -> Bytes;
}

impl Whole for Bytes {
    fn bytes(self) -> Bytes {
        self
    }
}

impl Whole for HeldBody<Bytes> {
    fn bytes(self) -> Bytes {
        self.into_inner()
    }
}

/// Puts a layer around.
fn around<L, B>(layer: L, next: Next) -> Next
where
    L: Layer<Adapted>,
    L::Service: Tower<Request<Bytes>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Tower<Request<Bytes>>>::Future: Send + 'static,
    B: Whole,
{
    let service = layer.layer(Adapted(next));
    Arc::new(move |request| {
        let answer = service.clone().call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => response.map(Whole::bytes),
                Err(never) => match never {},
            }
        })
    })
}

/// Refuses what a policy refuses.
pub(super) fn check(service: &Service) -> Result<(), InvalidConfig> {
    layers(service, Arc::new(|_| Box::pin(async { Response::default() }))).map(drop)
}

fn layers(service: &Service, work: Next) -> Result<(Next, Vec<Next>), InvalidConfig> {
    let most = if service.asynchronous { service.max_in_flight } else { service.workers };
    let shed = ShedLayer::new(ShedConfig { in_flight_max: most, queue: service.queue })?;
    let class = |parts: &Parts| match parts.extensions.get() {
        Some(Asked::Endpoint(_, context)) => context.class,
        _ => 0,
    };
    let mut seat = around(shed.class(class), work);
    if service.stops_when_cancelled {
        seat = around(DeadlineLayer::new(deadline::Config::default())?, seat);
    }
    let limit = match service.limit {
        Some(limit) => {
            let config = ConcurrencyConfig { adaptive_limit: Some(limit), bulkhead: None };
            Some(ConcurrencyLayer::new(config)?)
        }
        None => None,
    };
    let bulkhead =
        |bulkhead| ConcurrencyLayer::new(ConcurrencyConfig { adaptive_limit: None, bulkhead: Some(bulkhead) });
    let groups = service.bulkheads.iter().map(|group| bulkhead(group.config)).collect::<Result<Vec<_>, _>>()?;
    let quota = match &service.rate_limit {
        Some(limit) if limit.store.is_none() => {
            let per = limit.per;
            let key = move |parts: &Parts| {
                let Some(Asked::Endpoint(endpoint, context)) = parts.extensions.get() else { return None };
                Some(quota_key(per, *endpoint, context).to_le_bytes().to_vec())
            };
            Some(RateLimitLayer::new(limit.config)?.key(key))
        }
        _ => None,
    };
    let all = (0..service.endpoints.len() as u32).map(|endpoint| {
        let mut next = seat.clone();
        if let Some(at) = service.bulkheads.iter().position(|group| group.endpoints.contains(&endpoint)) {
            next = around(groups[at].clone(), next);
        }
        if let Some(limit) = &limit {
            next = around(limit.clone(), next);
        }
        if let Some(quota) = &quota {
            next = around(quota.clone(), next);
        }
        next
    });
    Ok((seat.clone(), all.collect()))
}

fn quota_key(per: RateLimitKey, endpoint: u32, context: &Context) -> u64 {
    match per {
        RateLimitKey::User => context.user_key(),
        RateLimitKey::Client => u64::from(context.client),
        RateLimitKey::Endpoint => u64::from(endpoint),
        RateLimitKey::All => 0,
    }
}

impl Admission {
    /// The layers around what a worker does. [`check`] has seen to it that they can be made.
    pub(super) fn new(service: &Service, work: Next) -> Admission {
        let resource = if service.asynchronous { "max_in_flight" } else { "workers" };
        let (seat, all) = layers(service, work.clone()).unwrap_or((work, Vec::new()));
        Admission { seat, all, resource }
    }

    /// A request for an endpoint, through all of them.
    pub(super) async fn admit(
        &self,
        instance: &Instance,
        mut request: Request<Bytes>,
        endpoint: u32,
        mut context: Context,
    ) -> Response<Bytes> {
        if let Some(class) = instance.spec().endpoints[endpoint as usize].class {
            context.class = class;
        }
        let waits = Held::new(&instance.process.tools.tally, instance.of, "queue");
        request.extensions_mut().insert(Asked::Endpoint(endpoint, context));
        request.extensions_mut().insert(Queued(Arc::new(waits)));
        (self.all[endpoint as usize])(request).await
    }

    /// A request for a worker alone.
    pub(super) async fn seat(&self, request: Request<Bytes>) -> Response<Bytes> {
        (self.seat)(request).await
    }
}

/// Until when the caller waits, ns, where the service minds.
pub(super) fn deadline(instance: &Instance, request: &Request<Bytes>) -> Option<u64> {
    let left = RequestDeadline::of(request.extensions()).remaining()?;
    let now = instance.process.tools.clock.now().as_nanos();
    Some(now.saturating_add(plimsoll_policy::nanos(left)))
}

/// A unit of a quota whose counts the instances share in a store.
pub(super) async fn shared_quota(instance: &Instance, endpoint: u32, context: &Context) -> Result<(), Answer> {
    let Some(limit) = &instance.spec().rate_limit else { return Ok(()) };
    let Some((_, edge)) = limit.store else { return Ok(()) };
    let Some(end) = instance.stores.get(&edge) else { return Ok(()) };
    let key = format!("{:x}", quota_key(limit.per, endpoint, context));
    let what = What::Quota(key.into_bytes(), Script::new(&instance.spec().name, &limit.config));
    match end.ask(what, context.below(QUOTA), None).await {
        Ok(got) if matches!(got.value, Some(Value::Number(..0))) => Ok(()),
        Ok(_) => Err(Answer::TooMany),
        Err(_) if limit.config.store_down == StoreDown::FailClosed => Err(Answer::Unavailable),
        Err(_) => Ok(()),
    }
}

const QUOTA: u64 = 5 << 40;

/// Tells the degradation ladder how busy the instance is, for ever: as often as the simulation does.
pub(super) async fn observe(instance: Arc<Instance>) {
    let Some(ladder) = &instance.ladder else { return };
    let service = instance.spec();
    let names: Vec<String> =
        service.degradation.iter().flat_map(|of| of.levels.iter().map(|level| level.name.clone())).collect();
    let tally = &instance.process.tools.tally;
    let mut before = tally.areas(instance.of);
    let mut at = instance.process.tools.clock.now();
    loop {
        tokio::time::sleep(OBSERVE).await;
        let now = instance.process.tools.clock.now();
        let areas = tally.areas(instance.of);
        let length = now.nanos_since(at).max(1) as f64;
        let share = |name: &str, capacity: u32| {
            let of = |areas: &std::collections::BTreeMap<&'static str, f64>| areas.get(name).copied().unwrap_or(0.0);
            (of(&areas) - of(&before)).max(0.0) / length / f64::from(capacity.max(1))
        };
        let cores = share("cores", service.cores);
        let pressure = if service.asynchronous { cores } else { cores.max(share("workers", service.workers)) };
        (before, at) = (areas, now);
        let change = {
            let mut ladder = ladder.lock().unwrap_or_else(PoisonError::into_inner);
            ladder.on_wake(now);
            ladder.observe(now, pressure)
        };
        if let Some(change) = change {
            let (kind, text) = match change.to.checked_sub(1).and_then(|level| names.get(level)) {
                Some(name) if change.to > change.from => {
                    (EventKind::Degraded, format!("up to level {}, {name}", change.to))
                }
                Some(name) => (EventKind::Restored, format!("down to level {}, {name}", change.to)),
                None => (EventKind::Restored, "back to full service".to_owned()),
            };
            instance.happened(kind, format!("{text}, at {:.0}% utilization", pressure * 100.0));
        }
    }
}

const OBSERVE: Duration = Duration::from_millis(500);
