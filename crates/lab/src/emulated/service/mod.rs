//! An instance of a service that has no process of its own yet: it takes requests as the service would, by the
//! middleware's layers, and does the described steps.

mod admission;
mod cache;
mod consume;
mod join;
mod lease;
mod pool;
mod publish;
mod store;
mod task;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use plimsoll_gateway::plan::router::{Found, Router};
use plimsoll_model::draw::duration;
use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Component, Dist, EdgeId, Service, ServiceId, ServiceKind, ZoneId};
use plimsoll_policy::idempotency::{Begin, Idempotency};
use plimsoll_policy::{Degradation, InvalidConfig, Mode, Reason};

use super::cores::Cores;
use super::{CannotRun, Process};
use crate::answer::{Answer, Took};
use crate::caller::End;
use crate::context::{Context, FORWARDED, WROTE};
use crate::control::{self, Controlled, Order, State};
use crate::layout::Place;
use crate::tally::{Held, Of};
use crate::wire::server::{Boxed, Handler, listen, serve};
use admission::{Admission, Asked};
use store::StoreEnd;
use task::Task;

/// An instance.
pub(super) struct Instance {
    process: Process,
    id: ServiceId,
    of: Of,
    name: String,
    number: u32,
    cores: Cores,
    router: Router,
    health: Vec<String>,
    ends: BTreeMap<EdgeId, Arc<End>>,
    stores: BTreeMap<EdgeId, Arc<StoreEnd>>,
    admission: Admission,
    idempotency: Option<Mutex<Idempotency<Answer>>>,
    ladder: Option<Mutex<Degradation>>,
    version: Option<(f64, f64)>,
    slow: Mutex<(f64, u64)>,
    ready: AtomicBool,
    ready_at: AtomicU64,
    in_flight: AtomicU64,
    /// The same of each of its bulkheads.
    in_bulkhead: Vec<AtomicU64>,
    held: AtomicU64,
    crash: Mutex<Option<(String, String)>>,
    /// One-way delay from gateways, which cannot add it themselves.
    gateway_delay: Option<Dist>,
    leaving: tokio::sync::Notify,
    /// Whether it is to go.
    draining: AtomicBool,
    /// How far its clock is ahead, ns.
    skew: AtomicI64,
}

/// On answers of the service's own: a layer that refused has put none there.
#[derive(Clone, Copy)]
struct Ran(Answer, u64);

