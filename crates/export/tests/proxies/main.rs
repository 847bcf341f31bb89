//! Exported configurations, in the hands of the proxies that they are for.

// Processes are started and stopped as on Unix.
#![cfg(unix)]

mod accepted;
mod backend;
mod envoy;
mod names;
mod proxy;
mod reference;
mod running;
mod snapshot;

use std::path::{Path, PathBuf};

use plimsoll_export::{Error, Site};
use plimsoll_model::Source;
use plimsoll_model::system::{ServiceId, System};

/// What turns a gateway into a configuration.
type Export = fn(&System, ServiceId, &Site) -> Result<String, Error>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A system from a text; other files that it names are beside `everything.yaml`.
#[track_caller]
fn system(name: &str, text: &str) -> System {
    let data = root().join("crates/model/tests/data");
    let read = |name: &str| std::fs::read(data.join(name)).map_err(|error| error.to_string());
    let source = Source { name, bytes: text.as_bytes(), read: &read };
    plimsoll_model::parse(&source).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

/// `everything.yaml`, which has every key of a gateway.
fn everything() -> String {
    let path = root().join("crates/model/tests/data/everything.yaml");
    std::fs::read_to_string(path).expect("everything.yaml")
}

/// A gateway `edge` with some keys, before a service `api` of three instances.
fn gateway(keys: &str) -> String {
    format!(
        "system: small
clients: {{ web: {{ rate: 1/s, calls: [ edge GET /notes ] }} }}
services:
  edge: {{ kind: gateway, {keys} }}
  api:
    instances: 3
    endpoints:
      GET /notes: [ {{ work: 1ms }} ]
      GET /notes/:id: [ {{ work: 1ms }} ]
      POST /notes: [ {{ work: 1ms }} ]
stores: {{ counts: {{ kind: redis }} }}
"
    )
}

/// Systems with gateways, by name: the examples, and files that have every key and every choice.
fn systems() -> Vec<(String, System)> {
    let mut systems = Vec::new();
    for folder in ["examples", "examples/controls"] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .collect();
        files.sort();
        for path in files {
            let text = std::fs::read_to_string(&path).expect("an example");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            systems.push((name.clone(), system(&name, &text)));
        }
    }
    assert!(systems.len() > 10, "the examples have gone");
    systems.retain(|(_, system)| !plimsoll_export::gateways(system).is_empty());
    assert!(systems.len() > 5, "the examples have no gateways");
    let shadows = everything();
    let acting = shadows.replace("shadow: true", "shadow: false");
    assert_ne!(shadows, acting);
    systems.push(("everything.yaml".to_owned(), system("everything.yaml", &shadows)));
    systems.push(("everything.yaml, acting".to_owned(), system("everything.yaml", &acting)));
    for keys in [
        "upstream: api",
        "upstream: api, timeout: none, drain: 0, max_in_flight: 1, cores: 1",
        "upstream: api, timeout: 30d, drain: 40d, max_in_flight: 1G",
        "upstream: api, timeout: 500us, health: { every: 100us }, outliers: { eject_for: 1ms, every: 1ms }",
        "upstream: api, balance: weighted, outliers: { slow_start: 0 }",
        "upstream: api, balance: { algorithm: weighted, weights: [3, 0.5] }",
        "upstream: api, balance: { algorithm: least_connections, weights: [1000000, 0, 1] }, outliers: { slow_start: 1s }",
        "upstream: api, balance: { algorithm: ring, weights: [3, 0.5, 0], ring_points_max: 1 , ring_points_min: 1 }",
        "upstream: api, balance: { algorithm: p2c, weights: [0.333] }",
        "upstream: api, balance: least_connections, outliers: { consecutive_failures: 0 }, health: {}",
        "upstream: api, balance: ip_hash, outliers: { success_rate_sigmas: 0 }",
        "upstream: api, balance: ring, outliers: {}",
        "upstream: api, balance: { algorithm: maglev, bounded_load: 1.001, shadow: p2c }",
        "upstream: api, balance: { algorithm: p2c, choices: 5 }, max_connections: 1, max_pending: 0",
        "upstream: api, health: { path: \"/it's $HOME \\\"é\\\" a\\nb#;{}\" }",
        "upstream: api, access_log: stdout, coalesce: true, queue: 5, admin: \"127.0.0.1:18099\"",
        "upstream: api, access_log: { to: stderr, format: combined }, trusted: [ 10.0.0.0/8 ], headers: { user: X-User }",
        "upstream: api, limits: { header_bytes: 1KiB, header_count: 1, body: 1B, connections: 1, connections_per_client: 1M, \
         upstream_idle: 1d, idle: 1ms, connect_timeout: 1us }, timeout: 1h",
        "upstream: api, retry: { attempts: 1 }",
        "upstream: api, retry: { attempts: 100, when: [] }, hedge: { budget: 5% }",
        "upstream: api, retry: { when: [429], jitter: none, budget: {} }, per_try_timeout: 100ms",
        "upstream: api, retry: { when: [reset] }, breaker: {}",
        "upstream: api, retry: { when: [timeout] }, bulkhead: { permits: 3, queue: 7 }",
        "upstream: api, rate_limit: { quota: 5/h }",
        "upstream: api, rate_limit: { quota: 10k/s, burst: 1, per: user }",
        "upstream: api, rate_limit: { quota: 1M/ms, per: client, max_keys: 1 }",
        "upstream: api, rate_limit: { quota: 1/d, algorithm: sliding_window, per: endpoint, store: counts }",
        "upstream: api, rate_limit: { quota: 7/s, algorithm: fixed_window, shadow: true }",
        "routes: [ { to: api, match: GET *, cache: { key: a, capacity: 20k, ttl: 1ms, negative: 1s..2s }, fallback: true, \
         fallback_answer: { body: \"a 'b' $c \\\"d\\\" \\\\ e\\nf;}\", type: \"text/plain; a\\nb\" } }, \
         { to: api, match: POST *, retry: {} } ]",
        "routes: [ { to: api, cache: { key: a, capacity: 1, stale: 0, lock: none } } ], limit: gradient, bulkheads: { some: { \
         endpoints: [ POST /notes, GET /notes ], queue: 3 }, others: { endpoints: [ GET /notes/:id ], shadow: true } }",
    ] {
        systems.push((keys.to_owned(), system("small.yaml", &gateway(keys))));
    }
    systems
}

/// Every gateway of every system, as one proxy's configuration.
#[track_caller]
fn each(export: Export, site: &Site, mut check: impl FnMut(&str, &System, ServiceId, &str)) {
    for (name, system) in systems() {
        for gateway in plimsoll_export::gateways(&system) {
            let text = export(&system, gateway, site).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(
                export(&system, gateway, site).as_deref(),
                Ok(text.as_str()),
                "{name}: not the same bytes again"
            );
            let name = format!("{name}, {}", system.services[gateway.index()].name);
            check(&name, &system, gateway, &text);
        }
    }
}
