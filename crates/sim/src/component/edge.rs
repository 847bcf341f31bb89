//! Edges: a caller's policies around its calls, the choice of a target, the way there and back.

use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Component, Dist, StoreKind};
use plimsoll_policy::balance::Balancer;
use plimsoll_policy::circuit_breaker::State as Breaker;
use plimsoll_policy::pipeline::{self, Admission, Next, Reply};
use plimsoll_policy::retry::Hint;
use plimsoll_policy::{Members, Outcome, Pipeline, Reason, Time};

use crate::component::client::Origin;
use crate::component::instance::CHECKED;
use crate::component::pending::Connections;
use crate::component::task::{Context, Waiting};
use crate::engine::{Answer, Draw, Event, LaneId, Ref, duration, mix};
use crate::measure::{Counter, Gauge, Times};
use crate::world::{Wake, World};

/// One caller's end of an edge: an instance's, or a client's.
pub(crate) struct EdgeEnd {
    pub(crate) edge: u32,
    /// The calling instance; none for a client.
    pub(crate) instance: Option<u32>,
    /// Counts the caller's lives: connections of an earlier one are gone.
    pub(crate) life: u32,
    pub(crate) pipeline: Pipeline,
    pub(crate) balancer: Balancer,
    pub(crate) members: Option<Members>,
    /// Health checks under way, by target: their number and the probe.
    pub(crate) probes: Vec<Option<(u32, plimsoll_policy::health::Probe)>>,
    pub(crate) probe_number: u32,
    /// When its members are next due, ns.
    pub(crate) members_at: u64,
    /// The first instance or node of the target.
    pub(crate) first_target: u32,
    /// One-way delay to each target.
    pub(crate) delays: Vec<Dist>,
    /// The lane of each constant delay.
    lanes: Vec<Option<LaneId>>,
    /// Whether every delay is zero.
    pub(crate) instant: bool,
    pub(crate) pools: Vec<Pool>,
    /// Its connections, where they are bounded.
    pub(crate) connections: Option<Box<Connections>>,
    /// Calls that wait for the bulkhead.
    waiters: Vec<(plimsoll_policy::bulkhead::Ticket, Ref)>,
    timeout: Option<(u64, Option<LaneId>)>,
    per_try: Option<(u64, Option<LaneId>)>,
    pub(crate) pool_timeout: (u64, Option<LaneId>),
    draw: Draw,
    picks: u64,
    pub(crate) counter: Counter,
    pub(crate) times: Vec<Times>,
    pub(crate) in_flight: Gauge,
    pub(crate) trips: Vec<u32>,
    pub(crate) ejections: Vec<u32>,
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
    /// When its operation may be sent: a read that waits for its replica.
    not_before: u64,
}

impl Call {
    pub(crate) fn wait_until(&mut self, time: u64) {
        self.not_before = time;
    }

    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    pub(crate) fn waits_until(&self) -> u64 {
        self.not_before
    }
}

