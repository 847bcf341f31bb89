use plimsoll_model::run::EventKind;
use plimsoll_policy::{adaptive_limit, bulkhead, idempotency, shed};

use crate::compile::{Op, Pc};
use crate::component::cache::Fetch;
use crate::component::edge::{Parent, What};
use crate::engine::{Answer, Draw, Event, Ref, count, duration, mix, pick_alias};
use crate::journal::{self, Stage};
use crate::world::World;

/// A program that runs on an instance: a request, a branch of one, or work without a caller.
pub(crate) struct Task {
    pub(crate) pc: Pc,
    pub(crate) instance: u32,
    pub(crate) endpoint: u32,
    pub(crate) parent: TaskParent,
    pub(crate) context: Context,
    pub(crate) started: u64,
    pub(crate) waiting: Waiting,
    pub(crate) hold: Hold,
    /// Nobody waits for it any more, and its service minds.
    pub(crate) cancelled: bool,
    /// A fallback made a failure good on the way.
    pub(crate) degraded: bool,
    /// The failure at hand, while unwinding.
    pub(crate) failure: Answer,
    /// The transaction that it is in.
    pub(crate) transaction: Ref,
    /// Branches of its fork: still to start, in flight, and the worst answer so far.
    pub(crate) fork: ForkState,
    /// The last named step that began.
    pub(crate) step: u32,
    /// The fetch that it makes for a cache.
    pub(crate) fetch: Option<Box<Fetch>>,
    /// Whether it only refreshes a cache's entry, and ends with that.
    pub(crate) refreshing: bool,
    /// What its service's policies gave it, where there are any.
    pub(crate) permits: Option<Box<Permits>>,
}

/// What a service's policies gave a request.
#[derive(Default)]
pub(crate) struct Permits {
    pub(crate) limit: Option<adaptive_limit::Permit>,
    /// Which bulkhead's, and its permit.
    pub(crate) bulkhead: Option<(u32, bulkhead::Permit)>,
    pub(crate) idempotency: Option<idempotency::Ticket>,
}

/// Who waits for a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TaskParent {
    /// A caller's attempt.
    Attempt(Ref),
    /// The task that forked it.
    Join(Ref),
    /// The topic whose message it handles.
    Message(Ref),
    /// A health check of an edge's end.
    Probe { end: u32, target: u32, number: u32 },
    /// Nobody.
    Background,
}

/// What a request carries along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// Where its draws come from.
    pub(crate) draw: Draw,
    /// The client's request that all this is for: its idempotency key.
    pub(crate) logical: u64,
    pub(crate) deadline: u64,
    pub(crate) client: u32,
    pub(crate) user: u32,
    pub(crate) key: u32,
    pub(crate) class: u8,
}

impl Context {
    /// Nobody's.
    pub(crate) const BLANK: Context =
        Context { draw: Draw(0), logical: 0, deadline: u64::MAX, client: 0, user: 0, key: 0, class: 0 };
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Waiting {
    Nothing,
    /// A place in its instance's queue.
    Queue(shed::Handle),
    Bulkhead {
        bulkhead: u32,
    },
    /// The store of a shared limiter.
    Limiter,
    /// A core, or the core that has it.
    Core,
    Call(Ref),
    /// Time to pass.
    Timer,
    Fork,
    /// A lease's lock.
    Lock(u32),
    /// Another's fetch for a cache.
    Fetch {
        site: u32,
    },
    /// A message's publication.
    Publish,
}

/// What a task has to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold(u8);

impl Hold {
    pub(crate) const NOTHING: Hold = Hold(0);
    /// It counts as a request of its instance.
    pub(crate) const REQUEST: Hold = Hold(1);
    /// It has a worker.
    pub(crate) const WORKER: Hold = Hold(2);

    #[inline(always)]
    pub(crate) fn contains(self, other: Hold) -> bool {
        self.0 & other.0 != 0
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, other: Hold) {
        self.0 |= other.0;
    }
}

/// A fork's progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkState {
    pub(crate) next: u32,
    pub(crate) total: u32,
    pub(crate) in_flight: u32,
    pub(crate) worst: Answer,
}

impl ForkState {
    const NONE: ForkState = ForkState { next: 0, total: 0, in_flight: 0, worst: Answer::Ok };
}

