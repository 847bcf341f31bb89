//! Where everything of a run is: ports that were free when it began, the same for a process that starts again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use plimsoll_model::system::{
    Address, Addresses, Component, EdgeId, Experiment, FaultKind, ServiceId, StoreKind, System, Target,
};
use serde::{Deserialize, Serialize};

use crate::process::{Port, ProcessError};
use crate::route::{self, Hop};

/// Where one process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What it is for.
    pub main: SocketAddr,
    /// Where the run asks it.
    pub control: SocketAddr,
    /// Where a gateway answers operators.
    pub admin: SocketAddr,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Where all chance comes from.
    pub seed: u64,
    /// The system file's hash: processes read the file themselves, and it must not have changed.
    pub hash: u64,
    /// By service, then instance; those that a deploy or an autoscaler may add come last.
    pub services: Vec<Vec<Place>>,
    /// By store, then node; of a database, shard by shard, each with its first primary first.
    pub stores: Vec<Vec<Place>>,
    /// By topic.
    pub topics: Vec<Place>,
    /// By store: whether it is a real one.
    pub real: Vec<bool>,
    /// By lease.
    pub leases: Vec<Place>,
    /// By edge: where each instance that calls finds each that is called, if that is at a proxy. Nothing for an edge
    /// that is direct.
    edges: Vec<Vec<Vec<SocketAddr>>>,
    /// By service: where each of its instances finds each topic, if that is at a proxy.
    of_topics: Vec<Vec<Vec<SocketAddr>>>,
    /// The same of leases.
    of_leases: Vec<Vec<Vec<SocketAddr>>>,
}

impl Layout {
    /// Places for everything, and the ports to hold for as long as the run lasts. `spare` is how many more instances of
    /// each service there may be than at the start, `real` says which stores are real.
    /// What the experiment's faults strike is reached through proxies; the rest is not, since a hop costs time.
    pub fn new(
        system: &System,
        experiment: &Experiment,
        seed: u64,
        spare: &[u32],
        real: Vec<bool>,
    ) -> Result<(Layout, Vec<Port>), ProcessError> {
        let mut ports = Ports::default();
        let mut places = |count: u32| (0..count).map(|_| ports.place()).collect::<Result<Vec<Place>, ProcessError>>();
        let services = system.services.iter().zip(spare).map(|(service, spare)| match &service.at {
            Some(Addresses::List(list)) if !service.is_gateway() => elsewhere(list).map_err(ProcessError::Port),
            _ => places(service.instances + spare),
        });
        let services = services.collect::<Result<Vec<_>, _>>()?;
        let stores = system.stores.iter().map(|store| places(nodes(&store.kind))).collect::<Result<_, _>>()?;
        let topics = places(system.topics.len() as u32)?;
        let leases = places(system.leases.len() as u32)?;
        // A server of the reader's own may not be one that takes a port which is held.
        let own = system.services.iter().zip(&services).filter(|(service, _)| service.run.is_some());
        let own: Vec<u16> = own.flat_map(|(_, places)| places.iter().map(|place| place.main.port())).collect();
        ports.held.retain(|port| !own.contains(&port.number()));
        let mut layout = Layout {
            seed,
            hash: system.hash,
            services,
            stores,
            topics,
            real,
            leases,
            edges: Vec::new(),
            of_topics: Vec::new(),
            of_leases: Vec::new(),
        };
        let disturbed =
            |struck: &dyn Fn(&Target) -> bool| experiment.faults.iter().filter_map(route::link_target).any(struck);
        for at in (0..system.edges.len()).map(EdgeId::from) {
            // Routes with policies of their own are edges of the same pair, and take the same way.
            let way = match system.same_pair(at).next().filter(|first| *first != at) {
                Some(first) => layout.edges[first.index()].clone(),
                None if disturbed(&|target| route::crosses(system, target, at)) => {
                    ports.matrix(layout.callers(system, at), layout.direct(system, at).len())?
                }
                None => Vec::new(),
            };
            layout.edges.push(way);
        }
        for at in 0..system.services.len() as u32 {
            let partitions = experiment.faults.iter().filter_map(|fault| match &fault.kind {
                FaultKind::Partition(target) => Some(target),
                _ => None,
            });
            let cut_off = partitions.into_iter().any(|target| route::cuts_off(system, target, at));
            let instances = if cut_off { layout.services[at as usize].len() } else { 0 };
            layout.of_topics.push(ports.matrix(instances, layout.topics.len())?);
            layout.of_leases.push(ports.matrix(instances, layout.leases.len())?);
        }
        Ok((layout, ports.held))
    }

    /// Where the caller's instance of an edge finds all that it may call there: instances, those that a deploy may add
    /// included, or nodes. Clients are one caller, 0.
    pub fn callees(&self, system: &System, edge: EdgeId, caller: u32) -> Vec<SocketAddr> {
        match self.edges[edge.index()].get(caller as usize) {
            Some(proxies) => proxies.clone(),
            None => self.direct(system, edge),
        }
    }

