//! Which targets an edge's end may ask: health checks, ejections, registration.

use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Component, ServiceId};
use plimsoll_policy::Outcome;
use plimsoll_policy::outlier_ejection::Transition;

use crate::component::task::{Context, PROBE, TaskParent};
use crate::engine::{Draw, Ref};
use crate::journal::Step;
use crate::world::World;

impl World<'_> {
    /// Takes instances that do not exist yet out of an end's members, and starts its checks.
    pub(crate) fn start_members(&mut self, end: u32) {
        let time = self.time();
        let e = &mut self.ends[end as usize];
        let Some(members) = &mut e.members else { return };
        if let Component::Service(id) = self.plan.system.edges[e.edge as usize].to {
            for i in 0..e.balancer.len() {
                if !self.services[id.index()].registered.contains(i) {
                    members.remove(time, i);
                }
            }
        }
        self.schedule_members(end);
    }

    /// A service's instance has come or gone: every end that calls it is told.
    pub(crate) fn registration_changed(&mut self, service: u32, at: u32, registered: bool) {
        let time = self.time();
        for end in 0..self.ends.len() as u32 {
            let e = &mut self.ends[end as usize];
            if self.plan.system.edges[e.edge as usize].to != Component::Service(ServiceId(service)) {
                continue;
            }
            if let Some(members) = &mut e.members {
                let transitions = if registered {
                    members.add(time, at as usize, true).expect("its configuration has not changed").to_vec()
                } else {
                    members.remove(time, at as usize).to_vec()
                };
                self.apply_transitions(end, &transitions);
                self.schedule_members(end);
            }
            self.next_connection(end);
        }
    }

    /// A call to a member has ended.
    #[inline]
    pub(crate) fn record_member(&mut self, end: u32, local: usize, outcome: Outcome, throttled: bool) {
        let time = self.time();
        let e = &mut self.ends[end as usize];
        let Some(members) = &mut e.members else { return };
        let transitions = members.record(time, local, outcome, throttled);
        if !transitions.is_empty() {
            let transitions = transitions.to_vec();
            self.apply_transitions(end, &transitions);
            self.note_eligible(end);
            self.schedule_members(end);
        }
    }

    /// Does what is due: ends ejections, sends health checks.
    pub(crate) fn poll_members(&mut self, end: u32) {
        let time = self.time();
        // A caller that is gone or stopped checks nobody.
        if let Some(instance) = self.ends[end as usize].instance
            && (!self.instances[instance as usize].accepts() || self.instances[instance as usize].paused_at.is_some())
        {
            let e = &mut self.ends[end as usize];
            e.members_at = self.now + 1_000_000_000;
            return self.wake_at(self.now + 1_000_000_000, crate::world::Wake::Members { end });
        }
        self.note(end, Ref::NONE, Step::Due);
        let e = &mut self.ends[end as usize];
        let Some(members) = &mut e.members else { return };
        let transitions = members.on_wake(time).to_vec();
        self.apply_transitions(end, &transitions);
        loop {
            let e = &mut self.ends[end as usize];
            e.probe_number += 1;
            let number = e.probe_number;
            let random = self.root.part(end as u64).bits(number as u64 | 1 << 60);
            let check = e.members.as_mut().and_then(|m| m.poll_check(time, random));
            let target = check.as_ref().map(|(target, _)| *target);
            self.note(end, Ref::NONE, Step::Checks(target, random));
            let Some((target, probe)) = check else { break };
            self.ends[end as usize].probes[target] = Some((number, probe));
            self.send_probe(end, target as u32, number);
        }
        self.note_eligible(end);
        self.schedule_members(end);
    }

    /// A health check reaches its target: it takes a worker, as any request does.
    fn send_probe(&mut self, end: u32, target: u32, number: u32) {
        let e = &self.ends[end as usize];
        let instance = e.first_target + target;
        if self.faults.any_link() && self.is_blocked(end, target as usize) {
            return;
        }
        if !self.instances[instance as usize].accepts() {
            return self.checked(end, target, number, false);
        }
        if self.instances[instance as usize].paused_at.is_some() {
            return;
        }
        let context = Context { draw: Draw(number as u64), ..Context::BLANK };
        let parent = TaskParent::Probe { end, target, number };
        let task = self.new_task(parent, instance, self.plan.code.nothing, PROBE, context);
        self.seat_probe(task);
    }

    /// A health check has ended.
    pub(crate) fn checked(&mut self, end: u32, target: u32, number: u32, passed: bool) {
        let time = self.time();
        let e = &mut self.ends[end as usize];
        match &e.probes[target as usize] {
            Some((latest, _)) if *latest == number => {}
            _ => return,
        }
        let (_, probe) = e.probes[target as usize].take().expect("just seen");
        let Some(members) = &mut e.members else { return };
        let transitions = members.settle_check(time, target as usize, probe, passed).to_vec();
        self.note(end, Ref::NONE, Step::Checked(target as usize, passed));
        self.apply_transitions(end, &transitions);
        self.note_eligible(end);
        self.schedule_members(end);
    }

    fn apply_transitions(&mut self, end: u32, transitions: &[Transition]) {
        if !transitions.is_empty() {
            self.next_connection(end);
        }
        for transition in transitions {
            let e = &mut self.ends[end as usize];
            let first = e.first_target;
            let (kind, endpoint, text) = match transition {
                Transition::SlowStart { endpoint, factor } => {
                    e.balancer.set_slow_start(*endpoint, *factor);
                    continue;
                }
                Transition::Ejected { endpoint, .. } => {
                    e.ejections[self.segment] += 1;
                    (EventKind::Ejected, Some(*endpoint), "ejected: it fails more than its peers")
                }
                Transition::Returned { endpoint } => (EventKind::Returned, Some(*endpoint), "takes traffic again"),
                Transition::Unhealthy { endpoint } => {
                    (EventKind::Unhealthy, Some(*endpoint), "fails its health checks")
                }
                Transition::Healthy { endpoint } => (EventKind::Healthy, Some(*endpoint), "passes its health checks"),
                Transition::PanicEntered => (EventKind::PanicStart, None, "too few targets are healthy: all are used"),
                Transition::PanicLeft => (EventKind::PanicEnd, None, "enough targets are healthy again"),
                #[allow(unreachable_patterns)]
                _ => continue,
            };
            if self.plan.detail {
                let edge = self.ends[end as usize].edge;
                let subject = endpoint.map_or_else(
                    || self.plan.system.edge_name(plimsoll_model::system::EdgeId(edge)),
                    |endpoint| self.instance_name(first + endpoint as u32),
                );
                self.happened(kind, subject, text);
            }
        }
    }
}
