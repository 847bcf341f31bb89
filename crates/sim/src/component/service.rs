use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Dist, RateLimitKey, ServiceKind};
use plimsoll_policy::idempotency::Idempotency;
use plimsoll_policy::rate_limit::{StoreAnswer, StoreDown};
use plimsoll_policy::shed::Push;
use plimsoll_policy::{Autoscaler, Eligible, Outcome, RateLimit, Reason, ShedQueue, Time, bulkhead};

use crate::component::edge::{Parent, What};
use crate::component::instance::{CHECKED, Instance, InstancePolicies, Slowness, State};
use crate::component::task::{Context, Hold, PROBE, Permits, TaskParent, Waiting};
use crate::engine::{Answer, Draw, Event, Ref, mix};
use crate::journal::{self, Refusal, Stage};
use crate::measure::{Counter, Gauge, SegmentTimes, Times};
use crate::world::World;

/// A service's state beside its instances.
pub(crate) struct ServiceState {
    /// Its first instance slot.
    pub(crate) first: u32,
    /// Its instance slots.
    pub(crate) slots: u32,
    /// The slots that callers know of.
    pub(crate) registered: Eligible,
    pub(crate) draw: Draw,
    /// Answers to repeated requests, by logical request.
    pub(crate) idempotency: Option<Idempotency<Answer>>,
    /// Counts shared by its instances in a store.
    pub(crate) shared_limit: Option<RateLimit>,
    /// New versions, as faults bring them: (work factor, share of errors, startup).
    pub(crate) versions: Vec<(f64, f64, Option<Dist>)>,
    pub(crate) autoscaler: Option<Autoscaler>,
    pub(crate) scaled_at: u64,
    /// The sums of its instances', when the run is over.
    pub(crate) counter: Counter,
    pub(crate) times: Vec<Times>,
}

impl ServiceState {
    pub(crate) fn version_slow(&self, version: u32) -> f64 {
        if version == 0 { 1.0 } else { self.versions[version as usize - 1].0 }
    }

    pub(crate) fn version_errors(&self, version: u32) -> f64 {
        if version == 0 { 0.0 } else { self.versions[version as usize - 1].1 }
    }

    pub(crate) fn version_startup(&self, version: u32) -> Option<&Dist> {
        if version == 0 { None } else { self.versions[version as usize - 1].2.as_ref() }
    }
}

