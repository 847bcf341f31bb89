//! Envoy: a static bootstrap of the v3 API, with fields that Envoy has from 1.25 on.

mod cluster;
mod listener;
mod quota;
mod route;
mod yaml;

use plimsoll_model::system::{ServiceId, System};

use crate::error::Error;
use crate::gateway::Gateway;
use crate::site::Site;
use crate::text::Text;
use cluster::cluster;
use listener::listener;
use yaml::address;

/// A whole bootstrap that makes Envoy do what a gateway of a system does.
pub fn envoy(system: &System, gateway: ServiceId, site: &Site) -> Result<String, Error> {
    let gateway = Gateway::new(system, gateway, site)?;
    let service = gateway.service;
    let mut out = Text::new("  ");
    out.note(
        0,
        format!(
            "The gateway `{}` of the system `{}` for Envoy 1.25 or later. Every number is the system file's. What Envoy \
             cannot do is said where it would stand, by its key in the system file.",
            service.name, system.name
        ),
    );
    out.gap();
    out.note(
        0,
        format!(
            "`cores` and `drain` are arguments: envoy --concurrency {} --drain-time-s {}. `instances`: {}, each an Envoy of \
             its own that counts for itself.",
            service.cores,
            service.drain.div_ceil(1_000_000_000),
            service.instances
        ),
    );
    match gateway.serving.admin {
        Some(admin) => {
            out.note(0, "`admin`: Envoy's own interface, at whose /stats/prometheus the metrics are.");
            out.line(0, "admin:");
            let admin = admin.to_string().parse().expect("an address and a port");
            address(&mut out, 1, &admin);
        }
        None => out.note(0, "`admin: none`: Envoy's administration interface is not opened."),
    }
    out.line(0, "static_resources:");
    out.line(1, "listeners:");
    listener(&mut out, &gateway);
    out.line(1, "clusters:");
    for upstream in &gateway.upstreams {
        cluster(&mut out, &gateway, upstream);
    }
    Ok(out.finish())
}
