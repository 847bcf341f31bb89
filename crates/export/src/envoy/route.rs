//! Routes: which cluster has a request, and what is tried again.

use std::time::Duration;

use plimsoll_model::system::RateLimitKey;
use plimsoll_model::system::policy::retry::Jitter;

use super::quota::{bucket, shape};
use super::yaml::{kind, seconds, string};
use crate::gateway::{Endpoint, Gateway, Upstream, acts, hashes, quota};
use crate::text::{Text, number, people};

/// A matcher of the method, none where any will do.
pub(super) fn method(endpoint: &Endpoint) -> Option<String> {
    let matches = match endpoint.pattern.methods.as_slice() {
        [] => return None,
        [one] => format!("exact: {one}"),
        several => format!("safe_regex: {{ regex: {} }}", string(&several.join("|"))),
    };
    Some(format!("{{ name: \":method\", string_match: {{ {matches} }} }}"))
}

pub(super) fn route(out: &mut Text, level: usize, gateway: &Gateway, endpoint: &Endpoint) {
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
