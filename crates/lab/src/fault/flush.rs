use std::rc::Rc;

use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;

/// A cache loses all its keys.
pub(super) async fn start(lab: &Rc<Lab>, store: u32) -> Result<(), String> {
    if let Some(stores) = lab.stack.real(Part::Node(store, 0)) {
        return stores.flush(store).await;
    }
    lab.stack.order(Part::Node(store, 0), &Order::Flush).await
}