/// Who made a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parent {
    Client(Origin),
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
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    Endpoint(u32),
    Operation {
        store: u32,
        operation: u32,
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
    /// The task that serves it, if there is one.
    pub(crate) server: Ref,
    /// What the answer's bytes are, for limited bandwidth.
    pub(crate) bytes: u64,
    /// Shards that have not answered yet, of an operation that asks them all.
    pub(crate) shards_left: u32,
    /// How far an operation on a quorum store is.
    pub(crate) quorum: Option<Box<super::quorum::Progress>>,
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
        let (first_target, targets, pool) = match edge.to {
            Component::Service(id) => {
                let slots = self.slots(id.0);
                (slots.start as u32, slots.len(), None)
            }
            Component::Store(id) => {
                let state = &self.stores[id.index()];
                let pool = match &plan.system.stores[id.index()].kind {
                    StoreKind::Postgres(pg) => Some((pg.pool, pg.pool_timeout)),
                    StoreKind::Redis(redis) => Some((redis.pool, redis.pool_timeout)),
                    StoreKind::Quorum(_) => None,
                };
                (state.first, state.nodes as usize, pool)
            }
            _ => (0, 0, None),
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
                Dist::Constant(nanos) => self.queue.lane(*nanos),
                _ => None,
            })
            .collect();
        let ns = |d: std::time::Duration| plimsoll_policy::nanos(d);
        let mut lane = |delay: Option<u64>| delay.map(|delay| (delay, self.queue.lane(delay)));
        let timeout = lane(policies.pipeline.timeout.map(ns));
        let per_try = lane(policies.pipeline.per_try_timeout.map(ns));
        let pool_timeout = lane(pool.map(|(_, timeout)| timeout)).unwrap_or((u64::MAX, None));
        let members = (policies.health.is_some() || policies.outliers.is_some()).then(|| {
            let ejection =
                policies.outliers.clone().unwrap_or_else(plimsoll_policy::outlier_ejection::Config::without_ejection);
            let health = policies.health.as_ref().map(|health| health.config);
            let config = plimsoll_policy::members::Config { health, ejection };
            Members::new(config, targets, Time::ZERO, draw.bits(3)).expect(CHECKED)
        });
        let mut balancer = Balancer::new(policies.balance.clone(), targets, draw.bits(4)).expect(CHECKED);
        for (i, &weight) in policies.weights.iter().cycle().take(targets).enumerate() {
            balancer.set_weight(i, weight).expect(CHECKED);
        }
        EdgeEnd {
            edge: e as u32,
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
            instant: delays.iter().all(|delay| *delay == Dist::Constant(0)),
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
            waiters: Vec::new(),
            timeout,
            per_try,
            pool_timeout,
            draw,
            picks: 0,
            counter: Counter::default(),
            times: vec![Times::new(); segments],
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
    pub(crate) fn client_end(&self, edge: u32, _client: u32) -> u32 {
        self.edge_first[edge as usize]
    }

    /// Makes a call.
    pub(crate) fn start_call(&mut self, end: u32, parent: Parent, what: What, context: Context) {
        let time = self.time();
        let repeatable = match what {
            What::Endpoint(endpoint) => {
                let code = &self.plan.code.endpoints[endpoint as usize];
                code.idempotent || self.plan.system.services[code.service as usize].idempotency.is_some()
            }
            What::Operation { store, operation } => {
                !self.plan.system.stores[store as usize].operations[operation as usize].write
                    && self.transaction_of(parent).is_none()
            }
            What::Begin { .. } | What::Command { .. } | What::Limiter => true,
        };
        let deadline = (context.deadline < u64::MAX).then(|| Time::from_nanos(context.deadline));
        let e = &mut self.ends[end as usize];
        let flight = e.pipeline.start(time, deadline, repeatable);
        let call = self.calls.insert(Call {
            end,
            parent,
            what,
            context,
            flight,
            started: self.now,
            attempts: [Ref::NONE; 2],
            number: 0,
            waiting: None,
            tried: [u32::MAX; 3],
            not_before: 0,
        });
        if let Parent::Task(task) | Parent::CacheLookup { task } | Parent::CacheStore { task } = parent {
            self.tasks[task].waiting = Waiting::Call(call);
        }
        self.attempt(call);
    }

    /// The transaction that a call's task is in.
    fn transaction_of(&self, parent: Parent) -> Option<Ref> {
        match parent {
            Parent::Task(task) => Some(self.tasks[task].transaction).filter(|tx| !tx.is_none()),
            _ => None,
        }
    }

    /// Asks the policies for an attempt.
    fn attempt(&mut self, call: Ref) {
        let time = self.time();
        let c = &mut self.calls[call];
        let end = c.end;
        let key = mix((c.context.client as u64) << 32 | c.context.user as u64);
        let e = &mut self.ends[end as usize];
        match e.pipeline.attempt(time, &mut c.flight, key) {
            Ok(Admission::Now(permit)) => self.launch(call, permit, 0),
            Ok(Admission::Queued(waiting)) => {
                e.waiters.push((waiting.ticket(), call));
                let until = waiting.until();
                c.waiting = Some(Box::new(waiting));
                if until < Time::MAX {
                    self.queue.at(until.as_nanos(), Event::BulkheadTimeout { call });
                }
            }
            Err(rejected) => {
                e.counter.now.offered += 1;
                e.counter.now.failed += 1;
                let answer = if rejected.reason == Reason::DeadlineExceeded {
                    e.counter.now.timed_out += 1;
                    Answer::Timeout
                } else {
                    e.counter.now.rejected += 1;
                    Answer::Rejected
                };
                self.end_call(call, answer);
            }
        }
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
        self.end_call(call, if late { Answer::Timeout } else { Answer::Rejected });
    }

    /// A call that waited has its permit.
    fn granted(&mut self, end: u32, granted: Option<plimsoll_policy::bulkhead::Granted>) {
        let Some(granted) = granted else { return };
        let time = self.time();
        let e = &mut self.ends[end as usize];
        let Some(at) = e.waiters.iter().position(|(ticket, _)| *ticket == granted.ticket) else { return };
        let (_, call) = e.waiters.remove(at);
        let c = &mut self.calls[call];
        let waiting = c.waiting.take().expect("it waits");
        let permit = e.pipeline.resume(time, &mut c.flight, *waiting, granted);
        self.launch(call, permit, 0);
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
        let time = self.time();
        let Some(c) = self.calls.get_mut(call) else { return };
        let key = mix((c.context.client as u64) << 32 | c.context.user as u64);
        if let Ok(permit) = self.ends[c.end as usize].pipeline.hedge(time, &mut c.flight, key) {
            self.launch(call, permit, 1);
        }
    }

    /// Chooses a target and sends an attempt on its way.
    fn launch(&mut self, call: Ref, permit: pipeline::Attempt, slot: usize) {
        let now = self.now;
        let time = self.time();
        let deadline = permit.deadline().time().as_nanos();
        let c = &mut self.calls[call];
        let end = c.end;
        let number = c.number;
        c.number += 1;
        let (what, context) = (c.what, c.context);
        let e = &mut self.ends[end as usize];
        e.counter.now.offered += 1;
        e.counter.now.retries += (number > 0) as u64;
        e.in_flight.add(now, 1.0);
        let target = self.choose(call, what, &context);
        let attempt = self.attempts.insert(Attempt {
            call,
            permit: Some(permit),
            target: target.unwrap_or(u32::MAX),
            deadline,
            started: now,
            number,
            server: Ref::NONE,
            bytes: 0,
            shards_left: 0,
            quorum: None,
        });
        let c = &mut self.calls[call];
        c.attempts[slot] = attempt;
        let e = &mut self.ends[end as usize];
        let Some(target) = target else {
            if !self.wait_for_connection(attempt) {
                self.soon(Event::Answered { attempt, answer: Answer::Refused });
            }
            return;
        };
        if let Some(connections) = &mut e.connections {
            connections.used.add(now, 1.0);
        }
        let tried = &mut c.tried;
        tried[number as usize % 3] = target;
        e.balancer.on_start((target - e.first_target) as usize, time);
        // A caller that is itself called off at the deadline needs no timer of its own.
        if deadline < context.deadline {
            let delay = deadline - now;
            let lane =
                [e.per_try, e.timeout].into_iter().flatten().find(|(d, _)| *d == delay).and_then(|(_, lane)| lane);
            self.after(delay, lane, Event::AttemptTimeout { attempt });
        }
        if slot == 0
            && let Some(after) = self.ends[end as usize].pipeline.hedge_after(&self.calls[call].flight)
        {
            self.queue.at(now + plimsoll_policy::nanos(after), Event::Hedge { call });
        }
        match what {
            What::Endpoint(_) => self.send(end, target, Event::Deliver { attempt }, 0),
            _ => self.ask_store(attempt),
        }
    }

    /// An attempt that waited for a connection has one.
    pub(crate) fn go_to(&mut self, attempt: Ref, target: u32) {
        let (now, time) = (self.now, self.time());
        let a = &mut self.attempts[attempt];
        a.target = target;
        let (call, number) = (a.call, a.number);
        let c = &mut self.calls[call];
        c.tried[number as usize % 3] = target;
        let (end, first) = (c.end, c.attempts[0] == attempt);
        let e = &mut self.ends[end as usize];
        e.balancer.on_start((target - e.first_target) as usize, time);
        if let Some(connections) = &mut e.connections {
            connections.used.add(now, 1.0);
        }
        if first && let Some(after) = e.pipeline.hedge_after(&c.flight) {
            self.queue.at(now + plimsoll_policy::nanos(after), Event::Hedge { call });
        }
        self.send(end, target, Event::Deliver { attempt }, 0);
    }

    /// The instance or node to ask.
    pub(crate) fn choose(&mut self, call: Ref, what: What, context: &Context) -> Option<u32> {
        if !matches!(what, What::Endpoint(_)) {
            return self.choose_node(call, what, context);
        }
        let time = self.time();
        let c = &self.calls[call];
        let tried = if c.number > 1 { c.tried } else { [u32::MAX; 3] };
        let end = c.end;
        let e = &mut self.ends[end as usize];
        let edge = &self.plan.system.edges[e.edge as usize];
        let Component::Service(service) = edge.to else { unreachable!("endpoints belong to services") };
        e.picks += 1;
        let random = if e.balancer.len() > 1 { e.draw.part(PICK).bits(e.picks) } else { 0 };
        let hash = mix((context.client as u64) << 32 | context.user as u64);
        let eligible = match &e.members {
            Some(members) => members.eligible(),
            None => &self.services[service.index()].registered,
        };
        let limit = e.connections.as_ref().map(|connections| connections.most);
        let picked = if tried == [u32::MAX; 3] && limit.is_none() {
            e.balancer.pick(time, hash, random, eligible)
        } else {
            // A retry goes elsewhere if there is an elsewhere; full targets are passed over.
            let mut left = eligible.clone();
            if let Some(limit) = limit {
                for i in 0..e.balancer.len() {
                    if e.balancer.in_flight(i) >= limit {
                        left.remove(i);
                    }
                }
            }
            let mut fresh = left.clone();
            for target in tried.into_iter().filter(|&target| target != u32::MAX) {
                fresh.remove((target - e.first_target) as usize);
            }
            e.balancer.pick(time, hash, random, if fresh.is_empty() { &left } else { &fresh })
        };
        picked.map(|i| e.first_target + i as u32)
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
        let service = self.instances[task.instance as usize].service;
        if self.plan.system.services[service as usize].stops_when_cancelled {
            self.cancel_task(server);
        }
    }

    /// An attempt has ended: its policies are told, and its call goes on.
    pub(crate) fn answered(&mut self, attempt: Ref, answer: Answer) {
        let Some(a) = self.attempts.get_mut(attempt) else { return };
        let call = a.call;
        let (target, started) = (a.target, a.started);
        let permit = a.permit.take().expect("an attempt ends once");
        let end = self.calls[call].end;
        if let Some(instance) = self.ends[end as usize].instance
            && self.plan.disturbed
            && self.instances[instance as usize].paused_at.is_some()
        {
            self.attempts[attempt].permit = Some(permit);
            self.hold(instance, Event::Answered { attempt, answer });
            return;
        }
        if !self.attempts[attempt].server.is_none() {
            self.abandon(attempt);
        }
        self.attempts.remove(attempt);
        let now = self.now;
        let time = self.time();
        let outcome = outcome(answer);
        let hint =
            Hint { throttled: answer == Answer::TooMany, retry_after: (answer == Answer::Busy).then_some(RETRY_AFTER) };
        let e = &mut self.ends[end as usize];
        e.in_flight.add(now, -1.0);
        e.times[self.segment].record(now - started);
        let totals = &mut e.counter.now;
        if answer.is_ok() {
            totals.ok += 1;
            totals.degraded += (answer == Answer::Degraded) as u64;
        } else {
            totals.failed += 1;
            totals.timed_out += (answer == Answer::Timeout) as u64;
            totals.rejected += answer.is_rejection() as u64;
        }
        if target != u32::MAX {
            let local = (target - e.first_target) as usize;
            e.balancer.on_done(local, time, now - started, outcome, hint.retry_after);
            self.record_member(end, local, outcome);
        }
        if self.ends[end as usize].connections.is_some() {
            self.leave_connection(end, attempt, target != u32::MAX);
        }
        let c = &mut self.calls[call];
        for slot in &mut c.attempts {
            if *slot == attempt {
                *slot = Ref::NONE;
            }
        }
        let when = &self.plan.system.edges[self.ends[end as usize].edge as usize].policies.retry_when;
        let retryable = match answer {
            Answer::Refused => when.connect_error,
            Answer::Reset => when.reset,
            Answer::Timeout => when.timeout,
            Answer::TooMany => when.too_many_requests,
            Answer::Error => when.internal_error,
            Answer::Unavailable | Answer::Busy => when.unavailable,
            _ => false,
        };
        let reply = Reply { outcome, retryable, hint };
        let random = if answer.is_ok() { 0 } else { c.context.draw.bits(BACKOFF | c.number as u64) };
        let e = &mut self.ends[end as usize];
        let settled = e.pipeline.settle(time, &mut c.flight, permit, reply, random);
        if !answer.is_ok() || e.pipeline.breaker().is_some_and(|b| b.state() != Breaker::Closed) {
            self.note_breaker(end);
        }
        self.granted(end, settled.granted);
        match settled.next {
            Next::Done | Next::Exhausted(_) => {
                self.cancel_attempts(call);
                self.end_call(call, answer);
            }
            Next::Wait => {}
            Next::Retry { at } => self.queue.at(at.as_nanos(), Event::Retry { call }),
        }
    }

    /// A call has ended: its caller is told.
    fn end_call(&mut self, call: Ref, answer: Answer) {
        let c = &self.calls[call];
        let (parent, started) = (c.parent, c.started);
        let retries = c.flight.attempts().saturating_sub(1);
        self.calls.remove(call);
        match parent {
            Parent::Client(origin) => self.request_ended(origin, started, answer, retries),
            Parent::Task(task) => self.soon(Event::Resume { task, answer }),
            Parent::Limiter { task, key } => self.limiter_answered(task, key, answer),
            Parent::CacheLookup { task } => self.cache_answered(task, answer),
            Parent::CacheStore { task } => self.cache_stored(task, answer),
        }
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
            let e = &mut self.ends[end as usize];
            e.in_flight.add(now, -1.0);
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
                pool.used.set(now, 0.0);
                pool.queue.set(now, 0.0);
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
        let Some(at) = e.members.as_ref().and_then(Members::next_wake) else { return };
        let at = at.as_nanos().max(now + 1);
        if at < e.members_at {
            e.members_at = at;
            self.wake_at(at, Wake::Members { end });
        }
    }

    /// An operation sets out for its node.
    pub(crate) fn send_op_event(&mut self, end: u32, node: u32, op: Ref) {
        self.send(end, node, Event::OpArrive { op }, 0);
    }
}

/// What the way to a target does to a message.
pub(crate) enum Link {
    Delay(u64),
    Reset,
    Blocked,
}

/// What a busy server says about coming back: a second, as nginx's and Envoy's examples do.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Ok | Answer::Degraded => Outcome::Success,
        Answer::Conflict | Answer::Rejected => Outcome::Ignored,
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
