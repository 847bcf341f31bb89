//! A caller's end of an edge to a service: its policies, the choice among instances, attempts over HTTP. The policies
//! are driven as the gateway drives them, by its own code.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use plimsoll_gateway::plan::Target;
use plimsoll_gateway::random::Random;
use plimsoll_gateway::upstream::call::{Begun, Ended};
use plimsoll_gateway::upstream::{Call, Found, Instance, Slots, Upstream};
use plimsoll_model::draw::{Draw, duration};
use plimsoll_model::run::{EventKind, Totals};
use plimsoll_model::system::{Addresses, Component, Dist, EdgeId, EndpointId, System, ZoneId};
use plimsoll_policy::circuit_breaker::State as Breaker;
use plimsoll_policy::pipeline::Next;
use plimsoll_policy::{Deadline, InvalidConfig, Reason, Time};

use crate::answer::{Answer, Took};
use crate::clock::Clock;
use crate::context::ATTEMPT;
use crate::stack::is_elsewhere;
use crate::tally::{Of, Raised, Tally, Time as Taken};
use crate::timer::Timer;
use crate::wire::client::{Answer as Wire, Failed, Links};

/// What every caller of a process shares.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The process's clock.
    pub clock: Clock,
    /// Its timer.
    pub timer: Arc<Timer>,
    /// Its counts.
    pub tally: Arc<Tally>,
    /// Its connections.
    pub links: Arc<Links>,
    /// Numbers for addresses.
    pub slots: Arc<Slots>,
}

/// A caller's end.
#[derive(Debug)]
pub struct End {
    of: Of,
    name: String,
    target: String,
    tools: Tools,
    upstream: Arc<Upstream>,
    random: Mutex<Random>,
    /// One-way network delay, where this end adds it, by address; none: another process does.
    delays: BTreeMap<SocketAddr, Dist>,
    names: BTreeMap<SocketAddr, String>,
    health: Option<Vec<u8>>,
    /// Whether calls may have an extra attempt.
    hedges: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask<'s> {
    /// `GET`
    pub method: &'s str,
    /// The whole head but for the remaining time and the empty line, so that attempts need not be written anew.
    pub head: Vec<u8>,
    /// The field that tells the remaining time.
    pub deadline_field: &'s str,
    /// Whether making it twice does no harm.
    pub repeatable: bool,
    /// For balancers that stick.
    pub key: u64,
    /// Until when the caller waits, ns.
    pub deadline: Option<u64>,
    /// Where the chance of delays comes from.
    pub draw: Draw,
    /// What is asked for.
    pub endpoint: EndpointId,
    /// Which logical request it is.
    pub logical: u64,
}

/// How a call has ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// How.
    pub answer: Answer,
    /// The answer on the wire, if there was one.
    pub wire: Option<Wire>,
    /// Attempts that were made.
    pub attempts: u32,
    /// Whether it was answered well after an attempt had failed.
    pub rescued: bool,
    /// When the first byte of the first attempt was sent, ns on the clock; none if nothing was.
    pub sent: Option<u64>,
}

/// An extra attempt beside the first, which has its place in the call itself: few calls have one.
type Hedge<'e> = Pin<Box<dyn Future<Output = (Ended, Option<Wire>)> + Send + 'e>>;

