//! nginx, the open-source version. Directives are those of 1.22, which Debian 12 has.

use std::time::Duration;

use plimsoll_model::system::policy::balance::Algorithm;
use plimsoll_model::system::{FallbackAnswer, LogFormat, RateLimitKey, RouteCache, ServiceId, System};

use crate::error::Error;
use crate::gateway::{Endpoint, Gateway, LONGEST, Upstream, acts, at_once, quota, whole};
use crate::site::{Files, Site};
use crate::text::{Text, count, millis, number, one_line, people, percent, quoted, seconds, short};

/// More connections and open files than Linux lets a process have (fs.nr_open).
const MOST_FILES: u64 = 1 << 20;
/// `limit_conn` counts no further.
const MOST_COUNTED: u32 = 65_535;
/// Points of a server on a ring, for each unit of its weight.
const POINTS: u32 = 160;
/// The largest weight that is written: it makes 41 thousand points.
const MOST_WEIGHT: u32 = 256;
/// Keys that a megabyte of a limit_req zone or a cache's zone holds, by nginx's documentation.
const KEYS_A_MEGABYTE: u64 = 8_000;

/// A whole `nginx.conf` that makes nginx do what a gateway of a system does.
pub fn nginx(system: &System, gateway: ServiceId, site: &Site) -> Result<String, Error> {
    let gateway = Gateway::new(system, gateway, site)?;
    let locations = locations(&gateway);
    let mut out = Text::new("    ");
    head(&mut out, &gateway);
    out.gap();
    out.line(0, "http {");
    journal(&mut out, &gateway);
    if gateway.fallbacks().iter().any(|answer| answer.body.contains('$') || answer.content_type.contains('$')) {
        out.line(1, "geo $dollar { default \"$\"; }");
    }
    requests(&mut out, &gateway, &locations);
    limits(&mut out, &gateway);
    caches(&mut out, &gateway);
    for upstream in &gateway.upstreams {
        out.gap();
        peers(&mut out, &gateway, upstream);
    }
    out.gap();
    server(&mut out, &gateway, &locations);
    out.line(0, "}");
    Ok(out.finish())
}

/// What can have one `location`: requests that get the same from nginx.
#[derive(Debug, PartialEq)]
struct Location<'a> {
    upstream: usize,
    retry: Retry,
    cache: Option<&'a RouteCache>,
    fallback: Option<&'a FallbackAnswer>,
}

/// Which further attempts nginx has to be told of, or not to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    None,
    /// As nginx does by itself: what may be repeated by its method.
    ByMethod,
    /// A POST or PATCH that may be repeated all the same.
    Always,
}

impl<'a> Location<'a> {
    fn of(endpoint: &Endpoint<'a>, upstream: &Upstream) -> Self {
        // nginx: "requests with a non-idempotent method (POST, LOCK, PATCH)".
        let by_method = !endpoint.pattern.methods.iter().any(|method| ["POST", "LOCK", "PATCH"].contains(&&**method));
        let retry = match (upstream.attempts(), endpoint.idempotent, by_method) {
            (1, ..) | (_, false, true) => Retry::None,
            (_, true, false) => Retry::Always,
            _ => Retry::ByMethod,
        };
        Location { upstream: endpoint.upstream, retry, cache: endpoint.cache, fallback: endpoint.fallback }
    }
}

fn locations<'a>(gateway: &Gateway<'a>) -> Vec<Location<'a>> {
    let mut locations = Vec::new();
    for endpoint in &gateway.endpoints {
        let location = Location::of(endpoint, &gateway.upstreams[endpoint.upstream]);
        if !locations.contains(&location) {
            locations.push(location);
        }
    }
    locations
}

