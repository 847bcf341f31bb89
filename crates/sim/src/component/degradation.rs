use plimsoll_model::run::EventKind;
use plimsoll_policy::Mode;

use crate::component::instance::{InstancePolicies, State};
use crate::engine::Ref;
use crate::journal::Stage;
use crate::measure::Reader;
use crate::world::{Wake, World};

/// Between two looks of a ladder at its instance, ns: long enough for an average over some tens of
/// requests, and short beside the second between two steps.
const EVERY: u64 = 100_000_000;

impl World<'_> {
    pub(crate) fn build_degradation(&mut self, service: u32) {
        if self.plan.system.services[service as usize].degradation.is_some() {
            let state = &self.services[service as usize];
            for instance in state.first..state.first + state.slots {
                self.wake_at(EVERY, Wake::Degradation { instance });
            }
        }
    }

    /// A ladder looks at its instance: the busy share of its workers or its cores, whichever is
    /// more, since the last look.
    pub(crate) fn degradation_wake(&mut self, instance: u32) {
        let plan = self.plan;
        let (now, time) = (self.now, self.time());
        self.wake_at(now + EVERY, Wake::Degradation { instance });
        let state = &mut self.instances[instance as usize];
        let service = &plan.system.services[state.service as usize];
        let Some(degradation) = &service.degradation else { return };
        let share = |area: f64, each: u32| area / (EVERY as f64 * each.max(1) as f64);
        let cores = share(state.cores.take_area(now, Reader::Ladder), service.cores);
        let workers = share(state.workers.take_area(now, Reader::Ladder), service.workers);
        if !matches!(state.state, State::Up | State::Draining) {
            // The next process begins at full service.
            state.ladder = InstancePolicies::new(plan, state.service, time).ladder;
            return;
        }
        if state.paused_at.is_some() {
            return;
        }
        let pressure = if service.asynchronous { cores } else { cores.max(workers) };
        let change = state.ladder.as_mut().and_then(|ladder| ladder.observe(time, pressure));
        let level = change.as_ref().map(|change| change.to);
        self.note_visit(instance, Ref::NONE, Stage::Pressure(pressure, level));
        let Some(change) = change else { return };
        let (kind, text) = match change.to.checked_sub(1).map(|level| &degradation.levels[level].name) {
            Some(name) if change.to > change.from => {
                (EventKind::Degraded, format!("up to level {}, {name}", change.to))
            }
            Some(name) => (EventKind::Restored, format!("down to level {}, {name}", change.to)),
            None => (EventKind::Restored, "back to full service".to_owned()),
        };
        let text = format!("{text}, at {:.0}% utilization", pressure * 100.0);
        self.happened(kind, self.instance_name(instance), text);
    }

    /// Whether an instance's degradation level rejects an endpoint.
    #[inline]
    pub(crate) fn is_rejected(&self, instance: u32, endpoint_index: u32) -> bool {
        let Some(ladder) = &self.instances[instance as usize].ladder else { return false };
        ladder.level() > 0
            && ladder.switched_off().binary_search(&endpoint_index).is_ok()
            && self.degradation_acts(instance)
    }

    /// Whether an instance's degradation level skips optional steps of this name.
    #[inline]
    pub(crate) fn is_skipped(&self, instance: u32, name: u32) -> bool {
        let Some(ladder) = &self.instances[instance as usize].ladder else { return false };
        let level = ladder.level();
        level > 0 && self.degradation_acts(instance) && self.skips(instance, level, name)
    }

    fn degradation_acts(&self, instance: u32) -> bool {
        let service = &self.plan.system.services[self.instances[instance as usize].service as usize];
        service.degradation.as_ref().is_some_and(|d| d.ladder.mode == Mode::Enforce)
    }

    fn skips(&self, instance: u32, level: usize, name: u32) -> bool {
        let service = &self.plan.system.services[self.instances[instance as usize].service as usize];
        let name = &self.plan.code.names[name as usize];
        let levels = service.degradation.as_ref().map_or(&[][..], |d| &d.levels[..]);
        levels.iter().take(level).any(|level| level.skip.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_model::run::EventKind;

    use crate::component::topic::tests::{happened, simulated};

    fn system(load: &str, shadow: &str) -> String {
        format!(
            "
system: laddered
clients:
  web:
    rate: 100/s
    calls: [ {{ endpoint: api GET /page, weight: 9 }}, {{ endpoint: api GET /extra, weight: 1 }} ]
services:
  api:
    cores: 1
    workers: 100
    queue: 1000
    endpoints:
      GET /page: [ {{ work: 2ms }}, {{ work: 6ms, optional: related }} ]
      GET /extra: [ {{ work: 2ms }} ]
    degradation:
      min_dwell: 5s{shadow}
      levels:
        - {{ name: lite, enter: 90%, leave: 60%, skip: [related] }}
        - {{ name: bare, enter: 95%, leave: 70%, reject: [GET /extra] }}
experiments:
  test: {{ for: 60s, warmup: 5s, load: {{ web: {load} }}, expect: [errors < 100%] }}
"
        )
    }

    fn sums(load: &str, shadow: &str) -> (u64, u64, usize, usize) {
        simulated(&system(load, shadow), |world| {
            let sum = |f: fn(&plimsoll_model::run::Totals) -> u64| -> u64 {
                world.audiences[1].cells.iter().map(|cell| f(&cell.totals)).sum()
            };
            let events = [EventKind::Degraded, EventKind::Restored].map(|kind| happened(world, kind));
            (sum(|t| t.degraded), sum(|t| t.failed), events[0], events[1])
        })
    }

    #[test]
    fn below_its_threshold_everything_is_on() {
        assert_eq!(sums("50/s", ""), (0, 0, 0, 0));
    }

    #[test]
    fn optional_steps_go_first() {
        // 150/s of 8 ms is too much for a core, of 2 ms is not.
        let (degraded, failed, up, _) = sums("150/s", "");
        assert!(degraded > 3000, "{degraded}");
        assert!(failed < 200, "{failed}");
        assert!(up >= 1);
    }

    #[test]
    fn then_endpoints_are_rejected_and_all_comes_back() {
        let (_, failed, up, down) = sums("[40/s, 600/s, 40/s, 40/s]", "");
        assert!(failed > 200, "a tenth of 600/s for 15 s, and what had no room: {failed}");
        assert!(up >= 2 && down >= 2, "{up} {down}");
    }

    #[test]
    fn a_shadow_only_watches() {
        let (degraded, _, up, _) = sums("[50/s, 150/s]", "\n      shadow: true");
        assert!(degraded == 0 && up >= 1, "{degraded} {up}");
    }
}
