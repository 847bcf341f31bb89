//! The instances behind the gateway, who gets a request, and who is left out.

use std::time::Duration;

use plimsoll_model::system::policy::balance::Algorithm;

use super::MOST_FILES;
use crate::gateway::{Gateway, LONGEST, Upstream, whole};
use crate::text::{Text, count, number, people, percent, seconds, short};

/// Points of a server on a ring, for each unit of its weight.
const POINTS: u32 = 160;
/// The largest weight that is written: it makes 41 thousand points.
const MOST_WEIGHT: u32 = 256;

pub(super) fn peers(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
    let policies = upstream.policies;
    out.note(1, upstream.origin());
    if let Some(every) = upstream.found {
        let every = people(every);
        out.note(1, format!("`at.every` {every}: nginx looks names up when it starts, and not again before a reload."));
        if let Some(server) = upstream.name_server {
            out.note(1, format!("`at.server` {server}: the system's resolver has to know the name."));
        }
    } else if upstream.addresses.iter().any(crate::Address::is_name) {
        out.note(1, "nginx looks names up when it starts, and not again before a reload.");
    }
    if upstream.shadows().iter().any(|key| ["health", "outliers"].contains(key)) {
        out.note(1, "`shadow`: what only counts in the file is left out here.");
    }
    out.line(1, format!("upstream {} {{", upstream.name));
    out.note(2, "Shared, so that all workers count and balance together.");
    out.line(2, format!("zone {} {}k;", upstream.name, 64 + 4 * upstream.addresses.len()));
    balance(out, upstream);
    if let Some(health) = upstream.health() {
        out.note(
            2,
            format!(
                "`health` {} every {}: no active health checks in open-source nginx, which learns of a dead instance \
                 from requests that fail.",
                health.path,
                people(health.config.every)
            ),
        );
    }
    let (fails, fail_timeout) = passive(out, upstream);
    let mut parameters = match fail_timeout {
        None => " max_fails=0".to_owned(),
        Some(timeout) => format!(" max_fails={fails} fail_timeout={}s", seconds(timeout)),
    };
    if let Some(most) = policies.max_connections {
        out.note(
            2,
            format!("`max_connections` {most}: more do not wait (`max_pending`) in open-source nginx; where all instances are full it answers 502."),
        );
        parameters.push_str(&format!(" max_conns={most}"));
    }
    let ring = matches!(policies.balance.algorithm, Algorithm::Ring | Algorithm::Maglev);
    let stated = upstream.weights();
    let weights = match &stated {
        _ if ring => Some(upstream.ring_weights(POINTS, MOST_WEIGHT)),
        stated => stated.as_ref().map(|weights| whole(weights, MOST_WEIGHT)),
    };
    if stated.is_some() {
        out.note(2, "`balance.weights`, in whole numbers; 0 is `down`.");
    }
    for (index, address) in upstream.addresses.iter().enumerate() {
        let weight = match weights.as_ref().map(|weights| weights[index]) {
            None => String::new(),
            Some(0) => " down".to_owned(),
            Some(weight) => format!(" weight={weight}"),
        };
        out.line(2, format!("server {address}{weight}{parameters};"));
    }
    let most = policies.max_connections.map(|most| u64::from(most) * upstream.addresses.len() as u64);
    let in_flight = u64::from(gateway.service.max_in_flight);
    out.note(2, "Idle connections that a worker keeps: as many as can be in flight, for `limits.upstream_idle`.");
    out.line(2, format!("keepalive {};", most.unwrap_or(in_flight).min(in_flight).min(MOST_FILES)));
    let idle = Duration::from_nanos(gateway.serving.limits.upstream_idle);
    out.line(2, format!("keepalive_timeout {};", short(idle, LONGEST)));
    out.line(1, "}");
}

fn balance(out: &mut Text, upstream: &Upstream) {
    let balance = &upstream.policies.balance;
    let bounded = || {
        if balance.bounded_load.is_finite() {
            format!(" `balance.bounded_load` {}: nginx sets no bound.", number(balance.bounded_load))
        } else {
            String::new()
        }
    };
    match balance.algorithm {
        Algorithm::RoundRobin | Algorithm::Weighted => {
            out.note(2, "`balance`: (smooth weighted) round robin is what nginx does unless told otherwise.");
        }
        Algorithm::LeastConnections => out.line(2, "least_conn;"),
        Algorithm::IpHash => {
            out.note(2, "`balance: ip_hash`: nginx's own `ip_hash` looks at three of four bytes of an address.");
            out.line(2, "hash $user;");
        }
        Algorithm::Ring => {
            out.note(
                2,
                format!(
                    "`balance: ring`: Ketama's, with 160 points for each weight, which makes `ring_points` of them.{}",
                    bounded()
                ),
            );
            out.line(2, "hash $user consistent;");
        }
        Algorithm::Maglev => {
            out.note(2, format!("`balance: maglev`: nginx has no Maglev; a ring is consistent too, of about as many points as `maglev_slots`.{}", bounded()));
            out.line(2, "hash $user consistent;");
        }
        Algorithm::P2c => {
            out.note(
                2,
                format!(
                    "`balance: p2c`, `choices` {}: of two, by requests in flight alone; `least_time` takes NGINX Plus.",
                    balance.choices
                ),
            );
            out.line(2, "random two least_conn;");
        }
    }
    if balance.shadow.is_some() {
        out.note(2, "`balance.shadow`: not in nginx.");
    }
}

/// Passive checks: failures within a time, and the time.
fn passive(out: &mut Text, upstream: &Upstream) -> (u32, Option<Duration>) {
    let health = upstream.health().map(|health| health.config);
    let outliers = upstream.outliers();
    if let Some(outliers) = outliers {
        let rule = if outliers.consecutive_failures > 0 {
            format!(
                "`outliers`: {} within `eject_for`, in a row or not, take an instance out for `eject_for`; not for longer the \
                 next time (`eject_for_max`).",
                count(outliers.consecutive_failures as usize, "failure")
            )
        } else {
            "`outliers.consecutive_failures` 0: no failures in a row take an instance out.".to_owned()
        };
        out.note(
            2,
            format!(
                "{rule} A failure is what `proxy_next_upstream` lists, errors and timeouts in any case. Not in nginx: \
                 `success_rate_sigmas` {}, `max_ejected` {} (all may be out, and then it answers 502), `panic_below` {}, \
                 `slow_start` {} (NGINX Plus).",
                number(outliers.success_rate_sigmas),
                percent(outliers.max_ejected),
                percent(outliers.panic_below),
                people(outliers.slow_start),
            ),
        );
    }
    match (outliers, health) {
        (Some(outliers), _) if outliers.consecutive_failures > 0 => {
            (outliers.consecutive_failures, Some(outliers.base_ejection))
        }
        (_, Some(health)) => {
            out.note(
                2,
                "In their place, `health.unhealthy_after` failures of requests within `health.every` take an instance out \
                 for as long.",
            );
            (health.unhealthy_after, Some(health.every))
        }
        _ => {
            out.note(2, "No `health` and no `outliers`: an instance is asked however often it fails. nginx's own 1 in 10 s is off.");
            (0, None)
        }
    }
}
