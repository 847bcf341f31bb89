//! What gives way first: the resource that is used up, the queue that grows, the policy that
//! rejects; and the sentence that says so.

use plimsoll_model::run::GivesWay;
use plimsoll_model::system::{Component, System};

use crate::collect::{Of, Sample, Subject};
use crate::plan::Plan;

/// A suspect, as the mean over replications.
#[derive(Clone, Debug, PartialEq)]
struct Suspect {
    of: Of,
    name: String,
    resource: &'static str,
    capacity: f64,
    /// How far it is used up; 1 is all.
    used: f64,
    /// Mean number that waits there.
    queue: f64,
    /// Share turned away.
    rejected: f64,
}

/// A resource counts as used up from here: above it, queues are longer than the work in them.
const USED_UP: f64 = 0.85;

/// A policy that turns away less than this has not given way.
const REJECTS: f64 = 0.001;

/// What limited the system over some segments of some replications, most first.
pub(crate) fn gives_way(plan: &Plan, samples: &[&Sample], segments: &[usize]) -> Vec<GivesWay> {
    let length = plan.length(segments);
    let waited_for = waited_for(&plan.system);
    let mut all: Vec<Suspect> = Vec::new();
    for suspect in samples.iter().flat_map(|s| &s.subjects).flat_map(|s| suspects(s, segments, length)) {
        if !is_waited_for(&plan.system, &waited_for, suspect.of) {
            continue;
        }
        match all.iter_mut().find(|known| known.of == suspect.of && known.resource == suspect.resource) {
            Some(known) => {
                known.used += suspect.used;
                known.queue += suspect.queue;
                known.rejected += suspect.rejected;
            }
            None => all.push(suspect),
        }
    }
    let n = samples.len().max(1) as f64;
    for suspect in &mut all {
        suspect.used /= n;
        suspect.queue /= n;
        suspect.rejected /= n;
    }
    let mut ranked: Vec<(f64, &Suspect)> = all
        .iter()
        .filter(|suspect| suspect.used >= 0.3 || suspect.rejected >= REJECTS)
        .map(|suspect| (weight(&plan.system, &all, suspect), suspect))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    ranked.truncate(5);
    let used_up = ranked.first().is_some_and(|(weight, _)| *weight >= 0.6);
    let mut out: Vec<GivesWay> = ranked
        .into_iter()
        .map(|(_, suspect)| {
            let mut described = describe(&plan.system, suspect);
            described.why.push_str(&ejected(&plan.system, samples, segments, suspect.of));
            described
        })
        .collect();
    if !used_up {
        out.splice(0..0, slowest(plan, samples, segments));
    }
    out
}

/// How often callers ejected a service's instances: the others had to carry their load.
fn ejected(system: &System, samples: &[&Sample], segments: &[usize], of: Of) -> String {
    let Of::Component(component @ Component::Service(_)) = of else { return String::new() };
    let total: f64 = samples
        .iter()
        .flat_map(|sample| &sample.subjects)
        .filter(|subject| matches!(subject.of, Of::Edge(edge) if system.edges[edge as usize].to == component))
        .filter_map(|subject| subject.extra("ejections", segments))
        .sum();
    let each = total / samples.len().max(1) as f64;
    if each < 1.0 {
        return String::new();
    }
    format!("; callers ejected an instance {each:.0} times, and the others had to carry its load")
}

/// Components that clients wait for, however indirectly; a full topic's consumers among them.
pub(crate) fn waited_for(system: &System) -> Vec<Component> {
    let mut out: Vec<Component> =
        (0..system.clients.len()).map(|c| Component::Client(plimsoll_model::system::ClientId(c as u32))).collect();
    let mut at = 0;
    while at < out.len() {
        let from = out[at];
        for edge in system.edges.iter().filter(|edge| edge.from == from) {
            if !out.contains(&edge.to) {
                out.push(edge.to);
            }
        }
        at += 1;
    }
    out
}

fn is_waited_for(system: &System, waited_for: &[Component], of: Of) -> bool {
    let component = match of {
        Of::Component(component) => component,
        Of::Instance(service, _) => Component::Service(plimsoll_model::system::ServiceId(service)),
        Of::Node(store, _) => Component::Store(plimsoll_model::system::StoreId(store)),
        Of::Edge(edge) => system.edges[edge as usize].from,
    };
    // Nobody waits for what happens behind a topic, unless the topic is full and says so itself.
    matches!(component, Component::Topic(_)) || waited_for.contains(&component)
}

