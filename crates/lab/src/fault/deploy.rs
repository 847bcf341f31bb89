//! A new version rolls out: batch by batch, and back where it fails too much.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Service, Version};

use crate::run::{Claim, Lab};
use crate::stack::Part;
use crate::tally::Of;

/// Answers of a new version after which its failures count.
const ENOUGH: u64 = 20;

/// How far a deploy is.
#[derive(Debug)]
pub(crate) struct Deploy {
    service: u32,
    version: Version,
    /// The version before, to which it may turn back: nothing for the file's.
    old: Option<Version>,
    /// When it began, ns from the start of the load.
    began: u64,
    phase: Cell<Phase>,
    /// Whether pauses are left out: its time is over.
    hurried: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Rolling,
    RollingBack,
    Done,
    RolledBack,
}

pub(super) fn start(lab: &Rc<Lab>, number: usize, service: u32, version: &Version) -> Result<(), String> {
    if lab.is_deploying(service) {
        return Err("another version of it is still rolling out".to_owned());
    }
    let deploy = Rc::new(Deploy {
        service,
        version: version.clone(),
        old: lab.current_version(service),
        began: lab.now(),
        phase: Cell::new(Phase::Rolling),
        hurried: Cell::new(false),
    });
    lab.faults.borrow_mut().deploys.insert(number, deploy.clone());
    let lab = lab.clone();
    tokio::task::spawn_local(async move {
        if let Err(why) = roll(&lab, &deploy).await {
            lab.warn(format!("the deploy of {} stopped: {why}", lab.stack.system.services[service as usize].name));
        }
        deploy.phase.set(if deploy.phase.get() == Phase::Rolling { Phase::Done } else { Phase::RolledBack });
    });
    Ok(())
}

/// What is not done in time is done without pauses.
pub(super) fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    if let Some(deploy) = lab.faults.borrow().deploys.get(&number) {
        deploy.hurried.set(true);
    }
    Ok(())
}

impl Deploy {
    /// The version that instances are brought to.
    fn target(&self) -> Option<&Version> {
        match self.phase.get() {
            Phase::Rolling | Phase::Done => Some(&self.version),
            Phase::RollingBack | Phase::RolledBack => self.old.as_ref(),
        }
    }

    fn runs(&self) -> bool {
        matches!(self.phase.get(), Phase::Rolling | Phase::RollingBack)
    }
}

impl Lab {
    /// Whether a new version of a service is rolling out or back.
    pub(crate) fn is_deploying(&self, service: u32) -> bool {
        self.faults.borrow().deploys.values().any(|deploy| deploy.service == service && deploy.runs())
    }

    /// The version that a new instance of a service runs: nothing for the file's.
    pub(crate) fn current_version(&self, service: u32) -> Option<Version> {
        let faults = self.faults.borrow();
        let of_service = faults.deploys.values().filter(|deploy| deploy.service == service);
        of_service.max_by_key(|deploy| deploy.began)?.target().cloned()
    }
}

/// What processes know of a version.
fn told(version: Option<&Version>) -> Option<(f64, f64)> {
    version.map(|version| (version.slow, version.errors))
}

