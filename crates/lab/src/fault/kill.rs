use std::rc::Rc;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::Target;

use crate::run::Lab;

/// Processes die at once.
pub(super) async fn start(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    let parts = lab.victims(target);
    for &part in &parts {
        // What they have counted would go with them.
        lab.collect(part).await;
        lab.stack.kill(part).await?;
        lab.happened(EventKind::InstanceDown, lab.stack.name(part), "the process died");
        lab.failover(part);
    }
    lab.strike(number, parts);
    Ok(())
}

/// They start again, unless another fault has killed them too.
pub(super) async fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    for part in lab.take_struck(number) {
        if lab.stack.revive(part) {
            lab.boot(part, lab.stack.version(part)).await?;
        }
    }
    Ok(())
}
