use std::rc::Rc;

use plimsoll_model::system::Target;

use super::link::{self, Disturbance};
use crate::proxy::toxic::{Kind, Partition, Stream};
use crate::run::Lab;

/// Nothing gets through, and nobody is told: a black hole in both directions.
pub(super) async fn start(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    let both = [Stream::Upstream, Stream::Downstream];
    link::start(lab, number, target, &both.map(|way| Disturbance::new(way, Kind::Partition(Partition))))?;
    if lab.answers_behind(number).await {
        return Err("a connection was accepted there".to_owned());
    }
    let passed = lab.passed(number);
    lab.faults.borrow_mut().passed.insert(number, passed);
    Ok(())
}

/// What was held goes on its way.
pub(super) fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let (after, before) = (lab.passed(number), lab.faults.borrow_mut().passed.remove(&number));
    link::end(lab, number)?;
    match before {
        Some(before) if after > before => Err(format!("{} bytes passed it", after - before)),
        _ => Ok(()),
    }
}
