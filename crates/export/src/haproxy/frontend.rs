//! Where requests come in, and which backend has each.

use std::time::Duration;

use plimsoll_model::system::RateLimitKey;

use super::quota::{clients_name, rate_limited};
use super::words::{condition, numbered, strong};
use crate::gateway::{Gateway, LONGEST, acts, hashes};
use crate::text::{Text, quoted, short};

pub(super) fn frontend(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    out.line(0, format!("frontend {}", service.name));
    let limits = &gateway.serving.limits;
    for listen in &gateway.listen {
        let v6 = if listen.is_v6() { " v6only" } else { "" };
        let tls = match &gateway.tls {
            Some((certificate, _)) => format!(" ssl crt '{certificate}' alpn h2,http/1.1"),
            None => String::new(),
        };
        out.line(1, format!("bind {listen}{v6}{tls}"));
    }
    if let Some((certificate, key)) = &gateway.tls
        && *key != format!("{certificate}.key")
    {
        out.note(
            1,
            format!("`tls.key` {key}: HAProxy looks for it within the certificate's file, or beside it as {certificate}.key."),
        );
    }
    out.note(1, "`limits.connections`");
    out.line(1, format!("maxconn {}", limits.connections));
    let untrusted = if gateway.serving.trusted.is_empty() { "" } else { " !trusted" };
    if !gateway.serving.trusted.is_empty() {
        out.note(1, "`trusted`: what these say of the client's address is believed, and passed on.");
        for network in &gateway.serving.trusted {
            out.line(1, format!("acl trusted src {}/{}", network.address, network.bits));
        }
    }
    out.note(1, "`limits.connections_per_client`");
    out.line(
        1,
        format!("tcp-request connection track-sc1 src table {}{}", clients_name(gateway), condition(untrusted)),
    );
    out.line(
        1,
        format!("tcp-request connection reject if{untrusted} {{ sc1_conn_cur gt {} }}", limits.connections_per_client),
    );
    out.note(1, "`limits.body_timeout`, `header_timeout` and `idle`");
    for (timeout, nanos) in [
        ("client", limits.body_timeout),
        ("http-request", limits.header_timeout),
        ("http-keep-alive", limits.idle_timeout),
    ] {
        out.line(1, format!("timeout {timeout} {}", short(Duration::from_nanos(nanos), LONGEST)));
    }
    out.note(1, "`limits.body`: where a length is stated. What comes in chunks has none before it has come.");
    out.line(1, format!("http-request deny deny_status 413 if {{ req.body_size gt {} }}", limits.body_bytes));
    if gateway.serving.trusted.is_empty() {
        out.line(1, "http-request del-header X-Forwarded-For");
        out.line(1, "http-request add-header X-Forwarded-For %[src]");
    } else {
        out.note(1, "The last address is the one that the nearest proxy saw: HAProxy believes one proxy in a row.");
        out.line(1, "http-request del-header X-Forwarded-For unless trusted");
        out.line(1, "http-request set-var(txn.client) req.hdr_ip(X-Forwarded-For,-1)");
        out.line(1, "http-request add-header X-Forwarded-For %[src]");
        out.line(1, "http-request set-src var(txn.client) if { var(txn.client) -m found }");
    }
    let proto = if gateway.tls.is_some() { "https" } else { "http" };
    out.line(1, format!("http-request set-header X-Forwarded-Proto {proto}"));
    out.gap();
    out.note(1, "Which endpoint a request is for, by its method and path; the first that matches.");
    for (number, endpoint) in (1..).zip(&gateway.endpoints) {
        out.note(1, endpoint.name);
        let path = match endpoint.pattern.literal() {
            Some(path) => format!("path {}", strong(path)),
            None => format!("path_reg {}", strong(&format!("^{}$", endpoint.pattern.regex()))),
        };
        let methods = match endpoint.pattern.methods.join(" ") {
            any if any.is_empty() => any,
            methods => format!("{{ method {methods} }} "),
        };
        let unless = if number == 1 { "" } else { "!{ var(txn.endpoint) -m found } " };
        out.line(1, format!("http-request set-var(txn.endpoint) int({number}) if {unless}{methods}{{ {path} }}",));
    }
    if !gateway.unmatched.is_empty() {
        out.note(1, format!("No method and path to match: {}.", quoted(gateway.unmatched.iter().copied())));
    }
    out.note(1, "The file has no such endpoint.");
    out.line(1, "http-request return status 404 unless { var(txn.endpoint) -m found }");
    if by_user(gateway) {
        out.gap();
        user(out, gateway);
    }
    rate_limited(out, gateway);
    out.gap();
    out.note(1, format!("`max_in_flight` {}: one more is refused with 503.", service.max_in_flight));
    if service.queue.capacity > 0 {
        out.note(1, format!("`queue` {}: HAProxy has none before all backends.", service.queue.capacity));
    }
    for (index, upstream) in gateway.upstreams.iter().enumerate() {
        let add = if index == 0 { "" } else { ",add(txn.in_flight)" };
        out.line(1, format!("http-request set-var(txn.in_flight) be_conn({}){add}", upstream.name));
    }
    out.line(
        1,
        format!("http-request return status 503 if {{ var(txn.in_flight) -m int ge {} }}", service.max_in_flight),
    );
    elsewhere(out, gateway);
    out.gap();
    for (index, upstream) in gateway.upstreams.iter().enumerate() {
        if gateway.upstreams.len() == 1 {
            out.line(1, format!("default_backend {}", upstream.name));
            continue;
        }
        let acl = format!("to_{}", upstream.name);
        numbered(out, &acl, &gateway.numbers(|endpoint| endpoint.upstream == index));
        out.line(1, format!("use_backend {} if {acl}", upstream.name));
    }
}

