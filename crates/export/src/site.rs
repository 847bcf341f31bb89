//! Where things are, as far as the system file does not say it or somebody knows better.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The port of instances for which nobody gives an address.
pub const PORT: u16 = 8080;

/// Where the gateway listens and where the instances behind it are, in place of what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Where the gateway listens, in place of `listen`.
    pub listen: Option<Address>,
    /// The instances of services behind it, by the service's name, in place of `at`. Where the file has no `at`
    /// either, they are as many as it says, under the DNS names `SERVICE-1`, `SERVICE-2` and so on, port 8080.
    pub upstreams: BTreeMap<String, Vec<Address>>,
    /// Where the proxy's files are.
    pub files: Files,
    /// The folder of the system file, to which paths in it are relative.
    pub folder: Option<Directory>,
}

/// Where the files of nginx and HAProxy are, and which user they run as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// In the places and with the user of Debian's package, which starts it as a service.
    #[default]
    Package,
    /// All in one directory, for a proxy that is started by hand or by a program; it runs as whoever starts it.
    Directory(Directory),
}

/// The absolute path of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(String);

/// The name of a request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header(String);

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// A DNS name, an IPv4 address, or an IPv6 address without its brackets.
    host: String,
    port: u16,
}

/// What an address, a header or a directory should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    found: String,
    expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found `{}`", self.expected, self.found.escape_debug())
    }
}

impl std::error::Error for Malformed {}

impl Address {
    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is an IPv6 address.
    pub(crate) fn is_v6(&self) -> bool {
        self.host.contains(':')
    }

    /// Whether somebody has to look the host up.
    pub(crate) fn is_name(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_err()
    }

    /// An instance of a service that nobody gave an address.
    pub(crate) fn of_instance(service: &str, number: u32) -> Address {
        Address { host: format!("{service}-{number}"), port: PORT }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed {
            found: text.to_owned(),
            expected: "a host and a port, such as 10.0.0.1:8080, [::1]:8080 or api-1:8080",
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let port: u16 = Some(port)
            .filter(|port| port.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0)
            .ok_or_else(malformed)?;
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(malformed)?;
            inner.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?;
            return Ok(Address { host: inner.to_owned(), port });
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = !host.is_empty() && host.len() <= 253 && !host.starts_with(['-', '.']) && host.chars().all(letter);
        // `1.2.3` and `300.1.1.1` are no names of anything either.
        let digits = host.chars().all(|c| c.is_ascii_digit() || c == '.');
        if host.parse::<std::net::Ipv4Addr>().is_ok() || (name && !digits) {
            Ok(Address { host: host.to_owned(), port })
        } else {
            Err(malformed())
        }
    }
}

impl Header {
    /// Its name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Header {
    type Err = Malformed;

    /// nginx drops headers with other characters.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if text.is_empty() || text.len() > 100 || text.starts_with('-') || !text.chars().all(letter) {
            let expected = "the name of a header, of letters, digits and `-`, such as X-User";
            return Err(Malformed { found: text.to_owned(), expected });
        }
        Ok(Header(text.to_owned()))
    }
}

impl Directory {
    /// The path, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Directory {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if !text.starts_with('/') || !is_plain(text) {
            let expected = "the absolute path of a directory, of letters, digits, spaces and /-_.+@";
            return Err(Malformed { found: text.to_owned(), expected });
        }
        Ok(Directory(text.trim_end_matches('/').to_owned()))
    }
}

/// Whether a path needs no escapes in any configuration.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "/-_.+@ ".contains(c))
}

impl Site {
    /// A path of the system file.
    pub(crate) fn path(&self, text: &str) -> Result<String, Malformed> {
        if !is_plain(text) {
            let expected = "a path of letters, digits, spaces and /-_.+@, which every configuration takes";
            return Err(Malformed { found: text.to_owned(), expected });
        }
        match &self.folder {
            Some(folder) if !text.starts_with('/') => Ok(format!("{}/{text}", folder.as_str())),
            _ => Ok(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, name) in [
            ("127.0.0.1:80", false),
            ("[::1]:8080", false),
            ("api-1:8080", true),
            ("api_1.svc.cluster.local:65535", true),
            ("1a:1", true),
        ] {
            let address: Address = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_name(), name, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "80",
            "api",
            "api:",
            ":80",
            "api:0",
            "api:65536",
            "api:+80",
            "::1:80",
            "[::1]80",
            "[api]:80",
            "300.1.1.1:80",
            "a b:80",
            "a;b:80",
            "-a:80",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn headers_and_directories_cannot_break_out() {
        assert!("X-User".parse::<Header>().is_ok());
        for text in ["", "X_User", "X User", "X-User;", "-X"] {
            assert!(text.parse::<Header>().is_err(), "{text}");
        }
        assert_eq!("/tmp/a b/".parse::<Directory>().unwrap().as_str(), "/tmp/a b");
        for text in ["", "tmp", "/tmp/$x", "/tmp/\"", "/tmp/\n", "/tmp/'", "/tmp\\"] {
            assert!(text.parse::<Directory>().is_err(), "{text}");
        }
    }
}
