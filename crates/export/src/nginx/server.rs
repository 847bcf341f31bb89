//! The server: where requests come in, and where each goes.

use std::time::Duration;

use super::Location;
use super::cache::cached;
use super::limits::{bulkheads, counted, rate_limit};
use super::retries::retries;
use crate::gateway::{Gateway, LONGEST, acts};
use crate::text::{Text, one_line, people, quoted, short};

pub(super) fn server(out: &mut Text, gateway: &Gateway, locations: &[Location]) {
    let service = gateway.service;
    out.line(1, "server {");
    let limits = &gateway.serving.limits;
    for listen in &gateway.listen {
        let tls = if gateway.tls.is_some() { " ssl http2" } else { "" };
        out.line(2, format!("listen {listen}{tls};"));
    }
    if let Some((certificate, key)) = &gateway.tls {
        out.line(2, format!("ssl_certificate \"{certificate}\";"));
        out.line(2, format!("ssl_certificate_key \"{key}\";"));
    }
    out.gap();
    out.note(2, "`limits.header_bytes`: past it 400 or 414. `header_count`: nginx 1.22 counts no fields.");
    out.line(2, format!("large_client_header_buffers 1 {};", limits.header_bytes));
    out.note(2, "`limits.header_timeout`, `body_timeout` and `idle`");
    for (directive, nanos) in [
        ("client_header_timeout", limits.header_timeout),
        ("client_body_timeout", limits.body_timeout),
        ("send_timeout", limits.body_timeout),
        ("keepalive_timeout", limits.idle_timeout),
    ] {
        out.line(2, format!("{directive} {};", short(Duration::from_nanos(nanos), LONGEST)));
    }
    out.note(2, "`limits.body`. `retry_body`: nginx keeps every body for another try, in a file if need be.");
    out.line(2, format!("client_max_body_size {};", limits.body_bytes));
    if !service.stops_when_cancelled {
        out.note(2, "`stops_when_cancelled: false`");
        out.line(2, "proxy_ignore_client_abort on;");
    }
    out.gap();
    out.note(2, "Connections to instances are kept: HTTP/1.1, and no `Connection: close`.");
    out.line(2, "proxy_http_version 1.1;");
    out.line(2, "proxy_set_header Connection \"\";");
    out.line(2, "proxy_set_header Host $host;");
    let forwarded = if gateway.serving.trusted.is_empty() { "$remote_addr" } else { "$forwarded_for" };
    out.line(2, format!("proxy_set_header X-Forwarded-For {forwarded};"));
    out.line(2, "proxy_set_header X-Forwarded-Proto $scheme;");
    out.gap();
    out.note(2, "`max_in_flight`: one more is refused with 503.");
    out.line(2, "limit_conn_status 503;");
    counted(out, "in_flight", service.max_in_flight);
    if service.queue.capacity > 0 {
        out.note(2, format!("`queue` {}: nginx has none, and refuses what would wait.", service.queue.capacity));
    }
    out.note(2, "`limits.connections_per_client`: of those with a request; idle ones do not count.");
    counted(out, "clients", limits.connections_per_client);
    for (number, group) in (1..).zip(bulkheads(gateway)) {
        out.note(2, format!("`{}.permits` {}", group.key, group.permits));
        if group.queue > 0 {
            out.note(2, format!("`{}.queue` {}: nginx has none, and refuses what would wait.", group.key, group.queue));
        }
        counted(out, &format!("bulkhead_{number}"), group.permits);
    }
    rate_limit(out, gateway);
    elsewhere(out, gateway);
    out.gap();
    out.line(2, "location / {");
    out.note(3, "No such file: on to the location.");
    out.line(3, "try_files \"\" $location;");
    out.line(2, "}");
    out.line(2, "location @none {");
    out.note(3, "The file has no such endpoint.");
    out.line(3, "return 404;");
    out.line(2, "}");
    for (at, location) in locations.iter().enumerate() {
        out.gap();
        forward(out, gateway, locations, at, location);
    }
    for (number, answer) in (1..).zip(gateway.fallbacks()) {
        out.gap();
        out.line(2, format!("location @fallback_{number} {{"));
        out.line(3, format!("default_type {};", text(&one_line(&answer.content_type))));
        out.line(3, format!("return {} {};", answer.status, text(&answer.body)));
        out.line(2, "}");
    }
    out.line(1, "}");
    admin(out, gateway);
}

