//! Faults: what goes wrong, one kind a file. Each starts, and is undone at its end.

mod bandwidth;
mod broker;
mod crash_between;
mod exhaust;
mod flush;
mod kill;
mod lock;
mod pause;
mod skew;
mod slow;
mod target;

pub(crate) mod link;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::FaultKind;

use crate::engine::Event;
use crate::world::World;
use link::LinkFault;
use target::Victim;

/// The faults that are under way.
#[derive(Default)]
pub(crate) struct FaultState {
    /// What disturbs edges now, with the fault that brought it.
    links: Vec<(u32, LinkFault)>,
    /// Messages that a partition holds back: end, target, event, size.
    pub(crate) blocked: Vec<(u32, u32, Event, u64)>,
    /// Crashes that wait for their place: service, the step done, the step not.
    crashes: Vec<(u32, u32, u32)>,
    /// What each fault under way has struck.
    victims: Vec<(u32, Vec<Victim>)>,
}

impl FaultState {
    /// Whether anything disturbs an edge.
    #[inline(always)]
    pub(crate) fn any_link(&self) -> bool {
        !self.links.is_empty()
    }
}

impl World<'_> {
    pub(crate) fn fault_start(&mut self, fault: u32) {
        let plan = self.plan;
        let f = &plan.faults[fault as usize];
        self.happened(EventKind::FaultStart, "fault", f.text.clone());
        match &f.kind {
            FaultKind::Kill(target) => self.start_kill(fault, target),
            FaultKind::Pause(target) => self.start_pause(fault, target),
            FaultKind::Slow { target, factor, added } => self.start_slow(fault, target, *factor, added),
            FaultKind::Partition(target) => self.disturb(fault, target, link::Disturbance::Blocked),
            FaultKind::Drop { target, share } => self.disturb(fault, target, link::Disturbance::Drop(*share)),
            FaultKind::Reset { target, share } => self.disturb(fault, target, link::Disturbance::Reset(*share)),
            FaultKind::Bandwidth { target, rate } => self.disturb(fault, target, bandwidth::limited(*rate)),
            FaultKind::Flush(store) => self.start_flush(store.0),
            FaultKind::Promote(store) => self.promote(store.0),
            FaultKind::Lag { store, by } => self.add_lag(store.0, *by),
            FaultKind::LockTable { store, table } => self.start_lock(fault, store.0, *table),
            FaultKind::Exhaust(target) => self.start_exhaust(fault, target),
            FaultKind::Deploy { .. } => self.deploy_start(fault),
            FaultKind::CrashBetween { service, done, next } => self.start_crash(service.0, done, next),
            FaultKind::Skew { target, .. } => self.start_skew(fault, target),
            // It is part of the clients' load from the start.
            FaultKind::Surge { .. } => {}
            FaultKind::BrokerDown(topic) => self.start_broker_down(topic.0),
        }
    }

    pub(crate) fn fault_end(&mut self, fault: u32) {
        let plan = self.plan;
        let f = &plan.faults[fault as usize];
        self.happened(EventKind::FaultEnd, "fault", f.text.clone());
        match &f.kind {
            FaultKind::Kill(_) => self.end_kill(fault),
            FaultKind::Pause(_) => self.end_pause(fault),
            FaultKind::Slow { .. } => self.end_slow(fault),
            FaultKind::Partition(_)
            | FaultKind::Drop { .. }
            | FaultKind::Reset { .. }
            | FaultKind::Bandwidth { .. } => self.settle_links(fault),
            // A crash waits for its place for as long as the run lasts; the others leave nothing to undo.
            FaultKind::Flush(_) | FaultKind::Promote(_) | FaultKind::Surge { .. } | FaultKind::CrashBetween { .. } => {}
            FaultKind::Lag { store, by } => self.remove_lag(store.0, *by),
            FaultKind::LockTable { store, table } => self.end_lock(fault, store.0, *table),
            FaultKind::Exhaust(_) => self.end_exhaust(fault),
            FaultKind::Deploy { .. } => self.deploy_end(fault),
            FaultKind::Skew { .. } => self.end_skew(fault),
            FaultKind::BrokerDown(topic) => self.end_broker_down(topic.0),
        }
    }

    /// Faults under way that strike this too: the end of one leaves what the others do.
    fn strikes(&self, victim: Victim) -> impl Iterator<Item = &FaultKind> {
        let here = move |(_, victims): &&(u32, Vec<Victim>)| victims.contains(&victim);
        self.faults.victims.iter().filter(here).map(|(fault, _)| &self.plan.faults[*fault as usize].kind)
    }

    /// What a fault has struck, for its end.
    fn take_victims(&mut self, fault: u32) -> Vec<Victim> {
        match self.faults.victims.iter().position(|(of, _)| *of == fault) {
            Some(at) => self.faults.victims.remove(at).1,
            None => Vec::new(),
        }
    }
}
