//! Caches of answers.

use super::global::HEADERS;
use super::words::numbered;
use crate::gateway::Gateway;
use crate::text::{Text, seconds};

/// Most megabytes of a cache, by HAProxy's manual.
const MOST_CACHE: u64 = 4_095;

pub(super) fn caches(out: &mut Text, gateway: &Gateway) {
    for (at, cache) in gateway.caches().into_iter().enumerate() {
        let name = &gateway.system.keyspaces[cache.keyspace.index()].name;
        let answer = gateway.answer_bytes(cache) + HEADERS;
        let bytes = u64::from(cache.capacity).saturating_mul(answer);
        let megabytes = bytes.div_ceil(1 << 20).clamp(1, MOST_CACHE);
        out.gap();
        out.note(
            0,
            format!(
                "`cache.key` `{name}`, `cache.capacity` {} answers of up to {answer} bytes, headers included.",
                cache.capacity
            ),
        );
        out.line(0, format!("cache {}", cache_name(gateway, at)));
        out.line(1, format!("total-max-size {megabytes}"));
        // HAProxy refuses more than half of the cache.
        out.line(1, format!("max-object-size {}", answer.min(megabytes << 19)));
        out.line(1, format!("max-age {}", seconds(cache.freshness.ttl)));
        out.line(1, "process-vary on");
    }
}

fn cache_name(gateway: &Gateway, at: usize) -> String {
    format!("{}_cache_{}", gateway.service.name, at + 1)
}

pub(super) fn cached(out: &mut Text, gateway: &Gateway, index: usize) {
    for (at, cache) in gateway.caches().into_iter().enumerate() {
        let numbers = gateway.numbers(|endpoint| endpoint.upstream == index && endpoint.cache == Some(cache));
        if numbers.is_empty() {
            continue;
        }
        let config = &cache.freshness;
        let name = cache_name(gateway, at);
        let acl = format!("cached_{}", at + 1);
        out.gap();
        out.note(
            1,
            "`cache`: answers 200 to GET without credentials. HAProxy keeps nothing without an age: where an answer says none, \
             it gets `ttl`, which clients see too; a shorter one of its own holds.",
        );
        let mut missing = vec!["`cache.stale`", "`cache.negative`"];
        if config.ttl_jitter > 0.0 {
            missing.push("the spread of `cache.ttl`");
        }
        if config.lock.is_some() {
            missing.push("`cache.lock` (all who miss fetch)");
        }
        if config.early_expiration > 0.0 {
            missing.push("`cache.early_expiration`");
        }
        out.note(1, format!("Not in HAProxy: {}.", missing.join(", ")));
        numbered(out, &format!("{acl}_route"), &numbers);
        let credentials = "!{ req.hdr(Authorization) -m found } !{ req.hdr(Cookie) -m found }";
        out.line(1, format!("http-request set-var(txn.{acl}) bool(1) if {acl}_route {credentials}"));
        out.line(1, format!("acl {acl} var(txn.{acl}) -m bool"));
        out.line(1, format!("http-request cache-use {name} if {acl}"));
        out.line(
            1,
            format!(
                "http-response set-header Cache-Control max-age={} if {acl} !{{ res.hdr(Cache-Control) -m found }} !{{ \
                 res.hdr(Expires) -m found }}",
                seconds(config.ttl)
            ),
        );
        out.line(1, format!("http-response cache-store {name} if {acl}"));
    }
}