impl Task {
    fn blank() -> Self {
        Task {
            pc: 0,
            instance: 0,
            endpoint: 0,
            parent: TaskParent::Background,
            context: Context::BLANK,
            started: 0,
            waiting: Waiting::Nothing,
            hold: Hold::NOTHING,
            cancelled: false,
            degraded: false,
            failure: Answer::Ok,
            transaction: Ref::NONE,
            fork: ForkState::NONE,
            step: u32::MAX,
            fetch: None,
            refreshing: false,
            permits: None,
        }
    }

    pub(crate) fn permits(&mut self) -> &mut Permits {
        self.permits.get_or_insert_default()
    }
}

impl World<'_> {
    /// A new task, at the beginning of its program.
    #[inline(always)]
    pub(crate) fn new_task(
        &mut self,
        parent: TaskParent,
        instance: u32,
        pc: Pc,
        endpoint: u32,
        context: Context,
    ) -> Ref {
        let (task, t) = self.tasks.place(Task::blank);
        t.pc = pc;
        t.instance = instance;
        t.endpoint = endpoint;
        t.parent = parent;
        t.context = context;
        t.started = self.now;
        t.waiting = Waiting::Nothing;
        t.hold = Hold::NOTHING;
        t.cancelled = false;
        t.degraded = false;
        t.failure = Answer::Ok;
        t.transaction = Ref::NONE;
        t.fork = ForkState::NONE;
        t.step = u32::MAX;
        t.fetch = None;
        t.refreshing = false;
        t.permits = None;
        task
    }
}

/// What follows an operation.
enum Step {
    /// The one at the program counter.
    Goes,
    /// It has ended like this.
    Ends(Answer),
    /// The task waits, or is gone.
    Waits,
}

// Purposes of draws beside program counters.
const ERRORS: u64 = 1 << 40;
const VERSION_ERRORS: u64 = 2 << 40;
const ROUND: u64 = 3 << 40;
const CROSS: u64 = 4 << 40;

/// The endpoint of health checks: they do nothing.
pub(crate) const PROBE: u32 = u32::MAX;

