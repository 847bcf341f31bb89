//! nginx, the open-source version. Directives are those of 1.22, which Debian 12 has.

mod cache;
mod limits;
mod peers;
mod requests;
mod retries;
mod server;

use plimsoll_model::system::{FallbackAnswer, RouteCache, ServiceId, System};

use crate::error::Error;
use crate::gateway::{Endpoint, Gateway, Upstream};
use crate::site::Site;
use crate::text::Text;
use cache::caches;
use limits::limits;
use peers::peers;
use requests::{head, journal, requests};
use server::server;

/// More connections and open files than Linux lets a process have (fs.nr_open).
const MOST_FILES: u64 = 1 << 20;

/// A whole `nginx.conf` that makes nginx do what a gateway of a system does.
pub fn nginx(system: &System, gateway: ServiceId, site: &Site) -> Result<String, Error> {
    let gateway = Gateway::new(system, gateway, site)?;
    let locations = locations(&gateway);
    let mut out = Text::new("    ");
    head(&mut out, &gateway);
    out.gap();
    out.line(0, "http {");
    journal(&mut out, &gateway);
    if gateway.fallbacks().iter().any(|answer| answer.body.contains('$') || answer.content_type.contains('$')) {
        out.line(1, "geo $dollar { default \"$\"; }");
    }
    requests(&mut out, &gateway, &locations);
    limits(&mut out, &gateway);
    caches(&mut out, &gateway);
    for upstream in &gateway.upstreams {
        out.gap();
        peers(&mut out, &gateway, upstream);
    }
    out.gap();
    server(&mut out, &gateway, &locations);
    out.line(0, "}");
    Ok(out.finish())
}

/// What can have one `location`: requests that get the same from nginx.
#[derive(Debug, PartialEq)]
struct Location<'a> {
    upstream: usize,
    retry: Retry,
    cache: Option<&'a RouteCache>,
    fallback: Option<&'a FallbackAnswer>,
}

/// Which further attempts nginx has to be told of, or not to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    None,
    /// As nginx does by itself: what may be repeated by its method.
    ByMethod,
    /// A POST or PATCH that may be repeated all the same.
    Always,
}

impl<'a> Location<'a> {
    fn of(endpoint: &Endpoint<'a>, upstream: &Upstream) -> Self {
        // nginx: "requests with a non-idempotent method (POST, LOCK, PATCH)".
        let by_method = !endpoint.pattern.methods.iter().any(|method| ["POST", "LOCK", "PATCH"].contains(&&**method));
        let retry = match (upstream.attempts(), endpoint.idempotent, by_method) {
            (1, ..) | (_, false, true) => Retry::None,
            (_, true, false) => Retry::Always,
            _ => Retry::ByMethod,
        };
        Location { upstream: endpoint.upstream, retry, cache: endpoint.cache, fallback: endpoint.fallback }
    }

    /// Named after the upstream, numbered where several locations lead there.
    fn name(gateway: &Gateway, locations: &[Self], at: usize) -> String {
        let upstream = locations[at].upstream;
        let name = &gateway.upstreams[upstream].name;
        let before = locations[..at].iter().filter(|location| location.upstream == upstream).count();
        if before == 0 { format!("@{name}") } else { format!("@{name}.{}", before + 1) }
    }
}

fn locations<'a>(gateway: &Gateway<'a>) -> Vec<Location<'a>> {
    let mut locations = Vec::new();
    for endpoint in &gateway.endpoints {
        let location = Location::of(endpoint, &gateway.upstreams[endpoint.upstream]);
        if !locations.contains(&location) {
            locations.push(location);
        }
    }
    locations
}