fn head(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    out.note(
        0,
        format!(
            "The gateway `{}` of the system `{}` for nginx, as its open-source version 1.22 in Debian 12 understands it. \
             Every number is the system file's. What nginx cannot do is said where it would stand, by its key in the \
             system file.",
            service.name, gateway.system.name
        ),
    );
    out.gap();
    if gateway.site.files == Files::Package {
        out.line(0, "user www-data;");
    }
    out.note(
        0,
        format!("`cores`. `instances`: {}, each an nginx of its own that counts for itself.", service.instances),
    );
    out.line(0, format!("worker_processes {};", service.cores));
    out.note(0, "`drain`: how long a worker that was told to stop may go on with what it has.");
    // Zero means "without end" to nginx.
    let drain = Duration::from_nanos(service.drain).max(Duration::from_millis(1));
    out.line(0, format!("worker_shutdown_timeout {};", short(drain, Duration::MAX)));
    match &gateway.site.files {
        Files::Package => {
            out.line(0, "pid /run/nginx.pid;");
            out.line(0, "error_log /var/log/nginx/error.log;");
        }
        Files::Directory(directory) => {
            out.line(0, format!("pid \"{}/nginx.pid\";", directory.as_str()));
            out.line(0, format!("error_log \"{}/error.log\";", directory.as_str()));
        }
    }
    out.gap();
    out.note(
        0,
        format!(
            "`limits.connections` {} of clients, and for each of `max_in_flight` {} one to an instance and perhaps a file for \
             its body. One worker may have them all.",
            gateway.serving.limits.connections, service.max_in_flight
        ),
    );
    let in_flight = u64::from(service.max_in_flight);
    let connections = u64::from(gateway.serving.limits.connections) + in_flight;
    out.line(0, format!("worker_rlimit_nofile {};", (connections + in_flight).clamp(64, MOST_FILES)));
    out.line(0, "events {");
    out.line(1, format!("worker_connections {};", connections.clamp(32, MOST_FILES)));
    out.line(0, "}");
}

fn journal(out: &mut Text, gateway: &Gateway) {
    if let Files::Directory(directory) = &gateway.site.files {
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            out.line(1, format!("{kind}_temp_path \"{}/{kind}\";", directory.as_str()));
        }
    }
    let (Some(to), Some(log)) = (&gateway.log, &gateway.serving.access_log) else {
        out.note(1, "`access_log: none`");
        out.line(1, "access_log off;");
        return;
    };
    let format = match log.format {
        LogFormat::Combined => {
            "log_format access '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
             \"$http_referer\" \"$http_user_agent\" $request_time $upstream_addr $upstream_response_time';"
        }
        LogFormat::Json => {
            "log_format access escape=json '{\"time\":\"$time_iso8601\",\"client\":\"$remote_addr\",\"request\":\"$request\",\
             \"status\":$status,\"bytes\":$body_bytes_sent,\"seconds\":$request_time,\"instance\":\"$upstream_addr\",\
             \"instance_seconds\":\"$upstream_response_time\"}';"
        }
    };
    out.note(1, format!("`access_log.buffer` {}: nginx writes lines as they come.", log.buffer));
    out.line(1, format);
    let to = match to.as_str() {
        "stdout" | "stderr" => format!("/dev/{to}"),
        path => format!("\"{path}\""),
    };
    out.line(1, format!("access_log {to} access;"));
}

/// From a request to its endpoint, and from that to its location.
fn requests(out: &mut Text, gateway: &Gateway, locations: &[Location]) {
    out.gap();
    if gateway.endpoints.len() > 500 {
        out.line(1, format!("map_hash_max_size {};", gateway.endpoints.len().saturating_mul(4)));
    }
    out.note(1, "Which endpoint a request is for, by its method and path; the first that matches.");
    out.line(1, "map \"$request_method $uri\" $endpoint {");
    for (number, endpoint) in (1..).zip(&gateway.endpoints) {
        out.note(2, endpoint.name);
        let methods = match endpoint.pattern.methods.as_slice() {
            [] => "[A-Z]+".to_owned(),
            [one] => one.clone(),
            several => format!("(?:{})", several.join("|")),
        };
        out.line(2, format!("\"~^{methods} {}$\" {number};", endpoint.pattern.regex()));
    }
    if !gateway.unmatched.is_empty() {
        out.note(2, format!("No method and path to match: {}.", quoted(gateway.unmatched.iter().copied())));
    }
    out.line(2, "default \"\";");
    out.line(1, "}");
    out.line(1, "map $endpoint $location {");
    for (number, endpoint) in (1..).zip(&gateway.endpoints) {
        let location = Location::of(endpoint, &gateway.upstreams[endpoint.upstream]);
        let at = locations.iter().position(|other| *other == location).expect("each has one");
        out.line(2, format!("{number} {};", location_name(gateway, locations, at)));
    }
    out.line(2, "default @none;");
    out.line(1, "}");
    if by_user(gateway) {
        out.gap();
        match &gateway.user_header {
            Some(header) => {
                out.note(1, "`headers.user`: a user; without it, the client's address.");
                let variable = format!("$http_{}", header.as_str().to_ascii_lowercase().replace('-', "_"));
                out.line(1, format!("map {variable} $user {{"));
                out.line(2, "\"\" $remote_addr;");
                out.line(2, format!("default {variable};"));
                out.line(1, "}");
            }
            None => {
                out.note(1, "`headers.user: none`: a user is the client's address.");
                out.line(1, "map $remote_addr $user {");
                out.line(2, "default $remote_addr;");
                out.line(1, "}");
            }
        }
    }
    trusted(out, gateway);
}

