//! What disturbs connections: toxics on the proxies of what a fault strikes.

use std::rc::Rc;
use std::time::Duration;

use plimsoll_model::system::{Component, EdgeId, System, Target};

use crate::proxy::More;
use crate::proxy::toxic::{Kind, Stream, Toxic};
use crate::route::{Hop, acting};
use crate::run::Lab;
use crate::stack::Part;
use crate::stack::hops::Named;

/// A toxic for every proxy that a fault strikes.
pub(super) struct Disturbance {
    pub(super) stream: Stream,
    pub(super) kind: Kind,
    pub(super) more: More,
}

impl Disturbance {
    pub(super) fn new(stream: Stream, kind: Kind) -> Disturbance {
        Disturbance { stream, kind, more: More::None }
    }
}

/// A disturbance begins.
pub(super) fn start(lab: &Rc<Lab>, number: usize, target: &Target, what: &[Disturbance]) -> Result<(), String> {
    let struck = lab.struck_hops(target);
    let set = lab.stack.hops().set().filter(|_| !struck.is_empty()).ok_or("it strikes nothing")?;
    for named in &struck {
        for Disturbance { stream, kind, more } in what {
            let toxic = Toxic { name: name(number, *stream), stream: *stream, toxicity: 1.0, kind: *kind };
            set.add_more(&named.name, toxic, more.clone()).map_err(|refusal| format!("{}: {refusal}", named.name))?;
        }
    }
    lab.faults.borrow_mut().hops.insert(number, struck);
    Ok(())
}

/// It ends: what it held back goes on its way. Of the chunks that came meanwhile: how many it was asked about, and how
/// many it did something to.
pub(super) fn end(lab: &Rc<Lab>, number: usize) -> Result<(u64, u64), String> {
    let struck = lab.faults.borrow_mut().hops.remove(&number).unwrap_or_default();
    let Some(set) = lab.stack.hops().set() else { return Ok((0, 0)) };
    let (mut sum, mut undone) = ((0, 0), Ok(()));
    for named in &struck {
        for stream in [Stream::Upstream, Stream::Downstream] {
            let toxic = name(number, stream);
            if let Ok((asked, did)) = set.effect(&named.name, &toxic) {
                sum = (sum.0 + asked, sum.1 + did);
                let removed = set.remove(&named.name, &toxic);
                undone = undone.and(removed.map_err(|refusal| format!("{}: {refusal}", named.name)));
            }
        }
    }
    undone.map(|()| sum)
}

fn name(number: usize, stream: Stream) -> String {
    format!("fault-{number}-{}", stream.name())
}

/// Whether a disturbance has worked that strikes each chunk with this probability. One that met nothing is nobody's
/// mistake, but the reader should know.
pub(super) fn seen(lab: &Lab, number: usize, (asked, did): (u64, u64), share: f64) -> Result<(), String> {
    let text = &lab.experiment.faults[number].text;
    if asked == 0 {
        lab.warn(format!("`{text}`: nothing came there while it lasted"));
    } else if did == 0 {
        // Chance may spare a few.
        if (1.0 - share).powi(i32::try_from(asked).unwrap_or(i32::MAX)) < IMPOSSIBLE {
            return Err(format!("{asked} chunks passed, and nothing was done to any"));
        }
        lab.warn(format!("`{text}`: by chance it struck none of {asked} chunks"));
    }
    Ok(())
}

/// What is less probable than this is not chance.
const IMPOSSIBLE: f64 = 1e-6;

/// How long an answer to a `connect` is waited for that should have none.
const SILENCE: Duration = Duration::from_millis(50);

impl Lab {
    /// The proxies of what a target is at this moment: of an edge, or of all that leads into a set of processes or
    /// out of it.
    fn struck_hops(&self, target: &Target) -> Vec<Named> {
        let system = &self.stack.system;
        let all = self.stack.hops().all();
        if let Target::Edge(struck) = *target {
            let first = system.same_pair(struck).next().unwrap_or(struck);
            let there = all.filter(|(hop, _)| matches!(hop, Hop::Edge(edge, ..) if *edge == first));
            return there.map(|(_, named)| named.clone()).collect();
        }
        let victims = self.victims(target);
        let crosses = |hop: Hop, to: Option<Part>| {
            let within = |part: Part| victims.contains(&part);
            let from = match hop {
                Hop::Edge(edge, caller, _) => match system.edges[edge.index()].from {
                    client @ Component::Client(_) => matches!(target, Target::All(struck) if *struck == client),
                    from => acting(system, from).is_some_and(|service| within(Part::Instance(service, caller))),
                },
                Hop::Topic(service, instance, _) | Hop::Lease(service, instance, _) => {
                    within(Part::Instance(service, instance))
                }
            };
            from != to.is_some_and(within)
        };
        all.filter(|(hop, named)| crosses(*hop, named.to)).map(|(_, named)| named.clone()).collect()
    }

    /// Bytes that have gone through what a fault strikes.
    pub(super) fn passed(&self, number: usize) -> u64 {
        let faults = self.faults.borrow();
        let Some(set) = self.stack.hops().set() else { return 0 };
        let figures = faults.hops.get(&number).into_iter().flatten().filter_map(|named| set.figures(&named.name).ok());
        figures.map(|figures| figures.up_bytes + figures.down_bytes).sum()
    }

    /// Whether somebody can connect to what a fault strikes.
    pub(super) async fn answers_behind(&self, number: usize) -> bool {
        let first = self.faults.borrow().hops.get(&number).and_then(|struck| struck.first().map(|named| named.listen));
        let Some(address) = first else { return false };
        let connecting = tokio::net::TcpStream::connect(address);
        matches!(tokio::time::timeout(SILENCE, connecting).await, Ok(Ok(_)))
    }
}

/// The mean one-way delay of an edge without faults, ns: what a factor multiplies.
pub(crate) fn network_delay(system: &System, edge: EdgeId) -> f64 {
    let of = &system.edges[edge.index()];
    let zone = |component: Component| match (acting(system, component), component) {
        (Some(service), _) => system.services[service as usize].zones.first().copied(),
        (None, Component::Store(store)) => system.stores[store.index()].zones.first().copied(),
        (None, Component::Client(client)) => system.clients[client.index()].zone,
        _ => None,
    };
    crate::caller::network(system, edge, zone(of.from), zone(of.to)).mean()
}
