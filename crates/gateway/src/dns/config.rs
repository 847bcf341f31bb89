//! `/etc/hosts` and `/etc/resolv.conf`, as far as they say where addresses of names are.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Servers asked, and names in the search list, at most (resolv.conf(5)).
const SERVERS: usize = 3;
const SEARCHES: usize = 6;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) servers: Vec<SocketAddr>,
    /// What short names may have left out.
    search: Vec<String>,
    /// Dots that make a name one that is tried as it is first.
    ndots: usize,
    /// How long one server is waited for.
    pub(super) timeout: Duration,
    /// Times that all servers are asked.
    pub(super) attempts: u32,
}

impl Default for Config {
    /// The defaults of resolv.conf(5), without a server.
    fn default() -> Config {
        Config { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: Duration::from_secs(5), attempts: 2 }
    }
}

impl Config {
    /// This server alone, and names as they are.
    pub(super) fn of(server: SocketAddr) -> Config {
        Config { servers: vec![server], ..Config::default() }
    }

    /// What a file says. A line that is not understood says nothing, as the system has it.
    pub(super) fn read(text: &str) -> Config {
        let mut config = Config::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // `fe80::1%eth0` names a link by a word that only the system knows.
                    if let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok())
                        && config.servers.len() < SERVERS
                    {
                        config.servers.push(SocketAddr::new(address, 53));
                    }
                }
                // The last of them counts.
                Some("search" | "domain") => {
                    config.search = words.take(SEARCHES).map(|word| word.trim_end_matches('.').to_owned()).collect();
                    config.search.retain(|domain| !domain.is_empty());
                }
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        config
    }

    /// Numbers are bounded as resolv.conf(5) has it.
    fn option(&mut self, word: &str) {
        let Some((name, Ok(number))) = word.split_once(':').map(|(name, number)| (name, number.parse::<u32>())) else {
            return;
        };
        match name {
            "ndots" => self.ndots = number.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(number.clamp(1, 30).into()),
            "attempts" => self.attempts = number.clamp(1, 5),
            _ => {}
        }
    }

    /// The whole names that a name may stand for, in the order in which they are tried.
    pub(super) fn names(&self, host: &str) -> Vec<String> {
        if let Some(whole) = host.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let dots = host.bytes().filter(|byte| *byte == b'.').count();
        let at = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(at, host.to_owned());
        names
    }
}

/// The addresses that a hosts file gives a name.
pub(super) fn hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    let mut addresses = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_several_names_and_addresses() {
        let text = "# comment\n127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # really\n10.0.0.1 Api api.internal\n\
                    nonsense api\n10.0.0.2 api\n10.0.0.1 api\n#10.0.0.3 api\n";
        let found = |host: &str| hosts(text, host).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found("API."), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(found("api.internal"), ["10.0.0.1"]);
        assert_eq!(found("internal"), [] as [&str; 0]);
    }

    #[test]
    fn settings_are_those_of_the_system() {
        let config = Config::read(
            "; comment\nsearch old.example\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver ::1\n\
             domain a.example\nsearch b.example. c.example\noptions ndots:2 timeout:90 attempts:0 rotate edns0\n\
             nameserver 10.0.0.3\nnameserver 10.0.0.4\n",
        );
        let servers = ["10.0.0.2:53", "[::1]:53", "10.0.0.3:53"].map(|server| server.parse().unwrap());
        assert_eq!(config.servers, servers);
        assert_eq!((config.timeout, config.attempts), (Duration::from_secs(30), 1));
        assert_eq!(config.names("api"), ["api.b.example", "api.c.example", "api"]);
        assert_eq!(config.names("api.x.y"), ["api.x.y", "api.x.y.b.example", "api.x.y.c.example"]);
        assert_eq!(config.names("api."), ["api"]);
        assert_eq!(Config::read(""), Config::default());
        assert_eq!(Config::default().names("api"), ["api"]);
    }
}
