use std::rc::Rc;

use plimsoll_model::system::Target;

use crate::control::Order;
use crate::run::Lab;

/// Others take every connection that nodes have left.
pub(super) async fn start(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    let mut struck = Vec::new();
    for part in lab.victims(target).into_iter().filter(|part| lab.stack.is_up(*part)) {
        match lab.stack.real(part) {
            Some(stores) => stores.exhaust(part, number).await?,
            None => lab.stack.order(part, &Order::Exhaust(true)).await?,
        }
        struck.push(part);
    }
    let nobody = struck.is_empty();
    lab.strike(number, struck);
    if nobody { Err("no node of it is up".to_owned()) } else { Ok(()) }
}

/// They give them back.
pub(super) async fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let mut undone = Ok(());
    for part in lab.take_struck(number) {
        undone = undone.and(match lab.stack.real(part) {
            Some(stores) => stores.give_back(part, number).await,
            // One that has died since has forgotten it.
            None if lab.stack.is_up(part) => lab.stack.order(part, &Order::Exhaust(false)).await,
            None => Ok(()),
        });
    }
    undone
}
