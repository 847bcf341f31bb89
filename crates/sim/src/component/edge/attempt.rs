//! Attempts of calls: what the policies let go, and to whom.

use std::convert::Infallible;

use plimsoll_policy::pipeline::{self, Admission};
use plimsoll_policy::{Eligible, Reason, Time};

use super::{Call, EdgeEnd, Target};
use crate::component::quorum::Progress;
use crate::engine::{Answer, Event, Ref, mix};
use crate::journal::{Go, Step};
use crate::world::World;

/// One attempt of a call.
pub(crate) struct Attempt {
    pub(crate) call: Ref,
    pub(super) permit: Option<pipeline::Attempt>,
    /// The instance or node, counted over all.
    pub(crate) target: u32,
    pub(crate) deadline: u64,
    pub(super) started: u64,
    pub(crate) number: u32,
    /// Whether there is no delay on its way.
    pub(super) instant: bool,
    /// The task that serves it, if there is one.
    pub(crate) server: Ref,
    /// What the answer's bytes are, for limited bandwidth.
    pub(crate) bytes: u64,
    /// Shards that have not answered yet, of an operation that asks them all.
    pub(crate) shards_left: u32,
    /// How far an operation on a quorum store is.
    pub(crate) quorum: Option<Box<Progress>>,
}

impl Attempt {
    pub(super) fn blank() -> Self {
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

/// Requests that are delivered within the event of the one that makes them; deeper ones wait their
/// turn, so that a long program of calls that all fail at once does not fill the stack.
const MAX_DEPTH: u32 = 8;

impl World<'_> {
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
    pub(super) fn wait_for_permit(&mut self, call: Ref, waiting: pipeline::Waiting) {
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
    pub(super) fn refused(&mut self, call: Ref, rejected: plimsoll_policy::Rejected) {
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
    pub(super) fn granted(&mut self, end: u32, granted: Option<plimsoll_policy::bulkhead::Granted>) {
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
    pub(super) fn launch<E>(
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
    pub(super) fn nobody_to_ask(&mut self, end: u32, call: Ref, attempt: Ref, slot: usize, why: Go, deadline: u64) {
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
    pub(super) fn note_going(
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
}

impl EdgeEnd {
    /// The target for a call's next attempt, counted from the edge's first.
    #[inline(always)]
    pub(super) fn choose(&mut self, call: &Call, registered: &Eligible, time: Time) -> Option<u32> {
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
    pub(super) fn choose_elsewhere(
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

/// A policy's refusal, with the time until the caller may try again as a gateway says it: in whole seconds.
fn no(rejected: plimsoll_policy::Rejected, now: u64) -> Answer {
    let wait = rejected.retry_at.map_or(1, |at| at.as_nanos().saturating_sub(now).div_ceil(1_000_000_000));
    Answer::Rejected(wait.clamp(1, 255) as u8)
}
