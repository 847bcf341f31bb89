//! Timeouts of attempts: a queue for each length, so that they come due in the order they were set.
//!
//! Almost every timeout is called off before it fires, and as many would be pending as requests were
//! made in its time. One that is called off costs nothing: its attempt is gone, and the queue is swept
//! of such when it is full. So what the processor has to keep at hand is about as many as attempts are
//! under way.

use std::collections::VecDeque;

use crate::component::edge::Attempt;
use crate::engine::{Event, EventQueue, Ref, Slab};
use crate::world::World;

/// The timeouts of one length, soonest first.
pub(crate) struct Timeouts {
    length: u64,
    attempts: VecDeque<Ref>,
    /// Whether an event stands for it.
    armed: bool,
}

impl Timeouts {
    /// An attempt begins whose time is over at its deadline, so long from now as the length says.
    #[inline(always)]
    pub(crate) fn set(
        &mut self,
        queue: u16,
        attempt: Ref,
        deadline: u64,
        attempts: &Slab<Attempt>,
        events: &mut EventQueue,
    ) {
        if self.attempts.len() == self.attempts.capacity() {
            self.sweep(attempts);
        }
        self.attempts.push_back(attempt);
        if !self.armed {
            self.armed = true;
            events.at(deadline, Event::Timeouts { queue });
        }
    }

    /// Forgets attempts that are over, and makes room if that does not.
    #[cold]
    fn sweep(&mut self, attempts: &Slab<Attempt>) {
        self.attempts.retain(|&attempt| attempts.contains(attempt));
        if self.attempts.len() >= self.attempts.capacity() / 2 {
            self.attempts.reserve(self.attempts.capacity().max(64));
        }
    }
}

impl World<'_> {
    /// The queue of a length, made when first asked for; none where there are too many.
    pub(crate) fn timeouts(&mut self, length: u64) -> Option<u16> {
        let known = self.timeouts.iter().position(|timeouts| timeouts.length == length);
        let at = known.unwrap_or(self.timeouts.len());
        if at >= u16::MAX as usize {
            return None;
        }
        if known.is_none() {
            self.timeouts.push(Timeouts { length, attempts: VecDeque::new(), armed: false });
        }
        Some(at as u16)
    }

    /// The soonest timeouts of a queue are due, or were when this was scheduled.
    pub(crate) fn timeouts_due(&mut self, queue: u16) {
        loop {
            let timeouts = &mut self.timeouts[queue as usize];
            let Some(&first) = timeouts.attempts.front() else {
                timeouts.armed = false;
                return;
            };
            match self.attempts.get(first) {
                Some(a) if a.deadline > self.now => {
                    return self.queue.at(a.deadline, Event::Timeouts { queue });
                }
                live => {
                    let live = live.is_some();
                    timeouts.attempts.pop_front();
                    if live {
                        self.attempt_timeout(first);
                    }
                }
            }
        }
    }
}
