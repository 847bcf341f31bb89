use std::rc::Rc;

use plimsoll_model::system::Target;

use crate::run::Lab;

/// Processes stop (SIGSTOP): connections are accepted, nothing answers.
pub(super) async fn start(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    let parts = lab.victims(target);
    lab.strike(number, parts.clone());
    for part in parts {
        lab.stack.pause(part).await?;
    }
    Ok(())
}

/// They go on, unless another fault stops them too.
pub(super) async fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let mut undone = Ok(());
    for part in lab.take_struck(number) {
        // One that does not go on holds up none of the others.
        undone = undone.and(lab.stack.resume(part).await);
        // A primary that hung was ended when another took over: it comes back as a replica.
        if lab.stack.real(part).is_some_and(|stores| stores.may_start(part)) {
            lab.boot_store(part);
        }
    }
    undone
}
