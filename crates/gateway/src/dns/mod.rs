//! Names looked up with the time for which an answer holds, which the system's resolver does not tell.
//!
//! As the system does it: an address is itself, `/etc/hosts` goes first, then the servers of `/etc/resolv.conf`
//! with its search list. What these do not know, the system's own resolver is asked for, since there may be other
//! sources (multicast DNS, directories); its answers hold for no stated time. Everything here waits: it is for
//! threads that may.

mod config;
mod query;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use config::Config;
use query::Missing;
use simple_dns::TYPE;

/// What a name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// All its addresses.
    pub addresses: Vec<IpAddr>,
    /// How long they hold; none where nobody said.
    pub ttl: Option<Duration>,
}

/// Looks a name up. `server` is asked instead of the system's servers; `random` is what nobody else knows.
pub fn look_up(host: &str, server: Option<SocketAddr>, random: u64) -> Result<Looked, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(Looked { addresses: vec![address], ttl: None });
    }
    let read = |path: &str| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let known = config::hosts(&read("/etc/hosts").unwrap_or_default(), host);
    if !known.is_empty() {
        return Ok(Looked { addresses: known, ttl: None });
    }
    let config = match server {
        Some(server) => Config::of(server),
        None => Config::read(&read("/etc/resolv.conf").unwrap_or_default()),
    };
    match ask(&config, host, random) {
        Ok(looked) => Ok(looked),
        Err(Missing::Name) if server.is_none() => by_system(host),
        Err(Missing::Name) => Err(format!("{host}: the name server knows no such name")),
        Err(Missing::Answer(why)) => Err(format!("{host}: {why}")),
    }
}

/// Asks the servers for addresses of both kinds, by each of the names that `host` may be short for.
fn ask(config: &Config, host: &str, random: u64) -> Result<Looked, Missing> {
    if config.servers.is_empty() {
        return Err(Missing::Name);
    }
    let mut failed = None;
    for (number, name) in config.names(host).iter().enumerate() {
        let mut looked = Looked::default();
        for (kind, bits) in [(TYPE::A, 0), (TYPE::AAAA, 1)] {
            let bits = crate::random::mix(random ^ (2 * number as u64 + bits));
            match query::ask(config, name, kind, bits) {
                Ok(answer) => {
                    looked.addresses.extend(answer.addresses);
                    looked.ttl = Some(looked.ttl.map_or(answer.ttl, |ttl| ttl.min(answer.ttl)));
                }
                Err(Missing::Name) => {}
                // Some servers fail where they have no addresses of a kind: those of the other will do.
                Err(answer) => failed = failed.or(Some(answer)),
            }
        }
        if !looked.addresses.is_empty() {
            return Ok(looked);
        }
    }
    Err(failed.unwrap_or(Missing::Name))
}

fn by_system(host: &str) -> Result<Looked, String> {
    let found = (host, 0).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    Ok(Looked { addresses: found.map(|address| address.ip()).collect(), ttl: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_hosts_are_no_matter_for_servers() {
        // Nobody answers there.
        let nobody = Some("127.0.0.1:1".parse().unwrap());
        for (host, address) in [("10.0.0.7", "10.0.0.7"), ("[::1]", "::1")] {
            let looked = look_up(host, nobody, 0).unwrap();
            assert_eq!(looked, Looked { addresses: vec![address.parse().unwrap()], ttl: None });
        }
        let looked = look_up("localhost", nobody, 0).unwrap();
        assert!(looked.addresses.iter().all(IpAddr::is_loopback) && !looked.addresses.is_empty(), "{looked:?}");
        let error = look_up("api.test", nobody, 0).unwrap_err();
        assert!(error.starts_with("api.test: 127.0.0.1:1: "), "{error}");
    }
}
