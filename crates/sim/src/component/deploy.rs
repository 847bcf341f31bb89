use plimsoll_model::run::EventKind;
use plimsoll_model::system::FaultKind;

use crate::component::instance::State;
use crate::engine::Answer;
use crate::world::{Wake, World};

/// A rolling deploy, by the fault that brings it. Faults of other kinds have one that never runs.
#[derive(Default)]
pub(crate) struct DeployState {
    phase: Phase,
    service: u32,
    /// The versions before and after: positions in the service's `versions`, from 1; 0 is the one
    /// that it began with.
    old: u32,
    new: u32,
    moves: Vec<Move>,
    /// Requests that instances of the new version answered, and those that failed.
    answered: u64,
    failed: u64,
    /// It is over at once: what is left changes its version in place.
    hurried: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    NotYet,
    Rolling,
    RollingBack,
    Done,
    RolledBack,
    /// Another deploy of the service began.
    Superseded,
}

/// An instance on its way to another version.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Move {
    /// The instance that is replaced.
    from: u32,
    /// The instance in its place: the same, without surge.
    to: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The new process starts.
    Starting,
    /// The old process ends what it has.
    Draining,
}

/// Answers of the new version before its share of failures says anything.
const ENOUGH: u64 = 20;

impl DeployState {
    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Rolling | Phase::RollingBack)
    }

    /// The version that instances are brought to.
    fn target(&self) -> u32 {
        if matches!(self.phase, Phase::RollingBack | Phase::RolledBack) { self.old } else { self.new }
    }
}

