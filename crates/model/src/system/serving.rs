use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::System;

/// How a gateway is served by a real process. The simulation takes no notice of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Certificate and key, where it speaks TLS.
    pub tls: Option<Tls>,
    /// Where operators ask.
    pub admin: Option<SocketAddr>,
    /// A line for each request.
    pub access_log: Option<AccessLog>,
    /// Bounds on what a client may cost.
    pub limits: Limits,
    /// Fields of requests that say who asks and how.
    pub headers: Headers,
    /// Who stands for it in a run.
    pub balancer: Balancer,
    /// Networks of proxies in front, whose word on the client's address is taken.
    pub trusted: Vec<NetworkPrefix>,
}

/// Who stands for a gateway in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Balancer {
    Plimsoll,
    Nginx,
    Haproxy,
}

impl System {
    /// Has one program stand for every gateway, whatever the file says: those that this machine starts, so not one
    /// with a command of its own. How many there are.
    pub fn stand_for_gateways(&mut self, balancer: Balancer) -> usize {
        let gateways = self.services.iter_mut().filter(|service| service.is_gateway() && service.run.is_none());
        gateways.filter_map(|service| service.serving.as_mut()).map(|serving| serving.balancer = balancer).count()
    }
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, followed by those that lead to an authority.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A line for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// A file, `stdout` or `stderr`.
    pub to: String,
    /// What a line looks like.
    pub format: LogFormat,
    /// Lines that wait to be written; past it they are dropped and counted.
    pub buffer: u32,
}

/// What a line of the access log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// nginx's `combined`, with times.
    Combined,
}

/// Bounds on what a client may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head.
    pub header_bytes: u32,
    /// Fields of a head.
    pub header_count: u32,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Bytes of a request's body that are kept for another attempt.
    pub retry_body_bytes: u64,
    /// From the first byte of a request to the end of its head, ns.
    pub header_timeout: u64,
    /// Between two reads or writes of a body, ns.
    pub body_timeout: u64,
    /// Between two requests on a connection, ns.
    pub idle_timeout: u64,
    /// Until a connection to an instance is made, ns.
    pub connect_timeout: u64,
    /// How long a connection to an instance is kept without use, ns.
    pub upstream_idle: u64,
    /// Connections in all.
    pub connections: u32,
    /// Connections of one address.
    pub connections_per_client: u32,
}

/// Fields of requests that say who asks and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Names the user, for quotas and sticky balancing; none: the client's address does.
    pub user: Option<String>,
    /// Holds the priority class; none: all are of class 0.
    pub class: Option<String>,
    /// Holds the milliseconds that the caller still waits; taken in and passed on.
    pub deadline: String,
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkPrefix {
    /// Its address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

impl NetworkPrefix {
    /// Whether an address is of this network. An IPv4 address within IPv6 counts as the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                bits == 0 || (u32::from(a) ^ u32::from(b)).checked_shr(32 - bits.min(32)) == Some(0)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                bits == 0 || (u128::from(a) ^ u128::from(b)).checked_shr(128 - bits.min(128)) == Some(0)
            }
            _ => false,
        }
    }
}

/// Where a service's instances are in the real world. The simulation takes no notice of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Addresses {
    /// These.
    List(Vec<Address>),
    /// Those that a name stands for.
    Dns {
        /// The name.
        host: String,
        /// The port of each.
        port: u16,
        /// Whom to ask for it; none: the system's name servers.
        server: Option<SocketAddr>,
        /// Between two looks at most, ns; a record's time to live may be over sooner.
        every: u64,
    },
    /// Those of a file, one a line.
    File {
        /// The file, relative to the system file.
        path: String,
        /// Between two looks, ns.
        every: u64,
    },
}

/// An instance's address.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// A name or an IP address, and a port.
    pub address: String,
    /// Its weight beside the others.
    pub weight: f64,
}

/// What a route answers where its upstream fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackAnswer {
    /// The status.
    pub status: u16,
    /// The type of the body.
    pub content_type: String,
    /// The body.
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let network = |address: &str, bits| NetworkPrefix { address: address.parse().unwrap(), bits };
        for (network, address, inside) in [
            (network("10.0.0.0", 8), "10.1.2.3", true),
            (network("10.0.0.0", 8), "11.1.2.3", false),
            (network("10.0.0.0", 8), "::ffff:10.1.2.3", true),
            (network("0.0.0.0", 0), "1.2.3.4", true),
            (network("0.0.0.0", 0), "::1", false),
            (network("127.0.0.1", 32), "127.0.0.1", true),
            (network("127.0.0.1", 32), "127.0.0.2", false),
            (network("fd00::", 8), "fd12::1", true),
            (network("fd00::", 8), "fe80::1", false),
            (network("::1", 128), "::1", true),
        ] {
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
    }
}
