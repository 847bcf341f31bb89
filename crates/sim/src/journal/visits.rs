//! What one instance's policies on what it gets were asked and what they decided.

use std::collections::BTreeMap;

use plimsoll_policy::{Counts, Outcome, Time};

use super::End;
use crate::component::edge::Parent;
use crate::engine::{Answer, Ref};
use crate::world::World;

/// All requests that came to one instance, in the order of what happened to them.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    /// In their order.
    pub entries: Vec<Visit>,
    /// What each policy had decided in the end, by its key in the file; a bulkhead's by its name.
    pub counts: Vec<(String, Counts)>,
    /// The instance that is written down.
    pub(super) instance: u32,
    pub(super) requests: BTreeMap<Ref, u64>,
    pub(super) last: u64,
}

/// One step of a request, or of what concerns all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Visit {
    /// When.
    pub at: Time,
    /// The request; 0 for what concerns all. What refreshes a kept answer has a number too, but does not arrive.
    pub request: u64,
    /// What.
    pub step: Stage,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A degradation level has switched its endpoint off.
    Degraded,
    /// The quota is used up, or its store is down and that refuses all.
    Quota,
    /// The adaptive limit is reached.
    Limit,
    /// The bulkhead is full.
    Bulkhead,
    /// The wait for the bulkhead was too long.
    BulkheadTimeout,
    /// It waited as long as its `timeout` or its caller lets it.
    Deadline,
    /// All seats are taken, and all places in the queue for them.
    Full,
    /// It left the queue for a more important one, or because it had waited too long.
    Shed,
    /// The same idempotency key is in progress.
    InProgress,
    /// No other idempotency key can be remembered.
    KeysFull,
}

/// What a store of kept answers says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is fresh or may still be given; perhaps it is to be refreshed meanwhile.
    Hit {
        /// Whether this request has to see to that.
        refresh: bool,
    },
    /// It is not there: this request fetches it.
    Miss,
    /// Another request fetches it: look again then, at the latest.
    Wait(Time),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Asked: a request comes.
    Arrives {
        /// Position of its endpoint.
        endpoint: u32,
        /// Whose quota it counts against.
        quota: u64,
        /// Its priority class.
        class: u8,
        /// Until when its caller waits.
        caller: Option<Time>,
        /// When it must have been answered.
        deadline: Time,
        /// Its idempotency key, where such are remembered and its endpoint needs them.
        key: Option<u64>,
    },
    /// Asked: the store that has the quota has answered that there is room or none, or has not answered.
    Counted(Option<bool>),
    /// Decided: it is refused.
    Refused(Refusal),
    /// Decided: it is answered as the first one of its idempotency key was.
    Replayed,
    /// Decided: it waits for a bulkhead's permit until then.
    WaitsForPermit(Time),
    /// Decided: it has that permit.
    Granted,
    /// Decided: it waits for a seat.
    WaitsForSeat,
    /// Decided: it has a seat.
    Seated,
    /// Decided: it asks its upstream, and the call must have ended by then.
    Calls(Time),
    /// Asked and decided: what is kept under this key, with these random bits.
    LooksUp(u64, u64, Kept),
    /// A fetch that refreshes what is kept under this key, after the lookup that found it due.
    Refreshes(u64),
    /// Asked: the fetch has ended, well or not, with these random bits.
    Fetched(bool, u64),
    /// Asked and decided: it wants what this key says, and whether it makes the call, or waits for another's.
    Joins(u64, bool),
    /// Asked: a key's call has ended. Decided: for how many.
    Landed(u64, usize),
    /// Asked: it no longer waits for another's call. Decided: whether that was the last of those who did.
    Leaves(bool),
    /// Decided: the fallback stands in for this; none for what a policy towards the upstream refused.
    FallsBack(Option<End>),
    /// Asked: it has ended like this; where the upstream has failed and nothing stood in, by that.
    Ends(Outcome, Option<End>),
    /// Asked: so busy is the instance. Decided: the degradation level from now on, if it changes.
    Pressure(f64, Option<usize>),
}

impl World<'_> {
    /// Writes a step of a request down, where anybody wants to know.
    #[inline(always)]
    pub(crate) fn note_visit(&mut self, instance: u32, task: Ref, step: Stage) {
        if self.journal.is_some() {
            self.write_visit(instance, task, step);
        }
    }

    #[cold]
    fn write_visit(&mut self, instance: u32, task: Ref, step: Stage) {
        let at = self.time();
        let Some(journal) = &mut self.journal else { return };
        let visits = &mut journal.visits;
        if visits.instance != instance {
            return;
        }
        if matches!(step, Stage::Arrives { .. }) || !task.is_none() && !visits.requests.contains_key(&task) {
            visits.last += 1;
            visits.requests.insert(task, visits.last);
        }
        let request = visits.requests.get(&task).copied().unwrap_or(0);
        if matches!(step, Stage::Ends(..)) {
            visits.requests.remove(&task);
        }
        visits.entries.push(Visit { at, request, step });
    }

    /// The same for a call that waits for another's answer.
    pub(crate) fn note_sharing(&mut self, end: u32, call: Ref, step: Stage) {
        if self.journal.is_none() {
            return;
        }
        let Some(instance) = self.ends[end as usize].instance else { return };
        let task = match self.calls.get(call).map(|call| call.parent) {
            Some(Parent::Task(task)) => task,
            _ => Ref::NONE,
        };
        self.write_visit(instance, task, step);
    }

    /// What the policies of the instance that is written down have counted.
    pub(super) fn visit_counts(&self) -> Vec<(String, Counts)> {
        let Some(journal) = &self.journal else { return Vec::new() };
        let state = &self.instances[journal.visits.instance as usize];
        let mut counts = Vec::new();
        let quota = state.rate_limit.as_ref().or(self.services[state.service as usize].shared_limit.as_ref());
        counts.extend(quota.map(|limit| ("rate_limit".to_owned(), limit.counts())));
        counts.extend(state.limit.as_ref().map(|limit| ("limit".to_owned(), limit.counts())));
        for (group, bulkhead) in state.spec.bulkheads.iter().zip(&state.bulkheads) {
            counts.push((format!("bulkhead {}", group.name), bulkhead.counts()));
        }
        counts
    }
}

/// What failed behind a request; none for what a policy towards it refused.
pub(crate) fn failure(answer: Answer) -> Option<End> {
    match answer {
        Answer::Rejected(_) | Answer::Cancelled => None,
        other => Some(super::ended(other)),
    }
}
