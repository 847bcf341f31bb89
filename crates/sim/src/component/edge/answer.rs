//! Answers: what the policies make of how an attempt has ended.

use plimsoll_policy::circuit_breaker::State as Breaker;
use plimsoll_policy::pipeline::{self, Next, Reply, Settled};
use plimsoll_policy::retry::Hint;
use plimsoll_policy::{Outcome, Time};

use super::{Call, EdgeEnd};
use crate::engine::{Answer, Event, Ref};
use crate::journal::{self, Step};
use crate::world::World;

const BACKOFF: u64 = 1 << 48;

impl World<'_> {
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
    pub(super) fn abandon(&mut self, attempt: Ref) {
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
                self.record_member(end, local, outcome, answer == Answer::TooMany);
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
    pub(super) fn note_ended(&mut self, end: u32, call: Ref, attempt: Ref, answer: Answer) {
        let c = &self.calls[call];
        let slot = usize::from(c.attempts[0] != attempt);
        let random = if answer.is_ok() { 0 } else { c.context.draw.bits(BACKOFF | c.number as u64) };
        self.note(end, call, Step::Ends { slot, end: journal::ended(answer), random });
    }

    /// What else follows when policies were told of an attempt's end.
    #[cold]
    pub(super) fn settled(&mut self, end: u32, call: Ref, settled: Settled) {
        self.note_breaker(end);
        self.note(end, call, Step::Then(settled.next));
        self.granted(end, settled.granted);
    }
}

impl EdgeEnd {
    /// Tells the policies how an attempt has ended.
    #[inline(never)]
    pub(super) fn settle(&mut self, call: &mut Call, time: Time, permit: pipeline::Attempt, answer: Answer) -> Settled {
        let retry_after = answer.retry_after();
        let hint = Hint { throttled: answer == Answer::TooMany, retry_after };
        let reply = Reply { outcome: outcome(answer), retryable: self.is_retryable(answer), hint };
        let random = call.context.draw.bits(BACKOFF | call.number as u64);
        self.pipeline.settle(time, &mut call.flight, permit, reply, random)
    }

    /// Whether a failure is one of those that another attempt is made for.
    pub(super) fn is_retryable(&self, answer: Answer) -> bool {
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
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Ok | Answer::Degraded => Outcome::Success,
        Answer::Conflict | Answer::Rejected(_) => Outcome::Ignored,
        Answer::Cancelled => Outcome::Cancelled,
        _ => Outcome::Failure,
    }
}
