//! Edges: a caller's policies around its calls, the choice of a target, the way there and back.

use std::convert::Infallible;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Component, Dist, RetryWhen, ServiceKind, StoreKind};
use plimsoll_policy::balance::Balancer;
use plimsoll_policy::circuit_breaker::State as Breaker;
use plimsoll_policy::pipeline::{self, Admission, Next, Reply, Settled};
use plimsoll_policy::retry::Hint;
use plimsoll_policy::{Eligible, Members, Outcome, Pipeline, Reason, Time};

use crate::component::client::Origin;
use crate::component::coalesce::Sharing;
use crate::component::instance::CHECKED;
use crate::component::pending::Connections;
use crate::component::task::{Context, Waiting};
use crate::engine::{Answer, Draw, Event, LaneId, Ref, duration, mix};
use crate::journal::{self, Go, Stage, Step};
use crate::measure::{Counter, Gauge, SegmentTimes};
use crate::world::{Wake, World};

/// One caller's end of an edge: an instance's, or a client's. In this order in memory: what every call
/// comes by lies together.
#[repr(C)]
pub(crate) struct EdgeEnd {
    pub(crate) edge: u32,
    pub(crate) to: Target,
    /// The first instance or node of the target.
    pub(crate) first_target: u32,
    /// The calling instance; none for a client.
    pub(crate) instance: Option<u32>,
    /// Counts the caller's lives: connections of an earlier one are gone.
    pub(crate) life: u32,
    /// Whether every delay is zero.
    pub(crate) instant: bool,
    /// Whether it is a gateway's: its `timeout` runs from the arrival of the request that it forwards.
    forwards: bool,
    retry_when: RetryWhen,
    timeout: Option<(u64, u16)>,
    per_try: Option<(u64, u16)>,
    /// Its connections, where they are bounded.
    pub(crate) connections: Option<Box<Connections>>,
    /// Its flights, where calls are coalesced.
    pub(crate) sharing: Option<Box<Sharing>>,
    pub(crate) members: Option<Box<Members>>,
    /// Where its choices of a target come from.
    pick: Draw,
    picks: u64,
    pub(crate) pools: Vec<Pool>,
    pub(crate) in_flight: Gauge,
    pub(crate) counter: Counter,
    pub(crate) times: SegmentTimes,
    pub(crate) pipeline: Pipeline,
    pub(crate) balancer: Balancer,
    /// Health checks under way, by target: their number and the probe.
    pub(crate) probes: Vec<Option<(u32, plimsoll_policy::health::Probe)>>,
    pub(crate) probe_number: u32,
    /// When its members are next due, ns.
    pub(crate) members_at: u64,
    /// One-way delay to each target.
    pub(crate) delays: Vec<Dist>,
    /// What each exchange takes beside that.
    overhead: Option<Dist>,
    /// The lane of each constant delay.
    lanes: Vec<Option<LaneId>>,
    /// Calls that wait for the bulkhead.
    waiters: Vec<(plimsoll_policy::bulkhead::Ticket, Ref)>,
    pub(crate) pool_timeout: (u64, Option<LaneId>),
    draw: Draw,
    pub(crate) trips: Vec<u32>,
    pub(crate) ejections: Vec<u32>,
}

/// What an edge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Service(u32),
    Postgres(u32),
    Redis(u32),
    Quorum(u32),
    /// A topic: messages need no end.
    Topic,
}

/// Connections of one caller to one node of a store.
pub(crate) struct Pool {
    pub(crate) size: u32,
    pub(crate) open: u32,
    pub(crate) idle: u32,
    pub(crate) waiting: std::collections::VecDeque<Ref>,
    pub(crate) exhausted_noted: bool,
    pub(crate) used: Gauge,
    pub(crate) queue: Gauge,
}

/// A call: what its attempts are for.
pub(crate) struct Call {
    pub(crate) end: u32,
    pub(crate) parent: Parent,
    pub(crate) what: What,
    pub(crate) context: Context,
    flight: pipeline::Flight,
    started: u64,
    attempts: [Ref; 2],
    number: u32,
    waiting: Option<Box<pipeline::Waiting>>,
    tried: [u32; 3],
    /// Whether an attempt of it has failed.
    failed: bool,
}

impl Call {
    fn blank() -> Self {
        Call {
            end: 0,
            parent: Parent::Task(Ref::NONE),
            what: What::Limiter,
            context: Context::BLANK,
            flight: pipeline::Flight::default(),
            started: 0,
            attempts: [Ref::NONE; 2],
            number: 0,
            waiting: None,
            tried: [u32::MAX; 3],
            failed: false,
        }
    }

    /// What is left to know of it at its end.
    #[inline(always)]
    fn over(&self) -> Over {
        Over {
            end: self.end,
            parent: self.parent,
            started: self.started,
            client: self.context.client,
            user: self.context.user,
            retries: self.flight.attempts().saturating_sub(1),
            failed: self.failed,
            alone: self.attempts[0].is_none() && self.attempts[1].is_none(),
        }
    }

    /// Remembers where an attempt went: the last three are.
    #[inline(always)]
    fn try_at(&mut self, number: u32, target: u32) {
        // Hardly any call makes so many that it takes a division.
        let place = if number < 3 { number } else { number % 3 };
        self.tried[place as usize] = target;
    }

    pub(crate) fn started(&self) -> u64 {
        self.started
    }
}

/// A call that is over.
#[derive(Clone, Copy)]
struct Over {
    end: u32,
    parent: Parent,
    started: u64,
    client: u32,
    user: u32,
    retries: u32,
    /// Whether an attempt of it has failed.
    failed: bool,
    /// Whether no attempt of it is out.
    alone: bool,
}