impl World<'_> {
    /// A new version begins to roll out.
    pub(crate) fn deploy_start(&mut self, fault: u32) {
        let FaultKind::Deploy { service, version } = &self.plan.faults[fault as usize].kind else { return };
        let service = service.0;
        let old = self.current_version(service);
        let mut moves = Vec::new();
        for earlier in 0..self.deploys.len() {
            if self.deploys[earlier].runs() && self.deploys[earlier].service == service {
                self.stop_surplus(earlier as u32, None);
                self.deploys[earlier].phase = Phase::Superseded;
                moves.append(&mut self.deploys[earlier].moves);
            }
        }
        let versions = &mut self.services[service as usize].versions;
        versions.push((version.slow, version.errors, version.startup.clone()));
        let new = versions.len() as u32;
        // What the earlier deploy had in hand: instances that drain become instances of this version.
        moves.retain(|m| m.stage == Stage::Draining);
        self.deploys[fault as usize] =
            DeployState { phase: Phase::Rolling, service, old, new, moves, ..DeployState::default() };
        self.deploy_step(fault);
    }

    /// The time of a deploy is over: what is not done is done at once.
    pub(crate) fn deploy_end(&mut self, fault: u32) {
        let state = &mut self.deploys[fault as usize];
        if !state.runs() {
            return;
        }
        state.hurried = true;
        let (target, service) = (state.target(), state.service);
        self.stop_surplus(fault, None);
        for instance in self.slots(service) {
            let state = &mut self.instances[instance];
            if state.state != State::Draining {
                state.version = target;
            }
        }
        let instances = &self.instances;
        let drains = |m: &Move| m.stage == Stage::Draining && instances[m.from as usize].state == State::Draining;
        self.deploys[fault as usize].moves.retain(drains);
        self.deploy_step(fault);
    }

    /// Takes the next batch, if the last one is done.
    pub(crate) fn deploy_step(&mut self, fault: u32) {
        if self.deploys[fault as usize].phase == Phase::RollingBack {
            self.stop_surplus(fault, Some(self.deploys[fault as usize].old));
        }
        let state = &self.deploys[fault as usize];
        if !state.runs() || !state.moves.is_empty() {
            return;
        }
        let (service, target) = (state.service, state.target());
        let of = &self.plan.system.services[service as usize].deploy;
        let mut batch = Vec::new();
        for instance in self.slots(service) {
            let state = &mut self.instances[instance];
            match state.state {
                State::Up | State::Starting if state.version != target => batch.push(instance as u32),
                // It starts with the new version whenever it starts.
                State::Down => state.version = target,
                _ => {}
            }
        }
        if batch.is_empty() {
            return self.deploy_done(fault);
        }
        // Those that do not serve yet first: the others go on serving.
        batch.sort_by_key(|&instance| self.instances[instance as usize].state == State::Up);
        batch.truncate(of.batch.max(1) as usize);
        for from in batch {
            let spare = self.slots(service).find(|&i| of.surge && self.instances[i].state == State::Absent);
            match spare {
                Some(to) => {
                    let to = to as u32;
                    self.deploys[fault as usize].moves.push(Move { from, to, stage: Stage::Starting });
                    self.instances[to as usize].version = target;
                    self.boot(to);
                }
                None => {
                    self.deploys[fault as usize].moves.push(Move { from, to: from, stage: Stage::Draining });
                    self.drain_instance(from);
                }
            }
        }
    }

    /// An instance is ready: it may be one that a deploy waits for.
    pub(crate) fn deploy_instance_ready(&mut self, instance: u32) {
        let Some((fault, at)) = self.deploy_move(|m| m.from == instance || m.to == instance) else { return };
        let m = &mut self.deploys[fault as usize].moves[at];
        match m.stage {
            Stage::Starting if m.to == instance && m.from == instance => self.moved(fault, at),
            Stage::Starting if m.to == instance => {
                m.stage = Stage::Draining;
                let from = m.from;
                self.drain_instance(from);
            }
            // It was killed while it drained, and has come back as it was.
            Stage::Draining if m.from == instance => self.drain_instance(instance),
            _ => {}
        }
    }

    /// An instance has ended: it may be one that a deploy replaces.
    pub(crate) fn deploy_instance_gone(&mut self, instance: u32) {
        let Some((fault, at)) = self.deploy_move(|m| m.from == instance || m.to == instance) else { return };
        let state = &mut self.deploys[fault as usize];
        let target = state.target();
        let m = &mut state.moves[at];
        match m.stage {
            Stage::Draining if m.from == m.to => {
                m.stage = Stage::Starting;
                self.instances[instance as usize].version = target;
                self.boot(instance);
            }
            Stage::Draining if m.from == instance => self.moved(fault, at),
            // The replacement itself is gone: the old one stays for another try.
            _ => self.moved(fault, at),
        }
    }

    /// Counts an answer of an instance. One that nobody deploys to has version 0 and costs nothing.
    #[inline]
    pub(crate) fn deploy_watch(&mut self, instance: u32, answer: Answer) {
        if self.instances[instance as usize].version > 0 {
            self.count_deployed(instance, answer);
        }
    }

    /// Whether a new version of a service is rolling out or back.
    pub(crate) fn is_deploying(&self, service: u32) -> bool {
        self.deploys.iter().any(|deploy| deploy.runs() && deploy.service == service)
    }

    /// The version that a new instance of a service runs.
    pub(crate) fn current_version(&self, service: u32) -> u32 {
        let of = |deploy: &&DeployState| deploy.service == service && deploy.phase != Phase::NotYet;
        self.deploys.iter().filter(of).max_by_key(|deploy| deploy.new).map_or(0, DeployState::target)
    }

    fn count_deployed(&mut self, instance: u32, answer: Answer) {
        let state = &self.instances[instance as usize];
        let (service, version) = (state.service, state.version);
        let watched = |d: &DeployState| d.phase == Phase::Rolling && d.service == service && d.new == version;
        let Some(fault) = self.deploys.iter().position(watched) else { return };
        // Neither a caller that goes away nor one that asks too often says anything of a version.
        if matches!(answer, Answer::Cancelled | Answer::TooMany | Answer::Conflict) {
            return;
        }
        let deploy = &mut self.deploys[fault];
        deploy.answered += 1;
        deploy.failed += !answer.is_ok() as u64;
        let Some(limit) = self.plan.system.services[service as usize].deploy.rollback_at else { return };
        let share = deploy.failed as f64 / deploy.answered as f64;
        if deploy.answered >= ENOUGH && deploy.failed > 0 && share >= limit {
            self.roll_back(fault as u32, share);
        }
    }

    /// Turns a deploy round. It goes on at its own wake: this is called while a request ends.
    fn roll_back(&mut self, fault: u32, share: f64) {
        let state = &mut self.deploys[fault as usize];
        state.phase = Phase::RollingBack;
        let (service, answered) = (state.service, state.answered);
        // A process that starts in its predecessor's place is replaced in its turn.
        state.moves.retain(|m| m.stage == Stage::Draining || m.from != m.to);
        self.wake_at(self.now, Wake::Deploy { fault });
        let text = format!("{:.0}% of {answered} requests failed on the new version: rolling back", share * 100.0);
        self.happened(EventKind::RolledBack, &*self.plan.system.services[service as usize].name, text);
    }

    /// Stops the replacements that are not ready yet, but those of a version to keep: the instances
    /// that they were to replace still serve.
    fn stop_surplus(&mut self, fault: u32, keep: Option<u32>) {
        let instances = &self.instances;
        let surplus = |m: &mut Move| {
            m.from != m.to && m.stage == Stage::Starting && keep != Some(instances[m.to as usize].version)
        };
        let surplus: Vec<Move> = self.deploys[fault as usize].moves.extract_if(.., surplus).collect();
        for m in surplus {
            self.drain_instance(m.to);
        }
    }

    /// A move is over; with the last one of a batch the deploy pauses and goes on.
    fn moved(&mut self, fault: u32, at: usize) {
        let state = &mut self.deploys[fault as usize];
        state.moves.remove(at);
        if !state.moves.is_empty() {
            return;
        }
        let (service, target) = (state.service, state.target());
        let of = &self.plan.system.services[service as usize];
        let pause = if state.hurried || state.phase == Phase::RollingBack { 0 } else { of.deploy.pause };
        self.wake_at(self.now + pause, Wake::Deploy { fault });
        let runs = |i: &usize| matches!(self.instances[*i].state, State::Up | State::Starting | State::Down);
        let all: Vec<usize> = self.slots(service).filter(runs).collect();
        let there = all.iter().filter(|&&i| self.instances[i].version == target).count();
        let which = if target == self.deploys[fault as usize].new { "new" } else { "old" };
        let text = format!("{there} of {} instances run the {which} version", all.len());
        self.happened(EventKind::DeployStep, &*of.name, text);
    }

    fn deploy_done(&mut self, fault: u32) {
        let state = &mut self.deploys[fault as usize];
        let (phase, text) = match state.phase {
            Phase::RollingBack => (Phase::RolledBack, "the old version runs again"),
            _ => (Phase::Done, "the new version is out"),
        };
        state.phase = phase;
        let name = &self.plan.system.services[state.service as usize].name;
        self.happened(EventKind::DeployStep, &**name, text);
    }

    fn deploy_move(&self, is: impl Fn(&Move) -> bool) -> Option<(u32, usize)> {
        self.deploys
            .iter()
            .enumerate()
            .find_map(|(fault, deploy)| deploy.moves.iter().position(&is).map(|at| (fault as u32, at)))
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_model::run::EventKind;

    use crate::component::instance::State;
    use crate::component::topic::tests::{happened, simulated};
    use crate::world::World;

    fn system(deploy: &str, version: &str, faults: &str) -> String {
        format!(
            "
system: rolled
clients: {{ web: {{ rate: 200/s, calls: [ {{ endpoint: api GET / }} ], retry: {{ attempts: 2 }} }} }}
services:
  api:
    instances: 4
    workers: 32
    startup: 1s
    endpoints: {{ GET /: [ {{ work: 2ms }}, {{ wait: 20ms }} ] }}
    deploy: {{ {deploy} }}
experiments:
  test:
    for: 60s
    warmup: 5s
    faults: [ {{ at: 10s, deploy: api, version: {{ {version} }}, for: 30s }}{faults} ]
    expect: [errors < 100%]
"
        )
    }

    fn failed(world: &World<'_>) -> u64 {
        world.audiences[1].cells.iter().map(|cell| cell.totals.failed).sum()
    }

    /// Versions of the instances that are up.
    fn versions(world: &World<'_>) -> Vec<u32> {
        world.instances.iter().filter(|i| i.state == State::Up).map(|i| i.version).collect()
    }

    #[test]
    fn a_surging_deploy_loses_nothing() {
        for batch in [1, 2, 4, 7] {
            simulated(&system(&format!("batch: {batch}, surge: true, pause: 1s"), "slow: 1.2x", ""), |world| {
                assert_eq!(failed(world), 0, "batch {batch}");
                assert_eq!(versions(world), [1; 4], "batch {batch}");
                assert!(happened(world, EventKind::DeployStep) >= 2);
            });
        }
    }

    #[test]
    fn a_deploy_in_place_loses_nothing_but_capacity() {
        simulated(&system("batch: 1, surge: false", "slow: 1x", ""), |world| {
            assert_eq!(failed(world), 0);
            assert_eq!(versions(world), [1; 4]);
        });
        simulated(&system("batch: 4, surge: false", "slow: 1x", ""), |world| {
            assert!(failed(world) > 100, "all at once: nobody serves for a second");
            assert_eq!(versions(world), [1; 4]);
        });
    }

    #[test]
    fn a_bad_version_is_rolled_back() {
        for surge in [true, false] {
            let deploy = format!("batch: 1, surge: {surge}, pause: 2s, rollback_at: 20%");
            simulated(&system(&deploy, "errors: 50%", ""), |world| {
                assert_eq!(happened(world, EventKind::RolledBack), 1);
                assert_eq!(versions(world), [0; 4], "surge {surge}");
                assert!((5..100).contains(&failed(world)), "{}", failed(world));
            });
        }
    }

    #[test]
    fn a_rollback_does_not_wait_for_what_it_would_replace() {
        let text = system("batch: 2, rollback_at: 20%", "errors: 80%, startup: 1s..9s", "");
        simulated(&text, |world| {
            assert_eq!(versions(world), [0; 4]);
            let at = |kind| world.log.iter().position(|event| event.kind == kind).unwrap();
            let turned = at(EventKind::RolledBack);
            let ready = world.log[turned..].iter().filter(|event| event.kind == EventKind::InstanceUp).count();
            assert_eq!(ready, 1, "the one that the new version had replaced by then");
        });
    }

    #[test]
    fn an_autoscaler_starts_what_was_deployed() {
        let text = system("batch: 4", "slow: 1x", "")
            .replace(
                "    instances: 4",
                "    instances: 4\n    autoscale: { min: 4, max: 8, target: 3%, every: 10s, delay: 1s }",
            )
            .replace("at: 10s", "at: 1s")
            .replace("warmup: 5s", "warmup: 1s");
        simulated(&text, |world| {
            let versions = versions(world);
            assert!(versions.len() > 4 && versions.iter().all(|&version| version == 1), "{versions:?}");
        });
    }

    #[test]
    fn one_that_dies_while_it_drains_does_not_come_back_for_good() {
        for surge in [true, false] {
            let kill = ", { at: 11500ms, kill: api/1, for: 500ms }";
            let text = system(&format!("surge: {surge}"), "slow: 1x", kill).replace("wait: 20ms", "wait: 3s");
            simulated(&text.replace("workers: 32", "workers: 500"), |world| {
                assert_eq!(versions(world), [1; 4], "surge {surge}");
            });
        }
    }

    #[test]
    fn nobody_watching_means_no_way_back() {
        simulated(&system("batch: 2", "errors: 50%", ""), |world| {
            assert_eq!(happened(world, EventKind::RolledBack), 0);
            assert_eq!(versions(world), [1; 4]);
            assert!(failed(world) > 1000);
        });
    }

    #[test]
    fn what_is_not_done_in_time_is_done_at_once() {
        for surge in [true, false] {
            let text = system(&format!("batch: 1, surge: {surge}, pause: 20s"), "slow: 1x, startup: 3s", "");
            simulated(&text, |world| {
                assert_eq!(versions(world), [1; 4], "surge {surge}");
                assert_eq!(failed(world), 0);
            });
        }
    }

    #[test]
    fn a_second_deploy_takes_over() {
        for surge in [true, false] {
            let second = ", { at: 12500ms, deploy: api, version: { slow: 1x }, for: 20s }";
            let text = system(&format!("batch: 2, surge: {surge}, pause: 1s"), "slow: 2x", second);
            simulated(&text, |world| {
                assert_eq!(versions(world), [2; 4], "surge {surge}");
                assert_eq!(failed(world), 0);
            });
        }
    }

    #[test]
    fn a_kill_in_the_midst_leaves_one_version() {
        for surge in [true, false] {
            let kills = ", { at: 11500ms, kill: api/1, for: 3s }, { at: 13s, kill: api/3, for: 12s }";
            let text = system(&format!("batch: 1, surge: {surge}, pause: 1s"), "slow: 1x", kills);
            simulated(&text, |world| {
                let versions = versions(world);
                assert!(versions.iter().all(|&version| version == 1), "surge {surge}: {versions:?}");
                assert!(versions.len() >= 4, "surge {surge}: {versions:?}");
            });
        }
    }
}
