use std::rc::Rc;

use plimsoll_model::system::Target;

use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;

/// Replicas fall behind.
pub(super) async fn start(lab: &Rc<Lab>, store: u32, by: u64) -> Result<(), String> {
    *lab.faults.borrow_mut().lags.entry(store).or_default() += by;
    set(lab, store).await
}

/// They catch up, as far as no other fault holds them back.
pub(super) async fn end(lab: &Rc<Lab>, store: u32, by: u64) -> Result<(), String> {
    *lab.faults.borrow_mut().lags.entry(store).or_default() -= by;
    set(lab, store).await
}

async fn set(lab: &Rc<Lab>, store: u32) -> Result<(), String> {
    let by = lab.lag(store);
    if let Some(stores) = lab.stack.real(Part::Node(store, 0)) {
        return stores.set_lag(store, by).await;
    }
    for part in lab.victims(&Target::Replicas(plimsoll_model::system::StoreId(store))) {
        if lab.stack.is_up(part) {
            lab.stack.order(part, &Order::Lag(by)).await?;
        }
    }
    Ok(())
}

impl Lab {
    /// How much further behind faults hold a store's replicas, ns.
    pub(crate) fn lag(&self, store: u32) -> u64 {
        self.faults.borrow().lags.get(&store).copied().unwrap_or(0)
    }
}
