use std::rc::Rc;
use std::sync::Arc;

use plimsoll_model::system::Target;

use super::link::{self, Disturbance};
use crate::proxy::toxic::{Bandwidth, Kind, Stream};
use crate::proxy::{More, Pace};
use crate::run::Lab;

/// All answers together have so many bytes a second.
pub(super) fn start(lab: &Rc<Lab>, number: usize, target: &Target, rate: f64) -> Result<(), String> {
    let slow = Kind::Bandwidth(Bandwidth { rate: rate / 1000.0 });
    let more = More::Pace(Arc::<Pace>::default());
    link::start(lab, number, target, &[Disturbance { stream: Stream::Downstream, kind: slow, more }])
}

pub(super) fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let effect = link::end(lab, number)?;
    link::seen(lab, number, effect, 1.0)
}
