//! Which health checks are due, and what else time alone does to a target.

use std::sync::Arc;

use plimsoll_policy::Time;
use plimsoll_policy::health::Probe;
use plimsoll_policy::outlier_ejection::Transition;

use super::{Instance, Upstream};
/// A check that is due.
#[derive(Debug)]
pub struct Due {
    /// The instance's index.
    pub index: usize,
    /// What the policy knows it by.
    pub probe: Probe,
    /// The instance.
    pub instance: Arc<Instance>,
    /// The path to ask for.
    pub path: String,
}

impl Upstream {
    /// Ends ejections and slow starts that are due, and says which checks are. Each check, and the last look for
    /// one, takes random bits.
    pub fn due(&self, now: Time, mut random: impl FnMut() -> u64) -> Vec<Due> {
        let mut due = Vec::new();
        let mut state = self.lock();
        let state = &mut *state;
        state.pipeline.on_wake(now);
        if state.members.next_wake().is_none_or(|at| at > now) {
            return due;
        }
        let transitions = state.members.on_wake(now).to_vec();
        state.apply(&transitions);
        if !transitions.is_empty() {
            state.all_look_again();
        }
        while let Some((index, probe)) = state.members.poll_check(now, random()) {
            let member = state.instances.get(index).and_then(Option::as_ref);
            if let (Some(member), Some(path)) = (member, &state.health_path) {
                due.push(Due { index, probe, instance: member.instance.clone(), path: path.clone() });
            }
        }
        due
    }

    /// A check has ended. What has changed.
    pub fn checked(&self, now: Time, index: usize, instance: &Instance, probe: Probe, passed: bool) -> Vec<Transition> {
        let mut state = self.lock();
        // Another instance may have taken its place meanwhile.
        if state.position(instance.address) != Some(index) {
            return Vec::new();
        }
        let transitions = state.members.settle_check(now, index, probe, passed).to_vec();
        state.apply(&transitions);
        if !transitions.is_empty() {
            state.all_look_again();
        }
        transitions
    }
}
