use std::fmt;

use crate::site::Malformed;
use crate::text::quoted;

/// Why there is nothing to export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The system has no gateway at all.
    NoGateways {
        /// Its services.
        services: Vec<String>,
    },
    /// It has several, and none was chosen.
    Several {
        /// Their names.
        gateways: Vec<String>,
    },
    /// It has none of that name.
    Unknown {
        /// The name.
        name: String,
        /// Those that it has.
        gateways: Vec<String>,
    },
    /// A service is no gateway.
    NoGateway {
        /// Its name.
        service: String,
        /// Those that are.
        gateways: Vec<String>,
    },
    /// No request could be told to be for it.
    NothingToMatch {
        /// The gateway.
        gateway: String,
        /// Its endpoints.
        endpoints: Vec<String>,
    },
    /// Addresses are given for a service to which the gateway does not lead.
    NotBehind {
        /// The gateway.
        gateway: String,
        /// The service.
        service: String,
        /// Those to which it leads.
        behind: Vec<String>,
    },
    /// The addresses of a service are in a file that only Plimsoll's gateway reads.
    AddressesInFile {
        /// The service.
        service: String,
    },
    /// Something in the file that no configuration can say.
    Malformed {
        /// Its key.
        key: String,
        /// What it should have been.
        why: Malformed,
    },
    /// A list of addresses is empty.
    NoAddress {
        /// The service.
        service: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| quoted(names.iter().map(String::as_str));
        match self {
            Error::NoGateways { services } => write!(
                f,
                "the system has no gateway to export: expected a service with `kind: gateway` beside {}",
                list(services)
            ),
            Error::Several { gateways } => {
                write!(f, "the system has several gateways: name one of {}", list(gateways))
            }
            Error::Unknown { name, gateways } => {
                let name = name.escape_debug();
                write!(f, "there is no gateway `{name}`: expected {}", list(gateways))
            }
            Error::NoGateway { service, gateways } => {
                write!(f, "`{service}` is a plain service, no gateway: expected {}", list(gateways))
            }
            Error::NothingToMatch { gateway, endpoints } => write!(
                f,
                "no endpoint of the gateway `{gateway}` has a name that a proxy could match, but {}: expected a method \
                 and a path, such as `GET /notes/:id`",
                list(&endpoints[..endpoints.len().min(10)])
            ),
            Error::NotBehind { gateway, service, behind } => write!(
                f,
                "the gateway `{gateway}` does not lead to `{}`: expected {}",
                service.escape_debug(),
                list(behind)
            ),
            Error::AddressesInFile { service } => write!(
                f,
                "the addresses of `{service}` are in a file, which proxies do not read: give them here \
                 (--upstream {service}=ADDRESS,ADDRESS)"
            ),
            Error::Malformed { key, why } => write!(f, "{key}: {why}"),
            Error::NoAddress { service } => write!(f, "`{service}` needs at least one address"),
        }
    }
}

impl std::error::Error for Error {}
