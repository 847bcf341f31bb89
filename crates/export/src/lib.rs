//! A gateway of a system as the configuration of a proxy that exists: nginx, HAProxy or Envoy.
//!
//! Every number is the system file's. What a proxy cannot do stands as a comment where it would be, with the key
//! of the system file and what the proxy does instead. The same system and site give the same bytes.

mod envoy;
mod error;
mod gateway;
mod haproxy;
mod nginx;
mod pattern;
mod site;
mod text;

use plimsoll_model::system::{ServiceId, ServiceKind, System};

pub use envoy::envoy;
pub use error::Error;
pub use haproxy::haproxy;
pub use nginx::nginx;
pub use site::{Address, Directory, Files, Malformed, PORT, Site};

/// All gateways, in the order of the file.
pub fn gateways(system: &System) -> Vec<ServiceId> {
    let ids = (0..system.services.len()).map(ServiceId::from);
    ids.filter(|id| matches!(system.services[id.index()].kind, ServiceKind::Gateway(_))).collect()
}

/// The gateway of that name; without a name, the only one there is.
pub fn find(system: &System, name: Option<&str>) -> Result<ServiceId, Error> {
    let gateways = gateways(system);
    match (name, gateways.as_slice()) {
        (_, []) => {
            // The hidden services of consumers take no requests.
            let hidden = |index: usize| system.consumers.iter().any(|consumer| consumer.service.index() == index);
            let services = system.services.iter().enumerate().filter(|(index, _)| !hidden(*index));
            Err(Error::NoGateways { services: services.map(|(_, service)| service.name.clone()).collect() })
        }
        (None, [only]) => Ok(*only),
        (None, _) => Err(Error::Several { gateways: names(system) }),
        (Some(name), all) => match all.iter().find(|id| system.services[id.index()].name == name) {
            Some(id) => Ok(*id),
            None if system.services.iter().any(|service| service.name == name) => {
                Err(Error::NoGateway { service: name.to_owned(), gateways: names(system) })
            }
            None => Err(Error::Unknown { name: name.to_owned(), gateways: names(system) }),
        },
    }
}

/// The names of all gateways.
fn names(system: &System) -> Vec<String> {
    gateways(system).into_iter().map(|id| system.services[id.index()].name.clone()).collect()
}
