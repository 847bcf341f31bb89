use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::StoreKind;

use crate::control::Order;
use crate::run::Lab;
use crate::stack::{Part, Stores};

/// Promotion of a replica takes so long where the file does not say (measured: 0.1-0.3 s), ns.
const PROMOTION: u64 = 300_000_000;

/// A store's operators make a replica the primary of every shard.
pub(super) async fn start(lab: &Rc<Lab>, store: u32) -> Result<(), String> {
    let StoreKind::Postgres(pg) = &lab.stack.system.stores[store as usize].kind else {
        return Err("it has no replicas".to_owned());
    };
    let takes = pg.failover.map_or(PROMOTION, |failover| failover.promote);
    let shards = pg.shards;
    for shard in 0..shards {
        let (primary, _) = lab.stack.primaries(store)[shard as usize];
        let part = Part::Node(store, primary);
        if lab.stack.real(part).is_some() {
            promoted(lab, store, shard).await?;
            continue;
        }
        // One that still runs is stopped first, and comes back as a replica.
        let returns = lab.stack.is_up(part);
        if returns {
            lab.collect(part).await;
            lab.stack.kill(part).await?;
        }
        tokio::time::sleep(Duration::from_nanos(takes)).await;
        promoted(lab, store, shard).await?;
        if returns && lab.stack.revive(part) {
            lab.boot(part, None).await?;
        }
    }
    Ok(())
}

/// The replica that is furthest takes over; what it does not have is lost.
pub(super) async fn promoted(lab: &Rc<Lab>, store: u32, shard: u32) -> Result<(), String> {
    let stack = &lab.stack;
    let StoreKind::Postgres(pg) = &stack.system.stores[store as usize].kind else { return Ok(()) };
    let name = &stack.system.stores[store as usize].name;
    let per_shard = 1 + pg.replicas;
    let (old, timeline) = stack.primaries(store)[shard as usize];
    if let Some(stores) = stack.real(Part::Node(store, old)) {
        return promoted_for_real(lab, &stores, (store, shard), (old, timeline)).await;
    }
    let mut furthest: Option<(u64, std::cmp::Reverse<u32>)> = None;
    for node in shard * per_shard..(shard + 1) * per_shard {
        let part = Part::Node(store, node);
        if node != old
            && stack.is_up(part)
            && let Some(state) = stack.state(part).await
        {
            furthest = furthest.max(Some((state.commits.0, std::cmp::Reverse(node))));
        }
    }
    let Some((_, std::cmp::Reverse(node))) = furthest else {
        lab.happened(EventKind::Promoted, &**name, "no replica is left to promote");
        return Err(format!("{name} has no replica to promote"));
    };
    let part = Part::Node(store, node);
    let timeline = timeline + 1;
    stack.order(part, &Order::Promote(timeline)).await?;
    let state = stack.state(part).await.filter(|state| state.primary);
    let kept = state.ok_or_else(|| format!("{} is not the primary", stack.name(part)))?.commits.0;
    stack.set_primary(store, shard, node, timeline);
    lab.kept.borrow_mut().insert((store, shard), (timeline, kept));
    for other in (shard * per_shard..(shard + 1) * per_shard).filter(|other| *other != node && *other != old) {
        if stack.is_up(Part::Node(store, other)) {
            stack.order(Part::Node(store, other), &Order::Follow(node)).await?;
        }
    }
    lab.tell_primaries(store).await;
    lab.happened(EventKind::Promoted, stack.name(part), "is the primary now");
    Ok(())
}

/// A real replica takes over; services hear of it as soon as it takes writes. A primary that ran comes back as a replica.
async fn promoted_for_real(
    lab: &Rc<Lab>,
    stores: &Arc<Stores>,
    (store, shard): (u32, u32),
    (old, timeline): (u32, u32),
) -> Result<(), String> {
    let stack = &lab.stack;
    let (node, ahead) = match stores.clone().take_over(store, shard).await {
        Ok(new) => new,
        Err(why) => {
            lab.happened(EventKind::Promoted, &*stack.system.stores[store as usize].name, "no replica was promoted");
            return Err(why);
        }
    };
    stack.set_primary(store, shard, node, timeline + 1);
    // How much of the log was kept nobody asks: services look for the rows themselves.
    lab.kept.borrow_mut().insert((store, shard), (timeline + 1, 0));
    lab.tell_primaries(store).await;
    lab.happened(EventKind::Promoted, stack.name(Part::Node(store, node)), "is the primary now");
    let (lab, stores, old) = (lab.clone(), stores.clone(), Part::Node(store, old));
    tokio::task::spawn_local(async move {
        if let Err(why) = stores.clone().settle(store, shard, ahead).await
            && !lab.is_over()
        {
            lab.warn(why);
        }
        // Where a fault holds it down, its end brings it back.
        if stores.may_start(old) && !lab.is_over() {
            lab.boot_store(old);
        }
    });
    Ok(())
}

impl Lab {
    /// Tells every service who the primaries of a store are.
    pub(crate) async fn tell_primaries(&self, store: u32) {
        for part in self.stack.parts() {
            if self.stack.takes_orders(part) {
                let _ = self.stack.order(part, &self.primaries_order(store)).await;
            }
        }
    }

    /// What services are told of a store's primaries.
    pub(crate) fn primaries_order(&self, store: u32) -> Order {
        let primaries = self.stack.primaries(store);
        let kept = self.kept.borrow();
        let kept = (0..primaries.len() as u32).map(|shard| kept.get(&(store, shard)).copied().unwrap_or((0, 0)));
        Order::Primaries { store, kept: kept.collect(), primaries: primaries.iter().map(|(node, _)| *node).collect() }
    }

    /// Where the file says so, the loss of a primary is noticed, and a replica takes over.
    pub(crate) fn failover(self: &Rc<Self>, part: Part) {
        let Part::Node(store, node) = part else { return };
        let StoreKind::Postgres(pg) = &self.stack.system.stores[store as usize].kind else { return };
        let (Some(failover), shard) = (pg.failover, node / (1 + pg.replicas)) else { return };
        if self.stack.primaries(store)[shard as usize].0 != node {
            return;
        }
        let lab = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_nanos(failover.detect)).await;
            let still = lab.stack.primaries(store)[shard as usize].0 == node && lab.stack.is_gone(part);
            if !still || lab.is_over() {
                return;
            }
            // A real promotion takes what it takes.
            let takes = if lab.stack.real(part).is_some() { 0 } else { failover.promote };
            tokio::time::sleep(Duration::from_nanos(takes)).await;
            if !lab.is_over()
                && let Err(why) = promoted(&lab, store, shard).await
            {
                lab.warn(why);
            }
        });
    }
}