/// Where operators ask.
fn admin(out: &mut Text, gateway: &Gateway) {
    let Some(admin) = gateway.serving.admin else { return };
    out.gap();
    out.note(1, "`admin`: nginx has counts of connections and requests, and no metrics of routes or instances.");
    out.line(1, "server {");
    out.line(2, format!("listen {admin};"));
    out.line(2, "location = /health { return 200; }");
    out.line(2, "location = /status { stub_status; }");
    out.line(2, "location / { return 404; }");
    out.line(1, "}");
}

/// A text in quotes. `$` would begin a variable, and has no escape: a variable that holds one stands for it.
fn text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '$' => out.push_str("${dollar}"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What a gateway has and nginx has nothing like.
fn elsewhere(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    let mut missing = Vec::new();
    if service.limit.is_some() {
        missing.push("`limit`: nginx measures no latency to limit by");
    }
    if service.idempotency.is_some() {
        missing.push("`idempotency`: nginx remembers no answers by a request's key");
    }
    if service.degradation.is_some() {
        missing.push("`degradation`: nginx knows no levels");
    }
    if service.bulkheads.iter().any(|bulkhead| !acts(bulkhead.config.mode)) {
        missing.push("`bulkheads` with `shadow`: left out, since nginx could not but act");
    }
    if !missing.is_empty() {
        out.gap();
        for missing in missing {
            out.note(2, format!("{missing}."));
        }
    }
}

fn forward(out: &mut Text, gateway: &Gateway, locations: &[Location], at: usize, location: &Location) {
    let upstream = &gateway.upstreams[location.upstream];
    let pipeline = &upstream.policies.pipeline;
    let name = Location::name(gateway, locations, at);
    let served = gateway.endpoints.iter().filter(|endpoint| Location::of(endpoint, upstream) == *location);
    out.note(2, served.map(|endpoint| endpoint.name).collect::<Vec<_>>().join(", "));
    out.line(2, format!("location {name} {{"));
    out.line(3, format!("proxy_pass http://{};", upstream.name));
    out.gap();
    match (pipeline.timeout, pipeline.per_try_timeout) {
        (None, None) => out.note(3, "`timeout: none`: nginx always has one; this is 24 days."),
        (timeout, per_try) => {
            if let Some(per_try) = per_try {
                out.note(3, format!("`per_try_timeout` {}", people(per_try)));
            }
            if let Some(timeout) = timeout {
                out.note(
                    3,
                    format!(
                        "`timeout` {}: nginx measures from one read or write to the next, not a request in all; it begins no \
                         further try after that time.",
                        people(timeout)
                    ),
                );
            }
        }
    }
    out.line(3, format!("proxy_connect_timeout {};", short(upstream.connect_timeout(gateway), LONGEST)));
    let one_try = short(upstream.try_timeout().unwrap_or(LONGEST), LONGEST);
    for directive in ["proxy_send_timeout", "proxy_read_timeout"] {
        out.line(3, format!("{directive} {one_try};"));
    }
    out.gap();
    retries(out, upstream, location.retry);
    if pipeline.breaker.is_some_and(|breaker| acts(breaker.mode)) {
        out.note(3, "`breaker`: nginx has none. It goes on asking as long as one instance is in.");
    }
    if pipeline.hedge.is_some_and(|hedge| acts(hedge.mode)) {
        out.note(3, "`hedge`: nginx sends a request once at a time.");
    }
    if upstream.policies.coalesce {
        out.note(3, "`coalesce`: nginx joins only what it caches (`cache.lock`).");
    }
    let shadows = upstream.shadows();
    let shadows: Vec<&str> =
        shadows.iter().copied().filter(|key| ["retry", "breaker", "bulkhead", "hedge"].contains(key)).collect();
    if !shadows.is_empty() {
        out.note(3, format!("{} with `shadow`: left out, since nginx could not but act.", quoted(shadows)));
    }
    if let Some(cache) = location.cache {
        out.gap();
        cached(out, gateway, cache);
    }
    if let Some(answer) = location.fallback {
        let number = 1 + gateway.fallbacks().iter().position(|other| *other == answer).expect("it is one of them");
        out.gap();
        out.note(3, "`fallback`");
        out.line(3, "proxy_intercept_errors on;");
        out.line(3, format!("error_page 408 429 500 501 502 503 504 505 ={} @fallback_{number};", answer.status));
    }
    out.line(2, "}");
}
