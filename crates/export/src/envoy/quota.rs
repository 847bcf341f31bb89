//! Quotas, as local buckets.

use std::time::Duration;

use plimsoll_model::system::RateLimitKey;
use plimsoll_model::system::policy::rate_limit;

use super::yaml::{kind, seconds, string};
use crate::gateway::{Gateway, acts, at_once, quota};
use crate::text::Text;

/// A bucket is filled at most so often, by Envoy's documentation.
const FILL: u128 = 50_000_000;

pub(super) fn rate_limit(out: &mut Text, level: usize, gateway: &Gateway) {
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

pub(super) fn shape(config: &rate_limit::Config) -> String {
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
pub(super) fn bucket(out: &mut Text, level: usize, config: &rate_limit::Config) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
