//! A new version rolls out: batch by batch, and back where it fails too much.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use plimsoll_model::draw::duration;
use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Service, Version};

use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;
use crate::tally::Of;

/// Answers of a new version after which its failures count.
const ENOUGH: u64 = 20;

/// How far a deploy is.
#[derive(Debug)]
pub(crate) struct Deploy {
    service: u32,
    version: Version,
    phase: Cell<Phase>,
    /// Whether pauses are left out: its time is over.
    hurried: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Rolling,
    RollingBack,
    Over,
}

pub(super) fn start(lab: &Rc<Lab>, number: usize, service: u32, version: &Version) -> Result<(), String> {
    let deploy = Rc::new(Deploy {
        service,
        version: version.clone(),
        phase: Cell::new(Phase::Rolling),
        hurried: Cell::new(false),
    });
    let mut faults = lab.faults.borrow_mut();
    if faults.deploys.values().any(|other| other.service == service && other.phase.get() != Phase::Over) {
        return Err("another version of it is still rolling out".to_owned());
    }
    faults.deploys.insert(number, deploy.clone());
    drop(faults);
    let lab = lab.clone();
    tokio::task::spawn_local(async move {
        if let Err(why) = roll(&lab, &deploy).await {
            lab.warn(format!("the deploy of {} stopped: {why}", lab.stack.system.services[service as usize].name));
        }
        deploy.phase.set(Phase::Over);
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
    fn target(&self) -> Option<(f64, f64)> {
        (self.phase.get() == Phase::Rolling).then_some((self.version.slow, self.version.errors))
    }
}

async fn roll(lab: &Rc<Lab>, deploy: &Rc<Deploy>) -> Result<(), String> {
    let service = deploy.service;
    let of: &Service = &lab.stack.system.services[service as usize];
    loop {
        let target = deploy.target();
        let phase = deploy.phase.get();
        let members = lab.stack.members(service);
        let old: Vec<u32> = members
            .iter()
            .copied()
            .filter(|instance| lab.stack.version(Part::Instance(service, *instance)) != target)
            .collect();
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
        let all = lab.stack.members(service);
        let there =
            all.iter().filter(|instance| lab.stack.version(Part::Instance(service, **instance)) == target).count();
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
    target: Option<(f64, f64)>,
) -> Result<(), String> {
    let service = deploy.service;
    let slots = lab.stack.layout.services[service as usize].len() as u32;
    let mut free: Vec<u32> = (0..slots)
        .filter(|slot| lab.stack.is_gone(Part::Instance(service, *slot)) && !lab.stack.members(service).contains(slot))
        .collect();
    free.truncate(if of.deploy.surge { batch.len() } else { 0 });
    let startup = deploy.version.startup.as_ref().filter(|_| target.is_some()).unwrap_or(&of.startup);
    let takes = |slot: u32| duration(startup, lab.draw(u64::from(service) << 32 | u64::from(slot)));
    // The new ones first, where there is room beside the old.
    for &slot in &free {
        lab.start_instance(service, slot, takes(slot), target).await?;
    }
    for &slot in &free {
        if !wait_ready(lab, deploy, of, Part::Instance(service, slot), target.is_some()).await? {
            // It turned back before they were ready: the old ones still serve.
            for &slot in &free {
                lab.stack.end(Part::Instance(service, slot)).await;
            }
            return Ok(());
        }
        lab.register(service, slot, true).await?;
    }
    for &old in batch {
        drain(lab, of, Part::Instance(service, old)).await?;
    }
    // In place of the old ones, where there was none.
    let rest = batch.len() - free.len().min(batch.len());
    for &slot in &batch[batch.len() - rest..] {
        lab.start_instance(service, slot, takes(slot), target).await?;
    }
    for &slot in &batch[batch.len() - rest..] {
        let part = Part::Instance(service, slot);
        while !lab.is_over() && !lab.stack.state(part).await.is_some_and(|state| state.ready) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lab.register(service, slot, true).await?;
    }
    Ok(())
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

/// Stops an instance the graceful way: callers stop calling, what it has ends.
async fn drain(lab: &Rc<Lab>, of: &Service, part: Part) -> Result<(), String> {
    let Part::Instance(service, instance) = part else { return Ok(()) };
    lab.register(service, instance, false).await?;
    lab.stack.leaves(part);
    if lab.stack.is_up(part) {
        // Gateways look into their file a few times a second. Who does not wait for requests does not wait for them.
        tokio::time::sleep(Duration::from_nanos(of.drain.min(100_000_000))).await;
        lab.stack.order(part, &Order::Drain).await?;
        let until = lab.now() + of.drain + 1_000_000_000;
        while !lab.stack.is_gone(part) && lab.now() < until && !lab.is_over() {
            lab.collect(part).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    lab.stack.end(part).await;
    Ok(())
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
