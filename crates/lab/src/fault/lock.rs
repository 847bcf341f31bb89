use std::rc::Rc;

use plimsoll_model::system::{StoreId, Target};

use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;

/// A migration holds a table's lock on every primary, or lets it go.
pub(super) async fn set(lab: &Rc<Lab>, store: u32, table: u32, held: bool) -> Result<(), String> {
    if let Some(stores) = lab.stack.real(Part::Node(store, 0)) {
        return stores.lock_table(store, table, held).await;
    }
    for part in lab.victims(&Target::Primary(StoreId(store))) {
        if lab.stack.is_up(part) {
            lab.stack.order(part, &Order::Lock(table, held)).await?;
        }
    }
    Ok(())
}
