//! Clusters: the instances, who gets a request, and who is left out.

use std::time::Duration;

use plimsoll_model::system::policy::balance::Algorithm;

use super::yaml::{address, kind, nanos, seconds, string};
use crate::gateway::{Gateway, Upstream, acts, hashes, whole};
use crate::site::Address;
use crate::text::{Text, escaped, number, people, percent, quoted};

/// The largest weight that is written; Envoy goes further.
const MOST_WEIGHT: u32 = 1_000_000;

pub(super) fn cluster(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
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
