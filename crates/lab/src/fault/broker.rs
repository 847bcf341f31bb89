use std::rc::Rc;

use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;

/// A topic takes nothing and gives nothing.
pub(super) async fn start(lab: &Rc<Lab>, topic: u32) -> Result<(), String> {
    *lab.faults.borrow_mut().down.entry(topic).or_default() += 1;
    let part = Part::Topic(topic);
    lab.stack.order(part, &Order::Down(true)).await?;
    match lab.stack.state(part).await {
        Some(state) if state.note == "down" => Ok(()),
        _ => Err(format!("{} is not down", lab.stack.name(part))),
    }
}

/// It does again, unless another fault holds it down too.
pub(super) async fn end(lab: &Rc<Lab>, topic: u32) -> Result<(), String> {
    let left = {
        let mut faults = lab.faults.borrow_mut();
        let down = faults.down.entry(topic).or_default();
        *down = down.saturating_sub(1);
        *down
    };
    if left == 0 { lab.stack.order(Part::Topic(topic), &Order::Down(false)).await } else { Ok(()) }
}