impl End {
    /// The end of an edge to a service whose instances are at these addresses. `zone` is the caller's. With `delays`
    /// it adds the network's.
    pub fn new(
        system: &System,
        edge: EdgeId,
        instances: &[SocketAddr],
        zone: Option<ZoneId>,
        delays: bool,
        tools: Tools,
        seed: u64,
    ) -> Result<End, InvalidConfig> {
        let of = &system.edges[edge.index()];
        let Component::Service(id) = of.to else {
            return Err(InvalidConfig { field: "to", expected: "a service" });
        };
        let service = &system.services[id.index()];
        let target = Target {
            service: service.name.clone(),
            key: service.name.clone(),
            policies: of.policies.clone(),
            addresses: Addresses::List(Vec::new()),
        };
        let now = tools.clock.now();
        let upstream = Arc::new(Upstream::new(&target, now, seed)?);
        let found = |address: &SocketAddr| Found { address: *address, weight: 1.0 };
        let there = if is_elsewhere(service) { instances.len() } else { service.instances as usize };
        let first: Vec<Found> = instances.iter().take(there).map(found).collect();
        upstream.set_instances(&first, &tools.slots, now, true)?;
        let zone_of = |at: usize| (!service.zones.is_empty()).then(|| service.zones[at % service.zones.len()]);
        let delays = instances
            .iter()
            .enumerate()
            .filter(|_| delays)
            .map(|(at, address)| (*address, network(system, edge, zone, zone_of(at)).clone()))
            .collect();
        let names = instances.iter().enumerate().map(|(at, a)| (*a, format!("{}/{}", service.name, at + 1))).collect();
        let health = of.policies.health.as_ref().map(|health| {
            format!("GET {} HTTP/1.1\r\nhost: plimsoll\r\nuser-agent: plimsoll-health\r\n\r\n", health.path)
                .into_bytes()
        });
        // Routes with policies of their own are edges of the same pair: one to those who read.
        let first = system.same_pair(edge).next().unwrap_or(edge);
        Ok(End {
            of: Of::Edge(first.0),
            name: system.edge_name(edge),
            target: service.name.clone(),
            tools,
            upstream,
            random: Mutex::new(Random::new(seed ^ 0x0065_6e64)),
            delays,
            names,
            health,
            hedges: of.policies.pipeline.hedge.is_some(),
        })
    }

    /// Only these instances are asked from now on.
    pub fn set_instances(&self, instances: &[SocketAddr]) -> Result<(), InvalidConfig> {
        let found: Vec<Found> = instances.iter().map(|address| Found { address: *address, weight: 1.0 }).collect();
        self.upstream.set_instances(&found, &self.tools.slots, self.tools.clock.now(), false)?;
        Ok(())
    }

