use std::rc::Rc;

use plimsoll_model::system::Target;

use crate::run::Lab;

/// Processes stop (SIGSTOP): connections are accepted, nothing answers.
pub(super) fn start(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    let parts = lab.victims(target);
    lab.strike(number, parts.clone());
    parts.into_iter().try_for_each(|part| lab.stack.pause(part))
}

/// They go on, unless another fault stops them too.
pub(super) fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    lab.take_struck(number).into_iter().for_each(|part| lab.stack.resume(part));
    Ok(())
}
