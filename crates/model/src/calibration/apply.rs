use super::{Calibration, What};
use crate::system::{Action, EndpointId, Program, Service, Step, StoreKind, System};

impl Calibration {
    /// Puts what was measured in the place of what the system file says.
    pub fn apply(&self, system: &mut System) {
        for (what, times) in &self.times {
            let dist = times.dist();
            match *what {
                What::Step(at, number) => {
                    each_program(system, at, |program| {
                        let mut left = number;
                        steps(program, &mut |action| {
                            left = left.wrapping_sub(1);
                            if left == 0
                                && let Action::Work(time) | Action::Wait(time) = action
                            {
                                *time = dist.clone();
                            }
                        });
                    });
                }
                // Whatever else there is to do comes first, and holds the worker too.
                What::Beside(at) => each_program(system, at, |program| program.insert(0, wait(dist.clone()))),
                What::Handling(at) => {
                    let service = system.consumers[at.index()].service;
                    let at = EndpointId { service, index: 0 };
                    each_program(system, at, |program| program.insert(0, wait(dist.clone())));
                }
                What::Endpoint(at) => each_program(system, at, |program| *program = vec![wait(dist.clone())]),
                What::Operation(at, number) => {
                    system.stores[at.index()].operations[number as usize].time = dist;
                }
                What::Commit(at) => {
                    if let StoreKind::Postgres(pg) = &mut system.stores[at.index()].kind {
                        pg.commit = dist;
                    }
                }
                What::Command(at) => {
                    if let StoreKind::Redis(redis) = &mut system.stores[at.index()].kind {
                        redis.time = dist;
                    }
                }
                What::Overhead(at) => {
                    for edge in system.same_pair(at).collect::<Vec<_>>() {
                        system.edges[edge.index()].policies.overhead = Some(dist.clone());
                    }
                }
                What::Publish(at) => system.topics[at.index()].publish = dist,
                What::Relay(at) => system.topics[at.index()].relay = dist,
            }
        }
    }
}

/// Whether a service's insides are not known: it is the reader's own.
pub fn is_own(service: &Service) -> bool {
    !service.is_gateway() && (service.run.is_some() || service.at.is_some())
}

/// The `work` and `wait` steps of a program, those within others included, in the order of the file: the line of each,
/// and what it takes.
pub fn durations(program: &Program) -> Vec<(u32, crate::system::Dist)> {
    let mut found = Vec::new();
    let mut program = program.clone();
    lines(&mut program, &mut |action, line| {
        if let Action::Work(time) | Action::Wait(time) = action {
            found.push((line, time.clone()));
        }
    });
    found
}

fn wait(dist: crate::system::Dist) -> Step {
    Step { action: Action::Wait(dist), name: None, optional: None, line: 0 }
}

/// An endpoint's program, and the handler that it is if it is a consumer's.
fn each_program(system: &mut System, at: EndpointId, mut change: impl FnMut(&mut Program)) {
    change(&mut system.services[at.service.index()].endpoints[at.index as usize].program);
    for consumer in system.consumers.iter_mut().filter(|consumer| consumer.service == at.service) {
        change(&mut consumer.handler);
    }
}

fn steps(program: &mut Program, see: &mut dyn FnMut(&mut Action)) {
    lines(program, &mut |action, _| {
        if matches!(action, Action::Work(_) | Action::Wait(_)) {
            see(action);
        }
    });
}

fn lines(program: &mut Program, see: &mut dyn FnMut(&mut Action, u32)) {
    for step in program {
        see(&mut step.action, step.line);
        match &mut step.action {
            Action::Cache { on_miss: inner, .. }
            | Action::CacheWrite { write: inner, .. }
            | Action::Transaction { steps: inner, .. }
            | Action::ForEach { steps: inner, .. }
            | Action::Lease { steps: inner, .. } => lines(inner, see),
            Action::Parallel { branches, .. } => branches.iter_mut().for_each(|branch| lines(branch, see)),
            Action::Choice(choices) => choices.iter_mut().for_each(|(_, choice)| lines(choice, see)),
            Action::Fallback { attempt, otherwise } => {
                lines(attempt, see);
                lines(otherwise, see);
            }
            Action::Work(_)
            | Action::Wait(_)
            | Action::Fail(_)
            | Action::Call { .. }
            | Action::Query { .. }
            | Action::Publish { .. } => {}
        }
    }
}
