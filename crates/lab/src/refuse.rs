//! What of a system file a run cannot do, found before anything starts.

use plimsoll_gateway::plan::router::Router;
use plimsoll_model::system::{
    Action, Addresses, Balancer, Component, Experiment, FaultKind, Metric, MetricTarget, Program, Service, ServiceKind,
    StoreKind, System, Target,
};

use crate::emulated::balancer;
use crate::emulated::lease::{is_lock, is_taken};
use crate::fault::link::network_delay;
use crate::route::cuts_off;
use crate::stack::{is_elsewhere, tells};

/// Something that a run cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The line in the system file, from 1.
    pub line: u32,
    /// What it is, and what would be right.
    pub message: String,
}

/// All of a system and an experiment that a run cannot do.
/// `real` says which stores are real.
pub fn refuse(system: &System, experiment: &Experiment, real: &[bool]) -> Vec<Refused> {
    let mut all = Vec::new();
    let mut say = |line: u32, message: String| all.push(Refused { line, message });
    for (at, service) in system.services.iter().enumerate() {
        let name = &service.name;
        if is_elsewhere(service) && !matches!(service.at, Some(Addresses::List(_))) {
            say(
                service.line,
                format!("`{name}`: a run takes the addresses in `at` as a list, as `at: [127.0.0.1:3000]`"),
            );
        }
        if let Some(serving) = &service.serving
            && serving.balancer != Balancer::Plimsoll
            && balancer::program(serving.balancer).is_none()
        {
            let package = balancer::name(serving.balancer);
            let why = format!("`{name}`: no {package} on this machine: install the package {package}");
            say(service.line, format!("{why}, or have another `balancer`"));
        }
        if let Some(why) = unscaled(system, at) {
            say(service.line, format!("`{name}`: {why}: take `autoscale` out, or use `plimsoll sim`"));
        }
        // What handles a consumer's messages is asked by nobody.
        let hidden = system.consumers.iter().any(|consumer| system.services[consumer.service.index()].name == *name);
        let mut router = Router::default();
        for (at, endpoint) in service.endpoints.iter().enumerate() {
            if !hidden && let Err(why) = router.add(&endpoint.name, at as u32) {
                say(endpoint.line, format!("`{name}`: {why}: a run asks for endpoints over HTTP"));
            }
        }
        if matches!(service.kind, ServiceKind::Gateway(_)) && service.idempotency.is_some() {
            let why = "a real gateway does not keep answers by idempotency key: state it on the service behind";
            say(service.line, format!("`{name}`: {why}"));
        }
    }
    for (store, _) in system.stores.iter().zip(real).filter(|(_, real)| **real) {
        if matches!(&store.kind, StoreKind::Postgres(pg) if pg.scalability.is_some()) {
            let name = &store.name;
            let why = "a real store has a `scalability` of its own: take it out, or add --emulate-stores";
            say(store.line, format!("`{name}`: {why}"));
        }
    }
    for (at, lease) in (0..).zip(&system.leases) {
        let of = &system.services[lease.service.index()];
        if !is_lock(system, at) && !emulates(of) {
            let why = format!("only what a run emulates holds leases, and `{}` is not emulated", of.name);
            say(lease.line, format!("`{}`: {why}: use `plimsoll sim`", lease.name));
        }
    }
    for edge in &system.edges {
        let of_gateway = matches!(edge.from, Component::Service(id)
            if matches!(system.services[id.index()].kind, ServiceKind::Gateway(_)));
        if edge.policies.coalesce && !of_gateway {
            let name = format!("{} -> {}", system.component_name(edge.from), system.component_name(edge.to));
            say(edge.line, format!("`{name}`: in a run only gateways can `coalesce`"));
        }
    }
    for fault in &experiment.faults {
        let (what, target) = match &fault.kind {
            FaultKind::Slow { target: Target::Edge(edge), added, .. }
                if added.mean() == 0.0 && network_delay(system, *edge) == 0.0 =>
            {
                let why =
                    "the network takes no time there, of which nothing is a multiple: say by how much, as `by: +100ms`";
                say(fault.line, format!("`{}`: {why}", fault.text));
                continue;
            }
            FaultKind::Skew { target, .. } if !compares_clocks(system, target) => {
                let why = "only leases compare clocks, and no instance there holds one by its clock: take it out";
                say(fault.line, format!("`{}`: {why}", fault.text));
                continue;
            }
            FaultKind::Kill(target @ Target::Edge(_)) => ("kill", Some(target)),
            FaultKind::Pause(target @ Target::Edge(_)) => ("pause", Some(target)),
            FaultKind::Kill(target) | FaultKind::Pause(target) if strikes(system, target, is_elsewhere) => {
                say(fault.line, format!("`{}`: a run starts and stops only what it has started itself", fault.text));
                continue;
            }
            FaultKind::Slow { target, .. } if strikes(system, target, |of| of.run.is_some() || of.at.is_some()) => {
                say(fault.line, format!("`{}`: a run can slow down only what it emulates", fault.text));
                continue;
            }
            FaultKind::Deploy { service, .. } | FaultKind::CrashBetween { service, .. }
                if system.services[service.index()].run.is_some()
                    || is_elsewhere(&system.services[service.index()]) =>
            {
                say(fault.line, format!("`{}`: a run can do that only to what it emulates", fault.text));
                continue;
            }
            FaultKind::Deploy { service, .. } => match system.services[service.index()].kind {
                ServiceKind::Gateway(_) => ("deploy", None),
                ServiceKind::Service => continue,
            },
            _ => continue,
        };
        let why = match target {
            Some(_) => format!("a run cannot do `{what}` there yet: `{}`; use `plimsoll sim`", fault.text),
            None => format!("a run cannot do `{what}` to a gateway, which is the real one: `{}`", fault.text),
        };
        say(fault.line, why);
    }
    for expectation in &experiment.expect {
        if let Some(why) = untold(system, &expectation.metric) {
            all.push(Refused { line: expectation.line, message: format!("`{}`: {why}", expectation.text) });
        }
    }
    all.sort_by_key(|refused| refused.line);
    all.dedup();
    all
}

