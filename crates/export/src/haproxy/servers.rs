//! The instances of a backend, their health checks and weights.

use std::time::Duration;

use super::words::strong;
use crate::gateway::{Gateway, LONGEST, Upstream, hashes, whole};
use crate::site::Address;
use crate::text::{Text, escaped, number, people, percent, short};

/// Points of a server on a ring, for each unit of its weight.
const POINTS: u32 = 16;
/// The largest weight of a server.
const MOST_WEIGHT: u32 = 256;

/// The section that says who looks an upstream's names up.
pub(super) fn names(upstream: &Upstream) -> String {
    match upstream.name_server {
        None => "names".to_owned(),
        Some(_) => format!("names-{}", upstream.name),
    }
}

pub(super) fn servers(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
    let health = upstream.health();
    let outliers = upstream.outliers().filter(|outliers| outliers.consecutive_failures > 0);
    let mut server = Vec::new();
    if let Some(health) = health {
        let config = &health.config;
        out.note(1, "`health`");
        out.line(1, "option httpchk");
        out.line(
            1,
            format!(
                "http-check send meth GET uri {} ver HTTP/1.1 hdr Host {}",
                strong(&escaped(&health.path)),
                upstream.to.name
            ),
        );
        out.line(1, format!("timeout check {}", short(config.timeout, LONGEST)));
        server.push(format!(
            "check inter {} fall {} rise {}",
            short(config.every, LONGEST),
            config.unhealthy_after,
            config.healthy_after
        ));
    }
    if let Some(outliers) = upstream.outliers() {
        let mut said = Vec::new();
        if let (Some(config), None) = (outliers.consecutive_failures.gt(&0).then_some(outliers), health) {
            said.push(format!(
                "HAProxy brings back what it took out by checks alone, and the file has none: after `eject_for` {} it tries to \
                 connect.",
                people(config.base_ejection)
            ));
            server.push(format!("check inter {} rise 1", short(config.base_ejection, LONGEST)));
        } else if outliers.consecutive_failures > 0 {
            said.push(format!(
                "`eject_for` {}: HAProxy brings an instance back as soon as it passes its checks.",
                people(outliers.base_ejection)
            ));
        }
        said.push(format!(
            "Not in HAProxy: `success_rate_sigmas` {}, `max_ejected` {} (all may be out, and then it answers 503), \
             `panic_below` {}.",
            number(outliers.success_rate_sigmas),
            percent(outliers.max_ejected),
            percent(outliers.panic_below)
        ));
        out.note(1, format!("`outliers`: {}", said.join(" ")));
    }
    if let Some(outliers) = outliers {
        server.push(format!("observe layer7 error-limit {} on-error mark-down", outliers.consecutive_failures));
        if outliers.slow_start > Duration::ZERO {
            out.note(
                1,
                format!(
                    "`outliers.slow_start`: from nothing, not `slow_start_from` {}.",
                    percent(outliers.slow_start_min)
                ),
            );
            server.push(format!("slowstart {}", short(outliers.slow_start, LONGEST)));
        }
    }
    if let Some(most) = upstream.policies.max_connections {
        out.note(1, "`max_connections`: more wait, for as long as `timeout queue` says.");
        server.push(format!("maxconn {most}"));
    }
    if upstream.addresses.iter().any(Address::is_name) {
        out.note(1, "A name that cannot be looked up yet is no reason not to start.");
        // The system's resolver knows nothing of a name server that the file gives.
        let first = if upstream.name_server.is_some() { "last,none" } else { "last,libc,none" };
        server.push(format!("resolvers {} init-addr {first}", names(upstream)));
    }
    out.note(1, "`limits.upstream_idle`");
    let idle = Duration::from_nanos(gateway.serving.limits.upstream_idle);
    server.push(format!("pool-purge-delay {}", short(idle, LONGEST)));
    out.line(1, format!("default-server {}", server.join(" ")));
    if upstream.found.is_some() {
        out.note(1, "As many of the name's addresses as there are instances.");
        let (name, address) = (&upstream.to.name, &upstream.addresses[0]);
        out.line(1, format!("server-template {name}- {} {address}", upstream.to.instances));
        return;
    }
    let weights = weights(upstream);
    if upstream.weights().is_some() {
        out.note(1, format!("`balance.weights`, in whole numbers up to {MOST_WEIGHT}"));
    }
    for (index, address) in upstream.addresses.iter().enumerate() {
        let weight = weights.as_ref().map(|weights| format!(" weight {}", weights[index])).unwrap_or_default();
        out.line(1, format!("server {}-{} {address}{weight}", upstream.to.name, index + 1));
    }
}

/// Weights of instances, none where all have HAProxy's own, which is 1.
fn weights(upstream: &Upstream) -> Option<Vec<u32>> {
    if hashes(upstream.policies.balance.algorithm) {
        return Some(upstream.ring_weights(POINTS, MOST_WEIGHT));
    }
    upstream.weights().map(|weights| whole(&weights, MOST_WEIGHT))
}