impl World<'_> {
    /// A request that has its worker begins.
    pub(crate) fn start_task(&mut self, task: Ref) {
        if self.tasks.contains(task) {
            self.start_task_here(task);
        }
    }

    #[inline(always)]
    pub(crate) fn start_task_here(&mut self, task: Ref) {
        let t = &self.tasks[task];
        if t.endpoint != PROBE {
            // The request's own errors strike where its work would have begun.
            let code = &self.plan.code.endpoints[t.endpoint as usize];
            let draw = t.context.draw;
            let fails = match self.instances[t.instance as usize].version {
                0 => code.errors > 0.0 && draw.happens(ERRORS, code.errors),
                version => {
                    let errors = self.services[code.service as usize].version_errors(version);
                    draw.happens(ERRORS, code.errors) || draw.happens(VERSION_ERRORS, errors)
                }
            };
            if fails {
                return self.end_program(task, Answer::Error);
            }
        }
        self.run_task(task, None);
    }

    /// A task runs on from its program counter.
    pub(crate) fn go(&mut self, task: Ref) {
        if self.tasks.contains(task) {
            self.run_task(task, None);
        }
    }

    /// A task goes on, with the answer to what it waited for.
    #[inline]
    pub(crate) fn resume(&mut self, task: Ref, answer: Answer) {
        let Some(t) = self.tasks.get(task) else { return };
        if self.plan.disturbed && self.hold(t.instance, Event::Resume { task, answer }) {
            return;
        }
        self.run_task(task, Some(answer));
    }

    /// A task has waited as long as its program says, unless it was cancelled meanwhile.
    pub(crate) fn waited(&mut self, task: Ref) {
        let Some(t) = self.tasks.get(task) else { return };
        let waits = t.waiting == Waiting::Timer;
        if self.plan.disturbed && self.hold(t.instance, Event::Waited { task }) {
            return;
        }
        if waits {
            self.run_task(task, Some(Answer::Ok));
        }
    }

    /// A core has done a task's work: it takes the next, the task goes on.
    pub(crate) fn work_done(&mut self, task: Ref) {
        let Some(t) = self.tasks.get(task) else { return };
        let instance = t.instance;
        if self.plan.disturbed && self.hold(instance, Event::WorkDone { task }) {
            return;
        }
        self.free_core(instance);
        self.run_task(task, Some(Answer::Ok));
    }

    /// Runs a task until it waits or ends. `answer` ends the operation at its program counter.
    pub(crate) fn run_task(&mut self, task: Ref, answer: Option<Answer>) {
        let plan = self.plan;
        let mut answer = answer;
        loop {
            let t = &mut self.tasks[task];
            t.waiting = Waiting::Nothing;
            if let Some(ended) = answer.take() {
                let ended = if t.cancelled && ended.is_ok() { Answer::Cancelled } else { ended };
                if ended.is_ok() {
                    t.degraded |= ended == Answer::Degraded;
                    t.pc += 1;
                } else {
                    t.failure = ended;
                    t.pc = plan.code.on_error[t.pc as usize];
                }
            }
            let pc = t.pc;
            match &plan.code.ops[pc as usize] {
                Op::Work(time) => {
                    let takes = duration(time, t.context.draw.bits(pc as u64));
                    t.waiting = Waiting::Core;
                    return self.take_core(task, takes);
                }
                Op::Call { edge, endpoint } => {
                    let (end, context) = self.calls_over(*edge, task);
                    return self.start_call_here(end, || Parent::Task(task), What::Endpoint(*endpoint), context);
                }
                Op::Query { edge, store, operation, write } => {
                    let (end, context) = self.calls_over(*edge, task);
                    let what = What::Operation { store: *store, operation: *operation, write: *write };
                    return self.start_call_here(end, || Parent::Task(task), what, context);
                }
                Op::Return => {
                    let ended = if t.degraded { Answer::Degraded } else { Answer::Ok };
                    return self.end_program(task, ended);
                }
                Op::Raise => {
                    let of = &self.instances[t.instance as usize].spec;
                    let ended = match t.failure {
                        // A gateway passes answers on; and says when what a policy of its own turned away may come back.
                        Answer::TooMany if of.is_gateway() => Answer::TooMany,
                        Answer::Rejected(seconds) if of.is_gateway() => Answer::Busy(seconds),
                        // A dependency that is gone or turns us away makes us unavailable.
                        Answer::Timeout | Answer::Refused | Answer::Reset | Answer::Rejected(_) | Answer::TooMany => {
                            Answer::Unavailable
                        }
                        other => other,
                    };
                    return self.end_program(task, ended);
                }
                op => match self.rarer(task, op) {
                    Step::Goes => {}
                    Step::Ends(with) => answer = Some(with),
                    Step::Waits => return,
                },
            }
        }
    }

    /// Does one of the operations that most programs have few of: apart, so that they do not stand in
    /// the way of the others.
    #[inline(never)]
    fn rarer(&mut self, task: Ref, op: &Op) -> Step {
        let plan = self.plan;
        let t = &mut self.tasks[task];
        let pc = t.pc;
        match op {
            // A second wait would be ended by the first one's event.
            Op::Wait(_) | Op::ScaledWait(_) if t.cancelled => return Step::Ends(Answer::Cancelled),
            Op::Wait(time) => {
                let takes = duration(time, t.context.draw.bits(pc as u64));
                t.waiting = Waiting::Timer;
                let takes = self.wait_takes(self.tasks[task].instance, takes);
                self.queue.at(self.now + takes, Event::Waited { task });
                return Step::Waits;
            }
            Op::ScaledWork(time) => {
                let takes = duration(time, t.context.draw.bits(pc as u64));
                t.waiting = Waiting::Core;
                let takes = self.stretched(task, takes);
                self.take_core(task, takes);
                return Step::Waits;
            }
            Op::ScaledWait(time) => {
                let takes = duration(time, t.context.draw.bits(pc as u64));
                t.waiting = Waiting::Timer;
                let takes = self.wait_takes(self.tasks[task].instance, self.stretched(task, takes));
                self.queue.at(self.now + takes, Event::Waited { task });
                return Step::Waits;
            }
            Op::Fail(probability) => {
                let fails = t.context.draw.happens(pc as u64, *probability);
                return Step::Ends(if fails { Answer::Error } else { Answer::Ok });
            }
            Op::CacheLookup { site, end } => match self.cache_lookup(task, *site, *end) {
                Some(pc) => self.tasks[task].pc = pc,
                None => return Step::Waits,
            },
            Op::CacheFill { site } => match self.cache_fill(task, *site) {
                true => return Step::Ends(Answer::Ok),
                false => return Step::Waits,
            },
            Op::CacheAbandon { then } => {
                self.cache_abandon(task);
                if self.tasks[task].refreshing {
                    self.end_program(task, Answer::Error);
                    return Step::Waits;
                }
                self.tasks[task].pc = *then;
            }
            Op::CacheWritten { site, .. } | Op::CacheBehind { site, .. } => {
                self.cache_store(task, *site);
                return Step::Waits;
            }
            Op::Begin { edge, store, cross_shard } => {
                let (end, context) = self.calls_over(*edge, task);
                let crosses = context.draw.happens(CROSS, *cross_shard);
                let what = What::Begin { store: *store, crosses };
                self.start_call(end, Parent::Task(task), what, context);
                return Step::Waits;
            }
            Op::Commit => {
                self.commit(task);
                return Step::Waits;
            }
            Op::Rollback { then } => {
                t.pc = *then;
                self.rollback(task);
            }
            Op::Publish { topic, outbox } => match self.publish(task, *topic, *outbox) {
                Some(published) => return Step::Ends(published),
                None => return Step::Waits,
            },
            Op::Fork(fork) => {
                let f = &plan.code.forks[*fork as usize];
                let total = match &f.rounds {
                    Some(rounds) => count(rounds, t.context.draw.bits(pc as u64)),
                    None => f.branches.len() as u32,
                };
                if total == 0 {
                    return Step::Ends(Answer::Ok);
                }
                t.fork = ForkState { next: 0, total, in_flight: 0, worst: Answer::Ok };
                t.waiting = Waiting::Fork;
                for _ in 0..f.limit.min(total) {
                    self.fork_next(task);
                }
                return Step::Waits;
            }
            Op::Choice(choice) => {
                let choice = &plan.code.choices[*choice as usize];
                t.pc = choice.places[pick_alias(&choice.table, t.context.draw.bits(pc as u64)) as usize];
            }
            Op::Jump(to) => t.pc = *to,
            Op::Optional { name, to } => {
                let instance = t.instance;
                let off = self.is_skipped(instance, *name);
                let t = &mut self.tasks[task];
                if off {
                    t.degraded = true;
                    t.pc = *to;
                } else {
                    t.pc += 1;
                }
            }
            Op::Named(name) => {
                let before = std::mem::replace(&mut t.step, *name);
                t.pc += 1;
                let (instance, service) = (t.instance, plan.code.endpoints[t.endpoint as usize].service);
                if self.faults.crashes(service, before, *name) {
                    let text = "the process died between two steps";
                    let subject = self.instance_name(instance);
                    self.happened(EventKind::InstanceDown, subject, text);
                    self.kill_instance(instance);
                    self.boot(instance);
                    return Step::Waits;
                }
            }
            Op::Recover => {
                if t.cancelled {
                    // Nobody waits for a fallback either.
                    self.end_program(task, Answer::Cancelled);
                    return Step::Waits;
                }
                t.degraded = true;
                t.pc += 1;
                let (instance, failed) = (t.instance, t.failure);
                self.note_visit(instance, task, Stage::FallsBack(journal::failure(failed)));
            }
            Op::Lock(lease) => {
                if self.lock(task, *lease) {
                    return Step::Ends(Answer::Ok);
                }
                return Step::Waits;
            }
            Op::Unlock { lease, failed } => {
                match failed {
                    Some(then) => t.pc = *then,
                    None => t.pc += 1,
                }
                self.unlock(*lease, task);
            }
            Op::Work(_) | Op::Call { .. } | Op::Query { .. } | Op::Return | Op::Raise => {
                unreachable!("these are done where they are met")
            }
        }
        Step::Goes
    }

    /// A program has ended.
    fn end_program(&mut self, task: Ref, answer: Answer) {
        match self.tasks[task].parent {
            TaskParent::Join(parent) => {
                self.tasks.remove(task);
                self.joined(parent, answer);
            }
            _ => self.finish_last(task, answer),
        }
    }

    /// The end over which a task asks another component for something, and the context of that: its
    /// draws are its own.
    #[inline(always)]
    fn calls_over(&self, edge: u32, task: Ref) -> (u32, Context) {
        let t = &self.tasks[task];
        let state = &self.instances[t.instance as usize];
        let context = Context {
            draw: t.context.draw.part(t.pc as u64),
            logical: mix(t.context.logical ^ t.pc as u64),
            deadline: if state.spec.stops_when_cancelled { t.context.deadline } else { u64::MAX },
            ..t.context
        };
        (self.edge_first[edge as usize] + state.number, context)
    }

    /// What a step takes among all requests that run on its instance, by the service's `scalability`.
    fn stretched(&self, task: Ref, nanos: u64) -> u64 {
        let state = &self.instances[self.tasks[task].instance as usize];
        let Some(law) = state.spec.scalability else { return nanos };
        let waiting = state.queue.len() + state.bulkhead_waiters.len();
        let running = (state.held_requests as usize).saturating_sub(waiting);
        (nanos as f64 * law.stretch(running.max(1) as f64)) as u64
    }

    fn take_core(&mut self, task: Ref, nanos: u64) {
        let instance = self.tasks[task].instance;
        let takes = self.work_takes(instance, nanos);
        let state = &mut self.instances[instance as usize];
        if state.free_cores > 0 {
            state.free_cores -= 1;
            state.cores.add(self.now, 1);
            self.queue.at(self.now + takes, Event::WorkDone { task });
        } else {
            state.run_queue.push_back((task, takes));
        }
    }

    fn free_core(&mut self, instance: u32) {
        loop {
            let state = &mut self.instances[instance as usize];
            match state.run_queue.pop_front() {
                Some((task, _)) if !self.tasks.contains(task) => continue,
                Some((task, takes)) => {
                    self.queue.at(self.now + takes, Event::WorkDone { task });
                }
                None => {
                    state.free_cores += 1;
                    state.cores.add(self.now, -1);
                }
            }
            return;
        }
    }

    /// Starts a fork's next branch.
    fn fork_next(&mut self, task: Ref) {
        let plan = self.plan;
        let t = &mut self.tasks[task];
        let Op::Fork(fork) = plan.code.ops[t.pc as usize] else {
            unreachable!("a forked task stands at its fork");
        };
        let fork = &plan.code.forks[fork as usize];
        let round = t.fork.next;
        t.fork.next += 1;
        t.fork.in_flight += 1;
        let entry = if fork.rounds.is_some() { fork.branches[0] } else { fork.branches[round as usize] };
        let which = ROUND | (t.pc as u64) << 20 | round as u64;
        // Each branch is a request of its own to whoever remembers requests; a repeated round is not.
        let logical = mix(t.context.logical ^ which);
        let context = Context { draw: t.context.draw.part(which), logical, ..t.context };
        let (instance, endpoint, transaction) = (t.instance, t.endpoint, t.transaction);
        let branch = self.new_task(TaskParent::Join(task), instance, entry, endpoint, context);
        self.tasks[branch].transaction = transaction;
        self.soon(Event::Go { task: branch });
    }

    /// A branch has ended.
    pub(crate) fn joined(&mut self, parent: Ref, answer: Answer) {
        let Some(t) = self.tasks.get_mut(parent) else { return };
        t.fork.in_flight -= 1;
        if !answer.is_ok() {
            t.fork.worst = answer;
            // No use in starting the rest.
            t.fork.next = t.fork.total;
        } else if answer == Answer::Degraded && t.fork.worst.is_ok() {
            t.fork.worst = answer;
        }
        if t.cancelled {
            t.fork.next = t.fork.total;
        }
        if t.fork.next < t.fork.total {
            self.fork_next(parent);
        } else if t.fork.in_flight == 0 {
            let worst = t.fork.worst;
            self.soon(Event::Resume { task: parent, answer: worst });
        }
    }

    /// Nobody waits for a task any more: it stops where it can.
    pub(crate) fn cancel_task(&mut self, task: Ref) {
        let Some(t) = self.tasks.get_mut(task) else { return };
        if t.cancelled {
            return;
        }
        t.cancelled = true;
        let instance = t.instance;
        match t.waiting {
            Waiting::Queue(handle) => {
                let state = &mut self.instances[instance as usize];
                if state.queue.remove(handle).is_some() {
                    state.waiting.add(self.now, -1);
                }
                t.waiting = Waiting::Nothing;
                self.finish(task, Answer::Cancelled);
            }
            Waiting::Bulkhead { bulkhead } => {
                let state = &mut self.instances[instance as usize];
                if let Some(at) = state.bulkhead_waiters.iter().position(|&(_, waiter)| waiter == task) {
                    let (ticket, _) = state.bulkhead_waiters.remove(at);
                    state.bulkheads[bulkhead as usize].leave(ticket, false);
                }
                self.tasks[task].waiting = Waiting::Nothing;
                self.finish(task, Answer::Cancelled);
            }
            Waiting::Call(call) => {
                self.cancel_call(call);
                self.soon(Event::Resume { task, answer: Answer::Cancelled });
            }
            waiting @ (Waiting::Timer | Waiting::Lock(_) | Waiting::Fetch { .. }) => {
                t.waiting = Waiting::Nothing;
                match waiting {
                    Waiting::Lock(lease) => self.leave_lock(lease, task),
                    Waiting::Fetch { site } => self.leave_fetch(site, task),
                    _ => {}
                }
                self.soon(Event::Resume { task, answer: Answer::Cancelled });
            }
            Waiting::Fork => {
                let branches: Vec<Ref> =
                    self.tasks.refs().filter(|&branch| self.tasks[branch].parent == TaskParent::Join(task)).collect();
                for branch in branches {
                    self.cancel_task(branch);
                }
            }
            // The rest ends by itself soon; the task is told then.
            _ => {}
        }
    }

    /// A task is gone with its process: what it holds elsewhere is given back, its caller sees the
    /// connection break.
    pub(crate) fn drop_task(&mut self, task: Ref, answer: Answer) {
        let t = &self.tasks[task];
        let (waiting, parent, transaction) = (t.waiting, t.parent, t.transaction);
        if let Waiting::Call(call) = waiting {
            self.cancel_call(call);
        }
        if let Waiting::Lock(lease) = waiting {
            self.leave_lock(lease, task);
        }
        if let Waiting::Fetch { site } = waiting {
            self.leave_fetch(site, task);
        }
        if !transaction.is_none() && !matches!(parent, TaskParent::Join(_)) {
            self.rollback(task);
        }
        self.unlock_all(task);
        self.cache_abandon(task);
        // Its process is gone: counters of it are set anew by the caller of this.
        if self.tasks[task].hold.contains(Hold::REQUEST) {
            let instance = self.tasks[task].instance;
            self.instances[instance as usize].counter.now.failed += 1;
            // Its idempotency key stays in progress until the key's lease runs out: nobody knows
            // how far it came.
        }
        self.tasks.remove(task);
        match parent {
            TaskParent::Attempt(attempt) => {
                if let Some(a) = self.attempts.get_mut(attempt) {
                    a.server = Ref::NONE;
                    self.answer(attempt, answer);
                }
            }
            TaskParent::Message(message) => self.handler_lost(message),
            // The check hears nothing, and times out.
            TaskParent::Probe { .. } | TaskParent::Join(_) | TaskParent::Background => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::component::topic::tests::{simulated, total};

    fn given_up(stops: bool, steps: &str) -> String {
        format!(
            "
system: given-up
clients:
  web: {{ rate: 10/s, arrivals: constant, calls: [ api GET / ], timeout: 100ms }}
services:
  api:
    workers: 1000
    stops_when_cancelled: {stops}
    endpoints:
      GET /: {steps}
leases:
  turn: {{ service: api, ttl: 60s, renew: 10s }}
experiments:
  test: {{ for: 20s, faults: [], expect: [errors <= 100%] }}
"
        )
    }

    #[test]
    fn a_wait_ends_with_the_request_that_nobody_waits_for() {
        let steps = "[ { wait: 5s } ]";
        let held = |stops| simulated(&given_up(stops, steps), |world| world.instances[0].held_requests);
        assert!(held(true) <= 2, "100 ms of 10/s: {}", held(true));
        assert!(held(false) >= 45, "5 s of 10/s: {}", held(false));
    }

    #[test]
    fn who_is_cancelled_leaves_the_line_for_a_lock_and_frees_it() {
        let steps = "[ { lease: turn, do: [ { wait: 5s } ] } ]";
        simulated(&given_up(true, steps), |world| {
            assert!(world.instances[0].held_requests <= 3);
            let totals = total(&world.leases[0].counter);
            assert_eq!(totals.ok + totals.failed, totals.offered - u64::from(world.instances[0].held_requests));
            assert!(totals.ok >= 90, "a holder gives it back when it stops: {totals:?}");
        });
    }
}
