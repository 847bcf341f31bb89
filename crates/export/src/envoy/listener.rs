//! The listener: where requests come in, its filters and its access log.

use std::time::Duration;

use plimsoll_model::system::LogFormat;

use super::quota::rate_limit;
use super::route::{method, route};
use super::yaml::{address, kind, nanos, seconds, string};
use crate::gateway::Gateway;
use crate::text::{Text, one_line, quoted};

pub(super) fn listener(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    out.line(2, format!("- name: {}", string(&service.name)));
    let limits = &gateway.serving.limits;
    let (first, more) = gateway.listen.split_first().expect("a gateway listens on one address at least");
    address(out, 3, first);
    if !more.is_empty() {
        out.line(3, "additional_addresses:");
        for other in more {
            out.line(4, "-");
            address(out, 5, other);
        }
    }
    out.line(3, "filter_chains:");
    match &gateway.tls {
        None => out.line(4, "- filters:"),
        Some((certificate, key)) => {
            out.line(4, "- transport_socket:");
            out.line(6, "name: envoy.transport_sockets.tls");
            out.line(6, "typed_config:");
            out.line(7, kind("transport_sockets.tls.v3.DownstreamTlsContext"));
            out.line(7, "common_tls_context:");
            out.line(8, "alpn_protocols: [h2, http/1.1]");
            out.line(8, "tls_certificates:");
            out.line(9, format!("- certificate_chain: {{ filename: {} }}", string(certificate)));
            out.line(10, format!("private_key: {{ filename: {} }}", string(key)));
            out.line(5, "filters:");
        }
    }
    out.note(6, "`limits.connections`. `connections_per_client`: Envoy counts no connections by address.");
    out.line(6, "- name: envoy.filters.network.connection_limit");
    out.line(7, "typed_config:");
    out.line(8, kind("filters.network.connection_limit.v3.ConnectionLimit"));
    out.line(8, format!("stat_prefix: {}", string(&service.name)));
    out.line(8, format!("max_connections: {}", limits.connections));
    out.line(6, "- name: envoy.filters.network.http_connection_manager");
    out.line(7, "typed_config:");
    let level = 8;
    out.line(level, kind("filters.network.http_connection_manager.v3.HttpConnectionManager"));
    out.line(level, format!("stat_prefix: {}", string(&service.name)));
    out.line(level, "use_remote_address: true");
    out.line(level, "normalize_path: true");
    if !gateway.serving.trusted.is_empty() {
        out.note(
            level,
            "`trusted`: Envoy counts proxies in front, not networks (`xff_num_trusted_hops`); the address of a connection \
             stands for the client.",
        );
    }
    out.note(level, "`limits.header_bytes`, in whole KiB, and `header_count`: past them 431");
    out.line(level, format!("max_request_headers_kb: {}", limits.header_bytes.div_ceil(1 << 10)));
    out.line(level, "common_http_protocol_options:");
    out.line(level + 1, format!("max_headers_count: {}", limits.header_count));
    out.note(level + 1, "`limits.idle`");
    out.line(level + 1, format!("idle_timeout: {}", nanos(limits.idle_timeout)));
    out.note(level, "`limits.header_timeout`");
    out.line(level, format!("request_headers_timeout: {}", nanos(limits.header_timeout)));
    // It runs while an instance is waited for, too.
    let body = Duration::from_nanos(limits.body_timeout);
    if gateway.longest_timeout().is_some_and(|longest| longest < body) {
        out.note(level, "`limits.body_timeout`");
        out.line(level, format!("stream_idle_timeout: {}", seconds(body)));
    } else {
        out.note(level, "`limits.body_timeout`: off, since it would end requests before their `timeout`.");
        out.line(level, "stream_idle_timeout: 0s");
    }
    out.note(level, "`limits.body`: Envoy's buffer filter would hold every body back; left out.");
    access_log(out, level, gateway);
    out.note(
        level,
        format!(
            "`max_in_flight` {}: Envoy counts by cluster (`max_requests` below), not over all of them.",
            service.max_in_flight
        ),
    );
    if service.queue.capacity > 0 {
        out.note(level, format!("`queue` {}: Envoy has none before all clusters.", service.queue.capacity));
    }
    if !service.stops_when_cancelled {
        out.note(level, "`stops_when_cancelled: false`: Envoy always cancels a request whose client has gone.");
    }
    elsewhere(out, level, gateway);
    fallbacks(out, level, gateway);
    out.line(level, "http_filters:");
    rate_limit(out, level, gateway);
    out.line(level + 1, "- name: envoy.filters.http.router");
    out.line(level + 2, "typed_config:");
    out.line(level + 3, kind("filters.http.router.v3.Router"));
    out.line(level, "route_config:");
    out.line(level + 1, format!("name: {}", string(&service.name)));
    out.line(level + 1, "virtual_hosts:");
    out.line(level + 2, format!("- name: {}", string(&service.name)));
    out.line(level + 3, "domains: [\"*\"]");
    out.note(level + 3, "`limits.retry_body`");
    out.line(
        level + 3,
        format!("per_request_buffer_limit_bytes: {}", limits.retry_body_bytes.min(u64::from(u32::MAX))),
    );
    out.note(level + 3, "By method and path; the first that matches. What the file does not have gets a 404.");
    out.line(level + 3, "routes:");
    for endpoint in &gateway.endpoints {
        route(out, level + 4, gateway, endpoint);
    }
    if !gateway.unmatched.is_empty() {
        out.note(level + 4, format!("No method and path to match: {}.", quoted(gateway.unmatched.iter().copied())));
    }
}

