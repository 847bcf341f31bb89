//! Caches of answers.

use std::time::Duration;

use plimsoll_model::system::RouteCache;

use super::limits::KEYS_A_MEGABYTE;
use crate::gateway::Gateway;
use crate::site::Files;
use crate::text::{Text, millis, number, people, percent, seconds};

pub(super) fn caches(out: &mut Text, gateway: &Gateway) {
    for (number, cache) in (1..).zip(gateway.caches()) {
        let config = &cache.freshness;
        let stale = config.stale_while_revalidate.unwrap_or(config.ttl);
        out.gap();
        out.note(1, cache_about(gateway, cache));
        out.note(
            1,
            "`cache.stale`: nginx sets no end to it, but drops an answer that nobody asked for during `ttl` and `stale` \
             together.",
        );
        let directory = match &gateway.site.files {
            Files::Package => format!("/var/cache/nginx-{}-{number}", gateway.service.name),
            Files::Directory(directory) => format!("\"{}/cache-{number}\"", directory.as_str()),
        };
        out.line(
            1,
            format!(
                "proxy_cache_path {directory} levels=1:2 keys_zone=cache_{number}:{}m max_size={} inactive={}s \
                 use_temp_path=off;",
                u64::from(cache.capacity).div_ceil(KEYS_A_MEGABYTE),
                size(gateway.cache_bytes(cache)),
                seconds(config.ttl + stale).max(1)
            ),
        );
    }
}

fn cache_about(gateway: &Gateway, cache: &RouteCache) -> String {
    let name = &gateway.system.keyspaces[cache.keyspace.index()].name;
    format!(
        "`cache.key` `{name}`, `cache.capacity` {} answers of up to {} bytes, on disk.",
        cache.capacity,
        gateway.answer_bytes(cache)
    )
}

/// Bytes as nginx writes them, rounded up.
fn size(bytes: u64) -> String {
    format!("{}m", bytes.div_ceil(1 << 20).max(1))
}

pub(super) fn cached(out: &mut Text, gateway: &Gateway, cache: &RouteCache) {
    let config = &cache.freshness;
    let zone = 1 + gateway.caches().iter().position(|other| *other == cache).expect("it is one of them");
    out.note(
        3,
        "`cache`: of GET and HEAD without credentials. Cache-Control, Expires, Set-Cookie and Vary of an answer come before \
         these times.",
    );
    out.line(3, format!("proxy_cache cache_{zone};"));
    out.line(3, "proxy_cache_bypass $http_authorization $http_cookie;");
    out.line(3, "proxy_no_cache $http_authorization $http_cookie;");
    out.line(3, "proxy_cache_key $host$request_uri;");
    if config.ttl_jitter > 0.0 {
        out.note(3, format!("`cache.ttl` ± {}: nginx spreads no times.", percent(config.ttl_jitter)));
    }
    out.line(3, format!("proxy_cache_valid 200 {}s;", seconds(config.ttl)));
    if config.negative_ttl_min != config.negative_ttl_max {
        out.note(
            3,
            format!(
                "`cache.negative` {}..{}: the shorter.",
                people(config.negative_ttl_min),
                people(config.negative_ttl_max)
            ),
        );
    }
    out.line(3, format!("proxy_cache_valid 404 {}s;", seconds(config.negative_ttl_min)));
    if config.stale_while_revalidate != Some(Duration::ZERO) {
        out.line(3, "proxy_cache_use_stale updating;");
        out.line(3, "proxy_cache_background_update on;");
    }
    match config.lock {
        Some(lock) => {
            out.line(3, "proxy_cache_lock on;");
            out.line(3, format!("proxy_cache_lock_age {}ms;", millis(lock)));
            out.line(3, format!("proxy_cache_lock_timeout {}ms;", millis(lock)));
        }
        None => out.note(3, "`cache.lock: none`: all who miss fetch."),
    }
    if config.early_expiration > 0.0 {
        out.note(3, format!("`cache.early_expiration` {}: not in nginx.", number(config.early_expiration)));
    }
}