impl World<'_> {
    pub(crate) fn build_services(&mut self) {
        let plan = self.plan;
        let segments = plan.cuts.len() + 1;
        for (s, service) in plan.system.services.iter().enumerate() {
            let most = service.autoscale.map_or(service.instances, |scale| scale.max.max(service.instances));
            let slots = most + plan.spare[s];
            let first = self.instances.len() as u32;
            let draw = self.root.named(&service.name);
            for number in 0..slots {
                let policies = InstancePolicies::new(plan, s as u32, Time::ZERO);
                let zone = (!service.zones.is_empty()).then(|| service.zones[number as usize % service.zones.len()].0);
                let up = number < service.instances;
                let mut held = Gauge::new();
                held.set(0, 0);
                self.instances.push(Instance {
                    spec: service,
                    service: s as u32,
                    number,
                    zone,
                    state: if up { State::Up } else { State::Absent },
                    registered: up,
                    epoch: 0,
                    paused_at: None,
                    held: Vec::new(),
                    queue: ShedQueue::new(service.queue).expect(CHECKED),
                    run_queue: Default::default(),
                    free_cores: service.cores,
                    free_workers: service.workers,
                    held_requests: 0,
                    slow: Slowness::NONE,
                    version: 0,
                    ready_at: 0,
                    guarded: service.memory.is_some()
                        || service.idempotency.is_some()
                        || service.rate_limit.is_some()
                        || policies.ladder.is_some(),
                    limited: policies.limit.is_some() || !policies.bulkheads.is_empty(),
                    limit: policies.limit,
                    rate_limit: policies.rate_limit,
                    bulkheads: policies.bulkheads,
                    bulkhead_waiters: Vec::new(),
                    ladder: policies.ladder,
                    caches: policies.caches,
                    skew: 0,
                    counter: Counter::default(),
                    times: SegmentTimes::new(),
                    workers: Gauge::new(),
                    cores: Gauge::new(),
                    waiting: Gauge::new(),
                    in_flight: Gauge::new(),
                    queue_full_noted: false,
                });
            }
            let mut registered = Eligible::none(slots as usize);
            for number in 0..service.instances {
                registered.insert(number as usize);
            }
            self.services.push(ServiceState {
                first,
                slots,
                registered,
                draw,
                idempotency: service.idempotency.as_ref().map(|config| Idempotency::new(*config).expect(CHECKED)),
                shared_limit: service
                    .rate_limit
                    .as_ref()
                    .filter(|limit| limit.store.is_some())
                    .map(|limit| RateLimit::new(limit.config, Time::ZERO).expect(CHECKED)),
                versions: Vec::new(),
                autoscaler: service.autoscale.map(|scale| Autoscaler::new(scale.policy(), Time::ZERO).expect(CHECKED)),
                scaled_at: 0,
                counter: Counter::default(),
                times: vec![Times::new(); segments],
            });
            self.build_autoscale(s as u32);
            self.build_degradation(s as u32);
        }
    }

    /// An attempt reaches an instance: through its own policies to a worker, or into the queue.
    pub(crate) fn deliver(&mut self, attempt: Ref) {
        let Some(a) = self.attempts.get(attempt) else { return };
        let (call, instance, number, deadline) = (a.call, a.target, a.number, a.deadline);
        self.deliver_to(attempt, call, instance, number, deadline);
    }

    /// As [`deliver`](Self::deliver), for one that has all of the attempt at hand.
    pub(crate) fn deliver_to(&mut self, attempt: Ref, call: Ref, instance: u32, number: u32, deadline: u64) {
        let state = &self.instances[instance as usize];
        if !state.accepts() {
            self.answer(attempt, Answer::Refused);
            return;
        }
        let call = &self.calls[call];
        let What::Endpoint(endpoint) = call.what else {
            unreachable!("only endpoints are delivered to instances");
        };
        let code = &self.plan.code.endpoints[endpoint as usize];
        let context = Context {
            draw: call.context.draw.part(number as u64),
            deadline: if state.spec.stops_when_cancelled { deadline } else { u64::MAX },
            class: code.class.unwrap_or(call.context.class),
            ..call.context
        };
        let task = self.new_task(TaskParent::Attempt(attempt), instance, code.entry, endpoint, context);
        self.attempts[attempt].server = task;
        // The kernel takes it for a process that is stopped, whoever still waits when it goes on.
        if !(self.plan.disturbed && self.hold(instance, Event::Admit { task })) {
            self.admit_here(task);
        }
    }

    /// A request is in its process's hands.
    pub(crate) fn arrived(&mut self, task: Ref) {
        let Some(t) = self.tasks.get(task) else { return };
        if t.cancelled {
            // Its caller has hung up, and the service minds.
            return self.tasks.remove(task);
        }
        self.admit(task);
    }

    /// A request asks its instance's policies, if there are any, and then for a worker.
    pub(crate) fn admit(&mut self, task: Ref) {
        self.admit_here(task);
    }

    #[inline(always)]
    fn admit_here(&mut self, task: Ref) {
        let t = &mut self.tasks[task];
        t.hold.insert(Hold::REQUEST);
        let state = &mut self.instances[t.instance as usize];
        state.counter.now.offered += 1;
        state.held_requests += 1;
        state.in_flight.add(self.now, 1);
        if state.guarded || self.journal.is_some() {
            self.ask_guards(task);
        } else if state.limited {
            self.ask_limits(task);
        } else if state.take_worker(self.now) {
            t.hold.insert(Hold::WORKER);
            self.start_task_here(task);
        } else {
            self.seat(task);
        }
    }

    /// Asks what stands before an instance's limits: its memory, its degradation, its memory of
    /// requests, its rate limit.
    fn ask_guards(&mut self, task: Ref) {
        let t = &self.tasks[task];
        let (instance, endpoint) = (t.instance, t.endpoint);
        let code = &self.plan.code.endpoints[endpoint as usize];
        let service = self.instances[instance as usize].spec;
        if let Some(memory) = service.memory
            && self.instances[instance as usize].held_requests as u64 * service.request_memory > memory
        {
            self.out_of_memory(instance);
            return;
        }
        if self.journal.is_some() {
            self.note_arrival(task);
        }
        if self.is_rejected(instance, code.index) {
            return self.refuse(task, Answer::BUSY, Refusal::Degraded);
        }
        if self.idempotent_repeat(task, code.service, code.idempotent) {
            return;
        }
        if let Some(limit) = &service.rate_limit {
            let key = self.quota_key(task, limit.per);
            if let Some((_, edge)) = limit.store {
                let end = self.instance_end(edge.0, instance);
                let context = self.tasks[task].context;
                self.tasks[task].waiting = Waiting::Limiter;
                let parent = Parent::Limiter { task, key };
                return self.start_call(end, parent, What::Limiter, context);
            }
            let time = self.time();
            let limiter = self.instances[instance as usize].rate_limit.as_mut().expect("local limits live here");
            if limiter.admit(time, key, 1).is_err() {
                return self.refuse(task, Answer::TooMany, Refusal::Quota);
            }
        }
        self.admit_limited(task);
    }

    /// The shared limiter's store has answered, or has not.
    pub(crate) fn limiter_answered(&mut self, task: Ref, key: u64, answer: Answer) {
        if !self.tasks.contains(task) {
            return;
        }
        let service = self.plan.code.endpoints[self.tasks[task].endpoint as usize].service;
        let time = self.time();
        let limiter = self.services[service as usize].shared_limit.as_mut().expect("its quota is shared");
        let admitted = if answer.is_ok() {
            limiter.admit(time, key, 1).is_ok()
        } else {
            limiter.admit_by_store(StoreAnswer::Down).is_ok()
        };
        self.tasks[task].waiting = Waiting::Nothing;
        self.note_visit(self.tasks[task].instance, task, Stage::Counted(answer.is_ok().then_some(admitted)));
        if admitted {
            self.admit_limited(task);
        } else if answer.is_ok() || limiter_refuses(self.plan.system.services[service as usize].rate_limit.as_ref()) {
            self.refuse(task, Answer::TooMany, Refusal::Quota);
        } else {
            self.finish(task, Answer::Unavailable);
        }
    }

    fn admit_limited(&mut self, task: Ref) {
        if self.instances[self.tasks[task].instance as usize].limited {
            self.ask_limits(task);
        } else {
            self.seat(task);
        }
    }

    /// Asks what bounds the requests that an instance runs at once, beside its workers.
    fn ask_limits(&mut self, task: Ref) {
        let time = self.time();
        let t = &self.tasks[task];
        let instance = t.instance;
        let index = self.plan.code.endpoints[t.endpoint as usize].index;
        let state = &mut self.instances[instance as usize];
        let service = state.spec;
        if let Some(limit) = &mut state.limit {
            match limit.admit(time) {
                Ok(permit) => self.tasks[task].permits().limit = Some(permit),
                Err(_) => return self.refuse(task, Answer::BUSY, Refusal::Limit),
            }
        }
        if let Some(b) = service.bulkheads.iter().position(|b| b.endpoints.contains(&index)) {
            let deadline = self.deadline(task);
            match self.instances[instance as usize].bulkheads[b].admit_or_queue(time, deadline) {
                Ok(bulkhead::Admission::Now(permit)) => {
                    self.tasks[task].permits().bulkhead = Some((b as u32, permit));
                }
                Ok(bulkhead::Admission::Queued { ticket, until }) => {
                    self.instances[instance as usize].bulkhead_waiters.push((ticket, task));
                    self.tasks[task].waiting = Waiting::Bulkhead { bulkhead: b as u32 };
                    if until < Time::MAX {
                        self.queue.at(until.as_nanos(), Event::ServerBulkheadTimeout { task });
                    }
                    return self.note_visit(instance, task, Stage::WaitsForPermit(until));
                }
                Err(_) => return self.refuse(task, Answer::BUSY, Refusal::Bulkhead),
            }
        }
        self.seat(task);
    }

    /// A worker for a task, or a place in the queue.
    pub(crate) fn seat(&mut self, task: Ref) {
        let now = self.now;
        let time = self.time();
        let t = &mut self.tasks[task];
        let instance = t.instance;
        let state = &mut self.instances[instance as usize];
        if state.take_worker(now) {
            t.hold.insert(Hold::WORKER);
            self.note_visit(instance, task, Stage::Seated);
            self.start_task(task);
        } else if state.spec.asynchronous && state.spec.queue.capacity == 0 {
            self.refuse(task, Answer::BUSY, Refusal::Full);
        } else {
            let (class, caller) = (t.context.class, t.context.deadline);
            let deadline = self.deadline(task);
            // Who has gone is taken off the queue; nobody else says that `timeout` is over.
            if deadline.as_nanos() < caller {
                self.queue.at(deadline.as_nanos(), Event::SeatTimeout { task });
            }
            let state = &mut self.instances[instance as usize];
            match state.queue.push(time, task, class, deadline) {
                Push::Queued(handle) => {
                    state.waiting.add(now, 1);
                    self.tasks[task].waiting = Waiting::Queue(handle);
                    self.note_visit(instance, task, Stage::WaitsForSeat);
                }
                Push::Displaced { handle, item, reason } => {
                    self.tasks[task].waiting = Waiting::Queue(handle);
                    self.note_visit(instance, task, Stage::WaitsForSeat);
                    self.shed(item, reason);
                }
                Push::Rejected(task) => {
                    if !state.queue_full_noted {
                        state.queue_full_noted = true;
                        let name = self.instance_name(instance);
                        self.happened(EventKind::QueueFull, name, "the queue is full: requests are refused with 503");
                    }
                    self.refuse(task, Answer::BUSY, Refusal::Full);
                }
            }
        }
    }

    /// A health check asks for a worker like any request.
    pub(crate) fn seat_probe(&mut self, task: Ref) {
        let instance = self.tasks[task].instance;
        let state = &mut self.instances[instance as usize];
        state.held_requests += 1;
        state.in_flight.add(self.now, 1);
        self.tasks[task].hold.insert(Hold::REQUEST);
        self.seat(task);
    }

    /// A worker is free: the next request in the queue takes it.
    pub(crate) fn next_in_queue(&mut self, instance: u32) {
        let time = self.time();
        let now = self.now;
        let mut dropped = Vec::new();
        let state = &mut self.instances[instance as usize];
        if state.queue.is_empty() {
            state.free_workers += 1;
            return;
        }
        let before = state.queue.len();
        let next = state.queue.pop(time, |task, reason| dropped.push((task, reason)));
        state.waiting.add(now, state.queue.len() as i64 - before as i64);
        match next {
            Some(task) => {
                state.workers.add(now, 1);
                let t = &mut self.tasks[task];
                t.waiting = Waiting::Nothing;
                t.hold.insert(Hold::WORKER);
                self.note_visit(instance, task, Stage::Seated);
                self.soon(Event::Start { task });
            }
            None => state.free_workers += 1,
        }
        for (task, reason) in dropped {
            self.shed(task, reason);
        }
    }

    /// A request has left the queue without a seat.
    fn shed(&mut self, task: Ref, reason: Reason) {
        self.tasks[task].waiting = Waiting::Nothing;
        if reason == Reason::DeadlineExceeded {
            self.refuse(task, Answer::Timeout, Refusal::Deadline);
        } else {
            self.refuse(task, Answer::BUSY, Refusal::Shed);
        }
    }

    /// When a request must have been answered: by its caller's patience, and by its gateway's `timeout`, which runs
    /// from its arrival.
    pub(crate) fn deadline(&self, task: Ref) -> Time {
        let t = &self.tasks[task];
        let patience = self.plan.code.endpoints.get(t.endpoint as usize).map_or(u64::MAX, |code| code.patience);
        Time::from_nanos(t.started.saturating_add(patience).min(t.context.deadline))
    }

    /// A request has waited for a seat for as long as its gateway's `timeout` lets it.
    pub(crate) fn seat_timeout(&mut self, task: Ref) {
        let Some(t) = self.tasks.get(task) else { return };
        let Waiting::Queue(handle) = t.waiting else { return };
        let state = &mut self.instances[t.instance as usize];
        if state.queue.remove(handle).is_some() {
            state.waiting.add(self.now, -1);
        }
        self.shed(task, Reason::DeadlineExceeded);
    }

    /// Where an async instance has room, those that wait for a seat take it.
    fn next_seat(&mut self, instance: u32) {
        let state = &self.instances[instance as usize];
        if state.spec.asynchronous && !state.queue.is_empty() && state.seated() < state.spec.max_in_flight {
            self.next_in_queue(instance);
        }
    }

    /// A request has waited too long for a bulkhead's permit.
    pub(crate) fn server_bulkhead_timeout(&mut self, task: Ref) {
        let Some(t) = self.tasks.get(task) else { return };
        let Waiting::Bulkhead { bulkhead } = t.waiting else { return };
        let state = &mut self.instances[t.instance as usize];
        if let Some(at) = state.bulkhead_waiters.iter().position(|&(_, waiter)| waiter == task) {
            let (ticket, _) = state.bulkhead_waiters.remove(at);
            state.bulkheads[bulkhead as usize].leave(ticket, true);
        }
        self.tasks[task].waiting = Waiting::Nothing;
        if self.time() >= self.deadline(task) {
            return self.refuse(task, Answer::Timeout, Refusal::Deadline);
        }
        self.refuse(task, Answer::BUSY, Refusal::BulkheadTimeout);
    }

    /// A policy on what comes in says no.
    fn refuse(&mut self, task: Ref, answer: Answer, why: Refusal) {
        self.note_visit(self.tasks[task].instance, task, Stage::Refused(why));
        self.finish(task, answer);
    }

    #[cold]
    fn note_arrival(&mut self, task: Ref) {
        let t = &self.tasks[task];
        let code = &self.plan.code.endpoints[t.endpoint as usize];
        let service = &self.plan.system.services[code.service as usize];
        let arrives = Stage::Arrives {
            endpoint: code.index,
            quota: service.rate_limit.as_ref().map_or(0, |limit| self.quota_key(task, limit.per)),
            class: t.context.class,
            caller: (t.context.deadline < u64::MAX).then(|| Time::from_nanos(t.context.deadline)),
            deadline: self.deadline(task),
            key: (service.idempotency.is_some() && !code.idempotent).then_some(t.context.logical),
        };
        self.note_visit(t.instance, task, arrives);
    }

    /// Whether a repeated request is answered from memory, or refused because the first is in
    /// progress; true if it is dealt with.
    fn idempotent_repeat(&mut self, task: Ref, service: u32, idempotent: bool) -> bool {
        if idempotent {
            return false;
        }
        let time = self.time();
        let logical = self.tasks[task].context.logical;
        let Some(store) = &mut self.services[service as usize].idempotency else { return false };
        use plimsoll_policy::idempotency::Begin;
        match store.begin(time, logical, logical) {
            Begin::Proceed(token) | Begin::Unresolved(token) => {
                self.tasks[task].permits().idempotency = Some(token);
                false
            }
            Begin::Replay(answer) => {
                let answer = *answer;
                self.note_visit(self.tasks[task].instance, task, Stage::Replayed);
                self.finish(task, answer);
                true
            }
            // A full table is the service's own fault, and no conflict of two requests.
            Begin::Refused(refused) => {
                if refused.reason == Reason::LimitReached {
                    self.refuse(task, Answer::BUSY, Refusal::KeysFull);
                } else {
                    self.refuse(task, Answer::Conflict, Refusal::InProgress);
                }
                true
            }
        }
    }

    fn quota_key(&self, task: Ref, per: RateLimitKey) -> u64 {
        let t = &self.tasks[task];
        match per {
            RateLimitKey::User => mix((t.context.client as u64) << 32 | t.context.user as u64),
            RateLimitKey::Client => t.context.client as u64,
            RateLimitKey::Endpoint => t.endpoint as u64,
            RateLimitKey::All => 0,
        }
    }

    fn out_of_memory(&mut self, instance: u32) {
        let name = self.instance_name(instance);
        self.happened(EventKind::OutOfMemory, name, "its requests need more than its memory: killed, starts again");
        self.kill_instance(instance);
        self.boot(instance);
    }

    /// A request has ended here: gives back what it held, records it, answers.
    pub(crate) fn finish(&mut self, task: Ref, answer: Answer) {
        if let Some(attempt) = self.finished(task, answer) {
            self.served(attempt, answer);
        }
    }

    /// As [`finish`](Self::finish), where nothing is left to do after it in this event.
    pub(crate) fn finish_last(&mut self, task: Ref, answer: Answer) {
        if let Some(attempt) = self.finished(task, answer) {
            self.served_last(attempt, answer);
        }
    }

    /// Ends a request here; the attempt that waits for its answer is left to be told.
    #[inline(always)]
    fn finished(&mut self, task: Ref, answer: Answer) -> Option<Ref> {
        let parent = self.tasks[task].parent;
        self.release(task, answer);
        self.tasks.remove(task);
        match parent {
            TaskParent::Attempt(attempt) => return Some(attempt),
            TaskParent::Join(parent) => self.joined(parent, answer),
            TaskParent::Message(message) => self.handled(message, answer),
            TaskParent::Probe { end, target, number } => self.checked(end, target, number, answer.is_ok()),
            TaskParent::Background => {}
        }
        None
    }

    /// Gives back what a task held and records how it ended; its parent is not told.
    #[inline(always)]
    fn release(&mut self, task: Ref, answer: Answer) {
        let now = self.now;
        let t = &mut self.tasks[task];
        if !t.hold.contains(Hold::REQUEST) {
            return;
        }
        let instance = t.instance;
        let took = now - t.started;
        let probe = t.endpoint == PROBE;
        let worker = t.hold.contains(Hold::WORKER);
        let permits = t.permits.take();
        if permits.is_some() || self.journal.is_some() {
            self.settle_permits(task, permits, answer, worker);
        }
        let mut state = &mut self.instances[instance as usize];
        let asynchronous = state.spec.asynchronous;
        state.held_requests -= 1;
        state.in_flight.add(now, -1);
        if !probe {
            state.times.record(took);
            let totals = &mut state.counter.now;
            match answer {
                Answer::Ok => totals.ok += 1,
                Answer::Degraded => {
                    totals.ok += 1;
                    totals.degraded += 1;
                }
                _ => {
                    totals.failed += 1;
                    totals.rejected += (answer.is_rejection() && !worker) as u64;
                    totals.timed_out += (answer == Answer::Timeout) as u64;
                }
            }
        }
        if state.version > 0 {
            self.deploy_watch(instance, answer);
            state = &mut self.instances[instance as usize];
        }
        if worker {
            state.workers.add(now, -1);
        }
        if state.queue.is_empty() {
            state.free_workers += (worker && !asynchronous) as u32;
        } else if asynchronous {
            self.next_seat(instance);
        } else if worker {
            self.next_in_queue(instance);
        }
        let state = &self.instances[instance as usize];
        if state.state == State::Draining && state.held_requests == 0 {
            let epoch = state.epoch;
            self.wake_at(now, crate::world::Wake::DrainOver { instance, epoch });
        }
    }

    /// Gives back what policies gave a request.
    fn settle_permits(&mut self, task: Ref, permits: Option<Box<Permits>>, answer: Answer, worked: bool) {
        let time = self.time();
        let t = &self.tasks[task];
        let instance = t.instance;
        let gateway = matches!(self.instances[instance as usize].spec.kind, ServiceKind::Gateway(_));
        let outcome = match answer {
            Answer::Ok | Answer::Degraded => Outcome::Success,
            Answer::Cancelled => Outcome::Cancelled,
            Answer::Rejected(_) | Answer::TooMany | Answer::Conflict => Outcome::Ignored,
            // What a policy here has turned away was never made; neither was what one of a gateway's own has turned
            // away on its way out. A service's own code answers for whatever it made of such a refusal.
            Answer::Busy(_) | Answer::Timeout if !worked => Outcome::Ignored,
            _ if gateway && matches!(t.failure, Answer::Rejected(_)) => Outcome::Ignored,
            _ => Outcome::Failure,
        };
        let failed = if worked && !answer.is_ok() { journal::failure(t.failure) } else { None };
        self.note_visit(instance, task, Stage::Ends(outcome, failed));
        let Some(permits) = permits else { return };
        let state = &mut self.instances[instance as usize];
        let service = state.service as usize;
        if let (Some(permit), Some(policy)) = (permits.limit, &mut state.limit) {
            policy.settle(time, permit, outcome);
        }
        if let Some((b, permit)) = permits.bulkhead {
            let granted = state.bulkheads[b as usize].settle(time, permit, outcome);
            self.grant_bulkhead(instance, b, granted);
        }
        if let (Some(token), Some(store)) = (permits.idempotency, &mut self.services[service].idempotency) {
            if answer.is_ok() {
                store.complete(time, token, answer);
            } else {
                store.abandon(token);
            }
        }
    }

    fn grant_bulkhead(&mut self, instance: u32, b: u32, granted: Option<bulkhead::Granted>) {
        let Some(granted) = granted else { return };
        let state = &mut self.instances[instance as usize];
        let at = state.bulkhead_waiters.iter().position(|(ticket, _)| *ticket == granted.ticket);
        let Some(at) = at else { return };
        let (_, task) = state.bulkhead_waiters.remove(at);
        let t = &mut self.tasks[task];
        t.waiting = Waiting::Nothing;
        t.permits().bulkhead = Some((b, granted.permit));
        self.note_visit(instance, task, Stage::Granted);
        self.soon(Event::Seat { task });
    }
}

