//! HAProxy. Keywords are those of 2.6, which Debian 12 has.

use std::time::Duration;

use plimsoll_model::system::policy::balance::Algorithm;
use plimsoll_model::system::policy::rate_limit;
use plimsoll_model::system::{FallbackAnswer, RateLimitKey, ServiceId, System};

use crate::error::Error;
use crate::gateway::{Gateway, LONGEST, Upstream, acts, at_once, quota, whole};
use crate::site::{Address, Files, Site};
use crate::text::{Text, escaped, number, people, percent, quoted, seconds, short};

/// Most megabytes of a cache, by HAProxy's manual.
const MOST_CACHE: u64 = 4_095;
/// The largest weight of a server.
const MOST_WEIGHT: u32 = 256;
/// Points of a server on a ring, for each unit of its weight.
const POINTS: u32 = 16;
/// HAProxy's own answers have some fields, without which it does not start.
const FEWEST_FIELDS: u32 = 16;
/// HAProxy keeps an answer's headers beside its body.
const HEADERS: u64 = 1_024;

/// The section that says who looks an upstream's names up.
fn names(upstream: &Upstream) -> String {
    match upstream.name_server {
        None => "names".to_owned(),
        Some(_) => format!("names-{}", upstream.name),
    }
}

/// A whole `haproxy.cfg` that makes HAProxy do what a gateway of a system does.
pub fn haproxy(system: &System, gateway: ServiceId, site: &Site) -> Result<String, Error> {
    let gateway = Gateway::new(system, gateway, site)?;
    let mut out = Text::new("    ");
    global(&mut out, &gateway);
    let of_system = |upstream: &&Upstream| upstream.name_server.is_none();
    if gateway.upstreams.iter().filter(of_system).flat_map(|upstream| &upstream.addresses).any(Address::is_name) {
        out.gap();
        out.note(0, "Instances with names are looked up again and again, by the resolvers of this machine.");
        out.line(0, "resolvers names");
        out.line(1, "parse-resolv-conf");
        if let Some(every) = gateway.upstreams.iter().filter(of_system).filter_map(|upstream| upstream.found).min() {
            out.note(1, "`at.every`");
            out.line(1, format!("hold valid {}", short(every, LONGEST)));
        }
    }
    for upstream in &gateway.upstreams {
        if let (Some(server), Some(every)) = (upstream.name_server, upstream.found) {
            out.gap();
            out.note(0, "`at.server` and `at.every`");
            out.line(0, format!("resolvers {}", names(upstream)));
            out.line(1, format!("nameserver given {server}"));
            out.line(1, format!("hold valid {}", short(every, LONGEST)));
        }
    }
    caches(&mut out, &gateway);
    table(&mut out, &gateway);
    out.gap();
    frontend(&mut out, &gateway);
    for index in 0..gateway.upstreams.len() {
        out.gap();
        backend(&mut out, &gateway, index);
    }
    admin(&mut out, &gateway);
    Ok(out.finish())
}

fn global(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    out.note(
        0,
        format!(
            "The gateway `{}` of the system `{}` for HAProxy, as version 2.6 in Debian 12 understands it. Every number is \
             the system file's. What HAProxy cannot do is said where it would stand, by its key in the system file.",
            service.name, gateway.system.name
        ),
    );
    out.gap();
    out.line(0, "global");
    match &gateway.site.files {
        Files::Package => {
            out.line(1, "user haproxy");
            out.line(1, "group haproxy");
            out.line(1, "chroot /var/lib/haproxy");
            out.line(1, "stats socket /run/haproxy/admin.sock mode 660 level admin");
        }
        Files::Directory(directory) => {
            out.line(1, format!("stats socket '{}/haproxy.sock' mode 600 level admin", directory.as_str()));
        }
    }
    let logged = logs(out, gateway);
    let limits = &gateway.serving.limits;
    out.note(
        1,
        "`limits.header_bytes`, and the 1 KiB that HAProxy keeps free for headers of its own; past it 400. `retry_body`: \
             what fits in there can be sent again.",
    );
    out.line(1, format!("tune.bufsize {}", u64::from(limits.header_bytes) + HEADERS));
    out.note(1, "`limits.header_count`; answers are held to it too, HAProxy's own among them.");
    out.line(1, format!("tune.http.maxhdr {}", limits.header_count.max(FEWEST_FIELDS)));
    out.note(
        1,
        format!("`cores`. `instances`: {}, each a HAProxy of its own that counts for itself.", service.instances),
    );
    out.line(1, format!("nbthread {}", service.cores.clamp(1, 64)));
    out.note(1, "`drain`: how long a process that was told to stop may go on with what it has.");
    let drain = Duration::from_nanos(service.drain).max(Duration::from_millis(1));
    out.line(1, format!("hard-stop-after {}", short(drain, LONGEST)));
    let jitters = gateway.upstreams.iter().filter_map(Upstream::health).map(|health| health.config.jitter);
    let jitter = jitters.fold(0.0, f64::max);
    if jitter > 0.0 {
        out.note(1, format!("`health.jitter` {}: HAProxy's goes to 50%, and is one for all.", percent(jitter)));
        out.line(1, format!("spread-checks {}", number((jitter * 100.0).round().min(50.0))));
    }
    out.gap();
    out.line(0, "defaults");
    out.line(1, "mode http");
    if logged {
        out.line(1, "log global");
        out.line(1, "option httplog");
    }
    out.note(1, "Connections are kept, and shared once they have served a request.");
    out.line(1, "http-reuse safe");
    if service.stops_when_cancelled {
        out.note(1, "`stops_when_cancelled`");
        out.line(1, "option abortonclose");
    }
}