    fn bits(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).bits()
    }

    /// Makes a call.
    pub async fn call(&self, ask: &Ask<'_>) -> Done {
        let clock = self.tools.clock;
        let started = clock.now();
        let deadline = ask.deadline.map(Time::from_nanos);
        let (mut call, mut begun) =
            Call::begin(&self.upstream, clock, started, deadline, ask.repeatable, ask.key, self.bits());
        let mut wire = None;
        let mut sent = None;
        loop {
            let now = clock.now();
            let attempts = call.attempts();
            let next = match begun {
                Begun::Ask(instance, until) => {
                    sent.get_or_insert(now.as_nanos());
                    let (slot, ended, answer) = self.race(&mut call, ask, &instance, until, attempts).await;
                    wire = answer;
                    let now = clock.now();
                    (call.settle(slot, now, now, ended, self.bits()), Answer::of_ended(ended))
                }
                Begun::Nobody => {
                    self.count_unsent(attempts, Answer::Refused);
                    (call.settle(0, now, now, Ended::ConnectError, self.bits()), Answer::Refused)
                }
                Begun::Pending(until) => {
                    let freed = tokio::time::timeout_at(clock.instant(until.time()), call.freed()).await;
                    let now = clock.now();
                    if freed.is_ok() {
                        begun = call.look_again(until, now, self.bits());
                        continue;
                    }
                    self.count_unsent(attempts, Answer::Timeout);
                    (call.settle(0, now, now, Ended::Timeout, self.bits()), Answer::Timeout)
                }
                Begun::Wait(until) => {
                    let granted = tokio::time::timeout_at(clock.instant(until), call.granted()).await;
                    let now = clock.now();
                    begun = match granted {
                        Ok(Some(granted)) => call.resume(now, granted, self.bits()),
                        _ => call.give_up(now, self.bits()),
                    };
                    continue;
                }
                Begun::Refused(rejected) => {
                    let late = rejected.reason == Reason::DeadlineExceeded;
                    self.tools.tally.count(self.of, |totals| {
                        totals.offered += 1;
                        totals.failed += 1;
                        *(if late { &mut totals.timed_out } else { &mut totals.rejected }) += 1;
                    });
                    let answer = if late { Answer::Timeout } else { Answer::Rejected };
                    return Done { answer, wire: None, attempts: call.attempts(), rescued: false, sent };
                }
            };
            match next {
                (Next::Retry { at }, _) => {
                    self.tools.timer.until(at.as_nanos()).await;
                    begun = call.attempt(clock.now(), self.bits());
                }
                (_, answer) => {
                    // What the answer says beside its status counts too.
                    let answer = wire.as_ref().map_or(answer, Answer::of_wire);
                    let rescued = call.has_failed() && answer.is_ok();
                    if rescued {
                        self.tools.tally.count(self.of, |totals| totals.rescued += 1);
                    }
                    return Done { answer, wire, attempts: call.attempts(), rescued, sent };
                }
            }
        }
    }

    /// One attempt and perhaps its hedge: which was back first, and with what. Failures that leave the other out are
    /// settled here.
    async fn race(
        &self,
        call: &mut Call,
        ask: &Ask<'_>,
        instance: &Arc<Instance>,
        until: Deadline,
        attempts: u32,
    ) -> (usize, Ended, Option<Wire>) {
        let clock = self.tools.clock;
        let mut first = std::pin::pin!(Some(self.attempt(ask, instance.address, until, attempts, 0)));
        let mut extra: Option<Hedge<'_>> = None;
        let mut hedge_at = if self.hedges { call.hedge_after().map(|after| clock.now() + after) } else { None };
        loop {
            let won = {
                let mut timer = std::pin::pin!(async {
                    match hedge_at {
                        Some(at) => self.tools.timer.until(at.as_nanos()).await,
                        None => std::future::pending().await,
                    }
                });
                std::future::poll_fn(|cx| {
                    if let Some(attempt) = first.as_mut().as_pin_mut()
                        && let Poll::Ready((ended, wire)) = attempt.poll(cx)
                    {
                        return Poll::Ready(Some((0, ended, wire)));
                    }
                    if let Some(attempt) = &mut extra
                        && let Poll::Ready((ended, wire)) = attempt.as_mut().poll(cx)
                    {
                        return Poll::Ready(Some((1, ended, wire)));
                    }
                    timer.as_mut().poll(cx).map(|()| None)
                })
                .await
            };
            match won {
                None => {
                    hedge_at = None;
                    if let Some((instance, until)) = call.hedge(clock.now(), self.bits()) {
                        extra = Some(Box::pin(self.attempt(ask, instance.address, until, attempts + 1, 1)));
                    }
                }
                Some((slot, ended, wire)) => {
                    let other = 1 - slot;
                    let waits = if slot == 0 { extra.is_some() } else { first.is_some() };
                    if waits && ended.outcome() == plimsoll_policy::Outcome::Failure {
                        let now = clock.now();
                        let _ = call.settle(slot, now, now, ended, self.bits());
                        if slot == 0 {
                            first.set(None);
                        } else {
                            extra = None;
                        }
                        continue;
                    }
                    if waits {
                        // Whoever is left out lets go of its connection before its permit goes to another.
                        first.set(None);
                        drop(extra);
                        call.cancel(other, clock.now());
                    }
                    return (slot, ended, wire);
                }
            }
        }
    }

    async fn attempt(
        &self,
        ask: &Ask<'_>,
        address: SocketAddr,
        until: Deadline,
        number: u32,
        slot: u64,
    ) -> (Ended, Option<Wire>) {
        let tools = &self.tools;
        let started = tools.clock.now();
        let mut flies = Flies { tally: &tools.tally, of: self.of, number, level: None };
        flies.level = Some(Raised::new(&tools.tally, self.of, "in_flight"));
        let mut request = Vec::with_capacity(ask.head.len() + 64);
        request.extend_from_slice(&ask.head);
        if until != Deadline::NEVER {
            let left = until.time().nanos_since(started).div_ceil(1_000_000);
            // Memory takes all that is written to it.
            let _ = write!(request, "{}: {left}\r\n", ask.deadline_field);
        }
        if number > 1 {
            let _ = write!(request, "{ATTEMPT}: {number}\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let delay = |back: u64| {
            let draw = ask.draw.part(u64::from(number) << 2 | slot << 1 | back);
            self.delays.get(&address).map_or(0, |dist| duration(dist, draw.0))
        };
        let (there, back) = (delay(0), delay(1));
        let asked = async {
            tools.timer.wait(there).await;
            let answer = tools.links.ask(address, &request, ask.method, ask.repeatable).await;
            tools.timer.wait(back).await;
            answer
        };
        let (ended, wire) = match tokio::time::timeout_at(tools.clock.instant(until.time()), asked).await {
            Ok(Ok(answer)) => (Ended::Answered(answer.status, answer.retry_after), Some(answer)),
            Ok(Err(Failed::Connect)) => (Ended::ConnectError, None),
            Ok(Err(Failed::Reset)) => (Ended::Reset, None),
            Err(_) => (Ended::Timeout, None),
        };
        let answer = wire.as_ref().map_or(Answer::of_ended(ended), Answer::of_wire);
        let now = tools.clock.now();
        let took = now.nanos_since(started);
        let taken = wire
            .as_ref()
            .filter(|_| answer.is_ok())
            .and_then(|wire| self.taken(wire, ask, took.saturating_sub(there + back)));
        let mut counts = tools.tally.counts();
        if let Some(level) = flies.level.take() {
            level.land(&mut counts, now.as_nanos());
        }
        counts.ended(self.of, took, |totals| count_attempt(totals, number, answer));
        if let Some((what, nanos)) = taken {
            counts.took(what, nanos);
        }
        (ended, wire)
    }

    /// How long an exchange took beside what the one asked says that it took. An answer that was another request's, from
    /// a cache or by sharing, says nothing.
    fn taken(&self, wire: &Wire, ask: &Ask<'_>, took: u64) -> Option<(Taken, u64)> {
        match (self.of, wire.field("took").and_then(Took::read)) {
            (Of::Edge(edge), Some(there)) if there.logical == ask.logical => {
                Some((Taken::Hop(edge), took.saturating_sub(there.nanos)))
            }
            (_, None) => Some((Taken::Answer(ask.endpoint.service.0, ask.endpoint.index), took)),
            _ => None,
        }
    }

    /// Counts an attempt that nobody was asked for.
    fn count_unsent(&self, number: u32, answer: Answer) {
        self.tools.tally.counts().ended(self.of, 0, |totals| count_attempt(totals, number, answer));
    }

    /// Sends health checks and ends what time ends, for ever.
    pub async fn keep(self: Arc<Self>) {
        let mut breaker = Breaker::Closed;
        let mut ejected: BTreeMap<SocketAddr, (bool, bool)> = BTreeMap::new();
        let mut trips = 0;
        let mut panic = false;
        loop {
            for due in self.upstream.due(self.tools.clock.now(), || self.bits()) {
                let end = self.clone();
                tokio::spawn(async move {
                    let deadline = end.tools.clock.instant(due.probe.deadline);
                    let asked = async {
                        let request = end.health.as_deref().unwrap_or_default();
                        end.tools.links.ask(due.instance.address, request, "GET", true).await
                    };
                    let passed = matches!(tokio::time::timeout_at(deadline, asked).await,
                        Ok(Ok(answer)) if (200..400).contains(&answer.status));
                    end.upstream.checked(end.tools.clock.now(), due.index, &due.instance, due.probe, passed);
                });
            }
            let (now_trips, now_breaker, now_panic, members) = self.look();
            self.tell_breaker(breaker, now_breaker, now_trips - trips);
            self.tell_members(&mut ejected, &members);
            if panic != now_panic {
                let (kind, text) = match now_panic {
                    true => (EventKind::PanicStart, "too few instances serve: all are asked"),
                    false => (EventKind::PanicEnd, "enough instances serve again"),
                };
                self.tools.tally.happened(kind, &*self.target, text);
            }
            (breaker, trips, panic) = (now_breaker, now_trips, now_panic);
            tokio::time::sleep(TICK).await;
        }
    }

    /// Trips so far, the breaker's state, whether all are asked because too few serve, and of each instance whether it
    /// is ejected and healthy.
    fn look(&self) -> (u64, Breaker, bool, Vec<(SocketAddr, bool, bool)>) {
        let state = self.upstream.lock();
        let breaker = state.pipeline.breaker().map_or(Breaker::Closed, |breaker| breaker.state());
        let members = state.instances.iter().enumerate().filter_map(|(at, member)| {
            let ejected = state.members.ejection().is_ejected(at);
            Some((member.as_ref()?.instance.address, ejected, state.members.is_healthy(at)))
        });
        (state.events.trips, breaker, state.members.in_panic(), members.collect())
    }

    fn tell_breaker(&self, before: Breaker, now: Breaker, trips: u64) {
        let tally = &self.tools.tally;
        if trips > 0 {
            tally.extra(self.of, "trips", trips as f64);
        }
        tell_breaker(tally, &self.name, before, now);
    }

    fn tell_members(&self, known: &mut BTreeMap<SocketAddr, (bool, bool)>, members: &[(SocketAddr, bool, bool)]) {
        let tally = &self.tools.tally;
        for &(address, ejected, healthy) in members {
            let before = known.insert(address, (ejected, healthy)).unwrap_or((false, true));
            let subject = self.names.get(&address).cloned().unwrap_or_else(|| address.to_string());
            if ejected && !before.0 {
                tally.extra(self.of, "ejections", 1.0);
                tally.happened(EventKind::Ejected, &*subject, "ejected: it fails more than its peers");
            } else if before.0 && !ejected {
                tally.happened(EventKind::Returned, &*subject, "takes traffic again");
            }
            if before.1 != healthy {
                let (kind, text) = match healthy {
                    true => (EventKind::Healthy, "passes its health checks"),
                    false => (EventKind::Unhealthy, "fails its health checks"),
                };
                tally.happened(kind, &*subject, text);
            }
        }
    }
}

