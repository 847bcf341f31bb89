//! Requests that wait for a connection to an instance, where an edge bounds them.

use std::collections::VecDeque;

use plimsoll_model::system::Component;
use plimsoll_policy::Eligible;

use crate::engine::{Event, Ref};
use crate::measure::Gauge;
use crate::world::World;

/// A caller's connections to all instances of a target, each with a bound.
pub(crate) struct Connections {
    /// Of one instance.
    pub(crate) most: u32,
    waiting_max: usize,
    waiting: VecDeque<Ref>,
    pub(crate) used: Gauge,
    pub(crate) queue: Gauge,
}

impl Connections {
    pub(crate) fn new(most: u32, waiting_max: u32) -> Self {
        Connections {
            most,
            waiting_max: waiting_max as usize,
            waiting: VecDeque::new(),
            used: Gauge::new(),
            queue: Gauge::new(),
        }
    }

    /// Nobody waits any more.
    pub(crate) fn clear(&mut self, now: u64) {
        self.waiting.clear();
        self.queue.set(now, 0);
    }
}

impl World<'_> {
    /// The instances that callers at an end know of and hold for well.
    fn eligible(&self, end: u32) -> &Eligible {
        let e = &self.ends[end as usize];
        let Component::Service(service) = self.plan.system.edges[e.edge as usize].to else {
            unreachable!("only connections to services are bounded")
        };
        match &e.members {
            Some(members) => members.eligible(),
            None => &self.services[service.index()].registered,
        }
    }

    /// An attempt found no instance to ask: it waits for a connection, if there is an instance, and
    /// a place to wait. Its time runs meanwhile. False if it is refused.
    pub(crate) fn wait_for_connection(&mut self, attempt: Ref) -> bool {
        let a = &self.attempts[attempt];
        let (call, deadline) = (a.call, a.deadline);
        let (end, patience) = (self.calls[call].end, self.calls[call].context.deadline);
        let none = self.eligible(end).is_empty();
        let now = self.now;
        let Some(connections) = &mut self.ends[end as usize].connections else { return false };
        if none || connections.waiting.len() >= connections.waiting_max {
            return false;
        }
        connections.waiting.push_back(attempt);
        connections.queue.add(now, 1);
        if deadline < patience {
            self.queue.at(deadline, Event::AttemptTimeout { attempt });
        }
        true
    }

    /// An attempt is over: it leaves the queue, or its connection goes to the first that waits.
    pub(crate) fn leave_connection(&mut self, end: u32, attempt: Ref, connected: bool) {
        let now = self.now;
        let Some(connections) = &mut self.ends[end as usize].connections else { return };
        if connected {
            connections.used.add(now, -1);
            return self.next_connection(end);
        }
        if let Some(at) = connections.waiting.iter().position(|&waiting| waiting == attempt) {
            connections.waiting.remove(at);
            connections.queue.add(now, -1);
        }
    }

    /// Those who wait go on, in turn, as long as there are connections.
    pub(crate) fn next_connection(&mut self, end: u32) {
        while let Some(&attempt) = self.ends[end as usize].connections.as_ref().and_then(|c| c.waiting.front()) {
            let call = self.attempts[attempt].call;
            let Some(target) = self.choose_again(call) else { return };
            let now = self.now;
            let connections = self.ends[end as usize].connections.as_mut().expect("just seen");
            connections.waiting.pop_front();
            connections.queue.add(now, -1);
            self.go_to(attempt, target);
        }
    }
}