/// Who made a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parent {
    Client {
        /// Where it is recorded.
        group: u32,
        number: u64,
    },
    Task(Ref),
    /// A request whose quota is counted in a store.
    Limiter {
        task: Ref,
        key: u64,
    },
    /// A task that looks something up in a cache.
    CacheLookup {
        task: Ref,
    },
    /// A task that stores something in a cache, and goes on whatever comes of it.
    CacheStore {
        task: Ref,
    },
    /// All who wait for a flight of this key, at the call's own end.
    Flight {
        key: u64,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    Endpoint(u32),
    Operation {
        store: u32,
        operation: u32,
        write: bool,
    },
    Begin {
        store: u32,
        crosses: bool,
    },
    /// A cache's or session store's command.
    Command {
        store: u32,
    },
    /// A limiter's command.
    Limiter,
}

/// One attempt of a call.
pub(crate) struct Attempt {
    pub(crate) call: Ref,
    permit: Option<pipeline::Attempt>,
    /// The instance or node, counted over all.
    pub(crate) target: u32,
    pub(crate) deadline: u64,
    started: u64,
    pub(crate) number: u32,
    /// Whether there is no delay on its way.
    instant: bool,
    /// The task that serves it, if there is one.
    pub(crate) server: Ref,
    /// What the answer's bytes are, for limited bandwidth.
    pub(crate) bytes: u64,
    /// Shards that have not answered yet, of an operation that asks them all.
    pub(crate) shards_left: u32,
    /// How far an operation on a quorum store is.
    pub(crate) quorum: Option<Box<super::quorum::Progress>>,
}

impl Attempt {
    fn blank() -> Self {
        Attempt {
            call: Ref::NONE,
            permit: None,
            target: u32::MAX,
            deadline: u64::MAX,
            started: 0,
            number: 0,
            instant: false,
            server: Ref::NONE,
            bytes: 0,
            shards_left: 0,
            quorum: None,
        }
    }
}

// Purposes of draws.
const BACKOFF: u64 = 1 << 48;
const PICK: u64 = 2 << 48;

