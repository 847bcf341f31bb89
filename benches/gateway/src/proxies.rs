//! The proxies and their settings, the best for this job that we know of. Each has two threads or
//! workers, keeps connections to the backends, writes no access log, gives up on a backend after a second,
//! and tries another one then.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_bench_common::Process;

/// A proxy that runs.
pub struct Proxy {
    pub name: &'static str,
    pub address: SocketAddr,
    pub process: Process,
}

/// nginx has no active health checks in its open-source version: failures of requests keep a backend away
/// (`max_fails`), for a second, so that it also comes back within one.
fn nginx(folder: &str, address: SocketAddr, backends: &[SocketAddr]) -> String {
    let servers: String =
        backends.iter().map(|backend| format!("    server {backend} max_fails=1 fail_timeout=1s;\n")).collect();
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\nworker_rlimit_nofile 20000;\npid {folder}/nginx.pid;\n\
         error_log {folder}/nginx.error crit;\nevents {{ worker_connections 16000; }}\nhttp {{\n\
         \x20 access_log off;\n  keepalive_timeout 300s;\n  keepalive_requests 100000000;\n  tcp_nodelay on;\n\
         \x20 client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  fastcgi_temp_path {folder}/f;\n\
         \x20 uwsgi_temp_path {folder}/u;\n  scgi_temp_path {folder}/s;\n\
         \x20 upstream api {{\n    zone api 256k;\n    least_conn;\n{servers}    keepalive 512;\n\
         \x20   keepalive_requests 100000000;\n  }}\n\
         \x20 server {{\n    listen {address} reuseport backlog=4096;\n    location / {{\n\
         \x20     proxy_pass http://api;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n\
         \x20     proxy_set_header Host $host;\n      proxy_set_header X-Forwarded-For $remote_addr;\n\
         \x20     proxy_connect_timeout 250ms;\n      proxy_read_timeout 1s;\n\
         \x20     proxy_next_upstream error timeout http_502 http_503 http_504;\n      proxy_next_upstream_tries 3;\n\
         \x20   }}\n  }}\n}}\n"
    )
}

/// HAProxy checks each second and watches the answers too; a backend that fails is marked down at once.
fn haproxy(address: SocketAddr, backends: &[SocketAddr]) -> String {
    let servers: String = backends
        .iter()
        .enumerate()
        .map(|(i, backend)| {
            format!(
                "  server b{i} {backend} check inter 1s fall 2 rise 1 observe layer7 error-limit 5 on-error mark-down\n"
            )
        })
        .collect();
    format!(
        "global\n  nbthread 2\n  maxconn 12000\n  no strict-limits\n  tune.listener.multi-queue on\ndefaults\n\
         \x20 mode http\n  timeout client 300s\n  timeout http-keep-alive 300s\n  timeout connect 250ms\n\
         \x20 timeout server 1s\n  timeout check 500ms\n  option http-keep-alive\n  option redispatch 1\n  retries 2\n\
         \x20 retry-on all-retryable-errors\n  http-reuse always\n  maxconn 12000\n\
         frontend edge\n  bind {address} backlog 4096\n  option forwardfor\n  default_backend api\n\
         backend api\n  balance leastconn\n  option httpchk GET /health\n{servers}"
    )
}

/// Ours with every policy that a gateway has, but for those that answer without asking, or with none.
fn ours(address: SocketAddr, backends: &[SocketAddr], policies: bool) -> String {
    let at: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
    let policies = match policies {
        false => "    balance: round_robin\n",
        true => {
            "    balance: p2c\n\
             \x20   health: { path: /health, every: 1s, timeout: 500ms, unhealthy_after: 2, healthy_after: 1 }\n\
             \x20   outliers: { consecutive_failures: 3, eject_for: 1s, max_ejected: 50%, panic_below: 30%, slow_start: 0s }\n\
             \x20   retry: { attempts: 3, backoff: 1ms..10ms, when: [connect_error, reset, timeout, 500, 503], budget: 20% }\n\
             \x20   hedge: { percentile: 99%, min_delay: 5ms, min_samples: 100 }\n\
             \x20   breaker: { failure_rate: 90%, min_calls: 1000 }\n\
             \x20   rate_limit: { quota: 1000k/s, burst: 100k, per: client }\n\
             \x20   limit: { algorithm: gradient, initial: 2000, min: 1000, max: 10000 }\n\
             \x20   bulkhead: 10000\n\
             \x20   degradation: { levels: [ { name: lite, enter: 100%, leave: 50%, reject: [ POST /items ] } ] }\n\
             \x20   max_connections: 4000\n\
             \x20   queue: 1000\n"
        }
    };
    format!(
        "system: bench\nclients: {{ web: {{ rate: 1/s, calls: [ edge GET /items/:id ] }} }}\nservices:\n  edge:\n\
         \x20   kind: gateway\n    listen: [\"{address}\"]\n    cores: 2\n    upstream: api\n    timeout: 2s\n\
         \x20   per_try_timeout: 1s\n    max_in_flight: 10000\n\
         \x20   limits: {{ connections: 20000, connections_per_client: 20000, idle: 300s, connect_timeout: 250ms }}\n{policies}\
         \x20 api:\n    at: [{}]\n    endpoints: {{ GET /items/:id: [], POST /items: [] }}\n",
        at.join(", ")
    )
}

/// Starts one of them.
pub fn start(name: &'static str, folder: &Path, plimsoll: &str, backends: &[SocketAddr]) -> io::Result<Proxy> {
    let address = free()?;
    let folder = folder.to_string_lossy().into_owned();
    let file = format!("{folder}/{}", name.replace(' ', "-"));
    let log = format!("{file}.log");
    let process = match name {
        "nginx" => {
            fs::write(&file, nginx(&folder, address, backends))?;
            Process::start("TERM", "nginx", &["-p", &folder, "-e", &format!("{folder}/nginx.error"), "-c", &file], &log)
        }
        "HAProxy" => {
            fs::write(&file, haproxy(address, backends))?;
            Process::start("KILL", "haproxy", &["-db", "-f", &file], &log)
        }
        _ => {
            fs::write(&file, ours(address, backends, name == "ours"))?;
            Process::start("KILL", plimsoll, &["gateway", &file], &log)
        }
    }?;
    listens(address).map_err(|error| {
        io::Error::other(format!("{name} does not start: {error}\n{}", fs::read_to_string(&log).unwrap_or_default()))
    })?;
    Ok(Proxy { name, address, process })
}

/// An address on loopback that nobody has.
pub fn free() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Waits until somebody listens.
pub fn listens(address: SocketAddr) -> io::Result<()> {
    let since = Instant::now();
    loop {
        match std::net::TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(error) if since.elapsed() > Duration::from_secs(10) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