/// Whose word on the client's address is taken.
fn trusted(out: &mut Text, gateway: &Gateway) {
    let networks = &gateway.serving.trusted;
    if networks.is_empty() {
        return;
    }
    out.gap();
    out.note(1, "`trusted`: what these say of the client's address is believed, and passed on.");
    for network in networks {
        out.line(1, format!("set_real_ip_from {}/{};", network.address, network.bits));
    }
    out.line(1, "real_ip_header X-Forwarded-For;");
    out.line(1, "real_ip_recursive on;");
    out.line(1, "geo $realip_remote_addr $trusted {");
    for network in networks {
        out.line(2, format!("{}/{} 1;", network.address, network.bits));
    }
    out.line(2, "default 0;");
    out.line(1, "}");
    out.line(1, "map $trusted $forwarded_for {");
    out.line(2, "1 \"$http_x_forwarded_for, $realip_remote_addr\";");
    out.line(2, "default $remote_addr;");
    out.line(1, "}");
}

/// Named after the upstream, numbered where several locations lead there.
fn location_name(gateway: &Gateway, locations: &[Location], at: usize) -> String {
    let upstream = locations[at].upstream;
    let name = &gateway.upstreams[upstream].name;
    let before = locations[..at].iter().filter(|location| location.upstream == upstream).count();
    if before == 0 { format!("@{name}") } else { format!("@{name}.{}", before + 1) }
}

/// Whether anything is counted or hashed by the user.
fn by_user(gateway: &Gateway) -> bool {
    let hashed = |upstream: &Upstream| {
        matches!(upstream.policies.balance.algorithm, Algorithm::IpHash | Algorithm::Ring | Algorithm::Maglev)
    };
    gateway.service.rate_limit.as_ref().is_some_and(|limit| limit.per == RateLimitKey::User)
        || gateway.upstreams.iter().any(hashed)
}

