use std::rc::Rc;

use plimsoll_model::system::{Dist, FaultKind, Target};

use super::link::{self, Disturbance};
use crate::control::Order;
use crate::proxy::More;
use crate::proxy::toxic::{Kind, Latency, Stream};
use crate::run::Lab;
use crate::stack::Part;

/// Processes take longer, or an edge does.
pub(super) async fn start(
    lab: &Rc<Lab>,
    number: usize,
    target: &Target,
    factor: f64,
    added: &Dist,
) -> Result<(), String> {
    if let Target::Edge(edge) = *target {
        // The network's own delay is there already, once.
        let more = link::network_delay(&lab.stack.system, edge) / 1e6 * (factor - 1.0);
        let latency = Kind::Latency(Latency { latency: more, jitter: 0.0 });
        let there = Disturbance { more: More::Drawn(added.clone()), ..Disturbance::new(Stream::Upstream, latency) };
        return link::start(lab, number, target, &[there, Disturbance::new(Stream::Downstream, latency)]);
    }
    let parts: Vec<Part> = lab.victims(target).into_iter().filter(|part| !lab.stack.is_gateway(*part)).collect();
    lab.strike(number, parts.clone());
    set(lab, &parts).await
}

pub(super) async fn end(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    if matches!(target, Target::Edge(_)) {
        let effect = link::end(lab, number)?;
        return link::seen(lab, number, effect, 1.0);
    }
    let parts = lab.take_struck(number);
    set(lab, &parts).await
}

/// Everything is as slow as all faults under way make it: their factors multiplied, then what they add.
async fn set(lab: &Rc<Lab>, parts: &[Part]) -> Result<(), String> {
    for &part in parts {
        let (factor, added) = lab.slowness(part);
        if lab.stack.real(part).is_some() {
            lab.slow_store(part, factor, added).await?;
            continue;
        }
        if !lab.stack.is_up(part) {
            continue;
        }
        lab.stack.order(part, &Order::Slow(factor, added)).await?;
        let slow = lab.stack.state(part).await.map(|state| state.slow);
        if slow != Some((factor, added)) {
            return Err(format!("{} is not as slow as it was told to be", lab.stack.name(part)));
        }
    }
    Ok(())
}

impl Lab {
    /// A real server is as fast as it is: those who ask it have their statements take longer there.
    async fn slow_store(&self, part: Part, factor: f64, added: u64) -> Result<(), String> {
        let Part::Node(store, node) = part else { return Ok(()) };
        let order = Order::SlowNode { store, node, factor, added };
        for asker in self.stack.parts().into_iter().filter(|asker| self.stack.takes_orders(*asker)) {
            self.stack.order(asker, &order).await?;
        }
        Ok(())
    }

    /// Tells a new instance which real stores are slow.
    pub(crate) async fn tell_slow_stores(&self, asker: Part) {
        for part in self.stack.stores().into_iter().flat_map(|stores| stores.parts()) {
            let ((factor, added), Part::Node(store, node)) = (self.slowness(part), part) else { continue };
            if (factor, added) != (1.0, 0) {
                let _ = self.stack.order(asker, &Order::SlowNode { store, node, factor, added }).await;
            }
        }
    }

    /// How slow faults make a part: a factor, and so many ns more.
    pub(crate) fn slowness(&self, part: Part) -> (f64, u64) {
        self.strikes(part).into_iter().fold((1.0, 0u64), |(factor, added), kind| match kind {
            FaultKind::Slow { factor: times, added: more, .. } => {
                (factor * times, added.saturating_add(more.mean() as u64))
            }
            _ => (factor, added),
        })
    }
}
