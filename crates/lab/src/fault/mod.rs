//! Faults: what goes wrong on purpose, one kind a file. Each is seen to have taken effect, and undone at its end or at
//! the run's.

mod bandwidth;
mod broker;
mod crash_between;
mod deploy;
mod drop;
mod exhaust;
mod flush;
mod kill;
mod lag;
pub(crate) mod link;
mod lock;
mod partition;
mod pause;
mod promote;
mod reset;
mod skew;
mod slow;
mod target;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Experiment, FaultKind};

use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;
use crate::stack::hops::Named;

pub(crate) use deploy::Deploy;

/// The faults that are under way.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// What each has struck, by its number.
    struck: BTreeMap<usize, Vec<Part>>,
    /// The proxies that each disturbs.
    hops: BTreeMap<usize, Vec<Named>>,
    /// Bytes that had gone through a partition's proxies when it had begun.
    passed: BTreeMap<usize, u64>,
    /// Extra lag by store, of all faults under way, ns.
    lags: BTreeMap<u32, u64>,
    /// How often each topic is down.
    down: BTreeMap<u32, u32>,
    /// Deploys by fault.
    pub(crate) deploys: BTreeMap<usize, Rc<Deploy>>,
}

/// A fault begins. Says why it has no effect, if it has none.
pub(crate) async fn start(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let fault = &lab.experiment.faults[number];
    lab.happened(EventKind::FaultStart, "fault", &*fault.text);
    match &fault.kind {
        FaultKind::Kill(target) => kill::start(lab, number, target).await,
        FaultKind::Pause(target) => pause::start(lab, number, target).await,
        FaultKind::Slow { target, factor, added } => slow::start(lab, number, target, *factor, added).await,
        FaultKind::Partition(target) => partition::start(lab, number, target).await,
        FaultKind::Drop { target, share } => drop::start(lab, number, target, *share),
        FaultKind::Reset { target, share } => reset::start(lab, number, target, *share),
        FaultKind::Bandwidth { target, rate } => bandwidth::start(lab, number, target, *rate),
        FaultKind::Flush(store) => flush::start(lab, store.0).await,
        FaultKind::Promote(store) => promote::start(lab, store.0).await,
        FaultKind::Lag { store, by } => lag::start(lab, store.0, *by).await,
        FaultKind::LockTable { store, table } => lock::set(lab, store.0, *table, true).await,
        FaultKind::Exhaust(target) => exhaust::start(lab, number, target).await,
        FaultKind::Deploy { service, version } => deploy::start(lab, number, service.0, version),
        FaultKind::CrashBetween { service, done, next } => crash_between::start(lab, service.0, done, next).await,
        FaultKind::BrokerDown(topic) => broker::start(lab, topic.0).await,
        // It is part of the clients' load from the start.
        FaultKind::Surge { .. } => Ok(()),
        FaultKind::Skew { target, .. } => skew::start(lab, number, target).await,
    }
}

/// A fault ends: what it did is undone.
pub(crate) async fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let fault = &lab.experiment.faults[number];
    lab.happened(EventKind::FaultEnd, "fault", &*fault.text);
    match &fault.kind {
        FaultKind::Kill(_) => kill::end(lab, number).await,
        FaultKind::Pause(_) => pause::end(lab, number).await,
        FaultKind::Slow { target, .. } => slow::end(lab, number, target).await,
        FaultKind::Partition(_) => partition::end(lab, number),
        FaultKind::Drop { share, .. } => drop::end(lab, number, *share),
        FaultKind::Reset { share, .. } => reset::end(lab, number, *share),
        FaultKind::Bandwidth { .. } => bandwidth::end(lab, number),
        FaultKind::Lag { store, by } => lag::end(lab, store.0, *by).await,
        FaultKind::LockTable { store, table } => lock::set(lab, store.0, *table, false).await,
        FaultKind::Exhaust(_) => exhaust::end(lab, number).await,
        FaultKind::Deploy { .. } => deploy::end(lab, number),
        FaultKind::BrokerDown(topic) => broker::end(lab, topic.0).await,
        FaultKind::Skew { .. } => skew::end(lab, number).await,
        // The others leave nothing to undo; a crash waits for its place for as long as the run lasts.
        _ => Ok(()),
    }
}

/// What begins and ends, and when: ns from the start of the load, the fault's number, and whether it begins.
pub(crate) fn timeline(experiment: &Experiment) -> Vec<(u64, usize, bool)> {
    let faults = experiment.faults.iter().enumerate();
    let mut all: Vec<(u64, usize, bool)> = faults
        .flat_map(|(number, fault)| {
            [(experiment.warmup + fault.at, number, true), (experiment.warmup + fault.until, number, false)]
        })
        .collect();
    // What ends makes room for what begins at the same moment, unless it is the same.
    all.sort_by_key(|&(at, number, begins)| {
        (at, begins && experiment.faults[number].at < experiment.faults[number].until, number)
    });
    all
}

/// What is stopped hears nothing: it is told once it goes on. One that is gone is told when it starts.
fn when_it_goes_on(lab: &Rc<Lab>, part: Part, order: impl Fn(&Lab, Part) -> Order + 'static) {
    let lab = lab.clone();
    tokio::task::spawn_local(async move {
        while !lab.is_over() && !lab.stack.is_gone(part) {
            if lab.stack.is_up(part) && lab.stack.order(part, &order(&lab, part)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

impl Lab {
    /// What a fault under way has struck, for its end.
    fn take_struck(&self, number: usize) -> Vec<Part> {
        self.faults.borrow_mut().struck.remove(&number).unwrap_or_default()
    }

    /// Remembers what a fault has struck.
    fn strike(&self, number: usize, parts: Vec<Part>) {
        self.faults.borrow_mut().struck.insert(number, parts);
    }

    /// Faults under way that strike this part too: the end of one leaves what the others do.
    fn strikes(&self, part: Part) -> Vec<FaultKind> {
        let faults = self.faults.borrow();
        let here = faults.struck.iter().filter(|(_, parts)| parts.contains(&part));
        here.map(|(number, _)| self.experiment.faults[*number].kind.clone()).collect()
    }
}
