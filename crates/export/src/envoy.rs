//! Envoy: a static bootstrap of the v3 API, with fields that Envoy has from 1.25 on.

use std::time::Duration;

use plimsoll_model::system::policy::balance::Algorithm;
use plimsoll_model::system::policy::rate_limit;
use plimsoll_model::system::policy::retry::Jitter;
use plimsoll_model::system::{LogFormat, RateLimitKey, ServiceId, System};

use crate::error::Error;
use crate::gateway::{Endpoint, Gateway, Upstream, acts, at_once, quota, whole};
use crate::site::{Address, Site};
use crate::text::{Text, escaped, number, one_line, people, percent, quoted};

/// The largest weight that is written; Envoy goes further.
const MOST_WEIGHT: u32 = 1_000_000;
/// A bucket is filled at most so often, by Envoy's documentation.
const FILL: u128 = 50_000_000;

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

fn address(out: &mut Text, level: usize, address: &Address) {
    out.line(
        level,
        format!(
            "address: {{ socket_address: {{ address: {}, port_value: {} }} }}",
            string(address.host()),
            address.port()
        ),
    );
}

fn listener(out: &mut Text, gateway: &Gateway) {
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

/// A matcher of the method, none where any will do.
fn method(endpoint: &Endpoint) -> Option<String> {
    let matches = match endpoint.pattern.methods.as_slice() {
        [] => return None,
        [one] => format!("exact: {one}"),
        several => format!("safe_regex: {{ regex: {} }}", string(&several.join("|"))),
    };
    Some(format!("{{ name: \":method\", string_match: {{ {matches} }} }}"))
}

fn rate_limit(out: &mut Text, level: usize, gateway: &Gateway) {
    let Some(limit) = &gateway.service.rate_limit else { return };
    let config = &limit.config;
    if limit.store.is_some() {
        out.note(
            level + 1,
            "`rate_limit.store`: to share counts Envoy asks a rate limit service over gRPC; a Redis is nothing to it.",
        );
    }
    match limit.per {
        RateLimitKey::User | RateLimitKey::Client => {
            let per = if limit.per == RateLimitKey::User { "user" } else { "client" };
            out.note(
                level + 1,
                format!(
                    "`rate_limit` {} `per: {per}`: Envoy's local rate limit has one bucket for all, in which everybody would \
                     pay for one; a bucket for each takes a rate limit service. Nothing is limited here.",
                    quota(config)
                ),
            );
        }
        RateLimitKey::All => {
            out.note(level + 1, format!("`rate_limit` {}. {}", quota(config), shape(config)));
            local_rate_limit(out, level + 1, gateway, Some(config));
        }
        RateLimitKey::Endpoint => {
            out.note(level + 1, "`rate_limit` `per: endpoint`: each route has a bucket of its own.");
            local_rate_limit(out, level + 1, gateway, None);
        }
    }
}

fn shape(config: &rate_limit::Config) -> String {
    match config.algorithm {
        rate_limit::Algorithm::Gcra { .. } => format!("`burst` {}: a bucket of so many tokens.", at_once(config)),
        rate_limit::Algorithm::SlidingWindow => {
            "`algorithm: sliding_window`: Envoy has a token bucket, which gives a whole quota at once and fills steadily: up to \
             twice the quota in one stretch."
                .to_owned()
        }
        rate_limit::Algorithm::FixedWindow => {
            "`algorithm: fixed_window`: a bucket that is filled at once, as often as the quota says.".to_owned()
        }
    }
}

fn local_rate_limit(out: &mut Text, level: usize, gateway: &Gateway, config: Option<&rate_limit::Config>) {
    out.line(level, "- name: envoy.filters.http.local_ratelimit");
    out.line(level + 1, "typed_config:");
    out.line(level + 2, kind("filters.http.local_ratelimit.v3.LocalRateLimit"));
    out.line(level + 2, format!("stat_prefix: {}", string(&gateway.service.name)));
    if let Some(config) = config {
        bucket(out, level + 2, config);
    }
}

/// The bucket, and whether it acts.
fn bucket(out: &mut Text, level: usize, config: &rate_limit::Config) {
    let per = config.per.as_nanos().max(1);
    let limit = u128::from(config.limit.max(1));
    let (tokens, interval) = match config.algorithm {
        rate_limit::Algorithm::FixedWindow => (limit, per.max(FILL)),
        _ => {
            // The fewest tokens that are worth the shortest interval.
            let tokens = (FILL * limit).div_ceil(per).max(1);
            (tokens, (tokens * per).div_ceil(limit))
        }
    };
    let most = u128::from(at_once(config)).max(tokens);
    if most > u128::from(at_once(config)) {
        out.note(level, format!("A bucket is filled every 50 ms at most, and so takes {tokens} at once."));
    }
    out.line(
        level,
        format!(
            "token_bucket: {{ max_tokens: {most}, tokens_per_fill: {tokens}, fill_interval: {} }}",
            seconds(Duration::from_nanos(u64::try_from(interval).unwrap_or(u64::MAX)))
        ),
    );
    let all = "{ numerator: 100, denominator: HUNDRED }";
    let none = "{ numerator: 0, denominator: HUNDRED }";
    if !acts(config.mode) {
        out.note(level, "`rate_limit.shadow`: counted, and not enforced.");
    }
    out.line(level, format!("filter_enabled: {{ default_value: {all}, runtime_key: rate_limit_enabled }}"));
    let enforced = if acts(config.mode) { all } else { none };
    out.line(level, format!("filter_enforced: {{ default_value: {enforced}, runtime_key: rate_limit_enforced }}"));
}

fn route(out: &mut Text, level: usize, gateway: &Gateway, endpoint: &Endpoint) {
    let upstream = &gateway.upstreams[endpoint.upstream];
    let pipeline = &upstream.policies.pipeline;
    out.note(level, endpoint.name);
    out.line(level, "- match:");
    match endpoint.pattern.literal() {
        Some(path) => out.line(level + 2, format!("path: {}", string(path))),
        None => out.line(level + 2, format!("safe_regex: {{ regex: {} }}", string(&endpoint.pattern.regex()))),
    }
    if let Some(method) = method(endpoint) {
        out.line(level + 2, format!("headers: [{method}]"));
    }
    out.line(level + 1, "route:");
    out.line(level + 2, format!("cluster: {}", string(&upstream.name)));
    out.line(level + 2, format!("timeout: {}", pipeline.timeout.map_or("0s".to_owned(), seconds)));
    if hashes(upstream.policies.balance.algorithm) {
        out.line(level + 2, "hash_policy:");
        if let Some(header) = &gateway.user_header {
            out.line(level + 3, format!("- header: {{ header_name: {} }}", string(header.as_str())));
            out.line(level + 4, "terminal: true");
        }
        out.line(level + 3, "- connection_properties: { source_ip: true }");
    }
    retries(out, level + 2, upstream, endpoint);
    if pipeline.hedge.is_some_and(|hedge| acts(hedge.mode)) {
        out.once(
            level + 2,
            "`hedge`: Envoy hedges when a try's timeout has passed, not at a percentile of what was measured; left out.",
        );
    }
    if upstream.policies.coalesce {
        out.once(level + 2, "`coalesce`: Envoy sends every request.");
    }
    if endpoint.cache.is_some() {
        out.once(level + 2, "`cache`: Envoy's cache filter is not meant for production yet; left out.");
    }
    if let Some(limit) = gateway.service.rate_limit.as_ref().filter(|limit| limit.per == RateLimitKey::Endpoint) {
        out.line(level + 1, "typed_per_filter_config:");
        out.line(level + 2, "envoy.filters.http.local_ratelimit:");
        out.line(level + 3, kind("filters.http.local_ratelimit.v3.LocalRateLimit"));
        out.line(level + 3, format!("stat_prefix: {}", string(&gateway.service.name)));
        out.once(level + 3, format!("{}. {}", quota(&limit.config), shape(&limit.config)));
        bucket(out, level + 3, &limit.config);
    }
}

fn retries(out: &mut Text, level: usize, upstream: &Upstream, endpoint: &Endpoint) {
    let pipeline = &upstream.policies.pipeline;
    let when = upstream.policies.retry_when;
    let per_try = pipeline.per_try_timeout.map(|per_try| format!("per_try_timeout: {}", seconds(per_try)));
    let mut words = Vec::new();
    if when.connect_error {
        words.push("connect-failure");
    }
    if when.reset || when.timeout {
        words.push("reset");
    }
    let statuses: Vec<&str> =
        [("429", when.too_many_requests), ("500", when.internal_error), ("502, 503, 504", when.unavailable)]
            .into_iter()
            .filter(|(_, wanted)| *wanted)
            .map(|(status, _)| status)
            .collect();
    if !statuses.is_empty() {
        words.push("retriable-status-codes");
    }
    let retry = pipeline.retry.filter(|retry| acts(retry.mode) && retry.attempts > 1);
    let Some(retry) = retry.filter(|_| endpoint.idempotent && !words.is_empty()) else {
        if retry.is_some() && !endpoint.idempotent {
            out.once(level, "May not be repeated: no further tries.");
        }
        if let Some(per_try) = per_try {
            out.line(level, format!("retry_policy: {{ num_retries: 0, {per_try} }}"));
        }
        return;
    };
    out.line(level, "retry_policy:");
    let level = level + 1;
    if when.reset != when.timeout {
        let (said, other) = if when.reset { ("reset", "timeout") } else { ("timeout", "reset") };
        out.once(level, format!("`retry.when` has {said} and not {other}; to Envoy both are a `reset`."));
    }
    out.line(level, format!("retry_on: {}", string(&words.join(","))));
    if !statuses.is_empty() {
        out.line(level, format!("retriable_status_codes: [{}]", statuses.join(", ")));
    }
    out.line(level, format!("num_retries: {}", retry.attempts - 1));
    if let Some(per_try) = per_try {
        out.line(level, per_try);
    }
    let backoff = &retry.backoff;
    let base = backoff.base.max(Duration::from_millis(1));
    let mut unlike = Vec::new();
    if backoff.multiplier != 2.0 {
        unlike.push(format!("`multiplier` {}", number(backoff.multiplier)));
    }
    match backoff.jitter {
        Jitter::Full => {}
        Jitter::None => unlike.push("`jitter: none`".to_owned()),
        Jitter::Equal => unlike.push("`jitter: equal`".to_owned()),
        Jitter::Decorrelated => unlike.push("`jitter: decorrelated`".to_owned()),
    }
    if !unlike.is_empty() {
        out.once(level, format!("Envoy's wait doubles, with full jitter; not {}.", unlike.join(", not ")));
    }
    out.line(
        level,
        format!(
            "retry_back_off: {{ base_interval: {}, max_interval: {} }}",
            seconds(base),
            seconds(backoff.cap.max(base))
        ),
    );
    out.once(
        level,
        format!(
            "`retry_after_slack` beyond the longest of `backoff`: a longer `Retry-After` is not heeded. `throttled` {}: not \
             in Envoy.",
            people(backoff.throttled_base)
        ),
    );
    out.line(level, "rate_limited_retry_back_off:");
    out.line(level + 1, "reset_headers: [{ name: Retry-After, format: SECONDS }]");
    let longest = backoff.cap.saturating_add(backoff.retry_after_slack).max(Duration::from_millis(1));
    out.line(level + 1, format!("max_interval: {}", seconds(longest)));
    out.once(level, "A further try goes elsewhere if there is an elsewhere.");
    out.line(level, "retry_host_predicate:");
    out.line(level + 1, "- name: envoy.retry_host_predicates.previous_hosts");
    out.line(level + 2, "typed_config:");
    out.line(level + 3, kind("retry.host.previous_hosts.v3.PreviousHostsPredicate"));
    out.line(level, format!("host_selection_retry_max_attempts: {}", upstream.addresses.len()));
}

fn cluster(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
    let policies = upstream.policies;
    let pipeline = &policies.pipeline;
    let level = 3;
    out.note(2, upstream.origin());
    out.line(2, format!("- name: {}", string(&upstream.name)));
    let named = upstream.addresses.iter().any(Address::is_name);
    out.line(level, format!("type: {}", if named { "STRICT_DNS" } else { "STATIC" }));
    if let Some(every) = upstream.found {
        out.once(level, "`at.every`");
        out.line(level, format!("dns_refresh_rate: {}", seconds(every.max(Duration::from_millis(1)))));
    }
    if let Some(server) = upstream.name_server {
        out.once(level, "`at.server`");
        out.line(level, "typed_dns_resolver_config:");
        out.line(level + 1, "name: envoy.network.dns_resolver.cares");
        out.line(level + 1, "typed_config:");
        out.line(level + 2, kind("network.dns_resolver.cares.v3.CaresDnsResolverConfig"));
        let (ip, port) = (string(&server.ip().to_string()), server.port());
        out.line(level + 2, format!("resolvers: [{{ socket_address: {{ address: {ip}, port_value: {port} }} }}]"));
    }
    out.line(level, format!("connect_timeout: {}", seconds(upstream.connect_timeout(gateway))));
    out.once(level, "`limits.upstream_idle`");
    out.line(level, "typed_extension_protocol_options:");
    out.line(level + 1, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions:");
    out.line(level + 2, kind("upstreams.http.v3.HttpProtocolOptions"));
    let idle = nanos(gateway.serving.limits.upstream_idle);
    out.line(level + 2, format!("common_http_protocol_options: {{ idle_timeout: {idle} }}"));
    out.line(level + 2, "explicit_http_config: { http_protocol_options: {} }");
    balance(out, level, upstream);
    circuit_breakers(out, level, gateway, upstream);
    if pipeline.breaker.is_some_and(|breaker| acts(breaker.mode)) {
        out.once(
            level,
            "`breaker`: what Envoy calls circuit breakers are the limits above; it has none that opens for a whole cluster.",
        );
    }
    outliers(out, level, upstream);
    if let Some(health) = upstream.health() {
        let config = &health.config;
        out.line(level, "health_checks:");
        out.once(level + 1, "`health`. Without `retriable_statuses` one such answer would take an instance out, whatever `unhealthy_after` says.");
        out.line(level + 1, format!("- timeout: {}", seconds(config.timeout)));
        let level = level + 2;
        out.line(level, format!("interval: {}", seconds(config.every)));
        out.once(level, "Also before the first request; Envoy's own 60 s there would be slow.");
        out.line(level, format!("no_traffic_interval: {}", seconds(config.every)));
        if config.jitter > 0.0 {
            out.once(level, format!("`health.jitter` {}: Envoy's only adds.", percent(config.jitter)));
            out.line(level, format!("interval_jitter_percent: {}", (config.jitter * 100.0).round()));
        }
        out.line(level, format!("unhealthy_threshold: {}", config.unhealthy_after));
        out.line(level, format!("healthy_threshold: {}", config.healthy_after));
        out.line(level, "http_health_check:");
        out.line(level + 1, format!("path: {}", string(&escaped(&health.path))));
        out.line(level + 1, "expected_statuses: [{ start: 200, end: 400 }]");
        out.line(level + 1, "retriable_statuses: [{ start: 400, end: 600 }]");
    }
    let shadows: Vec<&str> = upstream.shadows().into_iter().filter(|key| *key != "outliers").collect();
    if !shadows.is_empty() {
        out.once(level, format!("{} with `shadow`: left out, since Envoy could not but act.", quoted(shadows)));
    }
    out.line(level, "load_assignment:");
    out.line(level + 1, format!("cluster_name: {}", string(&upstream.name)));
    out.line(level + 1, "endpoints:");
    out.line(level + 2, "- lb_endpoints:");
    let weights = upstream.weights().map(|weights| whole(&weights, MOST_WEIGHT));
    if weights.is_some() {
        out.once(level + 4, "`balance.weights`, in whole numbers; what has none is not asked, and left out.");
    }
    for (index, instance) in upstream.addresses.iter().enumerate() {
        let weight = weights.as_ref().map(|weights| weights[index]);
        if weight == Some(0) {
            continue;
        }
        out.line(level + 4, "- endpoint:");
        address(out, level + 6, instance);
        if let Some(weight) = weight {
            out.line(level + 5, format!("load_balancing_weight: {weight}"));
        }
    }
}

fn hashes(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev)
}

fn balance(out: &mut Text, level: usize, upstream: &Upstream) {
    let balance = &upstream.policies.balance;
    let ramp = upstream.outliers().filter(|outliers| outliers.slow_start > Duration::ZERO);
    let mut slow_start = None;
    if let Some(outliers) = ramp {
        if hashes(balance.algorithm) {
            out.once(level, "`outliers.slow_start`: not in Envoy for algorithms that hash.");
        } else {
            out.once(
                level,
                "`outliers.slow_start`: of an instance that is new or passes its health checks again, not of one that was \
                 ejected.",
            );
            slow_start = Some(format!(
                "slow_start_config: {{ slow_start_window: {}, min_weight_percent: {{ value: {} }} }}",
                seconds(outliers.slow_start),
                number(outliers.slow_start_min * 100.0)
            ));
        }
    }
    if balance.shadow.is_some() {
        out.once(level, "`balance.shadow`: not in Envoy.");
    }
    match balance.algorithm {
        Algorithm::RoundRobin | Algorithm::Weighted => {
            out.line(level, "lb_policy: ROUND_ROBIN");
            if let Some(slow_start) = slow_start {
                out.line(level, format!("round_robin_lb_config: {{ {slow_start} }}"));
            }
        }
        Algorithm::LeastConnections | Algorithm::P2c => {
            let choices = if balance.algorithm == Algorithm::P2c {
                out.once(level, "`balance: p2c`: by requests in flight alone, not by latency.");
                balance.choices.max(2) as usize
            } else {
                out.once(
                    level,
                    "`balance: least_connections`: Envoy draws instances at random and takes the best; with as many draws as \
                     instances it misses the least rarely.",
                );
                upstream.addresses.len().max(2)
            };
            out.line(level, "lb_policy: LEAST_REQUEST");
            let slow_start = slow_start.map(|slow_start| format!(", {slow_start}")).unwrap_or_default();
            out.line(level, format!("least_request_lb_config: {{ choice_count: {choices}{slow_start} }}"));
        }
        Algorithm::Ring => {
            out.line(level, "lb_policy: RING_HASH");
            out.line(
                level,
                format!(
                    "ring_hash_lb_config: {{ minimum_ring_size: {}, maximum_ring_size: {} }}",
                    balance.ring_points_min, balance.ring_points_max
                ),
            );
        }
        Algorithm::IpHash | Algorithm::Maglev => {
            if balance.algorithm == Algorithm::IpHash {
                out.once(
                    level,
                    "`balance: ip_hash`: Envoy's hashes are all consistent; few users move when an instance goes.",
                );
            }
            out.line(level, "lb_policy: MAGLEV");
            if balance.algorithm == Algorithm::Maglev {
                out.line(level, format!("maglev_lb_config: {{ table_size: {} }}", balance.maglev_slots));
            }
        }
    }
    let bounded = matches!(balance.algorithm, Algorithm::Ring | Algorithm::Maglev) && balance.bounded_load.is_finite();
    let panic = upstream.outliers().map(|outliers| outliers.panic_below);
    if bounded || panic.is_some() {
        out.line(level, "common_lb_config:");
    }
    if let Some(share) = panic {
        out.line(level + 1, format!("healthy_panic_threshold: {{ value: {} }}", number(share * 100.0)));
    }
    if bounded {
        let factor = (balance.bounded_load * 100.0).round().clamp(100.0, f64::from(u32::MAX));
        out.line(level + 1, format!("consistent_hashing_lb_config: {{ hash_balance_factor: {factor} }}"));
    }
}

fn circuit_breakers(out: &mut Text, level: usize, gateway: &Gateway, upstream: &Upstream) {
    let pipeline = &upstream.policies.pipeline;
    let in_flight = gateway.service.max_in_flight;
    let bulkhead = upstream.bulkhead();
    let (connections, pending, requests) = match bulkhead {
        None => (in_flight, in_flight, in_flight),
        Some(bulkhead) if bulkhead.queue == 0 => (in_flight, in_flight, bulkhead.permits),
        // Requests wait for a connection, also for a new one: there must be room for as many as there are permits.
        Some(bulkhead) => (bulkhead.permits, bulkhead.queue.max(bulkhead.permits), bulkhead.permits),
    };
    let waiting = upstream.policies.max_connections.map(|_| upstream.policies.max_pending);
    let pending = waiting.map_or(pending, |waiting| waiting.max(1));
    match bulkhead {
        None => out.once(level, "`max_in_flight`, in place of Envoy's own 1024 and 3."),
        Some(bulkhead) if bulkhead.queue == 0 => out.once(level, format!("`bulkhead.permits` {}", bulkhead.permits)),
        Some(bulkhead) => out.once(
            level,
            format!(
                "`bulkhead.permits` {}, `queue` {}: a request that waits for a new connection is in the queue too. `max_wait` \
                 {}: not in Envoy.",
                bulkhead.permits,
                bulkhead.queue,
                people(bulkhead.max_wait)
            ),
        ),
    }
    out.line(level, "circuit_breakers:");
    out.line(level + 1, "thresholds:");
    out.line(level + 2, "- priority: DEFAULT");
    out.line(level + 3, format!("max_connections: {connections}"));
    if let Some(waiting) = waiting {
        out.once(
            level + 3,
            format!(
                "`max_pending` {waiting}: Envoy needs one at least, since who waits for a new connection waits too."
            ),
        );
    }
    out.line(level + 3, format!("max_pending_requests: {pending}"));
    out.line(level + 3, format!("max_requests: {requests}"));
    let budget = pipeline.budget.filter(|budget| acts(budget.mode)).map(|budget| budget.rule);
    if let Some(plimsoll_model::system::policy::retry_budget::Rule::Share { ratio, min_per_second, window }) = budget {
        out.once(
            level + 3,
            format!(
                "`retry.budget.share` {}: of what is in flight, not of the calls of the last {}. `min_per_second` {}: Envoy \
                 lets three retries be in flight in any case.",
                percent(ratio),
                people(window),
                number(min_per_second)
            ),
        );
        out.line(level + 3, format!("retry_budget: {{ budget_percent: {{ value: {} }} }}", number(ratio * 100.0)));
    } else {
        out.line(level + 3, format!("max_retries: {in_flight}"));
    }
    if let Some(most) = upstream.policies.max_connections {
        out.once(level + 1, "`max_connections`, of each instance");
        out.line(level + 1, "per_host_thresholds:");
        out.line(level + 2, format!("- max_connections: {most}"));
    }
}

fn outliers(out: &mut Text, level: usize, upstream: &Upstream) {
    let Some(outliers) = &upstream.policies.outliers else { return };
    if !acts(outliers.mode) {
        out.once(level, "`outliers.shadow`: detected and counted, and nothing is ejected.");
    }
    let enforced = |on: bool| if on && acts(outliers.mode) { 100 } else { 0 };
    out.line(level, "outlier_detection:");
    let level = level + 1;
    if outliers.consecutive_failures > 0 {
        out.line(level, format!("consecutive_5xx: {}", outliers.consecutive_failures));
    }
    out.line(level, format!("enforcing_consecutive_5xx: {}", enforced(outliers.consecutive_failures > 0)));
    out.line(level, format!("interval: {}", seconds(outliers.sweep_every)));
    out.line(level, format!("base_ejection_time: {}", seconds(outliers.base_ejection)));
    out.line(level, format!("max_ejection_time: {}", seconds(outliers.max_ejection)));
    out.once(
        level,
        "Where this is less than one instance, versions without `always_eject_one_host` eject one all the same.",
    );
    out.line(level, format!("max_ejection_percent: {}", (outliers.max_ejected * 100.0).floor()));
    out.line(level, format!("enforcing_success_rate: {}", enforced(outliers.success_rate_sigmas > 0.0)));
    if outliers.success_rate_sigmas > 0.0 {
        let thousandths = (outliers.success_rate_sigmas * 1_000.0).round().min(f64::from(u32::MAX));
        out.line(level, format!("success_rate_stdev_factor: {thousandths}"));
        out.line(level, format!("success_rate_minimum_hosts: {}", outliers.success_rate_hosts_min));
        out.line(level, format!("success_rate_request_volume: {}", outliers.success_rate_requests_min));
    }
}

fn kind(of: &str) -> String {
    format!("\"@type\": type.googleapis.com/envoy.extensions.{of}")
}

/// A duration as protobuf's JSON has it.
fn seconds(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    if nanos == 0 {
        return format!("{}s", duration.as_secs());
    }
    let text = format!("{}.{nanos:09}", duration.as_secs());
    format!("{}s", text.trim_end_matches('0'))
}

/// Nanoseconds, as such a duration.
fn nanos(nanos: u64) -> String {
    seconds(Duration::from_nanos(nanos))
}

/// A string in double quotes, as YAML and JSON have it.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // YAML ends lines at these too.
            c if c.is_control() || ['\u{2028}', '\u{2029}', '\u{feff}'].contains(&c) => {
                out.push_str(&format!("\\u{:04X}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_protobufs() {
        for (nanos, expected) in [(5_000_000_000, "5s"), (600_000_000, "0.6s"), (1, "0.000000001s"), (0, "0s")] {
            assert_eq!(seconds(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn strings_stay_in_their_quotes() {
        assert_eq!(string("a\"b\\c\n\u{2028}"), r#""a\"b\\c\u000A\u2028""#);
    }

    #[test]
    fn a_bucket_is_filled_at_the_quotas_rate() {
        for (limit, per, expected) in [
            (100, 60, "token_bucket: { max_tokens: 10, tokens_per_fill: 1, fill_interval: 0.6s }"),
            (10_000, 1, "token_bucket: { max_tokens: 1000, tokens_per_fill: 500, fill_interval: 0.05s }"),
            (1, 3_600, "token_bucket: { max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s }"),
        ] {
            let mut out = Text::new("");
            bucket(&mut out, 0, &rate_limit::Config::new(limit, Duration::from_secs(per)));
            assert_eq!(out.finish().lines().next(), Some(expected));
        }
    }
}