    /// Whether an edge's callees are reached through proxies.
    pub fn is_proxied(&self, edge: EdgeId) -> bool {
        !self.edges[edge.index()].is_empty()
    }

    /// Where an instance of a service finds a topic's broker.
    pub fn topic(&self, service: ServiceId, instance: u32, topic: u32) -> SocketAddr {
        let proxies = self.of_topics[service.index()].get(instance as usize);
        proxies.map_or(self.topics[topic as usize].main, |topics| topics[topic as usize])
    }

    /// Where an instance of a service finds what keeps a lease.
    pub fn lease(&self, service: ServiceId, instance: u32, lease: u32) -> SocketAddr {
        let proxies = self.of_leases[service.index()].get(instance as usize);
        proxies.map_or(self.leases[lease as usize].main, |leases| leases[lease as usize])
    }

    /// All ways that have a proxy: where it listens, and where it leads.
    pub fn hops(&self, system: &System) -> Vec<(Hop, SocketAddr, SocketAddr)> {
        let mut all = Vec::new();
        for at in (0..self.edges.len()).map(EdgeId::from) {
            if system.same_pair(at).next() != Some(at) {
                continue;
            }
            let direct = self.direct(system, at);
            for (caller, proxies) in (0..).zip(&self.edges[at.index()]) {
                let callees = (0..).zip(proxies).zip(&direct);
                all.extend(callees.map(|((callee, proxy), to)| (Hop::Edge(at, caller, callee), *proxy, *to)));
            }
        }
        for (service, instances) in (0..).zip(&self.of_topics) {
            for (instance, proxies) in (0..).zip(instances) {
                let topics = (0..).zip(proxies).zip(&self.topics);
                all.extend(topics.map(|((topic, proxy), to)| (Hop::Topic(service, instance, topic), *proxy, to.main)));
            }
        }
        for (service, instances) in (0..).zip(&self.of_leases) {
            for (instance, proxies) in (0..).zip(instances) {
                let leases = (0..).zip(proxies).zip(&self.leases);
                all.extend(leases.map(|((lease, proxy), to)| (Hop::Lease(service, instance, lease), *proxy, to.main)));
            }
        }
        all
    }

    /// Which instance is at an address, or behind the proxy there.
    pub fn instance_at(&self, system: &System, address: SocketAddr) -> Option<(u32, u32)> {
        let at_place = self.services.iter().enumerate().find_map(|(service, places)| {
            let at = places.iter().position(|place| place.main == address)?;
            Some((service as u32, at as u32))
        });
        at_place.or_else(|| {
            self.edges.iter().zip(&system.edges).find_map(|(callers, edge)| {
                let Component::Service(to) = edge.to else { return None };
                let at = callers.iter().find_map(|callees| callees.iter().position(|proxy| *proxy == address))?;
                Some((to.0, at as u32))
            })
        })
    }

    fn direct(&self, system: &System, edge: EdgeId) -> Vec<SocketAddr> {
        let places: &[Place] = match system.edges[edge.index()].to {
            Component::Service(id) => &self.services[id.index()],
            Component::Store(id) => &self.stores[id.index()],
            // Nothing else is called over an edge.
            _ => &[],
        };
        places.iter().map(|place| place.main).collect()
    }

    fn callers(&self, system: &System, edge: EdgeId) -> usize {
        route::acting(system, system.edges[edge.index()].from)
            .map_or(1, |service| self.services[service as usize].len())
    }
}

/// Places of instances that run already. Nobody asks them about themselves.
fn elsewhere(list: &[Address]) -> io::Result<Vec<Place>> {
    let place = |address: &Address| {
        let unknown = || io::Error::other(format!("{}: no such host", address.address));
        let main = address.address.to_socket_addrs()?.next().ok_or_else(unknown)?;
        Ok(Place { main, control: main, admin: main })
    };
    list.iter().map(place).collect()
}

/// Nodes of a store.
pub fn nodes(kind: &StoreKind) -> u32 {
    match kind {
        StoreKind::Postgres(pg) => pg.shards * (1 + pg.replicas),
        StoreKind::Redis(_) => 1,
        StoreKind::Quorum(quorum) => quorum.nodes,
    }
}

/// Ports that are free, and held: the system might give one of them twice otherwise.
#[derive(Default)]
struct Ports {
    held: Vec<Port>,
}

impl Ports {
    fn free(&mut self) -> Result<SocketAddr, ProcessError> {
        let port = Port::free()?;
        let address = (Ipv4Addr::LOCALHOST, port.number()).into();
        self.held.push(port);
        Ok(address)
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Result<Vec<Vec<SocketAddr>>, ProcessError> {
        (0..rows).map(|_| (0..columns).map(|_| self.free()).collect()).collect()
    }

    fn place(&mut self) -> Result<Place, ProcessError> {
        Ok(Place { main: self.free()?, control: self.free()?, admin: self.free()? })
    }
}
