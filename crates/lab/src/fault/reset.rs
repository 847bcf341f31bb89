use std::rc::Rc;

use plimsoll_model::system::Target;

use super::link::{self, Disturbance};
use crate::proxy::toxic::{Kind, Loss, Stream};
use crate::run::Lab;

/// A request's connection breaks with this probability. Not that of a share of connections: those are kept, and the
/// same few would break at once and the others never.
pub(super) fn start(lab: &Rc<Lab>, number: usize, target: &Target, share: f64) -> Result<(), String> {
    let broken = Kind::Loss(Loss { probability: share, rto: 0.0, reset: 1.0 });
    link::start(lab, number, target, &[Disturbance::new(Stream::Upstream, broken)])
}

pub(super) fn end(lab: &Rc<Lab>, number: usize, share: f64) -> Result<(), String> {
    let effect = link::end(lab, number)?;
    link::seen(lab, number, effect, share)
}
