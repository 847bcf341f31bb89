//! The proxies of a run: one on each way that a fault may strike, on a thread that is neither the load's nor who
//! watches.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use plimsoll_model::system::{Component, System};

use super::Part;
use crate::layout::Layout;
use crate::proxy::{Change, NewProxy, Proxies, Refusal, Set};
use crate::route::Hop;

/// The proxies, by the way that each is on.
#[derive(Debug)]
pub(crate) struct Hops {
    proxies: Option<Proxies>,
    names: BTreeMap<Hop, Named>,
}

/// A proxy.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// Its name within the set.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Whose process it leads to; none where that is not ours.
    pub(crate) to: Option<Part>,
}

impl Hops {
    /// Starts those that the layout has places for; no thread where there are none.
    pub(super) fn start(system: &System, layout: &Layout) -> std::io::Result<Hops> {
        let hops = layout.hops(system);
        if hops.is_empty() {
            return Ok(Hops { proxies: None, names: BTreeMap::new() });
        }
        let proxies = Proxies::start(layout.seed, None)?;
        let mut names = BTreeMap::new();
        for (hop, listen, upstream) in hops {
            let (name, to) = match hop {
                Hop::Edge(edge, caller, callee) => {
                    let to = match system.edges[edge.index()].to {
                        Component::Service(id) => Some(Part::Instance(id.0, callee)),
                        Component::Store(id) => Some(Part::Node(id.0, callee)),
                        _ => None,
                    };
                    (format!("{} from {} to {}", system.edge_name(edge), caller + 1, callee + 1), to)
                }
                Hop::Topic(service, instance, topic) => {
                    let of = (&system.services[service as usize].name, &system.topics[topic as usize].name);
                    (format!("{}/{} -> {}", of.0, instance + 1, of.1), Some(Part::Topic(topic)))
                }
                Hop::Lease(service, instance, lease) => {
                    let of = (&system.services[service as usize].name, &system.leases[lease as usize].name);
                    (format!("{}/{} -> {}", of.0, instance + 1, of.1), Some(Part::Lease(lease)))
                }
            };
            let new = NewProxy { listen: listen.to_string(), ..NewProxy::to(&name, &upstream.to_string()) };
            proxies.set().create(new).map_err(std::io::Error::other)?;
            names.insert(hop, Named { name, listen, to });
        }
        Ok(Hops { proxies: Some(proxies), names })
    }

    /// What can be asked of them; none where there are none.
    pub(crate) fn set(&self) -> Option<&Set> {
        self.proxies.as_ref().map(|proxies| &**proxies.set())
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Hop, &Named)> {
        self.names.iter().map(|(hop, named)| (*hop, named))
    }

    /// Who connects to a process that is gone is refused: by a proxy too, which could otherwise only accept and then
    /// reset. To a caller these are different failures.
    pub(super) fn lead_to(&self, part: Part, there: bool) -> Result<(), Refusal> {
        let Some(set) = self.set() else { return Ok(()) };
        for named in self.names.values().filter(|named| named.to == Some(part)) {
            set.update(&named.name, Change::enable(there))?;
        }
        Ok(())
    }
}