async fn roll(lab: &Rc<Lab>, deploy: &Rc<Deploy>) -> Result<(), String> {
    let service = deploy.service;
    let of: &Service = &lab.stack.system.services[service as usize];
    loop {
        let target = deploy.target();
        let phase = deploy.phase.get();
        let runs = |instance: &u32| lab.stack.version(Part::Instance(service, *instance)) == told(target);
        let old: Vec<u32> = running(lab, service).into_iter().filter(|instance| !runs(instance)).collect();
        if old.is_empty() {
            let text = match phase {
                Phase::RollingBack => "the old version runs again",
                _ => "the new version is out",
            };
            lab.happened(EventKind::DeployStep, &*of.name, text);
            return Ok(());
        }
        // Those that do not serve come first: the others go on serving.
        let mut batch = old.clone();
        batch.sort_by_key(|instance| lab.stack.is_up(Part::Instance(service, *instance)));
        batch.truncate(of.deploy.batch.max(1) as usize);
        replace(lab, deploy, of, &batch, target).await?;
        let all = running(lab, service);
        let there = all.iter().filter(|instance| runs(instance)).count();
        let which = if phase == Phase::Rolling { "new" } else { "old" };
        lab.happened(
            EventKind::DeployStep,
            &*of.name,
            format!("{there} of {} instances run the {which} version", all.len()),
        );
        let until = lab.now() + of.deploy.pause;
        loop {
            if turns_back(lab, deploy, of) || lab.is_over() {
                break;
            }
            let done = deploy.hurried.get() || deploy.phase.get() == Phase::RollingBack || lab.now() >= until;
            if done {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if lab.is_over() {
            return Ok(());
        }
    }
}

/// Replaces a batch: with spare places the new ones are ready before the old ones go.
async fn replace(
    lab: &Rc<Lab>,
    deploy: &Rc<Deploy>,
    of: &Service,
    batch: &[u32],
    target: Option<&Version>,
) -> Result<(), String> {
    let (service, new) = (deploy.service, deploy.phase.get() == Phase::Rolling);
    // The new ones first, where there is room beside the old.
    let places = lab.claim(service, if of.deploy.surge { batch.len() } else { 0 });
    let free: Vec<u32> = places.iter().map(|place| place.instance).collect();
    for &slot in &free {
        lab.start_version(service, slot, target).await?;
    }
    drop(places);
    for &slot in &free {
        if !wait_ready(lab, deploy, of, Part::Instance(service, slot), new).await? {
            // It turned back before they were ready: the old ones still serve.
            for &slot in &free {
                lab.stack.end(Part::Instance(service, slot)).await;
            }
            return Ok(());
        }
        lab.register(service, slot, true).await?;
    }
    // In place of the old ones, where there was none.
    let again = &batch[free.len().min(batch.len())..];
    let places: Vec<Claim> = again.iter().map(|slot| lab.hold(service, *slot)).collect();
    for &old in batch {
        lab.drain_instance(service, old).await?;
    }
    for &slot in again {
        lab.start_version(service, slot, target).await?;
    }
    drop(places);
    for &slot in again {
        let part = Part::Instance(service, slot);
        while !lab.is_over() && !lab.stack.state(part).await.is_some_and(|state| state.ready) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lab.register(service, slot, true).await?;
    }
    Ok(())
}

/// The instances that run: one that an autoscaler has asked for starts with the version of then.
fn running(lab: &Lab, service: u32) -> Vec<u32> {
    let runs = |instance: &u32| !lab.stack.has_left(Part::Instance(service, *instance));
    lab.wanted(service).into_iter().filter(runs).collect()
}

/// Waits until a replacement is ready; false if the deploy of a new version turns back first.
async fn wait_ready(lab: &Rc<Lab>, deploy: &Rc<Deploy>, of: &Service, part: Part, new: bool) -> Result<bool, String> {
    loop {
        if lab.stack.state(part).await.is_some_and(|state| state.ready) {
            return Ok(true);
        }
        if new && turns_back(lab, deploy, of) || lab.is_over() {
            return Ok(false);
        }
        if lab.stack.is_gone(part) {
            return Err(format!("{} ended before it was ready", lab.stack.name(part)));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether too many requests fail on the new version: then the old one is to come back.
fn turns_back(lab: &Rc<Lab>, deploy: &Rc<Deploy>, of: &Service) -> bool {
    if deploy.phase.get() != Phase::Rolling {
        return deploy.phase.get() == Phase::RollingBack;
    }
    let Some(limit) = of.deploy.rollback_at else { return false };
    let new = Some((deploy.version.slow, deploy.version.errors));
    let slots = lab.stack.layout.services[deploy.service as usize].len() as u32;
    let (mut answered, mut failed) = (0, 0);
    for slot in (0..slots).filter(|slot| lab.stack.version(Part::Instance(deploy.service, *slot)) == new) {
        let totals = lab.since_start(Of::Instance(deploy.service, slot));
        // Who asks too often says nothing of a version.
        answered += totals.ok + totals.failed - totals.rejected.min(totals.failed);
        failed += totals.failed - totals.rejected.min(totals.failed);
    }
    let share = failed as f64 / answered.max(1) as f64;
    if answered < ENOUGH || failed == 0 || share < limit {
        return false;
    }
    deploy.phase.set(Phase::RollingBack);
    let text = format!("{:.0}% of {answered} requests failed on the new version: rolling back", share * 100.0);
    lab.happened(EventKind::RolledBack, &*of.name, text);
    true
}
