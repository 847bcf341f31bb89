//! Where everything of a run is: ports that were free when it began, the same for a process that starts again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use plimsoll_model::system::{Address, Addresses, StoreKind, System};
use serde::{Deserialize, Serialize};

use crate::process::{Port, ProcessError};

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
    /// By lease.
    pub leases: Vec<Place>,
}

impl Layout {
    /// Places for everything, and the ports to hold for as long as the run lasts. `spare` is how many more instances of
    /// each service there may be than at the start.
    pub fn new(system: &System, seed: u64, spare: &[u32]) -> Result<(Layout, Vec<Port>), ProcessError> {
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
        Ok((Layout { seed, hash: system.hash, services, stores, topics, leases }, ports.held))
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

    fn place(&mut self) -> Result<Place, ProcessError> {
        Ok(Place { main: self.free()?, control: self.free()?, admin: self.free()? })
    }
}
