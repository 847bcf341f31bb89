use plimsoll_model::run::EventKind;
use plimsoll_policy::autoscale::{Decision, Seen};

use crate::component::instance::State;
use crate::measure::Reader;
use crate::world::{Wake, World};

impl World<'_> {
    pub(crate) fn build_autoscale(&mut self, service: u32) {
        if let Some(scale) = &self.plan.system.services[service as usize].autoscale {
            self.wake_at(scale.every, Wake::Scale { service });
        }
    }

    /// An autoscaler decides how many instances there should be.
    pub(crate) fn autoscale(&mut self, service: u32) {
        let plan = self.plan;
        let Some(scale) = &plan.system.services[service as usize].autoscale else { return };
        if self.now < plan.end() {
            self.wake_at(self.now + scale.every, Wake::Scale { service });
        }
        let (serving, utilization) = self.utilization(service);
        self.services[service as usize].scaled_at = self.now;
        let wanted = self.wanted(service);
        let seen = Seen { serving, wanted, utilization, deploying: self.is_deploying(service) };
        let time = self.time();
        let Some(autoscaler) = &self.services[service as usize].autoscaler else { return };
        match autoscaler.decide(time, &seen) {
            Decision::Keep => return,
            Decision::Grow(more) => self.grow(service, more, scale.delay),
            Decision::Shrink(fewer) => self.shrink(service, fewer),
        }
        let now_wanted = self.wanted(service);
        if now_wanted != wanted {
            if let Some(autoscaler) = &mut self.services[service as usize].autoscaler {
                autoscaler.changed(time);
            }
            let kind = if now_wanted > wanted { EventKind::ScaleUp } else { EventKind::ScaleDown };
            let text = format!("{wanted} to {now_wanted} instances, at {:.0}% utilization", utilization * 100.0);
            self.happened(kind, &*plan.system.services[service as usize].name, text);
        }
    }

    /// The instances that serve, and the busy share of what limits them since the last decision:
    /// cores, or workers where a worker is held.
    fn utilization(&mut self, service: u32) -> (u32, f64) {
        let now = self.now;
        let of = &self.plan.system.services[service as usize];
        let since = self.services[service as usize].scaled_at;
        let (mut up, mut time, mut cores, mut workers) = (0, 0.0, 0.0, 0.0);
        for instance in self.slots(service) {
            let state = &mut self.instances[instance];
            // Taken from all of them, so that no old work counts once an instance serves again.
            let busy = state.cores.take_area(now, Reader::Autoscaler);
            let held = state.workers.take_area(now, Reader::Autoscaler);
            if state.state == State::Up {
                up += 1;
                time += (now - state.ready_at.clamp(since, now)) as f64;
                cores += busy;
                workers += held;
            }
        }
        let share = |area: f64, each: u32| if time > 0.0 { area / (time * each.max(1) as f64) } else { 0.0 };
        let cores = share(cores, of.cores);
        (up, if of.asynchronous { cores } else { cores.max(share(workers, of.workers)) })
    }

    /// Asks for so many more instances: their processes start after the delay.
    fn grow(&mut self, service: u32, more: u32, delay: u64) {
        let version = self.current_version(service);
        let absent: Vec<usize> =
            self.slots(service).filter(|&i| self.instances[i].state == State::Absent).take(more as usize).collect();
        for instance in absent {
            let state = &mut self.instances[instance];
            state.state = State::Down;
            state.version = version;
            let epoch = state.epoch;
            self.wake_at(self.now + delay, Wake::Boot { instance: instance as u32, epoch });
        }
    }

    /// Stops so many instances, those with the highest numbers.
    fn shrink(&mut self, service: u32, fewer: u32) {
        let wanted =
            |world: &Self, i: usize| matches!(world.instances[i].state, State::Up | State::Starting | State::Down);
        let last: Vec<usize> = self.slots(service).rev().filter(|&i| wanted(self, i)).take(fewer as usize).collect();
        for instance in last {
            self.drain_instance(instance as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_model::run::EventKind;

    use crate::component::instance::State;
    use crate::component::topic::tests::{happened, simulated};

    fn system(load: &str, scale: &str) -> String {
        format!(
            "
system: elastic
clients: {{ web: {{ rate: 100/s, calls: [ {{ endpoint: api GET / }} ] }} }}
services:
  api:
    instances: 2
    cores: 1
    startup: 1s
    endpoints: {{ GET /: [ {{ work: 10ms }} ] }}
    autoscale: {{ min: 1, max: 10, target: 50%, every: 5s, delay: 3s{scale} }}
experiments:
  test: {{ for: 120s, warmup: 5s, load: {{ web: {load} }}, expect: [errors < 100%] }}
"
        )
    }

    fn up(world: &crate::world::World<'_>) -> usize {
        world.instances.iter().filter(|instance| instance.state == State::Up).count()
    }

    #[test]
    fn it_grows_to_its_target() {
        // 300/s of 10 ms are 3 busy cores: 6 instances at 50%, once what had piled up is done.
        simulated(&system("[100/s, 300/s, 300/s]", ", cooldown: 10s"), |world| {
            assert!((6..=7).contains(&up(world)), "{}", up(world));
            assert!(happened(world, EventKind::ScaleUp) >= 1);
        });
        simulated(&system("[100/s, 300/s, 300/s]", ", cooldown: 10min"), |world| {
            assert!(up(world) >= 6);
            assert_eq!(happened(world, EventKind::ScaleDown), 0, "it has not been quiet for long");
        });
    }

    #[test]
    fn it_shrinks_when_it_has_been_quiet_and_loses_nothing() {
        simulated(&system("[300/s, 300/s, 300/s, 50/s]", ", cooldown: 10s"), |world| {
            assert!((1..=2).contains(&up(world)), "half a busy core: {}", up(world));
            assert!(happened(world, EventKind::ScaleDown) >= 1);
            let last = &world.audiences[1].cells.last().unwrap().totals;
            assert_eq!(last.failed, 0);
        });
    }

    #[test]
    fn it_stays_within_its_bounds() {
        simulated(&system("2k/s", ", cooldown: 10s"), |world| assert_eq!(up(world), 10));
        simulated(&system("1/s", ", cooldown: 10s"), |world| assert_eq!(up(world), 1));
    }
}