/// Whether a shared quota's users are refused while its store is down.
fn limiter_refuses(limit: Option<&plimsoll_model::system::RateLimit>) -> bool {
    limit.is_some_and(|limit| limit.config.store_down == StoreDown::FailClosed)
}

#[cfg(test)]
mod tests {
    use crate::component::topic::tests::simulated;

    /// Requests of two classes through a gateway that holds so many and lets so many wait: how many of each
    /// class failed, and of how many in all.
    fn failed(queue: &str) -> [(u64, u64); 2] {
        let client = |name: &str, class: u32| {
            let call = format!("{{ endpoint: edge GET /, class: {class} }}");
            format!("  {name}: {{ rate: 100/s, timeout: 10s, calls: [ {call} ] }}\n")
        };
        let text = format!(
            "system: seats\nclients:\n{}{}services:\n  edge:\n    kind: gateway\n    upstream: api\n    max_in_flight: 15\n    \
             {queue}\n  api: {{ async: true, endpoints: {{ GET /: [ {{ wait: 100ms }} ] }} }}\nexperiments:\n  \
             test: {{ for: 20s, warmup: 1s, expect: [ errors < 100% ] }}\n",
            client("important", 0),
            client("other", 5),
        );
        simulated(&text, |world| {
            [1, 2].map(|audience| {
                let cells = &world.audiences[audience].cells;
                let sum = |f: fn(&plimsoll_model::run::Totals) -> u64| cells.iter().map(|cell| f(&cell.totals)).sum();
                (sum(|t| t.failed), sum(|t| t.offered))
            })
        })
    }

    #[test]
    fn a_gateway_without_a_queue_refuses_all_alike() {
        // 200/s for 100 ms each want 20 seats of 15.
        let [important, other] = failed("queue: 0");
        for (failed, of) in [important, other] {
            assert!(failed * 100 > of * 15, "{failed} of {of}");
        }
    }

    #[test]
    fn with_a_queue_the_important_come_first() {
        let [important, other] = failed("queue: 20");
        assert!(important.0 * 100 < important.1, "{important:?}");
        assert!(other.0 * 100 > other.1 * 30, "{other:?}");
    }
}
