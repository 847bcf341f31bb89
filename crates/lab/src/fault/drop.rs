use std::rc::Rc;

use plimsoll_model::system::Target;

use super::link::{self, Disturbance};
use crate::proxy::toxic::{Kind, Loss, Stream};
use crate::run::Lab;

/// Packets are lost in both directions, and what they carried comes a retransmission timeout later.
pub(super) fn start(lab: &Rc<Lab>, number: usize, target: &Target, share: f64) -> Result<(), String> {
    let lost = Kind::Loss(Loss { probability: share, ..Loss::default() });
    link::start(lab, number, target, &[Stream::Upstream, Stream::Downstream].map(|way| Disturbance::new(way, lost)))
}

pub(super) fn end(lab: &Rc<Lab>, number: usize, share: f64) -> Result<(), String> {
    let effect = link::end(lab, number)?;
    link::seen(lab, number, effect, share)
}