/// Where operators ask.
pub(super) fn admin(out: &mut Text, gateway: &Gateway) {
    let Some(admin) = gateway.serving.admin else { return };
    out.gap();
    out.note(0, "`admin`: whether it lives, and metrics for Prometheus under HAProxy's own names.");
    out.line(0, format!("frontend {}_admin", gateway.service.name));
    out.line(1, format!("bind {admin}"));
    out.line(
        1,
        format!("timeout client {}", short(Duration::from_nanos(gateway.serving.limits.idle_timeout), LONGEST)),
    );
    out.line(1, "http-request return status 200 if { path /health }");
    out.line(1, "http-request use-service prometheus-exporter if { path /metrics }");
    out.line(1, "http-request return status 404");
}

fn user(out: &mut Text, gateway: &Gateway) {
    match &gateway.user_header {
        Some(header) => {
            let header = header.as_str();
            out.note(1, "`headers.user`: a user; without it, the client's address.");
            out.line(1, format!("http-request set-var(txn.user) req.fhdr({header})"));
            out.line(1, format!("http-request set-var(txn.user) src unless {{ req.fhdr({header}) -m found }}"));
        }
        None => {
            out.note(1, "`headers.user: none`: a user is the client's address.");
            out.line(1, "http-request set-var(txn.user) src");
        }
    }
}

/// Whether anything is counted or hashed by the user.
fn by_user(gateway: &Gateway) -> bool {
    gateway.service.rate_limit.as_ref().is_some_and(|limit| limit.per == RateLimitKey::User)
        || gateway.upstreams.iter().any(|upstream| hashes(upstream.policies.balance.algorithm))
}

/// What a gateway has and HAProxy has nothing like.
fn elsewhere(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    let mut missing = Vec::new();
    if service.limit.is_some() {
        missing.push("`limit`: HAProxy measures no latency to limit by.");
    }
    if service.idempotency.is_some() {
        missing.push("`idempotency`: HAProxy remembers no answers by a request's key.");
    }
    if service.degradation.is_some() {
        missing.push("`degradation`: HAProxy knows no levels.");
    }
    let groups = || service.bulkheads.iter();
    if groups().any(|group| acts(group.config.mode)) {
        missing.push(
            "`bulkheads`: HAProxy counts what is in flight by backend, not by endpoint. A route with a policy of its own has \
             a backend of its own, whose `bulkhead` counts.",
        );
    }
    if groups().any(|group| !acts(group.config.mode)) {
        missing.push("`bulkheads` with `shadow`: left out.");
    }
    if !missing.is_empty() {
        out.gap();
        missing.into_iter().for_each(|missing| out.note(1, missing));
    }
}