/// Zones of limits. They hold for a whole nginx, over its workers.
fn limits(out: &mut Text, gateway: &Gateway) {
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
struct Group {
    key: String,
    permits: u32,
    queue: u32,
    endpoints: Vec<usize>,
}

fn bulkheads(gateway: &Gateway) -> Vec<Group> {
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

fn caches(out: &mut Text, gateway: &Gateway) {
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

fn peers(out: &mut Text, gateway: &Gateway, upstream: &Upstream) {
    let policies = upstream.policies;
    out.note(1, upstream.origin());
    if let Some(every) = upstream.found {
        let every = people(every);
        out.note(1, format!("`at.every` {every}: nginx looks names up when it starts, and not again before a reload."));
        if let Some(server) = upstream.name_server {
            out.note(1, format!("`at.server` {server}: the system's resolver has to know the name."));
        }
    } else if upstream.addresses.iter().any(crate::Address::is_name) {
        out.note(1, "nginx looks names up when it starts, and not again before a reload.");
    }
    if upstream.shadows().iter().any(|key| ["health", "outliers"].contains(key)) {
        out.note(1, "`shadow`: what only counts in the file is left out here.");
    }
    out.line(1, format!("upstream {} {{", upstream.name));
    out.note(2, "Shared, so that all workers count and balance together.");
    out.line(2, format!("zone {} {}k;", upstream.name, 64 + 4 * upstream.addresses.len()));
    balance(out, upstream);
    if let Some(health) = upstream.health() {
        out.note(
            2,
            format!(
                "`health` {} every {}: no active health checks in open-source nginx, which learns of a dead instance \
                 from requests that fail.",
                health.path,
                people(health.config.every)
            ),
        );
    }
    let (fails, fail_timeout) = passive(out, upstream);
    let mut parameters = match fail_timeout {
        None => " max_fails=0".to_owned(),
        Some(timeout) => format!(" max_fails={fails} fail_timeout={}s", seconds(timeout)),
    };
    if let Some(most) = policies.max_connections {
        out.note(
            2,
            format!("`max_connections` {most}: more do not wait (`max_pending`) in open-source nginx; where all instances are full it answers 502."),
        );
        parameters.push_str(&format!(" max_conns={most}"));
    }
    let ring = matches!(policies.balance.algorithm, Algorithm::Ring | Algorithm::Maglev);
    let stated = upstream.weights();
    let weights = match &stated {
        _ if ring => Some(upstream.ring_weights(POINTS, MOST_WEIGHT)),
        stated => stated.as_ref().map(|weights| whole(weights, MOST_WEIGHT)),
    };
    if stated.is_some() {
        out.note(2, "`balance.weights`, in whole numbers; 0 is `down`.");
    }
    for (index, address) in upstream.addresses.iter().enumerate() {
        let weight = match weights.as_ref().map(|weights| weights[index]) {
            None => String::new(),
            Some(0) => " down".to_owned(),
            Some(weight) => format!(" weight={weight}"),
        };
        out.line(2, format!("server {address}{weight}{parameters};"));
    }
    let most = policies.max_connections.map(|most| u64::from(most) * upstream.addresses.len() as u64);
    let in_flight = u64::from(gateway.service.max_in_flight);
    out.note(2, "Idle connections that a worker keeps: as many as can be in flight, for `limits.upstream_idle`.");
    out.line(2, format!("keepalive {};", most.unwrap_or(in_flight).min(in_flight).min(MOST_FILES)));
    let idle = Duration::from_nanos(gateway.serving.limits.upstream_idle);
    out.line(2, format!("keepalive_timeout {};", short(idle, LONGEST)));
    out.line(1, "}");
}

fn balance(out: &mut Text, upstream: &Upstream) {
    let balance = &upstream.policies.balance;
    let bounded = || {
        if balance.bounded_load.is_finite() {
            format!(" `balance.bounded_load` {}: nginx sets no bound.", number(balance.bounded_load))
        } else {
            String::new()
        }
    };
    match balance.algorithm {
        Algorithm::RoundRobin | Algorithm::Weighted => {
            out.note(2, "`balance`: (smooth weighted) round robin is what nginx does unless told otherwise.");
        }
        Algorithm::LeastConnections => out.line(2, "least_conn;"),
        Algorithm::IpHash => {
            out.note(2, "`balance: ip_hash`: nginx's own `ip_hash` looks at three of four bytes of an address.");
            out.line(2, "hash $user;");
        }
        Algorithm::Ring => {
            out.note(
                2,
                format!(
                    "`balance: ring`: Ketama's, with 160 points for each weight, which makes `ring_points` of them.{}",
                    bounded()
                ),
            );
            out.line(2, "hash $user consistent;");
        }
        Algorithm::Maglev => {
            out.note(2, format!("`balance: maglev`: nginx has no Maglev; a ring is consistent too, of about as many points as `maglev_slots`.{}", bounded()));
            out.line(2, "hash $user consistent;");
        }
        Algorithm::P2c => {
            out.note(
                2,
                format!(
                    "`balance: p2c`, `choices` {}: of two, by requests in flight alone; `least_time` takes NGINX Plus.",
                    balance.choices
                ),
            );
            out.line(2, "random two least_conn;");
        }
    }
    if balance.shadow.is_some() {
        out.note(2, "`balance.shadow`: not in nginx.");
    }
}

/// Passive checks: failures within a time, and the time.
fn passive(out: &mut Text, upstream: &Upstream) -> (u32, Option<Duration>) {
    let health = upstream.health().map(|health| health.config);
    let outliers = upstream.outliers();
    if let Some(outliers) = outliers {
        let rule = if outliers.consecutive_failures > 0 {
            format!(
                "`outliers`: {} within `eject_for`, in a row or not, take an instance out for `eject_for`; not for longer the \
                 next time (`eject_for_max`).",
                count(outliers.consecutive_failures as usize, "failure")
            )
        } else {
            "`outliers.consecutive_failures` 0: no failures in a row take an instance out.".to_owned()
        };
        out.note(
            2,
            format!(
                "{rule} A failure is what `proxy_next_upstream` lists, errors and timeouts in any case. Not in nginx: \
                 `success_rate_sigmas` {}, `max_ejected` {} (all may be out, and then it answers 502), `panic_below` {}, \
                 `slow_start` {} (NGINX Plus).",
                number(outliers.success_rate_sigmas),
                percent(outliers.max_ejected),
                percent(outliers.panic_below),
                people(outliers.slow_start),
            ),
        );
    }
    match (outliers, health) {
        (Some(outliers), _) if outliers.consecutive_failures > 0 => {
            (outliers.consecutive_failures, Some(outliers.base_ejection))
        }
        (_, Some(health)) => {
            out.note(
                2,
                "In their place, `health.unhealthy_after` failures of requests within `health.every` take an instance out \
                 for as long.",
            );
            (health.unhealthy_after, Some(health.every))
        }
        _ => {
            out.note(2, "No `health` and no `outliers`: an instance is asked however often it fails. nginx's own 1 in 10 s is off.");
            (0, None)
        }
    }
}

fn server(out: &mut Text, gateway: &Gateway, locations: &[Location]) {
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

fn counted(out: &mut Text, zone: &str, most: u32) {
    if most > MOST_COUNTED {
        out.note(2, format!("nginx counts no further than {MOST_COUNTED}."));
    }
    out.line(2, format!("limit_conn {zone} {};", most.min(MOST_COUNTED)));
}

fn rate_limit(out: &mut Text, gateway: &Gateway) {
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
    let name = location_name(gateway, locations, at);
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

fn retries(out: &mut Text, upstream: &Upstream, retry: Retry) {
    let pipeline = &upstream.policies.pipeline;
    let when = upstream.policies.retry_when;
    let mut words = Vec::new();
    if when.connect_error || when.reset {
        words.push("error");
    }
    if when.timeout {
        words.push("timeout");
    }
    for (status, wanted) in
        [("http_429", when.too_many_requests), ("http_500", when.internal_error), ("http_503", when.unavailable)]
    {
        if wanted {
            words.push(status);
        }
    }
    if retry == Retry::None || words.is_empty() {
        out.note(3, "No further tries; nginx's own `error timeout` is off.");
        out.line(3, "proxy_next_upstream off;");
        return;
    }
    let config = pipeline.retry.expect("there are attempts");
    if when.connect_error != when.reset {
        let (said, other) = if when.connect_error { ("connect_error", "reset") } else { ("reset", "connect_error") };
        out.note(3, format!("`retry.when` has {said} and not {other}; to nginx both are an `error`."));
    }
    match retry {
        Retry::Always => {
            out.note(3, "These may be repeated whatever their method: `non_idempotent`.");
            words.push("non_idempotent");
        }
        _ => out.note(
            3,
            "nginx repeats no POST or PATCH that was sent; one that could not be sent it does send elsewhere.",
        ),
    }
    out.line(3, format!("proxy_next_upstream {};", words.join(" ")));
    let instances = upstream.addresses.len();
    if config.attempts as usize > instances {
        out.note(
            3,
            format!(
                "`retry.attempts` {}: nginx tries an instance once for a request, and there are {instances}.",
                config.attempts
            ),
        );
    }
    out.line(3, format!("proxy_next_upstream_tries {};", config.attempts));
    if let Some(timeout) = pipeline.timeout {
        out.line(3, format!("proxy_next_upstream_timeout {};", short(timeout, LONGEST)));
    }
    out.note(3, "`retry.backoff`, `throttled` and `retry_after_slack`: nginx tries the next instance at once.");
    if pipeline.budget.is_some_and(|budget| acts(budget.mode)) {
        out.note(3, "`retry.budget`: nginx has none. Where every try fails, the load is multiplied by the tries.");
    }
}

fn cached(out: &mut Text, gateway: &Gateway, cache: &RouteCache) {
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