/// What a gateway has and Envoy has nothing like.
fn elsewhere(out: &mut Text, level: usize, gateway: &Gateway) {
    let service = gateway.service;
    if service.limit.is_some() {
        out.note(
            level,
            "`limit`: Envoy's adaptive_concurrency filter measures the least round trip at set times, for which the file has \
             no numbers; it is left out.",
        );
    }
    if service.idempotency.is_some() {
        out.note(level, "`idempotency`: Envoy remembers no answers by a request's key.");
    }
    if service.degradation.is_some() {
        out.note(level, "`degradation`: Envoy knows no levels.");
    }
    if !service.bulkheads.is_empty() {
        out.note(level, "`bulkheads`: Envoy counts what is in flight by cluster, not by route.");
    }
}

/// Answers in the place of Envoy's own errors.
fn fallbacks(out: &mut Text, level: usize, gateway: &Gateway) {
    let endpoints = gateway.endpoints.iter().filter_map(|endpoint| endpoint.fallback.map(|answer| (endpoint, answer)));
    let endpoints: Vec<_> = endpoints.collect();
    if endpoints.is_empty() {
        return;
    }
    out.note(
        level,
        "`fallback`, in place of Envoy's own errors (no instance, timeout, overflow); an instance's answer is passed on even \
         if it is an error.",
    );
    out.line(level, "local_reply_config:");
    out.line(level + 1, "mappers:");
    for (endpoint, answer) in endpoints {
        out.note(level + 2, endpoint.name);
        out.line(level + 2, "- filter:");
        out.line(level + 4, "and_filter:");
        out.line(level + 5, "filters:");
        out.line(
            level + 6,
            "- status_code_filter: { comparison: { op: GE, value: { default_value: 500, runtime_key: fallback } } }",
        );
        if let Some(method) = method(endpoint) {
            out.line(level + 6, format!("- header_filter: {{ header: {method} }}"));
        }
        // The header has the query too.
        let regex = format!("{}([?].*)?", endpoint.pattern.regex());
        out.line(
            level + 6,
            format!(
                "- header_filter: {{ header: {{ name: \":path\", string_match: {{ safe_regex: {{ regex: {} }} }} }} }}",
                string(&regex)
            ),
        );
        out.line(level + 3, format!("status_code: {}", answer.status));
        out.line(level + 3, format!("body: {{ inline_string: {} }}", string(&answer.body)));
        out.line(level + 3, "body_format_override:");
        out.line(level + 4, "text_format_source: { inline_string: \"%LOCAL_REPLY_BODY%\" }");
        out.line(level + 4, format!("content_type: {}", string(&one_line(&answer.content_type))));
    }
}

/// A line for each request.
fn access_log(out: &mut Text, level: usize, gateway: &Gateway) {
    let (Some(to), Some(log)) = (&gateway.log, &gateway.serving.access_log) else {
        out.note(level, "`access_log: none`");
        return;
    };
    out.note(level, format!("`access_log`. `buffer` {}: Envoy's buffer is of bytes.", log.buffer));
    out.line(level, "access_log:");
    out.line(level + 1, "- name: envoy.access_loggers.file");
    out.line(level + 2, "typed_config:");
    out.line(level + 3, kind("access_loggers.file.v3.FileAccessLog"));
    let path = match to.as_str() {
        "stdout" | "stderr" => format!("/dev/{to}"),
        path => path.to_owned(),
    };
    out.line(level + 3, format!("path: {}", string(&path)));
    match log.format {
        LogFormat::Combined => out.note(level + 3, "`format: combined`: Envoy's own format says as much."),
        LogFormat::Json => {
            out.line(level + 3, "log_format:");
            out.line(level + 4, "json_format:");
            for (name, value) in [
                ("time", "%START_TIME%"),
                ("client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                ("method", "%REQ(:METHOD)%"),
                ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
                ("status", "%RESPONSE_CODE%"),
                ("flags", "%RESPONSE_FLAGS%"),
                ("bytes", "%BYTES_SENT%"),
                ("ms", "%DURATION%"),
                ("instance", "%UPSTREAM_HOST%"),
            ] {
                out.line(level + 5, format!("{name}: {}", string(value)));
            }
        }
    }
}
