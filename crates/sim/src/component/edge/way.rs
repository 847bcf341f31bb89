//! The way to a target and back: delays, faults of links, limited bandwidth.

use super::What;
use crate::engine::{Answer, Event, Ref, duration};
use crate::world::World;

/// What the way to a target does to a message.
pub(crate) enum Link {
    Delay(u64),
    Reset,
    Blocked,
}

impl World<'_> {
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

    pub(super) fn send_slowly(&mut self, end: u32, target: u32, event: Event, bytes: u64) {
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
