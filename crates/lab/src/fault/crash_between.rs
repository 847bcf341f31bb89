use std::rc::Rc;

use plimsoll_model::system::{Component, ServiceId, Target};

use crate::control::Order;
use crate::run::Lab;

/// The first request that comes between two steps takes its process down, once.
pub(super) async fn start(lab: &Rc<Lab>, service: u32, done: &str, next: &str) -> Result<(), String> {
    for part in lab.victims(&Target::All(Component::Service(ServiceId(service)))) {
        if lab.stack.is_up(part) {
            lab.stack.order(part, &Order::Crash(done.to_owned(), next.to_owned())).await?;
        }
    }
    Ok(())
}