/// An attempt that is out. One that is called off is an attempt too, though it neither goes well nor fails.
struct Flies<'e> {
    tally: &'e Tally,
    of: Of,
    number: u32,
    level: Option<Raised<'e>>,
}

impl Drop for Flies<'_> {
    fn drop(&mut self) {
        if self.level.is_some() {
            self.tally.count(self.of, |totals| {
                totals.offered += 1;
                totals.retries += u64::from(self.number > 1);
            });
        }
    }
}

fn count_attempt(totals: &mut Totals, number: u32, answer: Answer) {
    totals.offered += 1;
    totals.retries += u64::from(number > 1);
    if answer.is_ok() {
        totals.ok += 1;
        totals.degraded += u64::from(answer == Answer::Degraded);
    } else {
        totals.failed += 1;
        totals.rejected += u64::from(answer.is_rejection());
        totals.timed_out += u64::from(answer == Answer::Timeout);
    }
}

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(20);

/// Writes a breaker's change down.
pub fn tell_breaker(tally: &Tally, edge: &str, before: Breaker, now: Breaker) {
    if before == now {
        return;
    }
    let (kind, text) = match now {
        Breaker::Open => (EventKind::BreakerOpen, "the breaker opens: calls fail at once"),
        Breaker::HalfOpen => (EventKind::BreakerHalfOpen, "the breaker lets probes through"),
        Breaker::Ramping => (EventKind::BreakerClosed, "the breaker closes, and lets more through bit by bit"),
        Breaker::Closed if before == Breaker::Ramping => return,
        Breaker::Closed => (EventKind::BreakerClosed, "the breaker closes"),
    };
    tally.happened(kind, edge, text);
}

/// The one-way delay between two zones on an edge.
pub fn network(system: &System, edge: EdgeId, from: Option<ZoneId>, to: Option<ZoneId>) -> &Dist {
    match &system.edges[edge.index()].policies.latency {
        Some(latency) => latency,
        None if from.is_some() && to.is_some() && from != to => &system.network.cross_zone,
        None => &system.network.same_zone,
    }
}