/// Where lines go, and whether there are any.
fn logs(out: &mut Text, gateway: &Gateway) -> bool {
    let Some(to) = &gateway.log else {
        out.note(1, "`access_log: none`");
        return false;
    };
    out.note(1, "`access_log`: in HAProxy's own format; `format` and `buffer` play no part.");
    match to.as_str() {
        "stdout" | "stderr" => out.line(1, format!("log {to} format raw local0")),
        path => {
            out.note(1, format!("`access_log.to` {path}: HAProxy writes no files. A syslog daemon does."));
            out.line(1, "log /dev/log local0");
        }
    }
    true
}

fn caches(out: &mut Text, gateway: &Gateway) {
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

fn clients_name(gateway: &Gateway) -> String {
    format!("{}_clients", gateway.service.name)
}

/// A condition from its words, if there are any.
fn condition(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" if{words}") }
}

/// The tables that connections and a rate limit are counted in.
fn table(out: &mut Text, gateway: &Gateway) {
    let limits = &gateway.serving.limits;
    out.gap();
    out.note(0, "`limits.connections_per_client` are counted here.");
    out.line(0, format!("backend {}", clients_name(gateway)));
    let idle = short(Duration::from_nanos(limits.idle_timeout), LONGEST);
    out.line(1, format!("stick-table type ipv6 size {} expire {idle} store conn_cur", limits.connections));
    let Some(limit) = &gateway.service.rate_limit else { return };
    let config = &limit.config;
    let (kind, keys) = match (limit.per, config.scope) {
        (RateLimitKey::User, rate_limit::Scope::PerKey { max_keys }) if gateway.user_header.is_some() => {
            ("string len 64", max_keys)
        }
        (RateLimitKey::User | RateLimitKey::Client, rate_limit::Scope::PerKey { max_keys }) => ("ipv6", max_keys),
        (RateLimitKey::Endpoint, rate_limit::Scope::PerKey { max_keys }) => ("integer", max_keys),
        _ => ("integer", 1),
    };
    let (admitted, window) = window(config);
    out.gap();
    let shape = match config.algorithm {
        rate_limit::Algorithm::Gcra { .. } => {
            "HAProxy counts over a sliding stretch of time: `burst` in the time in which the quota gives as many again"
        }
        rate_limit::Algorithm::SlidingWindow => "HAProxy estimates the sliding stretch from two that stand still",
        rate_limit::Algorithm::FixedWindow => {
            "HAProxy's stretch of time slides, and so admits no more around a boundary"
        }
    };
    out.note(0, format!("`rate_limit.quota` {}{}. {shape}.", quota(config), per(limit.per)));
    if admitted > u64::from(at_once(config)) {
        out.note(0, format!("A burst of {} would be over too soon to count: {admitted} here.", at_once(config)));
    }
    if keys > 1 {
        out.note(0, format!("`rate_limit.max_keys` {keys}"));
    }
    out.line(0, format!("backend {}", table_name(gateway)));
    let window = short(window, LONGEST);
    out.line(1, format!("stick-table type {kind} size {keys} expire {window} store gpc0_rate({window})"));
}

