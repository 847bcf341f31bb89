use std::rc::Rc;

use plimsoll_model::system::{FaultKind, Target};

use super::when_it_goes_on;
use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;

/// Others take every connection that nodes have left.
pub(super) async fn start(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    let parts = lab.victims(target);
    lab.strike(number, parts.clone());
    if !parts.iter().any(|part| lab.stack.is_up(*part)) {
        return Err("no node of it is up".to_owned());
    }
    for part in parts {
        match lab.stack.real(part) {
            Some(stores) if lab.stack.is_up(part) => stores.exhaust(part, number).await?,
            Some(_) => {}
            None => set(lab, part).await?,
        }
    }
    Ok(())
}

/// They give them back, unless another fault has them too.
pub(super) async fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let mut undone = Ok(());
    for part in lab.take_struck(number) {
        undone = undone.and(match lab.stack.real(part) {
            Some(stores) => stores.give_back(part, number).await,
            None => set(lab, part).await,
        });
    }
    undone
}

/// An emulated node has none left while any fault says so.
async fn set(lab: &Rc<Lab>, part: Part) -> Result<(), String> {
    if lab.stack.is_up(part) {
        return lab.stack.order(part, &lab.exhaustion(part)).await;
    }
    if !lab.stack.is_gone(part) {
        when_it_goes_on(lab, part, Lab::exhaustion);
    }
    Ok(())
}

impl Lab {
    /// Tells a new node that it has no connection left.
    pub(crate) async fn tell_exhausted(&self, part: Part) {
        let order = self.exhaustion(part);
        if order == Order::Exhaust(true) {
            let _ = self.stack.order(part, &order).await;
        }
    }

    fn exhaustion(&self, part: Part) -> Order {
        Order::Exhaust(self.strikes(part).iter().any(|kind| matches!(kind, FaultKind::Exhaust(_))))
    }
}
