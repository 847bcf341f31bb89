//! HAProxy. Keywords are those of 2.6, which Debian 12 has.

mod backend;
mod cache;
mod frontend;
mod global;
mod quota;
mod servers;
mod words;

use plimsoll_model::system::{ServiceId, System};

use crate::error::Error;
use crate::gateway::{Gateway, LONGEST, Upstream};
use crate::site::{Address, Site};
use crate::text::{Text, short};
use backend::backend;
use cache::caches;
use frontend::{admin, frontend};
use global::global;
use quota::table;
use servers::names;

/// A whole `haproxy.cfg` that makes HAProxy do what a gateway of a system does.
pub fn haproxy(system: &System, gateway: ServiceId, site: &Site) -> Result<String, Error> {
    let gateway = Gateway::new(system, gateway, site)?;
    let mut out = Text::new("    ");
    global(&mut out, &gateway);
    let of_system = |upstream: &&Upstream| upstream.name_server.is_none();
    if gateway.upstreams.iter().filter(of_system).flat_map(|upstream| &upstream.addresses).any(Address::is_name) {
        out.gap();
        out.note(0, "Instances with names are looked up again and again, by the resolvers of this machine.");
        out.line(0, "resolvers names");
        out.line(1, "parse-resolv-conf");
        if let Some(every) = gateway.upstreams.iter().filter(of_system).filter_map(|upstream| upstream.found).min() {
            out.note(1, "`at.every`");
            out.line(1, format!("hold valid {}", short(every, LONGEST)));
        }
    }
    for upstream in &gateway.upstreams {
        if let (Some(server), Some(every)) = (upstream.name_server, upstream.found) {
            out.gap();
            out.note(0, "`at.server` and `at.every`");
            out.line(0, format!("resolvers {}", names(upstream)));
            out.line(1, format!("nameserver given {server}"));
            out.line(1, format!("hold valid {}", short(every, LONGEST)));
        }
    }
    caches(&mut out, &gateway);
    table(&mut out, &gateway);
    out.gap();
    frontend(&mut out, &gateway);
    for index in 0..gateway.upstreams.len() {
        out.gap();
        backend(&mut out, &gateway, index);
    }
    admin(&mut out, &gateway);
    Ok(out.finish())
}