pub(super) async fn run(
    process: Process,
    place: Place,
    service: u32,
    instance: u32,
    startup: u64,
    version: Option<(f64, f64)>,
) -> Result<(), CannotRun> {
    let spec = &process.system.services[service as usize];
    let policy = |why| CannotRun::Policy { about: spec.name.clone(), why };
    let of = Instance::new(process.clone(), ServiceId(service), instance, version).map_err(policy)?;
    let drain = spec.drain;
    let stops = spec.stops_when_cancelled;
    tokio::spawn(control::answer(place.control, process.tools.tally.clone(), of.clone()));
    process.tools.timer.wait(startup).await;
    let listener = listen(place.main)?;
    of.ready_at.store(process.tools.clock.now().as_nanos(), Ordering::Relaxed);
    of.ready.store(true, Ordering::Release);
    process.tools.tally.set_level(of.of, SERVING, 1);
    of.ends.values().for_each(|end| drop(tokio::spawn(end.clone().keep())));
    of.stores.values().for_each(|end| drop(tokio::spawn(end.clone().keep())));
    if spec.degradation.is_some() {
        tokio::spawn(admission::observe(of.clone()));
    }
    consume::start(&of);
    lease::start(&of);
    let serving = {
        let of = of.clone();
        tokio::spawn(serve(listener, stops, move || {
            let of = of.clone();
            let handler: Handler = Box::new(move |request| of.clone().answer(request));
            Some(handler)
        }))
    };
    of.leaving.notified().await;
    // Callers have been told; what is on its way here still finds it.
    let started = process.tools.clock.now();
    process.tools.timer.wait(LINGER.min(drain)).await;
    serving.abort();
    while of.in_flight.load(Ordering::Relaxed) > 0 && process.tools.clock.now().nanos_since(started) < drain {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What is not done by now is cut off, with the process. Otherwise the run hears the last of it.
    if of.in_flight.load(Ordering::Relaxed) == 0 {
        process.tools.timer.wait(LINGER).await;
    }
    Ok(())
}

/// The level that is 1 while an instance serves.
pub(crate) const SERVING: &str = "serving";

/// What an instance says of itself while it looks for rows that a failover lost.
pub(crate) const COUNTING: &str = "counting";

/// How long an instance that is to go still takes requests, ns.
const LINGER: u64 = 100_000_000;

impl Instance {
    fn new(
        process: Process,
        id: ServiceId,
        number: u32,
        version: Option<(f64, f64)>,
    ) -> Result<Arc<Instance>, InvalidConfig> {
        let system = process.system.clone();
        let service = &system.services[id.index()];
        let zone = zone_of(service, number);
        let of = Of::Instance(id.0, number);
        let mut router = Router::default();
        for (at, endpoint) in service.endpoints.iter().enumerate() {
            // Names that are no paths were refused before the run.
            let _ = router.add(&endpoint.name, at as u32);
        }
        let consumer = system.consumers.iter().position(|consumer| consumer.service == id);
        let mut ends = BTreeMap::new();
        let mut stores = BTreeMap::new();
        for (at, edge) in system.edges.iter().enumerate() {
            let from_here = match edge.from {
                Component::Service(from) => from == id,
                Component::Consumer(from) => Some(from.index()) == consumer,
                _ => false,
            };
            let at = EdgeId::from(at);
            match edge.to {
                Component::Service(_) if from_here => {
                    let places = process.layout.callees(&system, at, number);
                    let end = End::new(&system, at, &places, zone, true, process.tools.clone(), process.bits())?;
                    ends.insert(at, Arc::new(end));
                }
                Component::Store(_) if from_here => {
                    stores.insert(at, Arc::new(StoreEnd::new(&process, at, number, zone)?));
                }
                _ => {}
            }
        }
        let to_here = |edge: &&plimsoll_model::system::Edge| edge.to == Component::Service(id);
        let health =
            system.edges.iter().filter(to_here).filter_map(|edge| Some(edge.policies.health.as_ref()?.path.clone()));
        let from_gateway = system.edges.iter().position(|edge| {
            let gateway = |from: ServiceId| matches!(system.services[from.index()].kind, ServiceKind::Gateway(_));
            to_here(&edge) && matches!(edge.from, Component::Service(from) if gateway(from))
        });
        let gateway_delay = from_gateway.map(|edge| {
            let Component::Service(from) = system.edges[edge].from else { return Dist::Constant(0) };
            let from = zone_of(&system.services[from.index()], 0);
            crate::caller::network(&system, EdgeId::from(edge), from, zone).clone()
        });
        let clock = process.tools.clock;
        let cores = Cores::new(service.cores, process.tools.timer.clone());
        let idempotency = service.idempotency.map(Idempotency::new).transpose()?.map(Mutex::new);
        let ladder =
            service.degradation.as_ref().map(|of| Degradation::new(of.ladder.clone())).transpose()?.map(Mutex::new);
        admission::check(service)?;
        let instance = Arc::new_cyclic(|own: &std::sync::Weak<Instance>| {
            let own = own.clone();
            let work: admission::Next = Arc::new(move |request| {
                let own = own.upgrade();
                Box::pin(async move {
                    match own {
                        Some(own) => own.work(request).await,
                        None => Answer::Unavailable.response(0),
                    }
                })
            });
            Instance {
                admission: Admission::new(service, work),
                idempotency,
                ladder,
                id,
                of,
                name: crate::names::instance(&system, id.0, number),
                number,
                cores,
                router,
                health: health.collect(),
                ends,
                stores,
                version,
                slow: Mutex::new((1.0, 0)),
                ready: AtomicBool::new(false),
                ready_at: AtomicU64::new(clock.now().as_nanos()),
                in_flight: AtomicU64::new(0),
                in_bulkhead: service.bulkheads.iter().map(|_| AtomicU64::new(0)).collect(),
                held: AtomicU64::new(0),
                crash: Mutex::default(),
                gateway_delay,
                leaving: tokio::sync::Notify::new(),
                draining: AtomicBool::new(false),
                skew: AtomicI64::new(0),
                process: process.clone(),
            }
        });
        Ok(instance)
    }

    fn spec(&self) -> &Service {
        &self.process.system.services[self.id.index()]
    }

    /// A request has come.
    fn answer(self: Arc<Self>, request: Request<Bytes>) -> Boxed<Response<Bytes>> {
        Box::pin(async move {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
            let endpoint = match self.router.find(request.method().as_str(), &target) {
                Found::Route(endpoint) => endpoint,
                _ if self.health.contains(&target) => return self.probe(request).await,
                _ => {
                    let mut response = Response::new(Bytes::new());
                    *response.status_mut() = http::StatusCode::NOT_FOUND;
                    return response;
                }
            };
            let forwarded = request.headers().contains_key(FORWARDED);
            let context = Context::of(request.headers(), || self.process.bits());
            let delay = self.gateway_delay.as_ref().filter(|_| forwarded);
            let delay = |back: u64| delay.map_or(0, |dist| duration(dist, context.draw.bits(back | 1 << 21)));
            let (there, back) = (delay(0), delay(1));
            self.process.tools.timer.wait(there).await;
            let mut response = self.clone().admitted(request, endpoint, context).await;
            if let Some(Took { nanos, logical }) = response.extensions().get::<Took>().copied() {
                Took { nanos: nanos + there + back, logical }.put(&mut response);
            }
            self.process.tools.timer.wait(back).await;
            response
        })
    }

    async fn admitted(self: Arc<Self>, request: Request<Bytes>, endpoint: u32, context: Context) -> Response<Bytes> {
        let tools = &self.process.tools;
        let started = tools.clock.now();
        let present = Present::new(&self, Some(endpoint));
        tools.tally.count(self.of, |totals| totals.offered += 1);
        let logical = context.logical;
        let mut counted = Counted { instance: &self, started: started.as_nanos(), answer: Answer::Timeout, ran: false };
        let mut before = 0;
        let mut response = match self.before(endpoint, &context).await {
            Err(answer) => answer.response(0),
            Ok(ticket) => {
                before = tools.clock.now().nanos_since(started);
                let response = self.admission.admit(&self, request, endpoint, context).await;
                let ran = response.extensions().get::<Ran>().map(|ran| ran.0);
                self.after(ticket, ran);
                response
            }
        };
        let ran = response.extensions().get::<Ran>().map(|ran| ran.0);
        counted.ran = ran.is_some();
        counted.answer = ran.unwrap_or(match response.status().as_u16() {
            200..=399 => Answer::Ok,
            429 => Answer::TooMany,
            409 => Answer::Conflict,
            504 => Answer::Timeout,
            _ => Answer::Busy,
        });
        drop(counted);
        if let Some(Ran(_, nanos)) = response.extensions().get::<Ran>().copied() {
            // What layers and the way to a free worker cost is the hop's; a wait for one that is not free is not.
            let nanos = if present.alone { before + nanos } else { tools.clock.now().nanos_since(started) };
            response.extensions_mut().insert(Took { nanos, logical });
        }
        response
    }

    /// What is asked before the layers: memory, the degradation level, the idempotency key, a quota in a store.
    async fn before(
        &self,
        endpoint: u32,
        context: &Context,
    ) -> Result<Option<plimsoll_policy::idempotency::Ticket>, Answer> {
        let service = self.spec();
        if let Some(memory) = service.memory
            && self.held.load(Ordering::Relaxed).saturating_mul(service.request_memory) > memory
        {
            // As the kernel would have it.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        if let (Some(ladder), Some(of)) = (&self.ladder, &service.degradation) {
            let ladder = ladder.lock().unwrap_or_else(PoisonError::into_inner);
            let off = ladder.level() > 0 && ladder.switched_off().binary_search(&endpoint).is_ok();
            if off && of.ladder.mode == Mode::Enforce {
                return Err(Answer::Busy);
            }
        }
        let mut ticket = None;
        if let Some(store) = &self.idempotency
            && !service.endpoints[endpoint as usize].idempotent
        {
            let now = self.process.tools.clock.now();
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            match store.begin(now, context.logical, context.logical) {
                Begin::Proceed(new) | Begin::Unresolved(new) => ticket = Some(new),
                Begin::Replay(answer) => return Err(*answer),
                Begin::Refused(refused) if refused.reason == Reason::LimitReached => return Err(Answer::Busy),
                Begin::Refused(_) => return Err(Answer::Conflict),
            }
        }
        if let Err(answer) = admission::shared_quota(self, endpoint, context).await {
            self.after(ticket, None);
            return Err(answer);
        }
        Ok(ticket)
    }

    /// Keeps an answer under its idempotency key, or forgets the key.
    fn after(&self, ticket: Option<plimsoll_policy::idempotency::Ticket>, answer: Option<Answer>) {
        let (Some(ticket), Some(store)) = (ticket, &self.idempotency) else { return };
        let now = self.process.tools.clock.now();
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(answer) if answer.is_ok() => store.complete(now, ticket, answer),
            _ => store.abandon(ticket),
        };
    }

    /// A health check asks for a worker as any request does.
    async fn probe(self: Arc<Self>, mut request: Request<Bytes>) -> Response<Bytes> {
        let _present = Present::new(&self, None);
        request.extensions_mut().insert(Asked::Probe);
        self.admission.seat(request).await
    }

    /// A request that has its worker.
    async fn work(self: Arc<Self>, mut request: Request<Bytes>) -> Response<Bytes> {
        let _worker = Held::new(&self.process.tools.tally, self.of, self.admission.resource);
        drop(request.extensions_mut().remove::<admission::Queued>());
        let Some(Asked::Endpoint(endpoint, context)) = request.extensions_mut().remove::<Asked>() else {
            return Answer::Ok.response(0);
        };
        let of = &self.process.system.services[self.id.index()].endpoints[endpoint as usize];
        let errors = self.version.map_or(0.0, |(_, errors)| errors);
        let draw = context.draw;
        let started = self.process.tools.clock.now();
        let mut task = Task::new(&self, context, admission::deadline(&self, &request));
        let answer = if draw.happens(ERRORS, of.errors) || draw.happens(VERSION_ERRORS, errors) {
            Answer::Error
        } else {
            match task.run(&of.program).await {
                Ok(()) if task.degraded => Answer::Degraded,
                Ok(()) => Answer::Ok,
                Err(answer) => answer.passed_on(),
            }
        };
        let mut response = answer.response(of.response_size);
        if let Ok(wrote) = HeaderValue::from_str(&task.wrote)
            && !task.wrote.is_empty()
        {
            response.headers_mut().insert(WROTE, wrote);
        }
        response.extensions_mut().insert(Ran(answer, self.process.tools.clock.now().nanos_since(started)));
        response
    }

    /// How long something takes here that takes so long elsewhere, and how much longer because of faults, ns. `work`
    /// warms up; what is only waited for does not.
    fn slowed(&self, nanos: u64, work: bool) -> (u64, u64) {
        let slow = *self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let mut takes = nanos as f64;
        if let Some((factor, _)) = self.version {
            takes *= factor;
        }
        if let Some(warmup) = self.spec().warmup.filter(|_| work) {
            let since = self.process.tools.clock.now().as_nanos() - self.ready_at.load(Ordering::Relaxed);
            let warm = since as f64 / warmup.duration.max(1) as f64;
            if warm < 1.0 {
                takes *= warmup.factor + (1.0 - warmup.factor) * warm;
            }
        }
        if let Some(law) = self.spec().scalability {
            takes *= law.stretch(self.held.load(Ordering::Relaxed).max(1) as f64);
        }
        (takes as u64, (takes * (slow.0 - 1.0)) as u64 + slow.1)
    }

    /// A program comes to a named step.
    fn step(&self, before: Option<&str>, now: &str) {
        let crash = self.crash.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((done, next)) = &*crash
            && before == Some(done)
            && now == next
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

// Purposes of draws.
const ERRORS: u64 = 1 << 40;
const VERSION_ERRORS: u64 = 2 << 40;

/// The zone of an instance.
pub(super) fn zone_of(service: &Service, number: u32) -> Option<ZoneId> {
    (!service.zones.is_empty()).then(|| service.zones[number as usize % service.zones.len()])
}

/// A request that is here.
struct Present<'i> {
    instance: &'i Instance,
    /// Whether it found a worker free, and a permit of its bulkhead.
    alone: bool,
    bulkhead: Option<&'i AtomicU64>,
    _level: Held,
}

impl<'i> Present<'i> {
    fn new(instance: &'i Instance, endpoint: Option<u32>) -> Present<'i> {
        let others = instance.in_flight.fetch_add(1, Ordering::Relaxed);
        instance.held.fetch_add(1, Ordering::Relaxed);
        let spec = instance.spec();
        let mut alone = others < u64::from(if spec.asynchronous { spec.max_in_flight } else { spec.workers });
        let group = endpoint.and_then(|at| spec.bulkheads.iter().position(|group| group.endpoints.contains(&at)));
        let bulkhead = group.map(|group| &instance.in_bulkhead[group]);
        if let (Some(group), Some(present)) = (group, bulkhead) {
            let others = present.fetch_add(1, Ordering::Relaxed);
            alone &= others < u64::from(spec.bulkheads[group].config.permits);
        }
        Present {
            instance,
            alone,
            bulkhead,
            _level: Held::new(&instance.process.tools.tally, instance.of, "in_flight"),
        }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.instance.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.instance.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(bulkhead) = self.bulkhead {
            bulkhead.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Counts a request at its end, also one that is given up half-way.
struct Counted<'i> {
    instance: &'i Instance,
    started: u64,
    answer: Answer,
    ran: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let Counted { instance, started, answer, ran } = self;
        let tools = &instance.process.tools;
        let took = tools.clock.now().as_nanos() - *started;
        tools.tally.ended(instance.of, took, |totals| match answer {
            Answer::Ok | Answer::Degraded => {
                totals.ok += 1;
                totals.degraded += u64::from(*answer == Answer::Degraded);
            }
            answer => {
                totals.failed += 1;
                totals.rejected += u64::from(answer.is_rejection() && !*ran);
                totals.timed_out += u64::from(*answer == Answer::Timeout);
            }
        });
    }
}

impl Controlled for Instance {
    fn state(&self) -> State {
        State {
            ready: self.ready.load(Ordering::Acquire),
            note: if self.stores.values().any(|end| end.is_counting()) { COUNTING.to_owned() } else { String::new() },
            in_flight: self.in_flight.load(Ordering::Relaxed),
            slow: *self.slow.lock().unwrap_or_else(PoisonError::into_inner),
            skew: self.skew.load(Ordering::Relaxed),
            ..State::default()
        }
    }

    fn obey(&self, order: Order) -> Result<(), String> {
        match order {
            Order::Slow(factor, added) => *self.slow.lock().unwrap_or_else(PoisonError::into_inner) = (factor, added),
            Order::Drain => {
                self.draining.store(true, Ordering::Relaxed);
                self.leaving.notify_one();
            }
            Order::Skew(by) => self.skew.store(by, Ordering::Relaxed),
            Order::Members { service, instances } => {
                let Process { system, layout, .. } = &self.process;
                for (edge, end) in &self.ends {
                    if system.edges[edge.index()].to == Component::Service(ServiceId(service)) {
                        let places = layout.callees(system, *edge, self.number);
                        let asked: Vec<_> =
                            instances.iter().filter_map(|at| places.get(*at as usize).copied()).collect();
                        end.set_instances(&asked).map_err(|error| error.to_string())?;
                    }
                }
            }
            Order::Primaries { store, primaries, kept } => {
                for end in self.stores.values().filter(|end| end.store().0 == store) {
                    end.set_primaries(&primaries, &kept);
                }
            }
            Order::SlowNode { store, node, factor, added } => {
                for end in self.stores.values().filter(|end| end.store().0 == store) {
                    end.set_slow(node, factor, added);
                }
            }
            Order::Crash(done, next) => {
                *self.crash.lock().unwrap_or_else(PoisonError::into_inner) = Some((done, next));
            }
            other => return Err(format!("a service does not know {other:?}")),
        }
        Ok(())
    }
}

impl Instance {
    fn happened(&self, kind: EventKind, text: impl Into<String>) {
        self.process.tools.tally.happened(kind, &*self.name, text);
    }
}