/// Where nothing is used up: the calls that take longest, and wait for nobody else.
fn slowest(plan: &Plan, samples: &[&Sample], segments: &[usize]) -> Option<GivesWay> {
    let waited_for = waited_for(&plan.system);
    let edges = samples.first()?.subjects.iter().filter(|subject| {
        let Of::Edge(edge) = subject.of else { return false };
        let last = matches!(plan.system.edges[edge as usize].to, Component::Store(_));
        last && is_waited_for(&plan.system, &waited_for, subject.of)
    });
    let timed = edges.map(|subject| {
        let mut times = crate::measure::Times::new();
        segments.iter().filter_map(|&s| subject.times.get(s)).for_each(|t| times.add(t));
        (times, subject)
    });
    let (times, subject) = timed
        .filter(|(times, _)| times.count() > 0)
        .max_by(|a, b| (a.0.mean() * a.0.count() as f64).total_cmp(&(b.0.mean() * b.0.count() as f64)))?;
    let (mean, p99) = (times.mean() / 1e6, times.percentile(99.0) / 1e6);
    Some(GivesWay {
        component: subject.name.clone(),
        resource: "latency".to_owned(),
        value: 0.0,
        why: format!(
            "nothing is used up, but calls over {} take {mean:.1} ms on average and {p99:.0} ms at p99",
            subject.name
        ),
        owner: owner(&plan.system, subject.of),
    })
}

fn suspects(subject: &Subject, segments: &[usize], length: u64) -> Vec<Suspect> {
    // A service stands for its instances; a store is told by its nodes.
    if matches!(subject.of, Of::Component(Component::Store(_)) | Of::Instance(..)) {
        return Vec::new();
    }
    let totals = subject.totals(segments);
    let rejected = if totals.offered == 0 { 0.0 } else { totals.rejected as f64 / totals.offered as f64 };
    let queue = subject.waiting.as_ref().map_or(0.0, |waiting| waiting.mean(segments, length));
    let suspect = |resource, capacity, used, rejected| Suspect {
        of: subject.of,
        name: subject.name.clone(),
        resource,
        capacity,
        used,
        queue,
        rejected,
    };
    let mut out: Vec<Suspect> = subject
        .resources
        .iter()
        .map(|r| suspect(r.name, r.capacity, r.level.mean(segments, length) / r.capacity.max(1e-9), 0.0))
        .collect();
    if rejected >= REJECTS && matches!(subject.of, Of::Component(Component::Service(_)) | Of::Edge(_)) {
        out.push(suspect("policies", 0.0, 0.0, rejected));
    }
    out
}

/// How much a suspect looks like the cause. Workers and connections are held while something
/// deeper is waited for: where that is used up too, it is the cause, and what waits for it is not.
/// Rejections are a consequence wherever something is used up.
fn weight(system: &System, all: &[Suspect], suspect: &Suspect) -> f64 {
    let used_up = |other: &&Suspect| other.used >= USED_UP && *other != suspect;
    if suspect.resource == "policies" {
        if let Of::Edge(edge) = suspect.of
            && all
                .iter()
                .any(|other| other.resource == "policies" && other.of == Of::Component(system.edges[edge as usize].to))
        {
            // The target says no; it is named itself.
            return 0.0;
        }
        let consequence = all.iter().any(|other| other.used >= USED_UP);
        return if consequence { 0.01 * suspect.rejected } else { 1.0 + suspect.rejected };
    }
    let held = matches!(suspect.resource, "workers" | "connections" | "max_in_flight" | "max_connections");
    let deeper = all.iter().filter(used_up).any(|other| depth(system, other) > depth(system, suspect));
    // What is truly used up outranks what is merely busy, by more than a full queue's noise.
    let used = suspect.used.min(1.0);
    if held && deeper { used * 0.5 } else { used }
}

