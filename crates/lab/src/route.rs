//! What has a proxy in a run: the ways that an experiment's faults may strike.

use plimsoll_model::system::{Component, EdgeId, Fault, FaultKind, System, Target};

/// The way from one caller to what it calls, which has a proxy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// The first edge of the pair, the caller's instance (of a client 0), the callee's instance or node.
    Edge(EdgeId, u32, u32),
    /// A service, its instance, a topic.
    Topic(u32, u32, u32),
    /// A service, its instance, a lease.
    Lease(u32, u32, u32),
}

/// The service whose instances are a component's; none of a client, a store or a topic.
pub(crate) fn acting(system: &System, component: Component) -> Option<u32> {
    match component {
        Component::Service(id) => Some(id.0),
        Component::Consumer(id) => Some(system.consumers[id.index()].service.0),
        Component::Lease(id) => Some(system.leases[id.index()].service.0),
        Component::Client(_) | Component::Store(_) | Component::Topic(_) => None,
    }
}

/// What a fault that disturbs connections strikes.
pub(crate) fn link_target(fault: &Fault) -> Option<&Target> {
    match &fault.kind {
        FaultKind::Partition(target)
        | FaultKind::Drop { target, .. }
        | FaultKind::Reset { target, .. }
        | FaultKind::Bandwidth { target, .. }
        | FaultKind::Slow { target: target @ Target::Edge(_), .. } => Some(target),
        _ => None,
    }
}

/// Whether an edge leads into or out of something that a target may be, or is it.
pub(crate) fn crosses(system: &System, target: &Target, edge: EdgeId) -> bool {
    let of = &system.edges[edge.index()];
    let touches = |component: Component| {
        let service = acting(system, component);
        let ends = [of.from, of.to];
        ends.iter().any(|end| *end == component || service.is_some() && acting(system, *end) == service)
    };
    match *target {
        Target::Edge(struck) => system.same_pair(struck).any(|same| same == edge),
        Target::All(component) | Target::Instance(component, _) | Target::Share(component, _) => touches(component),
        Target::Primary(store) | Target::Replicas(store) => touches(Component::Store(store)),
        Target::Zone(zone) => [of.from, of.to].iter().any(|end| match (acting(system, *end), *end) {
            (Some(service), _) => system.services[service as usize].zones.contains(&zone),
            (None, Component::Store(store)) => system.stores[store.index()].zones.contains(&zone),
            _ => false,
        }),
    }
}

