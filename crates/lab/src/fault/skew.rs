use std::rc::Rc;

use plimsoll_model::system::{FaultKind, Target};

use super::when_it_goes_on;
use crate::control::Order;
use crate::run::Lab;
use crate::stack::Part;

/// Clocks are off; only what compares times of several machines notices, as leases do.
pub(super) async fn start(lab: &Rc<Lab>, number: usize, target: &Target) -> Result<(), String> {
    let has_one =
        |part: &Part| matches!(part, Part::Instance(..)) && !lab.stack.is_gateway(*part) && !lab.stack.is_own(*part);
    let parts: Vec<Part> = lab.victims(target).into_iter().filter(has_one).collect();
    if parts.is_empty() {
        return Err("it strikes nothing".to_owned());
    }
    lab.strike(number, parts.clone());
    set(lab, &parts).await
}

/// They are off by what the other faults under way come to.
pub(super) async fn end(lab: &Rc<Lab>, number: usize) -> Result<(), String> {
    let parts = lab.take_struck(number);
    set(lab, &parts).await
}

async fn set(lab: &Rc<Lab>, parts: &[Part]) -> Result<(), String> {
    for &part in parts {
        if lab.stack.is_up(part) {
            let skew = lab.skew(part);
            lab.stack.order(part, &Order::Skew(skew)).await?;
            if lab.stack.state(part).await.map(|state| state.skew) != Some(skew) {
                return Err(format!("the clock of {} is not off as it was told to be", lab.stack.name(part)));
            }
        } else if !lab.stack.is_gone(part) {
            when_it_goes_on(lab, part, |lab, part| Order::Skew(lab.skew(part)));
        }
    }
    Ok(())
}

impl Lab {
    /// Tells a new instance how far its clock is off.
    pub(crate) async fn tell_skew(&self, part: Part) {
        let skew = self.skew(part);
        if skew != 0 {
            let _ = self.stack.order(part, &Order::Skew(skew)).await;
        }
    }

    /// How far ahead faults set a part's clock, ns.
    fn skew(&self, part: Part) -> i64 {
        let by = |kind: &FaultKind| if let FaultKind::Skew { by, .. } = kind { *by } else { 0 };
        self.strikes(part).iter().map(by).fold(0, i64::saturating_add)
    }
}
