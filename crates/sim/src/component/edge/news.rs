//! What time does to breakers and members, and what is written down of it.

use plimsoll_model::run::EventKind;
use plimsoll_policy::Members;
use plimsoll_policy::circuit_breaker::State as Breaker;

use crate::world::{Wake, World};

impl World<'_> {
    /// Puts breakers' changes on the timeline.
    pub(super) fn note_breaker(&mut self, end: u32) {
        while let Some(transition) = self.ends[end as usize].pipeline.poll_transition() {
            let kind = match transition.to {
                Breaker::Open => EventKind::BreakerOpen,
                Breaker::HalfOpen => EventKind::BreakerHalfOpen,
                Breaker::Closed => EventKind::BreakerClosed,
                Breaker::Ramping => continue,
            };
            let e = &mut self.ends[end as usize];
            if transition.to == Breaker::Open {
                e.trips[self.segment] += 1;
            }
            let (edge, instance) = (e.edge, e.instance);
            if self.plan.detail {
                let who = instance.map_or_else(
                    || self.name_of(self.plan.system.edges[edge as usize].from).to_owned(),
                    |instance| self.instance_name(instance),
                );
                let to = self.name_of(self.plan.system.edges[edge as usize].to);
                self.happened(kind, format!("{who} -> {to}"), breaker_words(transition.to));
            }
        }
    }

    /// The members of an end that are due.
    pub(crate) fn members_wake(&mut self, end: u32) {
        if self.ends[end as usize].members_at == self.now {
            self.ends[end as usize].members_at = u64::MAX;
            self.poll_members(end);
        }
    }

    /// Schedules an end's members if they are due earlier than known.
    pub(crate) fn schedule_members(&mut self, end: u32) {
        let now = self.now;
        let e = &mut self.ends[end as usize];
        let Some(at) = e.members.as_deref().and_then(Members::next_wake) else { return };
        let at = at.as_nanos().max(now + 1);
        if at < e.members_at {
            e.members_at = at;
            self.wake_at(at, Wake::Members { end });
        }
    }
}

fn breaker_words(state: Breaker) -> &'static str {
    match state {
        Breaker::Open => "the circuit breaker opens: calls are rejected at once",
        Breaker::HalfOpen => "the circuit breaker lets probes through",
        Breaker::Ramping => "the circuit breaker lets a growing share through",
        Breaker::Closed => "the circuit breaker closes",
    }
}