/// Why a run cannot steer the number of a service's instances, if it cannot and is to.
fn unscaled(system: &System, at: usize) -> Option<String> {
    let service = &system.services[at];
    service.autoscale?;
    if service.run.is_some() || is_elsewhere(service) {
        return Some("a run does not know how busy another's program is".to_owned());
    }
    if service.is_gateway() {
        return Some("a run does not know how busy the cores of a real gateway are".to_owned());
    }
    let own = system.edges.iter().filter(|edge| edge.to == Component::Service(at.into())).find_map(|edge| {
        let Component::Service(from) = edge.from else { return None };
        Some(&system.services[from.index()]).filter(|from| from.run.is_some())
    })?;
    Some(format!("`{}`, another's program, calls it and is told once where its instances are", own.name))
}

/// Why nobody counts what an expectation is about, if nobody does: it would be met by nothing.
fn untold(system: &System, metric: &Metric) -> Option<String> {
    let silent = |component: Component| match component {
        Component::Service(id) => !tells(&system.services[id.index()]),
        // What is asked of a store is counted by who asks it.
        Component::Store(_) => {
            let mut callers = system.edges.iter().filter(|edge| edge.to == component).peekable();
            callers.peek().is_some()
                && callers
                    .all(|edge| matches!(edge.from, Component::Service(id) if !tells(&system.services[id.index()])))
        }
        Component::Lease(id) => is_lock(system, id.0) && !is_taken(system, id.0, emulates),
        _ => false,
    };
    let about = match *metric {
        Metric::Utilization(target) | Metric::Queue(target) | Metric::Rejected(target) => match target {
            // Connections and what a server is busy with are looked at from outside.
            MetricTarget::Component(Component::Store(_)) | MetricTarget::Instance(Component::Store(_), _) => None,
            MetricTarget::Component(of) | MetricTarget::Instance(of, _) => Some(of),
            MetricTarget::Edge(edge) => Some(system.edges[edge.index()].from),
        },
        Metric::Amplification(MetricTarget::Edge(edge)) => Some(system.edges[edge.index()].from),
        Metric::Trips(edge) | Metric::Ejections(edge) => Some(system.edges[edge.index()].from),
        Metric::LostWrites(target) | Metric::Duplicates(target) => match target {
            MetricTarget::Component(of) | MetricTarget::Instance(of, _) => Some(of),
            MetricTarget::Edge(edge) => Some(system.edges[edge.index()].from),
        },
        Metric::StaleReads(store) | Metric::Hits(store) => Some(Component::Store(store)),
        _ => None,
    };
    about.filter(|of| silent(*of)).map(|of| {
        let name = system.component_name(of);
        match of {
            Component::Store(_) => {
                format!("only others' programs use `{name}`, and they do not say: use `plimsoll sim`")
            }
            Component::Lease(_) => {
                format!("only others' programs take `{name}`, and they do not say: use `plimsoll sim`")
            }
            _ => format!("`{name}` is another's program, which does not say: ask what its callers see"),
        }
    })
}

/// Whether a fault strikes a service of some kind by its name.
fn strikes(system: &System, target: &Target, of: impl Fn(&Service) -> bool) -> bool {
    match target {
        Target::All(component) | Target::Instance(component, _) | Target::Share(component, _) => {
            matches!(component, Component::Service(id) if of(&system.services[id.index()]))
        }
        _ => false,
    }
}

/// Whether a run has processes of its own that do what a service does.
fn emulates(service: &Service) -> bool {
    service.run.is_none() && !is_elsewhere(service) && !service.is_gateway()
}

/// Whether a target may be instances that hold a lease by their clock.
fn compares_clocks(system: &System, target: &Target) -> bool {
    let by_clock = (0..).zip(&system.leases).filter(|(at, _)| !is_lock(system, *at));
    by_clock.into_iter().any(|(_, lease)| cuts_off(system, target, lease.service.0))
}

/// Looks at all steps of a program.
pub(crate) fn each_step(program: &Program, see: &mut impl FnMut(&Action, u32)) {
    for step in program {
        see(&step.action, step.line);
        match &step.action {
            Action::Cache { on_miss, .. } => each_step(on_miss, see),
            Action::CacheWrite { write, .. } => each_step(write, see),
            Action::Transaction { steps, .. } | Action::ForEach { steps, .. } | Action::Lease { steps, .. } => {
                each_step(steps, see);
            }
            Action::Parallel { branches, .. } => branches.iter().for_each(|branch| each_step(branch, see)),
            Action::Choice(choices) => choices.iter().for_each(|(_, choice)| each_step(choice, see)),
            Action::Fallback { attempt, otherwise } => {
                each_step(attempt, see);
                each_step(otherwise, see);
            }
            _ => {}
        }
    }
}