impl World<'_> {
    pub(crate) fn build_ends(&mut self) {
        let plan = self.plan;
        let segments = plan.cuts.len() + 1;
        let mut first = Vec::new();
        for (e, edge) in plan.system.edges.iter().enumerate() {
            first.push(self.ends.len() as u32);
            let callers: Vec<Option<u32>> = match edge.from {
                Component::Service(id) => self.slots(id.0).map(|i| Some(i as u32)).collect(),
                Component::Consumer(id) => {
                    let service = plan.system.consumers[id.index()].service;
                    self.slots(service.0).map(|i| Some(i as u32)).collect()
                }
                _ => vec![None],
            };
            for caller in callers {
                let end = self.end(e, caller, segments);
                self.ends.push(end);
            }
        }
        self.edge_first = first;
        for end in 0..self.ends.len() as u32 {
            self.start_members(end);
        }
    }

    fn end(&mut self, e: usize, instance: Option<u32>, segments: usize) -> EdgeEnd {
        let plan = self.plan;
        let edge = &plan.system.edges[e];
        let policies = &edge.policies;
        let number = instance.map_or(0, |i| self.instances[i as usize].number);
        let draw =
            self.root.named(&plan.system.edge_name(plimsoll_model::system::EdgeId(e as u32))).part(number as u64);
        let (to, first_target, targets, pool) = match edge.to {
            Component::Service(id) => {
                let slots = self.slots(id.0);
                (Target::Service(id.0), slots.start as u32, slots.len(), None)
            }
            Component::Store(id) => {
                let state = &self.stores[id.index()];
                let (to, pool) = match &plan.system.stores[id.index()].kind {
                    StoreKind::Postgres(pg) => (Target::Postgres(id.0), Some((pg.pool, pg.pool_timeout))),
                    StoreKind::Redis(redis) => (Target::Redis(id.0), Some((redis.pool, redis.pool_timeout))),
                    StoreKind::Quorum(_) => (Target::Quorum(id.0), None),
                };
                (to, state.first, state.nodes as usize, pool)
            }
            _ => (Target::Topic, 0, 0, None),
        };
        let caller_zone = match edge.from {
            Component::Client(id) => plan.system.clients[id.index()].zone.map(|zone| zone.0),
            _ => instance.and_then(|i| self.instances[i as usize].zone),
        };
        let delays: Vec<Dist> = (0..targets)
            .map(|t| {
                let zone = match edge.to {
                    Component::Service(_) => self.instances[first_target as usize + t].zone,
                    _ => self.nodes[first_target as usize + t].zone,
                };
                match &policies.latency {
                    Some(latency) => latency.clone(),
                    None if zone.is_some() && caller_zone.is_some() && zone != caller_zone => {
                        plan.system.network.cross_zone.clone()
                    }
                    None => plan.system.network.same_zone.clone(),
                }
            })
            .collect();
        let lanes = delays
            .iter()
            .map(|delay| match delay {
                Dist::Constant(nanos) if policies.overhead.is_none() => self.queue.lane(*nanos),
                _ => None,
            })
            .collect();
        let ns = |d: std::time::Duration| plimsoll_policy::nanos(d);
        let mut queue = |length: std::time::Duration| {
            let length = ns(length);
            Some((length, self.timeouts(length)?))
        };
        let timeout = policies.pipeline.timeout.and_then(&mut queue);
        let per_try = policies.pipeline.per_try_timeout.and_then(&mut queue);
        let mut lane = |delay: Option<u64>| delay.map(|delay| (delay, self.queue.lane(delay)));
        let pool_timeout = lane(pool.map(|(_, timeout)| timeout)).unwrap_or((u64::MAX, None));
        let members = (policies.health.is_some() || policies.outliers.is_some()).then(|| {
            let ejection =
                policies.outliers.clone().unwrap_or_else(plimsoll_policy::outlier_ejection::Config::without_ejection);
            let health = policies.health.as_ref().map(|health| health.config);
            let config = plimsoll_policy::members::Config { health, ejection };
            Box::new(Members::new(config, targets, Time::ZERO, draw.bits(3)).expect(CHECKED))
        });
        let mut balancer = Balancer::new(policies.balance.clone(), targets, draw.bits(4)).expect(CHECKED);
        for (i, &weight) in policies.weights.iter().cycle().take(targets).enumerate() {
            balancer.set_weight(i, weight).expect(CHECKED);
        }
        EdgeEnd {
            edge: e as u32,
            to,
            retry_when: policies.retry_when,
            instance,
            life: 0,
            pipeline: Pipeline::new(policies.pipeline, Time::ZERO).expect(CHECKED),
            balancer,
            members,
            probes: (0..targets).map(|_| None).collect(),
            probe_number: 0,
            members_at: u64::MAX,
            first_target,
            lanes,
            forwards: instance
                .is_some_and(|instance| matches!(self.instances[instance as usize].spec.kind, ServiceKind::Gateway(_))),
            instant: policies.overhead.is_none() && delays.iter().all(|delay| *delay == Dist::Constant(0)),
            overhead: policies.overhead.clone(),
            delays,
            pools: (0..if pool.is_some() { targets } else { 0 })
                .map(|_| Pool {
                    size: pool.map_or(0, |(size, _)| size),
                    open: 0,
                    idle: 0,
                    waiting: Default::default(),
                    exhausted_noted: false,
                    used: Gauge::new(),
                    queue: Gauge::new(),
                })
                .collect(),
            connections: policies.max_connections.map(|most| Box::new(Connections::new(most, policies.max_pending))),
            sharing: policies.coalesce.then(|| Box::new(Sharing::new(segments))),
            waiters: Vec::new(),
            timeout,
            per_try,
            pool_timeout,
            draw,
            pick: draw.part(PICK),
            picks: 0,
            counter: Counter::default(),
            times: SegmentTimes::new(),
            in_flight: Gauge::new(),
            trips: vec![0; segments],
            ejections: vec![0; segments],
        }
    }

    /// An instance's end of an edge.
    #[inline(always)]
    pub(crate) fn instance_end(&self, edge: u32, instance: u32) -> u32 {
        self.edge_first[edge as usize] + self.instances[instance as usize].number
    }

    /// A client's end of an edge.
    #[inline(always)]
    pub(crate) fn client_end(&self, edge: u32) -> u32 {
        self.edge_first[edge as usize]
    }

    /// Makes a call.
    pub(crate) fn start_call(&mut self, end: u32, parent: Parent, what: What, context: Context) {
        self.start_call_here(end, || parent, what, context);
    }

    /// As [`start_call`](Self::start_call), for those that make most of the calls: what they pass is
    /// then made where it belongs.
    #[inline(always)]
    pub(crate) fn start_call_here(&mut self, end: u32, parent: impl Fn() -> Parent, what: What, context: Context) {
        if self.ends[end as usize].sharing.is_some() && self.share(end, parent(), what, context) {
            return;
        }
        let call = self.insert_call(end, &parent, what, context);
        if let Parent::Task(task) | Parent::CacheLookup { task } | Parent::CacheStore { task } = parent() {
            self.tasks[task].waiting = Waiting::Call(call);
        }
        self.attempt(call);
    }

    /// A call that makes no attempt of its own: it waits for another's answer.
    pub(crate) fn waiting_call(&mut self, end: u32, task: Ref, what: What, context: Context) -> Ref {
        let (call, c) = self.calls.place(Call::blank);
        *c = Call { end, parent: Parent::Task(task), what, context, started: self.now, ..Call::blank() };
        self.tasks[task].waiting = Waiting::Call(call);
        call
    }

    /// Puts a call down, ready for its first attempt. Who makes it is a function, so that it is made
    /// where it belongs.
    #[inline(always)]
    pub(crate) fn insert_call(&mut self, end: u32, parent: &impl Fn() -> Parent, what: What, context: Context) -> Ref {
        let time = self.time();
        let repeatable = match what {
            What::Endpoint(endpoint) => self.plan.code.endpoints[endpoint as usize].repeatable,
            What::Operation { write, .. } => !write && self.transaction_of(parent()).is_none(),
            What::Begin { .. } | What::Command { .. } | What::Limiter => true,
        };
        let mut deadline = (context.deadline < u64::MAX).then(|| Time::from_nanos(context.deadline));
        // One that is forwarded as it arrives has the whole of it: the pipeline's own.
        if self.ends[end as usize].forwards
            && let Parent::Task(task) = parent()
            && self.tasks[task].started < self.now
        {
            let until = self.deadline(task);
            deadline = (until < Time::MAX).then_some(until);
        }
        let e = &mut self.ends[end as usize];
        let (call, c) = self.calls.place(Call::blank);
        c.end = end;
        c.parent = parent();
        c.what = what;
        c.context = context;
        c.flight = e.pipeline.start(time, deadline, repeatable);
        c.started = self.now;
        c.attempts = [Ref::NONE; 2];
        c.number = 0;
        c.waiting = None;
        c.tried = [u32::MAX; 3];
        c.failed = false;
        if self.journal.is_some() {
            let key = mix((context.client as u64) << 32 | context.user as u64);
            self.note(end, call, Step::Starts { deadline, repeatable, key });
            if let (Parent::Task(task), Some(instance)) = (parent(), self.ends[end as usize].instance) {
                let until = self.calls[call].flight.deadline().time();
                self.note_visit(instance, task, Stage::Calls(until));
            }
        }
        call
    }

    /// The transaction that a call's task is in.
    fn transaction_of(&self, parent: Parent) -> Option<Ref> {
        match parent {
            Parent::Task(task) => Some(self.tasks[task].transaction).filter(|tx| !tx.is_none()),
            _ => None,
        }
    }

    /// Asks the policies for an attempt, and sends it on its way.
    #[inline]
    pub(crate) fn attempt(&mut self, call: Ref) {
        let ask = |e: &mut EdgeEnd, c: &mut Call, time: Time| {
            let key = mix((c.context.client as u64) << 32 | c.context.user as u64);
            match e.pipeline.attempt(time, &mut c.flight, key) {
                Ok(Admission::Now(permit)) => Ok(permit),
                Ok(Admission::Queued(waiting)) => Err(Ok(waiting)),
                Err(rejected) => Err(Err(rejected)),
            }
        };
        match self.launch(call, ask, 0, true, Go::Asked) {
            Ok(()) => {}
            Err(Ok(waiting)) => self.wait_for_permit(call, waiting),
            Err(Err(rejected)) => self.refused(call, rejected),
        }
    }

    /// A call waits for its bulkhead.
    #[cold]
    fn wait_for_permit(&mut self, call: Ref, waiting: pipeline::Waiting) {
        let c = &mut self.calls[call];
        let end = c.end;
        self.ends[end as usize].waiters.push((waiting.ticket(), call));
        let until = waiting.until();
        c.waiting = Some(Box::new(waiting));
        if until < Time::MAX {
            self.queue.at(until.as_nanos(), Event::BulkheadTimeout { call });
        }
        self.note(end, call, Step::Queued(until));
    }

    /// The policies let a call make no attempt.
    #[cold]
    fn refused(&mut self, call: Ref, rejected: plimsoll_policy::Rejected) {
        let end = self.calls[call].end;
        let totals = &mut self.ends[end as usize].counter.now;
        totals.offered += 1;
        totals.failed += 1;
        let answer = if rejected.reason == Reason::DeadlineExceeded {
            totals.timed_out += 1;
            Answer::Timeout
        } else {
            totals.rejected += 1;
            no(rejected, self.now)
        };
        self.note(end, call, Step::Refused(rejected.reason));
        self.end_call(call, answer);
    }

    /// A call that waits for a bulkhead permit has waited long enough.
    pub(crate) fn bulkhead_timeout(&mut self, call: Ref) {
        let time = self.time();
        let Some(c) = self.calls.get_mut(call) else { return };
        if c.waiting.as_ref().is_none_or(|waiting| waiting.until() > time) {
            return;
        }
        let waiting = c.waiting.take().expect("just seen");
        let e = &mut self.ends[c.end as usize];
        e.waiters.retain(|&(_, waiter)| waiter != call);
        let rejected = e.pipeline.give_up(time, &c.flight, *waiting);
        e.counter.now.offered += 1;
        e.counter.now.failed += 1;
        e.counter.now.rejected += 1;
        let late = rejected.reason == Reason::DeadlineExceeded;
        let end = c.end;
        self.note(end, call, Step::GivesUp(rejected.reason));
        self.end_call(call, if late { Answer::Timeout } else { no(rejected, self.now) });
    }

    /// A call that waited has its permit.
    fn granted(&mut self, end: u32, granted: Option<plimsoll_policy::bulkhead::Granted>) {
        let Some(granted) = granted else { return };
        let e = &mut self.ends[end as usize];
        let Some(at) = e.waiters.iter().position(|(ticket, _)| *ticket == granted.ticket) else { return };
        let (_, call) = e.waiters.remove(at);
        let waiting = self.calls[call].waiting.take().expect("it waits");
        let resume = |e: &mut EdgeEnd, c: &mut Call, time| e.pipeline.resume(time, &mut c.flight, *waiting, granted);
        let Ok(()) = self.launch(call, |e, c, time| Ok::<_, Infallible>(resume(e, c, time)), 0, false, Go::Granted);
    }

    /// A call's backoff is over.
    pub(crate) fn retry(&mut self, call: Ref) {
        let Some(c) = self.calls.get(call) else { return };
        if let Some(instance) = self.ends[c.end as usize].instance
            && self.plan.disturbed
            && self.hold(instance, Event::Retry { call })
        {
            return;
        }
        self.attempt(call);
    }

    /// A call's answer is late enough for a second request.
    pub(crate) fn hedge(&mut self, call: Ref) {
        if !self.calls.contains(call) {
            return;
        }
        let ask = |e: &mut EdgeEnd, c: &mut Call, time| {
            let key = mix((c.context.client as u64) << 32 | c.context.user as u64);
            e.pipeline.hedge(time, &mut c.flight, key)
        };
        if self.launch(call, ask, 1, true, Go::Hedged).is_err() {
            let end = self.calls[call].end;
            self.note(end, call, Step::NoHedge);
        }
    }

    /// Chooses a target and sends an attempt on its way, if the policies give a permit for it. Where
    /// nothing is left to do after it in this event (`last`) and there is no delay, the target has it
    /// at once.
    #[inline(always)]
    fn launch<E>(
        &mut self,
        call: Ref,
        permit: impl FnOnce(&mut EdgeEnd, &mut Call, Time) -> Result<pipeline::Attempt, E>,
        slot: usize,
        last: bool,
        why: Go,
    ) -> Result<(), E> {
        let now = self.now;
        let time = self.time();
        let mut c = &mut self.calls[call];
        let (end, number) = (c.end, c.number);
        let mut e = &mut self.ends[end as usize];
        let permit = permit(e, c, time)?;
        let deadline = permit.deadline().time().as_nanos();
        c.number += 1;
        let caller_deadline = c.context.deadline;
        e.counter.now.offered += 1;
        e.counter.now.retries += (number > 0) as u64;
        e.in_flight.add(now, 1);
        let (to, first_target) = (e.to, e.first_target);
        let local = match to {
            Target::Service(service) => e.choose(c, &self.services[service as usize].registered, time),
            Target::Postgres(_) if e.balancer.len() > 1 => {
                let node = self.choose_node(call);
                c = &mut self.calls[call];
                e = &mut self.ends[end as usize];
                node.map(|node| node - first_target)
            }
            _ => Some(0),
        };
        let instant = e.instant;
        let target = local.map_or(u32::MAX, |local| first_target + local);
        let (attempt, a) = self.attempts.place(Attempt::blank);
        a.call = call;
        a.permit = Some(permit);
        a.target = target;
        a.deadline = deadline;
        a.started = now;
        a.number = number;
        a.instant = instant;
        a.server = Ref::NONE;
        a.bytes = 0;
        a.shards_left = 0;
        a.quorum = None;
        c.attempts[slot] = attempt;
        let Some(local) = local else {
            self.nobody_to_ask(end, call, attempt, slot, why, deadline);
            return Ok(());
        };
        if let Some(connections) = &mut e.connections {
            connections.used.add(now, 1);
        }
        c.try_at(number, target);
        e.balancer.on_start(local as usize, time);
        let hedge_after = if slot == 0 { e.pipeline.hedge_after(&c.flight) } else { None };
        // A caller that is itself called off at the deadline needs no timer of its own.
        if deadline < caller_deadline {
            let delay = deadline - now;
            let queue = |timeout: Option<(u64, u16)>| timeout.filter(|&(length, _)| length == delay);
            match queue(e.per_try).or(queue(e.timeout)) {
                Some((_, queue)) => {
                    let timeouts = &mut self.timeouts[queue as usize];
                    timeouts.set(queue, attempt, deadline, &self.attempts, &mut self.queue);
                }
                None => self.queue.at(deadline, Event::AttemptTimeout { attempt }),
            }
        }
        if let Some(after) = hedge_after {
            self.queue.at(now + plimsoll_policy::nanos(after), Event::Hedge { call });
        }
        if self.journal.is_some() {
            self.note_going(end, call, slot, why, Some(local), false, deadline);
        }
        if !matches!(to, Target::Service(_)) {
            self.ask_store(attempt);
        } else if last && instant && self.depth < MAX_DEPTH && !self.faults.any_link() {
            self.depth += 1;
            self.deliver_to(attempt, call, target, number, deadline);
            self.depth -= 1;
        } else {
            self.send(end, target, Event::Deliver { attempt }, 0);
        }
        Ok(())
    }

    /// An attempt found no target: it waits for a connection to one, or is over.
    #[cold]
    fn nobody_to_ask(&mut self, end: u32, call: Ref, attempt: Ref, slot: usize, why: Go, deadline: u64) {
        let pending = self.wait_for_connection(attempt);
        self.note_going(end, call, slot, why, None, pending, deadline);
        if !pending {
            self.soon(Event::Answered { attempt, answer: Answer::Refused });
        }
    }

    /// An attempt that waited for a connection has one.
    pub(crate) fn go_to(&mut self, attempt: Ref, target: u32) {
        let (now, time) = (self.now, self.time());
        let a = &mut self.attempts[attempt];
        a.target = target;
        let (call, number) = (a.call, a.number);
        let c = &mut self.calls[call];
        c.try_at(number, target);
        let (end, first) = (c.end, c.attempts[0] == attempt);
        let e = &mut self.ends[end as usize];
        e.balancer.on_start((target - e.first_target) as usize, time);
        if let Some(connections) = &mut e.connections {
            connections.used.add(now, 1);
        }
        if first && let Some(after) = e.pipeline.hedge_after(&c.flight) {
            self.queue.at(now + plimsoll_policy::nanos(after), Event::Hedge { call });
        }
        let deadline = self.attempts[attempt].deadline;
        let local = target - self.ends[end as usize].first_target;
        self.note_going(end, call, usize::from(!first), Go::Freed, Some(local), false, deadline);
        self.send(end, target, Event::Deliver { attempt }, 0);
    }

    /// Writes down that an attempt goes out, or that there is nobody to ask.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "they are the entry's fields")]
    fn note_going(
        &mut self,
        end: u32,
        call: Ref,
        slot: usize,
        why: Go,
        local: Option<u32>,
        pending: bool,
        deadline: u64,
    ) {
        if self.journal.is_some() {
            let e = &self.ends[end as usize];
            let random = if e.balancer.len() > 1 { e.pick.bits(e.picks) } else { 0 };
            let hedge_after = e.pipeline.hedge_after(&self.calls[call].flight).filter(|_| slot == 0 && local.is_some());
            let (target, deadline) = (local.map(|local| local as usize), Time::from_nanos(deadline));
            self.note(end, call, Step::Goes { why, slot, random, target, pending, deadline, hedge_after });
        }
    }

    /// The instance to ask for an attempt that waits for a connection, once there is one.
    pub(crate) fn choose_again(&mut self, call: Ref) -> Option<u32> {
        let time = self.time();
        let c = &self.calls[call];
        let e = &mut self.ends[c.end as usize];
        let Target::Service(service) = e.to else { unreachable!("only connections to services are bounded") };
        let local = e.choose(c, &self.services[service as usize].registered, time)?;
        Some(e.first_target + local)
    }

    /// Sends something to a target, over the edge's delay and through its faults.
    #[inline]
    pub(crate) fn send(&mut self, end: u32, target: u32, event: Event, bytes: u64) {
        if self.faults.any_link() {
            return self.send_slowly(end, target, event, bytes);
        }
        let e = &self.ends[end as usize];
        if e.instant {
            return self.soon(event);
        }
        match e.lanes[(target - e.first_target) as usize] {
            Some(lane) => self.queue.after(self.now, lane, event),
            None => self.send_slowly(end, target, event, bytes),
        }
    }

    fn send_slowly(&mut self, end: u32, target: u32, event: Event, bytes: u64) {
        let e = &self.ends[end as usize];
        let local = (target - e.first_target) as usize;
        let back = matches!(event, Event::Answered { .. });
        let draw = match event {
            Event::Deliver { attempt } | Event::Answered { attempt, .. } => {
                let Some(a) = self.attempts.get(attempt) else { return };
                self.calls[a.call].context.draw.part(u64::MAX - a.number as u64 * 2 - back as u64)
            }
            Event::OpArrive { op } => self.ops[op].context.draw.part(u64::MAX),
            _ => unreachable!("nothing else crosses an edge"),
        };
        let mut delay = duration(&e.delays[local], draw.bits(0));
        if self.faults.any_link() {
            match self.link(end, local, draw, delay, bytes, back) {
                Link::Delay(total) => delay = total,
                Link::Reset => {
                    return match event {
                        Event::Deliver { attempt } | Event::Answered { attempt, .. } => {
                            self.soon(Event::Answered { attempt, answer: Answer::Reset });
                        }
                        Event::OpArrive { op } => self.fail_op(op, Answer::Reset),
                        _ => {}
                    };
                }
                Link::Blocked => {
                    self.faults.blocked.push((end, target, event, bytes));
                    return;
                }
            }
        }
        if back && let Some(overhead) = &self.ends[end as usize].overhead {
            delay += duration(overhead, draw.bits(1));
        }
        if delay == 0 { self.soon(event) } else { self.queue.at(self.now + delay, event) }
    }

    /// An answer sets out for the caller.
    pub(crate) fn answer(&mut self, attempt: Ref, answer: Answer) {
        let Some(a) = self.attempts.get(attempt) else { return };
        let (target, bytes) = (a.target, a.bytes);
        let call = &self.calls[a.call];
        let bytes = match call.what {
            What::Endpoint(endpoint) => self.plan.code.endpoints[endpoint as usize].response_size,
            _ => bytes,
        };
        self.send(call.end, target, Event::Answered { attempt, answer }, bytes);
    }

    /// As [`answer`](Self::answer), where nothing is left to do after it in this event: without a
    /// delay on the way the caller has it at once.
    #[inline]
    pub(crate) fn answer_last(&mut self, attempt: Ref, answer: Answer) {
        let Some(a) = self.attempts.get(attempt) else { return };
        if a.instant && !self.faults.any_link() {
            self.answered(attempt, answer);
        } else {
            self.answer(attempt, answer);
        }
    }

    /// As [`answer_last`](Self::answer_last), by the task that served it and is gone now.
    #[inline(always)]
    pub(crate) fn served_last(&mut self, attempt: Ref, answer: Answer) {
        let Some(a) = self.attempts.get_mut(attempt) else { return };
        a.server = Ref::NONE;
        if a.instant && !self.faults.any_link() {
            self.answered(attempt, answer);
        } else {
            self.answer(attempt, answer);
        }
    }

    /// As [`answer`](Self::answer), by the task that served it and is gone now.
    pub(crate) fn served(&mut self, attempt: Ref, answer: Answer) {
        let Some(a) = self.attempts.get_mut(attempt) else { return };
        a.server = Ref::NONE;
        self.answer(attempt, answer);
    }

    /// An attempt has taken too long.
    pub(crate) fn attempt_timeout(&mut self, attempt: Ref) {
        let Some(a) = self.attempts.get(attempt) else { return };
        let end = self.calls[a.call].end;
        if let Some(instance) = self.ends[end as usize].instance
            && self.plan.disturbed
            && self.hold(instance, Event::AttemptTimeout { attempt })
        {
            return;
        }
        self.abandon(attempt);
        self.answered(attempt, Answer::Timeout);
    }

    /// The caller hangs up: a server that minds stops working.
    fn abandon(&mut self, attempt: Ref) {
        let server = std::mem::replace(&mut self.attempts[attempt].server, Ref::NONE);
        if server.is_none() {
            return;
        }
        let Some(task) = self.tasks.get(server) else { return };
        if self.instances[task.instance as usize].spec.stops_when_cancelled {
            self.cancel_task(server);
        }
    }

    /// An attempt has ended: its policies are told, and its call goes on. Nothing is done after it
    /// in the same event.
    pub(crate) fn answered(&mut self, attempt: Ref, answer: Answer) {
        let Some(a) = self.attempts.get_mut(attempt) else { return };
        let call = a.call;
        let mut c = &mut self.calls[call];
        let end = c.end;
        let mut e = &mut self.ends[end as usize];
        if self.plan.disturbed
            && let Some(instance) = e.instance
            && self.instances[instance as usize].paused_at.is_some()
        {
            self.hold(instance, Event::Answered { attempt, answer });
            return;
        }
        if !a.server.is_none() {
            // Forgets the server: the second time there is none.
            self.abandon(attempt);
            return self.answered(attempt, answer);
        }
        let (target, took) = (a.target, self.now - a.started);
        let permit = a.permit.take().expect("an attempt ends once");
        self.attempts.remove(attempt);
        if self.journal.is_some() {
            self.note_ended(end, call, attempt, answer);
            c = &mut self.calls[call];
            e = &mut self.ends[end as usize];
        }
        let now = self.now;
        let time = Time::from_nanos(now);
        let outcome = outcome(answer);
        e.in_flight.add(now, -1);
        e.times.record(took);
        let totals = &mut e.counter.now;
        if answer.is_ok() {
            totals.ok += 1;
            totals.degraded += (answer == Answer::Degraded) as u64;
        } else {
            c.failed = true;
            totals.failed += 1;
            totals.timed_out += (answer == Answer::Timeout) as u64;
            totals.rejected += answer.is_rejection() as u64;
        }
        if target != u32::MAX {
            let local = (target - e.first_target) as usize;
            let retry_after = answer.retry_after();
            e.balancer.on_done(local, time, took, outcome, retry_after);
            if e.members.is_some() {
                self.record_member(end, local, outcome);
                c = &mut self.calls[call];
                e = &mut self.ends[end as usize];
            }
        }
        if e.connections.is_some() {
            self.leave_connection(end, attempt, target != u32::MAX);
            c = &mut self.calls[call];
            e = &mut self.ends[end as usize];
        }
        for slot in &mut c.attempts {
            if *slot == attempt {
                *slot = Ref::NONE;
            }
        }
        if answer.is_ok() && e.pipeline.bulkhead().is_none() {
            // Said apart from the rest, so that what follows a failure or a grant is not in the way.
            let Settled { next, .. } = e.pipeline.settle(time, &mut c.flight, permit, Reply::new(Outcome::Success), 0);
            let tripped = e.pipeline.breaker().is_some_and(|breaker| breaker.state() != Breaker::Closed);
            let over = c.over();
            if tripped || self.journal.is_some() {
                self.settled(end, call, Settled { next, granted: None });
            }
            return self.conclude(call, over, answer);
        }
        let settled = e.settle(c, time, permit, answer);
        let next = settled.next;
        self.settled(end, call, settled);
        match next {
            Next::Done | Next::Exhausted(_) => {
                let over = self.calls[call].over();
                self.conclude(call, over, answer);
            }
            Next::Wait => {}
            Next::Retry { at } => self.queue.at(at.as_nanos(), Event::Retry { call }),
        }
    }

    /// Writes down how an attempt has ended.
    #[cold]
    fn note_ended(&mut self, end: u32, call: Ref, attempt: Ref, answer: Answer) {
        let c = &self.calls[call];
        let slot = usize::from(c.attempts[0] != attempt);
        let random = if answer.is_ok() { 0 } else { c.context.draw.bits(BACKOFF | c.number as u64) };
        self.note(end, call, Step::Ends { slot, end: journal::ended(answer), random });
    }

    /// What else follows when policies were told of an attempt's end.
    #[cold]
    fn settled(&mut self, end: u32, call: Ref, settled: Settled) {
        self.note_breaker(end);
        self.note(end, call, Step::Then(settled.next));
        self.granted(end, settled.granted);
    }

    /// A call has its answer: other attempts are called off, and its caller is told, with nothing
    /// left to do after it in this event.
    #[inline(always)]
    fn conclude(&mut self, call: Ref, over: Over, answer: Answer) {
        if !over.alone {
            self.cancel_attempts(call);
        }
        if let Some(task) = self.ended_call(call, over, answer) {
            self.resume(task, answer);
        }
    }

    /// A call has ended: its caller is told.
    pub(crate) fn end_call(&mut self, call: Ref, answer: Answer) {
        let over = self.calls[call].over();
        if let Some(task) = self.ended_call(call, over, answer) {
            self.soon(Event::Resume { task, answer });
        }
    }

    /// Forgets a call that has ended and tells its caller; a task that has to go on is left to do.
    #[inline(always)]
    fn ended_call(&mut self, call: Ref, over: Over, answer: Answer) -> Option<Ref> {
        let Over { end, parent, started, client, user, retries, failed, .. } = over;
        let rescued = failed && answer.is_ok();
        self.ends[end as usize].counter.now.rescued += rescued as u64;
        self.note(end, call, Step::Over);
        self.calls.remove(call);
        match parent {
            Parent::Task(task) => return Some(task),
            Parent::Client { group, number } => {
                self.request_ended(Origin { client, user, group, number }, started, answer, (retries, rescued));
            }
            Parent::Limiter { task, key } => self.limiter_answered(task, key, answer),
            Parent::CacheLookup { task } => self.cache_answered(task, answer),
            Parent::CacheStore { task } => self.cache_stored(task, answer),
            Parent::Flight { key } => self.landed(end, key, answer),
        }
        None
    }

    /// Calls a call's attempts off.
    fn cancel_attempts(&mut self, call: Ref) {
        let now = self.now;
        let time = self.time();
        for slot in 0..2 {
            let attempt = std::mem::replace(&mut self.calls[call].attempts[slot], Ref::NONE);
            if attempt.is_none() || !self.attempts.contains(attempt) {
                continue;
            }
            self.abandon(attempt);
            let a = &mut self.attempts[attempt];
            let (target, started) = (a.target, a.started);
            let permit = a.permit.take();
            self.attempts.remove(attempt);
            let c = &mut self.calls[call];
            let end = c.end;
            self.note(end, call, Step::CalledOff(slot));
            let c = &mut self.calls[call];
            let e = &mut self.ends[end as usize];
            e.in_flight.add(now, -1);
            if target != u32::MAX {
                let local = (target - e.first_target) as usize;
                e.balancer.on_done(local, time, now - started, Outcome::Cancelled, None);
            }
            let granted = permit.and_then(|permit| e.pipeline.cancel(time, &mut c.flight, permit));
            self.granted(end, granted);
            if self.ends[end as usize].connections.is_some() {
                self.leave_connection(end, attempt, target != u32::MAX);
            }
        }
    }

    /// Nobody waits for a call any more.
    pub(crate) fn cancel_call(&mut self, call: Ref) {
        if !self.calls.contains(call) {
            return;
        }
        self.cancel_attempts(call);
        let end = self.calls[call].end;
        if self.ends[end as usize].sharing.is_some() {
            self.leave_flight(end, call);
        }
        let time = self.time();
        let c = &mut self.calls[call];
        if let Some(waiting) = c.waiting.take() {
            let e = &mut self.ends[c.end as usize];
            e.waiters.retain(|&(_, waiter)| waiter != call);
            let _ = e.pipeline.give_up(time, &c.flight, *waiting);
        }
        self.calls.remove(call);
    }

    /// A calling process is gone: its calls are, its connections break, its policies start anew.
    pub(crate) fn drop_ends_of(&mut self, instance: u32) {
        let ends: Vec<u32> =
            (0..self.ends.len() as u32).filter(|&e| self.ends[e as usize].instance == Some(instance)).collect();
        if ends.is_empty() {
            return;
        }
        for &end in &ends {
            if let Some(connections) = &mut self.ends[end as usize].connections {
                connections.clear(self.now);
            }
        }
        let calls: Vec<Ref> = self.calls.refs().filter(|&call| ends.contains(&self.calls[call].end)).collect();
        for call in calls {
            self.cancel_call(call);
        }
        let time = self.time();
        let now = self.now;
        for end in ends {
            for p in 0..self.ends[end as usize].pools.len() {
                let pool = &mut self.ends[end as usize].pools[p];
                let (open, waiting) = (pool.open, pool.waiting.len());
                pool.open = 0;
                pool.idle = 0;
                pool.waiting.clear();
                pool.used.set(now, 0);
                pool.queue.set(now, 0);
                let _ = waiting;
                let node = self.ends[end as usize].first_target + p as u32;
                self.disconnect(node, open);
            }
            let e = &mut self.ends[end as usize];
            let policies = &self.plan.system.edges[e.edge as usize].policies;
            e.pipeline = Pipeline::new(policies.pipeline, time).expect(CHECKED);
            e.waiters.clear();
            e.life += 1;
        }
    }

    /// Puts breakers' changes on the timeline.
    fn note_breaker(&mut self, end: u32) {
        while let Some(transition) = self.ends[end as usize].pipeline.poll_transition() {
            let kind = match transition.to {
                Breaker::Open => EventKind::BreakerOpen,
                Breaker::HalfOpen => EventKind::BreakerHalfOpen,
                Breaker::Closed => EventKind::BreakerClosed,
                Breaker::Ramping => continue,
            };
            let e = &mut self.ends[end as usize];
            if transition.to == Breaker::Open {
                e.trips[self.segment] += 1;
            }
            let (edge, instance) = (e.edge, e.instance);
            if self.plan.detail {
                let who = instance.map_or_else(
                    || self.name_of(self.plan.system.edges[edge as usize].from).to_owned(),
                    |instance| self.instance_name(instance),
                );
                let to = self.name_of(self.plan.system.edges[edge as usize].to);
                self.happened(kind, format!("{who} -> {to}"), breaker_words(transition.to));
            }
        }
    }

    /// The members of an end that are due.
    pub(crate) fn members_wake(&mut self, end: u32) {
        if self.ends[end as usize].members_at == self.now {
            self.ends[end as usize].members_at = u64::MAX;
            self.poll_members(end);
        }
    }

    /// Schedules an end's members if they are due earlier than known.
    pub(crate) fn schedule_members(&mut self, end: u32) {
        let now = self.now;
        let e = &mut self.ends[end as usize];
        let Some(at) = e.members.as_deref().and_then(Members::next_wake) else { return };
        let at = at.as_nanos().max(now + 1);
        if at < e.members_at {
            e.members_at = at;
            self.wake_at(at, Wake::Members { end });
        }
    }

    /// An operation sets out for its node; without a delay it is there at once.
    #[inline]
    pub(crate) fn send_op_event(&mut self, end: u32, node: u32, op: Ref) {
        if self.ends[end as usize].instant && !self.faults.any_link() {
            self.op_arrive(op);
        } else {
            self.send(end, node, Event::OpArrive { op }, 0);
        }
    }
}

