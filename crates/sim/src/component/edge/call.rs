//! Calls: what is asked for, by whom, and how it ends.

use plimsoll_policy::pipeline;
use plimsoll_policy::{Outcome, Time};

use crate::component::client::Origin;
use crate::component::task::{Context, Waiting};
use crate::engine::{Answer, Event, Ref, mix};
use crate::journal::{Stage, Step};
use crate::world::World;

/// A call: what its attempts are for.
pub(crate) struct Call {
    pub(crate) end: u32,
    pub(crate) parent: Parent,
    pub(crate) what: What,
    pub(crate) context: Context,
    pub(super) flight: pipeline::Flight,
    pub(super) started: u64,
    pub(super) attempts: [Ref; 2],
    pub(super) number: u32,
    pub(super) waiting: Option<Box<pipeline::Waiting>>,
    pub(super) tried: [u32; 3],
    /// Whether an attempt of it has failed.
    pub(super) failed: bool,
}

impl Call {
    pub(super) fn blank() -> Self {
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
    pub(super) fn over(&self) -> Over {
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
    pub(super) fn try_at(&mut self, number: u32, target: u32) {
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
pub(super) struct Over {
    pub(super) end: u32,
    pub(super) parent: Parent,
    pub(super) started: u64,
    pub(super) client: u32,
    pub(super) user: u32,
    pub(super) retries: u32,
    /// Whether an attempt of it has failed.
    pub(super) failed: bool,
    /// Whether no attempt of it is out.
    pub(super) alone: bool,
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

impl World<'_> {
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
    pub(super) fn transaction_of(&self, parent: Parent) -> Option<Ref> {
        match parent {
            Parent::Task(task) => Some(self.tasks[task].transaction).filter(|tx| !tx.is_none()),
            _ => None,
        }
    }

    /// A call has its answer: other attempts are called off, and its caller is told, with nothing
    /// left to do after it in this event.
    #[inline(always)]
    pub(super) fn conclude(&mut self, call: Ref, over: Over, answer: Answer) {
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
    pub(super) fn ended_call(&mut self, call: Ref, over: Over, answer: Answer) -> Option<Ref> {
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
    pub(super) fn cancel_attempts(&mut self, call: Ref) {
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
}