/// Whether a target may be instances of a service, which are then cut off from brokers and leases too: no edge leads to those.
pub(crate) fn cuts_off(system: &System, target: &Target, service: u32) -> bool {
    match *target {
        Target::All(component) | Target::Instance(component, _) | Target::Share(component, _) => {
            acting(system, component) == Some(service)
        }
        Target::Zone(zone) => system.services[service as usize].zones.contains(&zone),
        Target::Primary(_) | Target::Replicas(_) | Target::Edge(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use plimsoll_model::system::System;

    use super::*;
    use crate::layout::Layout;

    const SYSTEM: &str = "system: ways
clients: { web: { rate: 1/s, calls: [ edge GET / ], zone: a } }
services:
  edge: { kind: gateway, upstream: api }
  api:
    instances: 2
    zones: [a, b]
    endpoints: { GET /: [ { query: db.read }, { call: stock GET /stock }, { publish: seen } ] }
  stock: { async: true, endpoints: { GET /stock: [ { wait: 1ms } ] } }
stores:
  db: { kind: postgres, replicas: 1, operations: { read: { kind: read, time: 1ms } } }
topics: { seen: { partitions: 1 } }
consumers: { reader: { topic: seen, handler: 1ms } }
leases: { chief: { service: api } }
experiments:
  one: { for: 9s, faults: [ { at: 1s, FAULT, for: 1s } ], expect: [ errors < 1% ] }
";

    fn of(fault: &str) -> (System, Layout) {
        let text = SYSTEM.replace("FAULT", fault);
        let read = |_: &str| Err("there are no files".to_owned());
        let source = plimsoll_model::Source { name: "test", bytes: text.as_bytes(), read: &read };
        let system = plimsoll_model::parse(&source).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let spare = vec![0; system.services.len()];
        let (layout, _ports) =
            Layout::new(&system, &system.experiments[0], 1, &spare, vec![false; system.stores.len()]).expect("ports");
        (system, layout)
    }

    /// Edges and topics that a fault gives proxies to, with how many.
    fn proxied(fault: &str) -> Vec<String> {
        let (system, layout) = of(fault);
        let mut counts = std::collections::BTreeMap::<String, u32>::new();
        for (hop, ..) in layout.hops(&system) {
            let name = match hop {
                Hop::Edge(edge, ..) => system.edge_name(edge),
                Hop::Topic(service, _, topic) => {
                    format!("{} -> {}", system.services[service as usize].name, system.topics[topic as usize].name)
                }
                Hop::Lease(service, _, lease) => {
                    format!("{} -> {}", system.services[service as usize].name, system.leases[lease as usize].name)
                }
            };
            *counts.entry(name).or_default() += 1;
        }
        counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect()
    }

    #[test]
    fn only_what_a_fault_may_strike_has_proxies() {
        assert_eq!(proxied("kill: api/1"), [""; 0]);
        assert_eq!(proxied("slow: stock, by: +1ms"), [""; 0]);
        assert_eq!(proxied("slow: api -> db, by: +1ms"), ["api -> db 4"]);
        assert_eq!(proxied("reset: web -> edge, share: 1%"), ["web -> edge 1"]);
        let around = ["api -> db 4", "api -> stock 2", "edge -> api 2"];
        assert_eq!(proxied("drop: api/2, share: 1%"), around);
        // From brokers and leases only a partition cuts off.
        let cut_off = ["api -> chief 2", around[0], "api -> seen 2", around[1], around[2]];
        assert_eq!(proxied("partition: api/2"), cut_off);
        assert_eq!(proxied("bandwidth: replicas of db, to: 1KiB/s"), ["api -> db 4"]);
        assert_eq!(proxied("partition: web"), ["web -> edge 1"]);
        assert_eq!(proxied("drop: zone b, share: 1%"), around);
    }

    #[test]
    fn each_caller_has_ways_of_its_own_and_others_are_direct() {
        let (system, layout) = of("slow: api -> db, by: +1ms");
        let edge = |name: &str| {
            let at = (0..system.edges.len()).map(EdgeId::from).find(|edge| system.edge_name(*edge) == name);
            at.unwrap_or_else(|| panic!("no {name}"))
        };
        let db = edge("api -> db");
        let ways: BTreeSet<_> = (0..2).flat_map(|caller| layout.callees(&system, db, caller)).collect();
        assert_eq!(ways.len(), 4);
        assert!(layout.stores[0].iter().all(|node| !ways.contains(&node.main)));
        let (hop, listen, to) = layout.hops(&system)[3];
        assert_eq!((hop, listen), (Hop::Edge(db, 1, 1), layout.callees(&system, db, 1)[1]));
        assert_eq!(to, layout.stores[0][1].main);
        let stock = edge("api -> stock");
        assert_eq!(layout.callees(&system, stock, 0), [layout.services[2][0].main]);
        assert!(layout.is_proxied(db) && !layout.is_proxied(stock));
        let (system, layout) = of("slow: edge -> api, by: +1ms");
        let behind: Vec<_> = layout.hops(&system).iter().map(|hop| layout.instance_at(&system, hop.1)).collect();
        assert_eq!(behind, [Some((1, 0)), Some((1, 1))]);
        assert_eq!(layout.instance_at(&system, layout.services[1][1].main), Some((1, 1)));
    }
}