/// How deep in the system a resource is: clients at the top, then services in order of their
/// calls, and within each what is held while something else is waited for above what does work.
fn depth(system: &System, suspect: &Suspect) -> u32 {
    match suspect.of {
        Of::Component(component) => 10 * level(system, component, 0) + (suspect.resource == "cores") as u32,
        Of::Instance(..) => 0,
        Of::Edge(edge) => 10 * level(system, system.edges[edge as usize].from, 0) + 5,
        Of::Node(store, _) => {
            10 * level(system, Component::Store(plimsoll_model::system::StoreId(store)), 0)
                + (suspect.resource != "max_connections") as u32
        }
    }
}

/// The longest way from a client to a component, in calls. Calls have no cycles.
fn level(system: &System, component: Component, seen: u32) -> u32 {
    if seen > 64 {
        return 0;
    }
    system
        .edges
        .iter()
        .filter(|edge| edge.to == component)
        .map(|edge| 1 + level(system, edge.from, seen + 1))
        .max()
        .unwrap_or(0)
}

fn describe(system: &System, suspect: &Suspect) -> GivesWay {
    let percent = (suspect.used * 100.0).round();
    let waiting = if suspect.queue >= 1.0 { format!("; {:.0} wait on average", suspect.queue) } else { String::new() };
    let name = &suspect.name;
    let capacity = suspect.capacity;
    let why = match suspect.resource {
        "workers" => format!("{percent}% of {name}'s {capacity} workers are held{waiting}"),
        "max_in_flight" => format!("{percent}% of the {capacity} requests that {name} can hold at once{waiting}"),
        "cores" => format!("{name}'s {capacity} cores are {percent}% busy{waiting}"),
        "connections" => format!("{percent}% of the {capacity} connections of {name} are taken{waiting}"),
        "concurrency" => {
            format!("{name} runs {percent}% of the {capacity} operations that it can at once{waiting}")
        }
        "max_connections" => format!("{name} has {percent}% of the {capacity} connections that it accepts"),
        "max_rate" => format!("{name} is {percent}% busy with commands"),
        "capacity" => format!("{name} holds {percent}% of the {capacity} messages that it can"),
        "policies" => {
            let by = rejecting(system, suspect.of).join(" or ");
            format!("{:.1}% are turned away at {name} by its {by}", suspect.rejected * 100.0)
        }
        other => format!("{name}: {other} is {percent}% used"),
    };
    GivesWay {
        component: name.clone(),
        resource: suspect.resource.to_owned(),
        value: if suspect.resource == "policies" { suspect.rejected } else { suspect.used },
        why,
        owner: owner(system, suspect.of),
    }
}

/// The policies that can turn requests away there.
fn rejecting(system: &System, of: Of) -> Vec<&'static str> {
    let names: Vec<(&'static str, bool)> = match of {
        Of::Edge(edge) => {
            let pipeline = &system.edges[edge as usize].policies.pipeline;
            vec![
                ("circuit breaker", pipeline.breaker.is_some()),
                ("rate limit", pipeline.rate_limit.is_some()),
                ("adaptive limit", pipeline.adaptive_limit.is_some()),
                ("bulkhead", pipeline.bulkhead.is_some()),
                ("target", true),
            ]
        }
        Of::Component(Component::Service(id)) => {
            let service = &system.services[id.index()];
            vec![
                ("rate limit", service.rate_limit.is_some()),
                ("adaptive limit", service.limit.is_some()),
                ("bulkheads", !service.bulkheads.is_empty()),
                ("degradation levels", service.degradation.is_some()),
                ("table of idempotency keys", service.idempotency.is_some()),
                ("full queue", !service.asynchronous),
                ("full house", service.asynchronous),
            ]
        }
        _ => vec![("policies", true)],
    };
    names.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// Who answers for it.
fn owner(system: &System, of: Of) -> Option<String> {
    let own = match of {
        Of::Component(Component::Service(id)) => system.services[id.index()].owner.clone(),
        Of::Component(Component::Topic(id)) => system.topics[id.index()].owner.clone(),
        Of::Component(Component::Consumer(id)) => system.consumers[id.index()].owner.clone(),
        Of::Component(Component::Store(id)) => system.stores[id.index()].owner.clone(),
        Of::Component(Component::Client(_) | Component::Lease(_)) => None,
        Of::Instance(service, _) => system.services[service as usize].owner.clone(),
        Of::Node(store, _) => system.stores[store as usize].owner.clone(),
        Of::Edge(edge) => return owner(system, Of::Component(system.edges[edge as usize].from)),
    };
    own.or_else(|| system.owner.clone())
}
