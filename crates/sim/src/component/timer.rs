//! Timeouts of attempts: a queue for each length, linked through the attempts themselves.
//!
//! Almost every timeout is called off before it fires, and as many are pending as requests were made
//! in its time. Here one that is called off leaves its queue at once and nothing behind, so that the
//! cost of a timeout does not depend on how many there are, and what the processor has to keep at
//! hand is the attempts that are under way.

use crate::component::edge::Attempt;
use crate::engine::{Event, Ref, Slab};
use crate::world::World;

/// The queue of the timeouts of one length, soonest first.
pub(crate) struct Timeouts {
    length: u64,
    first: Ref,
    last: Ref,
    /// Whether an event stands for it.
    armed: bool,
}

/// An attempt's place among the timeouts.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    queue: u16,
    earlier: Ref,
    later: Ref,
}

impl Place {
    pub(crate) const NONE: Place = Place { queue: u16::MAX, earlier: Ref::NONE, later: Ref::NONE };
}

impl Place {
    /// Takes an attempt that stood here out of its queue.
    #[inline(always)]
    pub(crate) fn leave(self, timeouts: &mut [Timeouts], attempts: &mut Slab<Attempt>) {
        let Place { queue, earlier, later } = self;
        let Some(timeouts) = timeouts.get_mut(queue as usize) else { return };
        match earlier.is_none() {
            true => timeouts.first = later,
            false => attempts[earlier].timeout.later = later,
        }
        match later.is_none() {
            true => timeouts.last = earlier,
            false => attempts[later].timeout.earlier = earlier,
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
            self.timeouts.push(Timeouts { length, first: Ref::NONE, last: Ref::NONE, armed: false });
        }
        Some(at as u16)
    }

    /// An attempt begins whose time is over at its deadline, so long from now as its queue's length.
    #[inline(always)]
    pub(crate) fn set_timeout(&mut self, queue: u16, attempt: Ref, deadline: u64) {
        let timeouts = &mut self.timeouts[queue as usize];
        let last = std::mem::replace(&mut timeouts.last, attempt);
        self.attempts[attempt].timeout = Place { queue, earlier: last, later: Ref::NONE };
        if !last.is_none() {
            self.attempts[last].timeout.later = attempt;
            return;
        }
        timeouts.first = attempt;
        if !timeouts.armed {
            timeouts.armed = true;
            self.queue.at(deadline, Event::Timeouts { queue });
        }
    }

    /// An attempt is over, or its time is.
    #[inline]
    pub(crate) fn clear_timeout(&mut self, attempt: Ref) {
        let place = std::mem::replace(&mut self.attempts[attempt].timeout, Place::NONE);
        place.leave(&mut self.timeouts, &mut self.attempts);
    }

    /// The soonest timeouts of a queue are due, or were when this was scheduled.
    pub(crate) fn timeouts_due(&mut self, queue: u16) {
        loop {
            let first = self.timeouts[queue as usize].first;
            if first.is_none() {
                self.timeouts[queue as usize].armed = false;
                return;
            }
            let due = self.attempts[first].deadline;
            if due > self.now {
                return self.queue.at(due, Event::Timeouts { queue });
            }
            self.clear_timeout(first);
            self.attempt_timeout(first);
        }
    }
}