impl EdgeEnd {
    /// Where its balancer's and its members' chance starts.
    pub(crate) fn seeds(&self) -> (u64, u64) {
        (self.draw.bits(4), self.draw.bits(3))
    }

    /// Tells the policies how an attempt has ended.
    #[inline(never)]
    fn settle(&mut self, call: &mut Call, time: Time, permit: pipeline::Attempt, answer: Answer) -> Settled {
        let retry_after = answer.retry_after();
        let hint = Hint { throttled: answer == Answer::TooMany, retry_after };
        let reply = Reply { outcome: outcome(answer), retryable: self.is_retryable(answer), hint };
        let random = call.context.draw.bits(BACKOFF | call.number as u64);
        self.pipeline.settle(time, &mut call.flight, permit, reply, random)
    }

    /// Whether a failure is one of those that another attempt is made for.
    fn is_retryable(&self, answer: Answer) -> bool {
        let when = &self.retry_when;
        match answer {
            Answer::Refused => when.connect_error,
            Answer::Reset => when.reset,
            Answer::Timeout => when.timeout,
            Answer::TooMany => when.too_many_requests,
            Answer::Error => when.internal_error,
            Answer::Unavailable | Answer::Busy(_) => when.unavailable,
            _ => false,
        }
    }

    /// The target for a call's next attempt, counted from the edge's first.
    #[inline(always)]
    fn choose(&mut self, call: &Call, registered: &Eligible, time: Time) -> Option<u32> {
        self.picks += 1;
        let (random, hash) = match self.balancer.len() {
            // There is nothing to choose.
            ..=1 => (0, 0),
            _ => {
                let user = (call.context.client as u64) << 32 | call.context.user as u64;
                (self.pick.bits(self.picks), mix(user))
            }
        };
        let eligible = match &self.members {
            Some(members) => members.eligible(),
            None => registered,
        };
        let picked = if call.number <= 1 && self.connections.is_none() {
            self.balancer.pick(time, hash, random, eligible)
        } else {
            self.choose_elsewhere(call, registered, time, hash, random)
        };
        picked.map(|i| i as u32)
    }