fn per(per: RateLimitKey) -> &'static str {
    match per {
        RateLimitKey::User => " for each user",
        RateLimitKey::Client => {
            ", `per: client`: HAProxy cannot tell programs apart, and counts by the address that a connection comes from"
        }
        RateLimitKey::Endpoint => " for each endpoint",
        RateLimitKey::All => "",
    }
}

fn table_name(gateway: &Gateway) -> String {
    format!("{}_rate_limit", gateway.service.name)
}

/// The shortest stretch of time that is counted well: HAProxy's clock has milliseconds.
const STRETCH: u128 = 100_000_000;

/// How many are admitted in which stretch of time: what is admitted at once, in the time in which the quota gives as
/// many again, or so many times both that the stretch is long enough to count.
fn window(config: &rate_limit::Config) -> (u64, Duration) {
    let at_once = u128::from(at_once(config));
    let limit = u128::from(config.limit.max(1));
    let all = config.per.as_nanos() * at_once;
    let times = (STRETCH * limit).div_ceil(all.max(1)).max(1);
    let nanos = u64::try_from(all * times / limit).unwrap_or(u64::MAX);
    (u64::try_from(at_once * times).unwrap_or(u64::MAX), Duration::from_nanos(nanos))
}

fn frontend(out: &mut Text, gateway: &Gateway) {
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
fn admin(out: &mut Text, gateway: &Gateway) {
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

fn hashes(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev)
}

fn rate_limited(out: &mut Text, gateway: &Gateway) {
    let Some(limit) = &gateway.service.rate_limit else { return };
    let config = &limit.config;
    let key = match limit.per {
        RateLimitKey::User => "var(txn.user)",
        RateLimitKey::Client => "src",
        RateLimitKey::Endpoint => "var(txn.endpoint)",
        RateLimitKey::All => "int(1)",
    };
    out.gap();
    out.note(1, "`rate_limit`: only what is admitted counts, so that whoever asks on and on is not shut out for it.");
    if limit.store.is_some() {
        out.note(1, "`rate_limit.store`: each HAProxy counts for itself; so `store_down` has nothing to decide.");
    }
    out.line(1, format!("http-request track-sc0 {key} table {}", table_name(gateway)));
    if acts(config.mode) {
        let again = config.per.as_nanos().div_ceil(u128::from(config.limit.max(1)) * 1_000_000_000).max(1);
        out.line(
            1,
            format!(
                "http-request deny deny_status 429 hdr Retry-After {again} if {{ sc_gpc0_rate(0) ge {} }}",
                window(config).0
            ),
        );
    } else {
        out.note(1, format!("`rate_limit.shadow`: counted and not refused; see `show table {}`.", table_name(gateway)));
    }
    out.line(1, "http-request sc-inc-gpc0(0)");
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

fn backend(out: &mut Text, gateway: &Gateway, index: usize) {
    let upstream = &gateway.upstreams[index];
    let policies = upstream.policies;
    let pipeline = &policies.pipeline;
    out.note(0, upstream.origin());
    let served = gateway.endpoints.iter().filter(|endpoint| endpoint.upstream == index);
    out.note(0, served.map(|endpoint| endpoint.name).collect::<Vec<_>>().join(", "));
    out.line(0, format!("backend {}", upstream.name));
    balance(out, upstream);
    out.gap();
    timeouts(out, gateway, upstream);
    if let Some(bulkhead) = upstream.bulkhead() {
        out.gap();
        out.note(1, format!("`bulkhead.permits` {}", bulkhead.permits));
        if bulkhead.queue > 0 {
            out.note(
                1,
                format!(
                    "`bulkhead.queue` {}: HAProxy's queues are for instances, not for the calls to all of them; what would \
                     wait is refused.",
                    bulkhead.queue
                ),
            );
        }
        // The request that asks is counted already.
        out.line(
            1,
            format!("http-request return status 503 if {{ be_conn({}) gt {} }}", upstream.name, bulkhead.permits),
        );
    }
    if let Some(most) = policies.max_connections {
        // What is in flight here, where nothing may wait; else what waits, also where instances are out.
        let (what, most) = match policies.max_pending {
            0 => ("be_conn", format!("gt {}", u64::from(most) * upstream.addresses.len() as u64)),
            pending => ("queue", format!("ge {pending}")),
        };
        out.gap();
        out.note(1, format!("`max_pending` {}", policies.max_pending));
        out.line(1, format!("http-request return status 503 if {{ {what}({}) {most} }}", upstream.name));
    }
    out.gap();
    retries(out, gateway, index);
    if pipeline.breaker.is_some_and(|breaker| acts(breaker.mode)) {
        out.note(
            1,
            "`breaker`: HAProxy has none for a whole backend. It goes on asking as long as one instance is in.",
        );
    }
    if pipeline.hedge.is_some_and(|hedge| acts(hedge.mode)) {
        out.note(1, "`hedge`: HAProxy sends a request once at a time.");
    }
    if policies.coalesce {
        out.note(1, "`coalesce`: HAProxy sends every request.");
    }
    let shadows = upstream.shadows();
    if !shadows.is_empty() {
        out.note(1, format!("{} with `shadow`: left out, since HAProxy could not but act.", quoted(shadows)));
    }
    cached(out, gateway, index);
    fallback(out, gateway, index);
    out.gap();
    servers(out, gateway, upstream);
}

fn balance(out: &mut Text, upstream: &Upstream) {
    let balance = &upstream.policies.balance;
    match balance.algorithm {
        Algorithm::RoundRobin | Algorithm::Weighted => out.line(1, "balance roundrobin"),
        Algorithm::LeastConnections => out.line(1, "balance leastconn"),
        Algorithm::P2c => {
            out.note(1, "`balance: p2c`: by requests in flight alone, not by latency.");
            out.line(1, format!("balance random({})", balance.choices));
        }
        Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev => {
            out.note(
                1,
                match balance.algorithm {
                    Algorithm::IpHash => {
                        "`balance: ip_hash`: on a ring, where few users move when an instance goes. HAProxy's plain hash \
                         (map-based) would lead a further try to the same instance again."
                    }
                    Algorithm::Maglev => "`balance: maglev`: HAProxy has no Maglev; a ring is consistent too.",
                    _ => "`balance: ring`: HAProxy has 16 points for each weight, which makes `ring_points` of them.",
                },
            );
            out.line(1, "balance hash var(txn.user)");
            out.line(1, "hash-type consistent");
            if balance.algorithm != Algorithm::IpHash && balance.bounded_load.is_finite() {
                out.note(1, "`balance.bounded_load`");
                out.line(
                    1,
                    format!(
                        "hash-balance-factor {}",
                        number((balance.bounded_load * 100.0).round().clamp(101.0, 65_535.0))
                    ),
                );
            }
        }
    }
    if balance.shadow.is_some() {
        out.note(1, "`balance.shadow`: not in HAProxy.");
    }
}

fn timeouts(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
    let pipeline = &upstream.policies.pipeline;
    match (pipeline.timeout, pipeline.per_try_timeout) {
        (None, None) => out.note(1, "`timeout: none`: HAProxy warns where it has none; this is 24 days."),
        (timeout, per_try) => {
            if let Some(per_try) = per_try {
                out.note(1, format!("`per_try_timeout` {}", people(per_try)));
            }
            if let Some(timeout) = timeout {
                let more = if upstream.attempts() > 1 {
                    "; so a request that is tried again may take that long each time"
                } else {
                    ""
                };
                out.note(
                    1,
                    format!(
                        "`timeout` {}: HAProxy measures a try's silence, not a request in all{more}.",
                        people(timeout)
                    ),
                );
            }
        }
    }
    let one_try = short(upstream.try_timeout().unwrap_or(LONGEST), LONGEST);
    out.line(1, format!("timeout connect {}", short(upstream.connect_timeout(gateway), LONGEST)));
    out.line(1, format!("timeout server {one_try}"));
    out.line(1, format!("timeout queue {}", short(pipeline.timeout.unwrap_or(LONGEST), LONGEST)));
}

fn retries(out: &mut Text, gateway: &Gateway, index: usize) {
    let upstream = &gateway.upstreams[index];
    let pipeline = &upstream.policies.pipeline;
    let when = upstream.policies.retry_when;
    let mut words = Vec::new();
    for (word, wanted) in [
        ("conn-failure", when.connect_error),
        ("empty-response", when.reset),
        ("response-timeout", when.timeout),
        ("500", when.internal_error),
        // What is no answer of ours counts as 503 does.
        ("502 503 504", when.unavailable),
    ] {
        if wanted {
            words.push(word);
        }
    }
    let attempts = upstream.attempts();
    let repeatable = gateway.numbers(|endpoint| endpoint.upstream == index && endpoint.idempotent);
    if attempts > 1 && when.too_many_requests {
        out.note(1, "`retry.when` 429: HAProxy 2.6 has no retry for it.");
    }
    if attempts == 1 || words.is_empty() || repeatable.is_empty() {
        out.note(1, "No further tries; HAProxy's own three are off.");
        out.line(1, "retries 0");
        return;
    }
    out.note(1, "`retry.attempts`, the first included; each at another instance.");
    out.line(1, format!("retries {}", attempts - 1));
    out.line(1, "option redispatch 1");
    out.line(1, format!("retry-on {}", words.join(" ")));
    if repeatable.len() < gateway.numbers(|endpoint| endpoint.upstream == index).len() {
        out.note(1, "What may not be repeated is tried again only where it could not be sent.");
        numbered(out, "repeatable", &repeatable);
        out.line(1, "http-request disable-l7-retry unless repeatable");
    }
    out.note(1, "`retry.backoff`, `throttled` and `retry_after_slack`: HAProxy tries the next instance at once.");
    if pipeline.budget.is_some_and(|budget| acts(budget.mode)) {
        out.note(1, "`retry.budget`: HAProxy has none. Where every try fails, the load is multiplied by the tries.");
    }
}

fn cached(out: &mut Text, gateway: &Gateway, index: usize) {
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

fn fallback(out: &mut Text, gateway: &Gateway, index: usize) {
    let of = |answer| gateway.numbers(|endpoint| endpoint.upstream == index && endpoint.fallback == Some(answer));
    let answers = gateway.fallbacks();
    let answers: Vec<_> = (1..).zip(answers).filter(|(_, answer)| !of(answer).is_empty()).collect();
    let Some((_, first)) = answers.first() else { return };
    out.gap();
    out.note(1, "`fallback`: for what instances answer, and for HAProxy's own errors.");
    for (number, answer) in &answers {
        let acl = format!("falls_back_{number}");
        numbered(out, &acl, &of(answer));
        let status = answer.status;
        out.line(
            1,
            format!("http-response return status {status} {} if {acl} {{ status 408 429 500:599 }}", content(answer)),
        );
        out.line(1, format!("http-after-response set-status {status} if {acl} {{ status 500:599 }}"));
    }
    if answers.len() > 1 {
        out.note(1, "HAProxy's own errors have one text a backend: the first.");
    }
    for status in [500, 502, 503, 504] {
        out.line(1, format!("http-error status {status} {}", content(first)));
    }
}

fn content(answer: &FallbackAnswer) -> String {
    format!("content-type {} string {}", weak(&answer.content_type), weak(&answer.body))
}

/// In weak quotes, where a line break has an escape.
fn weak(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn servers(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
    let health = upstream.health();
    let outliers = upstream.outliers().filter(|outliers| outliers.consecutive_failures > 0);
    let mut server = Vec::new();
    if let Some(health) = health {
        let config = &health.config;
        out.note(1, "`health`");
        out.line(1, "option httpchk");
        out.line(
            1,
            format!(
                "http-check send meth GET uri {} ver HTTP/1.1 hdr Host {}",
                strong(&escaped(&health.path)),
                upstream.to.name
            ),
        );
        out.line(1, format!("timeout check {}", short(config.timeout, LONGEST)));
        server.push(format!(
            "check inter {} fall {} rise {}",
            short(config.every, LONGEST),
            config.unhealthy_after,
            config.healthy_after
        ));
    }
    if let Some(outliers) = upstream.outliers() {
        let mut said = Vec::new();
        if let (Some(config), None) = (outliers.consecutive_failures.gt(&0).then_some(outliers), health) {
            said.push(format!(
                "HAProxy brings back what it took out by checks alone, and the file has none: after `eject_for` {} it tries to \
                 connect.",
                people(config.base_ejection)
            ));
            server.push(format!("check inter {} rise 1", short(config.base_ejection, LONGEST)));
        } else if outliers.consecutive_failures > 0 {
            said.push(format!(
                "`eject_for` {}: HAProxy brings an instance back as soon as it passes its checks.",
                people(outliers.base_ejection)
            ));
        }
        said.push(format!(
            "Not in HAProxy: `success_rate_sigmas` {}, `max_ejected` {} (all may be out, and then it answers 503), \
             `panic_below` {}.",
            number(outliers.success_rate_sigmas),
            percent(outliers.max_ejected),
            percent(outliers.panic_below)
        ));
        out.note(1, format!("`outliers`: {}", said.join(" ")));
    }
    if let Some(outliers) = outliers {
        server.push(format!("observe layer7 error-limit {} on-error mark-down", outliers.consecutive_failures));
        if outliers.slow_start > Duration::ZERO {
            out.note(
                1,
                format!(
                    "`outliers.slow_start`: from nothing, not `slow_start_from` {}.",
                    percent(outliers.slow_start_min)
                ),
            );
            server.push(format!("slowstart {}", short(outliers.slow_start, LONGEST)));
        }
    }
    if let Some(most) = upstream.policies.max_connections {
        out.note(1, "`max_connections`: more wait, for as long as `timeout queue` says.");
        server.push(format!("maxconn {most}"));
    }
    if upstream.addresses.iter().any(Address::is_name) {
        out.note(1, "A name that cannot be looked up yet is no reason not to start.");
        // The system's resolver knows nothing of a name server that the file gives.
        let first = if upstream.name_server.is_some() { "last,none" } else { "last,libc,none" };
        server.push(format!("resolvers {} init-addr {first}", names(upstream)));
    }
    out.note(1, "`limits.upstream_idle`");
    let idle = Duration::from_nanos(gateway.serving.limits.upstream_idle);
    server.push(format!("pool-purge-delay {}", short(idle, LONGEST)));
    out.line(1, format!("default-server {}", server.join(" ")));
    if upstream.found.is_some() {
        out.note(1, "As many of the name's addresses as there are instances.");
        let (name, address) = (&upstream.to.name, &upstream.addresses[0]);
        out.line(1, format!("server-template {name}- {} {address}", upstream.to.instances));
        return;
    }
    let weights = weights(upstream);
    if upstream.weights().is_some() {
        out.note(1, format!("`balance.weights`, in whole numbers up to {MOST_WEIGHT}"));
    }
    for (index, address) in upstream.addresses.iter().enumerate() {
        let weight = weights.as_ref().map(|weights| format!(" weight {}", weights[index])).unwrap_or_default();
        out.line(1, format!("server {}-{} {address}{weight}", upstream.to.name, index + 1));
    }
}

/// Weights of instances, none where all have HAProxy's own, which is 1.
fn weights(upstream: &Upstream) -> Option<Vec<u32>> {
    if hashes(upstream.policies.balance.algorithm) {
        return Some(upstream.ring_weights(POINTS, MOST_WEIGHT));
    }
    upstream.weights().map(|weights| whole(&weights, MOST_WEIGHT))
}

/// An ACL for some endpoints, in as many lines as HAProxy's 64 words a line take.
fn numbered(out: &mut Text, acl: &str, numbers: &[usize]) {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let words: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}:{last}") })
        .collect();
    for words in words.chunks(32) {
        out.line(1, format!("acl {acl} var(txn.endpoint) -m int {}", words.join(" ")));
    }
}

/// In HAProxy's strong quotes, within which nothing has a meaning.
fn strong(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_few_enough_words() {
        let mut out = Text::new("");
        let odd: Vec<usize> = (1..200).step_by(2).collect();
        numbered(&mut out, "odd", &odd);
        numbered(&mut out, "row", &[1, 2, 3, 5]);
        let text = out.finish();
        assert!(text.lines().all(|line| line.split(' ').count() <= 64), "{text}");
        assert_eq!(text.lines().last(), Some("acl row var(txn.endpoint) -m int 1:3 5"));
    }

    #[test]
    fn paths_cannot_leave_their_quotes() {
        assert_eq!(strong("/it's"), "'/it'\\''s'");
    }

    #[test]
    fn a_burst_comes_back_at_the_quotas_rate() {
        let mut config = rate_limit::Config::new(100, Duration::from_secs(60));
        assert_eq!(window(&config), (10, Duration::from_secs(6)));
        config.algorithm = rate_limit::Algorithm::SlidingWindow;
        assert_eq!(window(&config), (100, Duration::from_secs(60)));
        config = rate_limit::Config::new(10_000, Duration::from_secs(1));
        assert_eq!(window(&config), (1_000, Duration::from_millis(100)));
        // One each tenth of a millisecond cannot be counted; a thousand each 100 ms can.
        config.algorithm = rate_limit::Algorithm::Gcra { burst: Some(1) };
        assert_eq!(window(&config), (1_000, Duration::from_millis(100)));
    }
}
