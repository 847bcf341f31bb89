//! Calls that share another's answer: single flight at one caller's end of an edge.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_policy::coalesce::{Coalescer, Config, Flight, Handle, Join, Left};

use crate::component::client::FRESH_KEY;
use crate::component::edge::{Parent, What};
use crate::component::instance::CHECKED;
use crate::component::task::Context;
use crate::engine::{Answer, Ref, mix};
use crate::journal::Stage;
use crate::world::World;

/// Flights of one caller over one edge.
pub(crate) struct Sharing {
    coalescer: Coalescer<Ref>,
    /// The call that each key's flight makes.
    flights: BTreeMap<u64, (Flight, Ref)>,
    /// Calls that wait for a flight's answer, those that began one included.
    waiting: BTreeMap<Ref, (Flight, Handle)>,
    /// Calls that another's answer was for too, by segment.
    pub(crate) joined: Vec<u32>,
}

impl Sharing {
    pub(crate) fn new(segments: usize) -> Self {
        // Here every call's end is reported: no lease has to look for lost ones.
        let config = Config { lease: Duration::from_secs(u64::from(u32::MAX)), ..Config::default() };
        Sharing {
            coalescer: Coalescer::new(config).expect(CHECKED),
            flights: BTreeMap::new(),
            waiting: BTreeMap::new(),
            joined: vec![0; segments],
        }
    }
}

impl World<'_> {
    /// A read of a key that others may want too waits for the one call that is made for all; false
    /// if this call has to be made.
    pub(crate) fn share(&mut self, end: u32, parent: Parent, what: What, context: Context) -> bool {
        let Parent::Task(task) = parent else { return false };
        let reads = match what {
            What::Endpoint(endpoint) => self.plan.code.endpoints[endpoint as usize].safe,
            What::Operation { write, .. } => !write && self.tasks[task].transaction.is_none(),
            What::Begin { .. } | What::Command { .. } | What::Limiter => false,
        };
        if !reads || context.key & FRESH_KEY != 0 {
            return false;
        }
        let asked = match what {
            What::Operation { operation, .. } => operation,
            What::Endpoint(endpoint) => endpoint,
            _ => return false,
        };
        let (time, segment) = (self.time(), self.segment);
        let call = self.waiting_call(end, task, what, context);
        let Some(sharing) = &mut self.ends[end as usize].sharing else { return false };
        let (flight, handle, starts) =
            match sharing.coalescer.join(time, mix((asked as u64) << 32 | context.key as u64), call) {
                Join::Start(flight, handle) => (flight, handle, true),
                Join::Joined(flight, handle) => (flight, handle, false),
                Join::Alone => {
                    self.calls.remove(call);
                    return false;
                }
            };
        sharing.waiting.insert(call, (flight, handle));
        if starts {
            // The flight outlives whoever began it: only the edge's own timeout ends it.
            let context = Context { deadline: u64::MAX, ..context };
            let made = self.insert_call(end, &|| Parent::Flight { key: flight.key }, what, context);
            if let Some(sharing) = &mut self.ends[end as usize].sharing {
                sharing.flights.insert(flight.key, (flight, made));
            }
            self.note_sharing(end, call, Stage::Joins(flight.key, true));
            self.attempt(made);
        } else {
            sharing.joined[segment] += 1;
            self.note_sharing(end, call, Stage::Joins(flight.key, false));
        }
        true
    }

    /// A flight's call has ended: all who wait have its answer.
    pub(crate) fn landed(&mut self, end: u32, key: u64, answer: Answer) {
        let Some(sharing) = &mut self.ends[end as usize].sharing else { return };
        let Some((flight, _)) = sharing.flights.remove(&key) else { return };
        let mut calls = Vec::new();
        sharing.coalescer.finish(flight, |call| calls.push(call));
        for call in &calls {
            sharing.waiting.remove(call);
        }
        self.note_sharing(end, Ref::NONE, Stage::Landed(key, calls.len()));
        for call in calls {
            self.end_call(call, answer);
        }
    }

    /// A call that may wait for a flight is called off; with the last of them the flight is.
    pub(crate) fn leave_flight(&mut self, end: u32, call: Ref) {
        let Some(sharing) = &mut self.ends[end as usize].sharing else { return };
        let Some((flight, handle)) = sharing.waiting.remove(&call) else { return };
        let left = sharing.coalescer.leave(flight, handle);
        self.note_sharing(end, call, Stage::Leaves(matches!(left, Left::Last(_))));
        let Some(sharing) = &mut self.ends[end as usize].sharing else { return };
        if let Left::Last(_) = left
            && let Some((_, made)) = sharing.flights.remove(&flight.key)
        {
            self.cancel_call(made);
        }
    }
}