    /// As [`choose`](Self::choose), where not every target may be asked: a retry goes elsewhere if
    /// there is an elsewhere, and full targets are passed over.
    #[inline(never)]
    fn choose_elsewhere(
        &mut self,
        call: &Call,
        registered: &Eligible,
        time: Time,
        hash: u64,
        random: u64,
    ) -> Option<usize> {
        let mut left = match &self.members {
            Some(members) => members.eligible().clone(),
            None => registered.clone(),
        };
        if let Some(limit) = self.connections.as_ref().map(|connections| connections.most) {
            for i in 0..self.balancer.len() {
                if self.balancer.in_flight(i) >= limit {
                    left.remove(i);
                }
            }
        }
        let mut fresh = left.clone();
        if call.number > 1 {
            for target in call.tried.into_iter().filter(|&target| target != u32::MAX) {
                fresh.remove((target - self.first_target) as usize);
            }
        }
        self.balancer.pick(time, hash, random, if fresh.is_empty() { &left } else { &fresh })
    }
}

/// Requests that are delivered within the event of the one that makes them; deeper ones wait their
/// turn, so that a long program of calls that all fail at once does not fill the stack.
const MAX_DEPTH: u32 = 8;

/// What the way to a target does to a message.
pub(crate) enum Link {
    Delay(u64),
    Reset,
    Blocked,
}

/// A policy's refusal, with the time until the caller may try again as a gateway says it: in whole seconds.
fn no(rejected: plimsoll_policy::Rejected, now: u64) -> Answer {
    let wait = rejected.retry_at.map_or(1, |at| at.as_nanos().saturating_sub(now).div_ceil(1_000_000_000));
    Answer::Rejected(wait.clamp(1, 255) as u8)
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Ok | Answer::Degraded => Outcome::Success,
        Answer::Conflict | Answer::Rejected(_) => Outcome::Ignored,
        Answer::Cancelled => Outcome::Cancelled,
        _ => Outcome::Failure,
    }
}

fn breaker_words(state: Breaker) -> &'static str {
    match state {
        Breaker::Open => "the circuit breaker opens: calls are rejected at once",
        Breaker::HalfOpen => "the circuit breaker lets probes through",
        Breaker::Ramping => "the circuit breaker lets a growing share through",
        Breaker::Closed => "the circuit breaker closes",
    }
}
