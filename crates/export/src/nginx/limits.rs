//! Quotas and counted places: zones of keys, and where a request is counted in them.

use std::time::Duration;

use plimsoll_model::system::RateLimitKey;
use plimsoll_model::system::policy::balance::Algorithm;

use crate::gateway::{Gateway, Upstream, acts, at_once, quota};
use crate::text::Text;

/// `limit_conn` counts no further.
const MOST_COUNTED: u32 = 65_535;
/// Keys that a megabyte of a limit_req zone or a cache's zone holds, by nginx's documentation.
pub(super) const KEYS_A_MEGABYTE: u64 = 8_000;

/// Whether anything is counted or hashed by the user.
pub(super) fn by_user(gateway: &Gateway) -> bool {
    let hashed = |upstream: &Upstream| {
        matches!(upstream.policies.balance.algorithm, Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev)
    };
    gateway.service.rate_limit.as_ref().is_some_and(|limit| limit.per == RateLimitKey::User)
        || gateway.upstreams.iter().any(hashed)
}

/// Zones of limits. They hold for a whole nginx, over its workers.
pub(super) fn limits(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    out.gap();
    out.note(1, "`max_in_flight`, `limits.connections_per_client`");
    out.line(1, "limit_conn_zone \"all\" zone=in_flight:32k;");
    let clients = u64::from(gateway.serving.limits.connections).div_ceil(KEYS_A_MEGABYTE);
    out.line(1, format!("limit_conn_zone $binary_remote_addr zone=clients:{clients}m;"));
    for (number, group) in (1..).zip(bulkheads(gateway)) {
        out.note(1, format!("`{}`: what it holds for has a key here, and nothing else counts.", group.key));
        out.line(1, format!("map $endpoint $bulkhead_{number} {{"));
        for endpoint in &group.endpoints {
            out.line(2, format!("{endpoint} 1;"));
        }
        out.line(2, "default \"\";");
        out.line(1, "}");
        out.line(1, format!("limit_conn_zone $bulkhead_{number} zone=bulkhead_{number}:32k;"));
    }
    let Some(limit) = &service.rate_limit else { return };
    let config = &limit.config;
    let (key, keys) = match limit.per {
        RateLimitKey::User => ("$user", max_keys(config.scope)),
        RateLimitKey::Client => ("$remote_addr", max_keys(config.scope)),
        RateLimitKey::Endpoint => ("$endpoint", max_keys(config.scope)),
        RateLimitKey::All => ("\"all\"", 1),
    };
    out.gap();
    out.note(1, format!("`rate_limit.quota` {}{}.", quota(config), per(limit.per)));
    let (rate, exact) = rate(config.limit, config.per);
    if !exact {
        out.note(1, "nginx counts whole requests a minute; this is the next rate above.");
    }
    if matches!(limit.per, RateLimitKey::User | RateLimitKey::Client) {
        out.note(1, format!("`rate_limit.max_keys` {keys}: of some 128 bytes each."));
    }
    let megabytes = u64::from(keys).div_ceil(KEYS_A_MEGABYTE);
    out.line(1, format!("limit_req_zone {key} zone=rate:{megabytes}m rate={rate};"));
}

fn per(per: RateLimitKey) -> &'static str {
    match per {
        RateLimitKey::User => " for each user",
        RateLimitKey::Client => {
            ", `per: client`: nginx cannot tell programs apart, and counts by the address that a connection comes from"
        }
        RateLimitKey::Endpoint => " for each endpoint",
        RateLimitKey::All => "",
    }
}

fn max_keys(scope: plimsoll_model::system::policy::rate_limit::Scope) -> u32 {
    match scope {
        plimsoll_model::system::policy::rate_limit::Scope::Shared => 1,
        plimsoll_model::system::policy::rate_limit::Scope::PerKey { max_keys } => max_keys,
    }
}

/// nginx's rate for a quota, and whether it is just that.
fn rate(limit: u32, per: Duration) -> (String, bool) {
    let a_second = u128::from(limit) * 1_000_000_000;
    let per = per.as_nanos();
    if a_second.is_multiple_of(per) {
        return (format!("{}r/s", a_second / per), true);
    }
    let a_minute = a_second * 60;
    (format!("{}r/m", a_minute.div_ceil(per)), a_minute.is_multiple_of(per))
}

/// Requests that share permits.
pub(super) struct Group {
    pub(super) key: String,
    pub(super) permits: u32,
    pub(super) queue: u32,
    endpoints: Vec<usize>,
}

pub(super) fn bulkheads(gateway: &Gateway) -> Vec<Group> {
    let mut groups = Vec::new();
    for (index, upstream) in gateway.upstreams.iter().enumerate() {
        if let Some(config) = upstream.bulkhead() {
            groups.push(Group {
                key: "bulkhead".to_owned(),
                permits: config.permits,
                queue: config.queue,
                endpoints: gateway.numbers(|endpoint| endpoint.upstream == index),
            });
        }
    }
    for bulkhead in gateway.service.bulkheads.iter().filter(|bulkhead| acts(bulkhead.config.mode)) {
        groups.push(Group {
            key: format!("bulkheads.{}", bulkhead.name),
            permits: bulkhead.config.permits,
            queue: bulkhead.config.queue,
            endpoints: gateway.numbers(|endpoint| bulkhead.endpoints.contains(&endpoint.index)),
        });
    }
    groups
}

pub(super) fn counted(out: &mut Text, zone: &str, most: u32) {
    if most > MOST_COUNTED {
        out.note(2, format!("nginx counts no further than {MOST_COUNTED}."));
    }
    out.line(2, format!("limit_conn {zone} {};", most.min(MOST_COUNTED)));
}

pub(super) fn rate_limit(out: &mut Text, gateway: &Gateway) {
    let Some(limit) = &gateway.service.rate_limit else { return };
    let config = &limit.config;
    let burst = at_once(config);
    out.gap();
    let said = match config.algorithm {
        plimsoll_model::system::policy::rate_limit::Algorithm::Gcra { .. } => {
            format!("`rate_limit.burst` {burst}: one, and {} more at once.", burst - 1)
        }
        plimsoll_model::system::policy::rate_limit::Algorithm::SlidingWindow => {
            "`rate_limit.algorithm: sliding_window`: nginx has a leaky bucket, which takes a whole quota at once and lets a \
             little more through after it: up to twice the quota in one stretch."
                .to_owned()
        }
        plimsoll_model::system::policy::rate_limit::Algorithm::FixedWindow => {
            "`rate_limit.algorithm: fixed_window`: nginx has a leaky bucket, which takes a whole quota at once.".to_owned()
        }
    };
    out.note(2, format!("{said} Past it: 429, without `Retry-After`."));
    if limit.store.is_some() {
        out.note(2, "`rate_limit.store`: each nginx counts for itself; so `store_down` has nothing to decide.");
    }
    out.line(2, "limit_req_status 429;");
    let more = if burst > 1 { format!(" burst={} nodelay", burst - 1) } else { String::new() };
    out.line(2, format!("limit_req zone=rate{more};"));
    if !acts(config.mode) {
        out.note(2, "`rate_limit.shadow`");
        out.line(2, "limit_req_dry_run on;");
    }
}
