//! What is exported, at work: nginx and HAProxy in front of three instances on the loopback interface.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use plimsoll_export::{Address, Site};

use crate::backend::{Backend, pause};
use crate::proxy::{Proxy, Running, request};
use crate::system;

/// A proxy in front of three instances of a service `api`.
struct Stage {
    proxy: Running,
    backends: Vec<Backend>,
}

/// Both proxies, one after the other, with the same system.
fn both(keys: &str, test: impl Fn(Proxy, &mut Stage)) {
    for proxy in [Proxy::Nginx, Proxy::Haproxy] {
        let backends: Vec<Backend> = ["api/1", "api/2", "api/3"].into_iter().map(Backend::start).collect();
        let addresses: Vec<Address> =
            backends.iter().map(|backend| backend.address().to_string().parse().expect("an address")).collect();
        let system = system("stage.yaml", &text(keys));
        let gateway = plimsoll_export::find(&system, None).expect("a gateway");
        let services = ["api", "keyed"].into_iter().filter(|service| keys.contains(&format!("to: {service}")));
        let site = Site {
            upstreams: services.map(|service| (service.to_owned(), addresses.clone())).collect(),
            ..Site::default()
        };
        let running = Running::start(proxy, &site, |site| proxy.export()(&system, gateway, site).expect("an export"));
        test(proxy, &mut Stage { proxy: running, backends });
    }
}

/// Two services at the same instances: what may be repeated by its method, and what may by its key.
fn text(keys: &str) -> String {
    format!(
        "system: stage
clients: {{ web: {{ rate: 1/s, calls: [ edge GET /notes ] }} }}
services:
  edge:
    kind: gateway
    headers: {{ user: X-User }}
{keys}
  api:
    instances: 3
    endpoints:
      GET /notes: [ {{ work: 1ms }} ]
      POST /notes: [ {{ work: 1ms }} ]
      GET /notes/:id: [ {{ work: 1ms }} ]
      GET /hold: [ {{ work: 1ms }} ]
      GET /hold/too: [ {{ work: 1ms }} ]
      GET /busy: [ {{ work: 1ms }} ]
      POST /busy: [ {{ work: 1ms }} ]
      GET /reset: [ {{ work: 1ms }} ]
      POST /reset: [ {{ work: 1ms }} ]
      DELETE /busy: {{ do: [ {{ work: 1ms }} ], idempotent: false }}
  keyed:
    instances: 3
    idempotency: {{}}
    endpoints:
      PATCH /busy: [ {{ work: 1ms }} ]
"
    )
}

const ROUTES: &str = "    routes: [ { to: api }, { to: keyed } ]\n";

impl Stage {
    /// Who answered how many of so many requests, all of which have to be answered.
    fn shares(&self, requests: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for number in 0..requests {
            let answer = self.proxy.request("GET", &format!("/notes/{number}"), "");
            assert_eq!(answer.status, 200, "{answer:?}");
            *shares.entry(answer.body).or_default() += 1;
        }
        shares
    }

    /// Requests that the instances saw.
    fn seen(&self) -> usize {
        self.backends.iter().map(|backend| backend.seen().len()).sum()
    }

    /// How often a request reached an instance, and with what it ended.
    fn tries(&self, method: &str, path: &str) -> (usize, u16) {
        let before = self.seen();
        let status = self.proxy.request(method, path, "").status;
        (self.seen() - before, status)
    }
}

/// Whether something holds within half a minute: a proxy takes its time to notice.
fn in_the_end(mut holds: impl FnMut() -> bool) -> bool {
    (0..600).any(|_| {
        let held = holds();
        if !held {
            pause();
        }
        held
    })
}

#[test]
fn a_dead_instance_costs_no_idempotent_request() {
    let keys = format!(
        "{ROUTES}    cores: 2
    health: {{ every: 200ms, timeout: 200ms, unhealthy_after: 2, healthy_after: 1 }}
    outliers: {{ consecutive_failures: 3, eject_for: 1s, slow_start: 0 }}
    retry: {{ attempts: 3, when: [connect_error, reset, timeout, 503] }}
    timeout: 20s"
    );
    both(&keys, |proxy, stage| {
        let shares = stage.shares(300);
        assert_eq!(shares.len(), 3, "{proxy:?}: {shares:?}");
        assert!(shares.values().all(|share| (90..=110).contains(share)), "{proxy:?}: {shares:?}");

        // One dies while it is asked.
        let done = AtomicUsize::new(0);
        let address = stage.proxy.address;
        let victim = &mut stage.backends[1];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..200 {
                        let answer = request(address, "GET", &format!("/notes/{number}"), "");
                        assert_eq!(answer.status, 200, "{proxy:?}: {answer:?}");
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            assert!(in_the_end(|| done.load(Ordering::SeqCst) >= 20), "{proxy:?} is slow");
            victim.kill();
        });

        let shares = stage.shares(200);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["api/1", "api/3"], "{proxy:?}");
        assert!(shares.values().all(|share| (80..=120).contains(share)), "{proxy:?}: {shares:?}");

        // It is asked again once it is back.
        stage.backends[1].revive();
        assert!(in_the_end(|| stage.shares(10).contains_key("api/2")), "{proxy:?} never asks it again");
    });
}

/// The one with the fewest requests is a dead one, as long as nobody has noticed.
#[test]
fn a_retry_goes_elsewhere_whatever_the_algorithm() {
    for algorithm in ["round_robin", "least_connections", "p2c", "ring", "maglev", "ip_hash"] {
        let keys = format!("{ROUTES}    balance: {algorithm}\n    retry: {{ attempts: 3, when: [connect_error] }}");
        both(&keys, |proxy, stage| {
            stage.backends[0].kill();
            for number in 0..60 {
                let answer = stage.proxy.request("GET", "/notes", &format!("X-User: u{number}\r\n"));
                assert_eq!(answer.status, 200, "{proxy:?}, {algorithm}: {answer:?}");
            }
        });
    }
}

#[test]
fn a_user_has_one_instance_where_the_hash_says_so() {
    for algorithm in ["ring", "maglev", "ip_hash"] {
        // A bound on the load would send a user elsewhere when it is busy.
        let bound = if algorithm == "ip_hash" { "" } else { ", bounded_load: none" };
        both(&format!("{ROUTES}    balance: {{ algorithm: {algorithm}{bound} }}"), |proxy, stage| {
            let mut all = BTreeMap::<String, usize>::new();
            for user in 0..60 {
                let ask = || stage.proxy.request("GET", "/notes", &format!("X-User: u{user}\r\n")).body;
                let first = ask();
                assert!((0..3).all(|_| ask() == first), "{proxy:?}, {algorithm}");
                *all.entry(first).or_default() += 1;
            }
            assert_eq!(all.len(), 3, "{proxy:?}, {algorithm}: {all:?}");
        });
    }
}

#[test]
fn an_instance_gets_what_it_weighs() {
    both(&format!("{ROUTES}    balance: {{ algorithm: weighted, weights: [1.5, 0.5, 0] }}"), |proxy, stage| {
        let shares = stage.shares(200);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["api/1", "api/2"], "{proxy:?}");
        assert!((145..=155).contains(&shares["api/1"]), "{proxy:?}: {shares:?}");
    });
}

/// Few points on a ring would give one instance much more than another.
#[test]
fn a_hash_gives_all_about_the_same() {
    for algorithm in ["ring", "maglev", "ip_hash"] {
        both(&format!("{ROUTES}    balance: {algorithm}"), |proxy, stage| {
            let mut shares = BTreeMap::<String, usize>::new();
            for user in 0..600 {
                let answer = stage.proxy.request("GET", "/notes", &format!("X-User: user-{user}\r\n"));
                *shares.entry(answer.body).or_default() += 1;
            }
            // Users deviate by 11.5 of 200, and 480 points an instance by 9: five times both together.
            assert!(shares.values().all(|share| (125..=275).contains(share)), "{proxy:?}, {algorithm}: {shares:?}");
        });
    }
}

#[test]
fn only_what_may_be_repeated_is_tried_again() {
    let keys = format!("{ROUTES}    retry: {{ attempts: 3, when: [connect_error, reset, 503] }}");
    both(&keys, |proxy, stage| {
        for (method, path, tries, status) in [
            ("GET", "/busy", 3, 503),
            ("POST", "/busy", 1, 503),
            ("GET", "/reset", 3, 502),
            ("POST", "/reset", 1, 502),
            // By its key, whatever its method.
            ("PATCH", "/busy", 3, 503),
            // Not, whatever its method.
            ("DELETE", "/busy", 1, 503),
            ("GET", "/notes", 1, 200),
        ] {
            assert_eq!(stage.tries(method, path), (tries, status), "{proxy:?}: {method} {path}");
        }
    });
    // A result that `when` lacks, and no retry at all: not what the proxies do by themselves.
    both(&format!("{ROUTES}    retry: {{ attempts: 3, when: [connect_error] }}"), |proxy, stage| {
        assert_eq!(stage.tries("GET", "/busy"), (1, 503), "{proxy:?}");
    });
    both(ROUTES, |proxy, stage| {
        assert_eq!(stage.tries("GET", "/reset"), (1, 502), "{proxy:?}");
        stage.backends.iter_mut().take(2).for_each(Backend::kill);
        let failed = (0..30).filter(|_| stage.proxy.request("GET", "/notes", "").status != 200).count();
        assert!(failed >= 10, "{proxy:?} tries again unasked: only {failed} of 30 failed");
    });
}

#[test]
fn a_quota_is_a_users_own() {
    let keys = format!("{ROUTES}    rate_limit: {{ quota: 1/min, burst: 5, per: user }}");
    both(&keys, |proxy, stage| {
        let statuses = |user: &str| {
            let ask = |_| stage.proxy.request("GET", "/notes", &format!("X-User: {user}\r\n")).status;
            (0..8).map(ask).collect::<Vec<_>>()
        };
        let expected = [200, 200, 200, 200, 200, 429, 429, 429];
        assert_eq!(statuses("ann"), expected, "{proxy:?}");
        assert_eq!(statuses("bob"), expected, "{proxy:?}");
        // Without the header, everybody at one address is one user.
        assert_eq!(stage.proxy.request("GET", "/notes", "").status, 200, "{proxy:?}");
        if proxy == Proxy::Haproxy {
            let refused = stage.proxy.request("GET", "/notes", "X-User: ann\r\n");
            assert!(refused.head.to_lowercase().contains("retry-after: 60"), "{refused:?}");
        }
    });
}

/// Where nobody is told apart, all requests of the test are one caller's.
#[test]
fn a_quota_is_whose_the_file_says() {
    for (per, elsewhere) in [("client", 429), ("all", 429), ("endpoint", 200)] {
        let keys = format!("{ROUTES}    rate_limit: {{ quota: 1/min, burst: 2, per: {per} }}");
        both(&keys, |proxy, stage| {
            let ask = |path: &str| stage.proxy.request("GET", path, "").status;
            assert_eq!([ask("/notes"), ask("/notes"), ask("/notes")], [200, 200, 429], "{proxy:?}, {per}");
            assert_eq!(ask("/notes/1"), elsewhere, "{proxy:?}, {per}");
        });
    }
}

#[test]
fn a_quota_in_shadow_refuses_nobody() {
    let keys = format!("{ROUTES}    rate_limit: {{ quota: 1/min, per: endpoint, shadow: true }}");
    both(&keys, |proxy, stage| {
        let ask = |_| stage.proxy.request("GET", "/notes", "").status;
        assert_eq!((0..5).map(ask).collect::<Vec<_>>(), [200; 5], "{proxy:?}");
    });
}

#[test]
fn what_is_in_flight_is_limited() {
    // A route with a timeout of its own has a bulkhead of its own.
    let keys = "    routes: [ { to: api, match: GET /hold, timeout: 50s }, { to: api } ]
    bulkhead: 2
    max_in_flight: 3";
    both(keys, |proxy, stage| {
        let address = stage.proxy.address;
        let backends = &stage.backends;
        std::thread::scope(|scope| {
            let _release = Release(backends);
            let hold = |path: &'static str| scope.spawn(move || request(address, "GET", path, "").status);
            let mut held = vec![hold("/hold"), hold("/hold")];
            Backend::wait_until_held(backends, 2);
            assert_eq!(request(address, "GET", "/hold", "").status, 503, "{proxy:?}: the bulkhead is full");
            // An answer may be here before the proxy has put its request away.
            let other = || request(address, "GET", "/notes", "").status == 200;
            assert!(in_the_end(other), "{proxy:?}: the other one is not");
            held.push(scope.spawn(move || {
                let mut status = 503;
                in_the_end(|| {
                    status = request(address, "GET", "/hold/too", "").status;
                    status != 503
                });
                status
            }));
            Backend::wait_until_held(backends, 3);
            assert_eq!(request(address, "GET", "/notes", "").status, 503, "{proxy:?}: the gateway is full");
            backends.iter().for_each(Backend::release);
            let statuses: Vec<u16> = held.into_iter().map(|held| held.join().expect("an answer")).collect();
            assert_eq!(statuses, [200; 3], "{proxy:?}");
        });
        // Connections that stay open are not in flight.
        assert!(in_the_end(|| request(address, "GET", "/notes", "").status == 200), "{proxy:?}");
    });
}

#[test]
fn a_full_instance_is_passed_over() {
    for pending in [0, 1] {
        // With one thread, nobody else looks at the queue before a request is in it.
        let keys = format!("{ROUTES}    cores: 1\n    max_connections: 1\n    max_pending: {pending}");
        both(&keys, |proxy, stage| {
            let address = stage.proxy.address;
            let backends = &stage.backends;
            std::thread::scope(|scope| {
                let _release = Release(backends);
                let hold = |_| scope.spawn(move || request(address, "GET", "/hold", "").status);
                let held = [(); 3].map(hold);
                Backend::wait_until_held(backends, 3);
                let more = [(); 4].map(hold);
                // All that is to be refused is, before there is room. Nobody waits in open-source nginx.
                let (refused, status) = if proxy == Proxy::Nginx { (4, 502) } else { (4 - pending, 503) };
                let finished = || more.iter().filter(|more| more.is_finished()).count();
                assert!(in_the_end(|| finished() >= refused), "{proxy:?}, {pending}: {} are refused", finished());
                backends.iter().for_each(Backend::release);
                assert_eq!(held.map(|held| held.join().expect("an answer")), [200; 3], "{proxy:?}");
                let more = more.map(|more| more.join().expect("an answer"));
                assert_eq!(
                    more.iter().filter(|more| **more == status).count(),
                    refused,
                    "{proxy:?}, {pending}: {more:?}"
                );
                assert_eq!(
                    more.iter().filter(|more| **more == 200).count(),
                    4 - refused,
                    "{proxy:?}, {pending}: {more:?}"
                );
            });
        });
    }
}

/// Lets go what waits, also where a test fails: its threads could not end otherwise.
struct Release<'a>(&'a [Backend]);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Backend::release);
    }
}

#[test]
fn a_cached_answer_is_fetched_once() {
    let keys = "    routes: [ { to: api, match: GET /notes*, cache: { key: note, ttl: 10min } }, { to: api } ]";
    both(keys, |proxy, stage| {
        let bodies: Vec<String> = (0..5).map(|_| stage.proxy.request("GET", "/notes/1", "").body).collect();
        assert!(bodies.iter().all(|body| *body == bodies[0] && body.starts_with("api/")), "{proxy:?}: {bodies:?}");
        assert_eq!(stage.seen(), 1, "{proxy:?}");
        assert_eq!(stage.tries("GET", "/notes/2"), (1, 200), "{proxy:?}: another key");
        assert_eq!(stage.tries("POST", "/notes"), (1, 200), "{proxy:?}");
        assert_eq!(stage.tries("POST", "/notes"), (1, 200), "{proxy:?}: a write is never cached");
    });
}

#[test]
fn a_fallback_answers_where_the_upstream_fails() {
    let fallback = "fallback: true, fallback_answer: { status: 203, body: \"come back later, $1\" }";
    let keys = format!(
        "    routes: [ {{ to: api, match: GET /busy, {fallback} }}, {{ to: api, match: GET /notes, {fallback} }}, {{ to: api }} ]"
    );
    both(&keys, |proxy, stage| {
        let busy = stage.proxy.request("GET", "/busy", "");
        assert_eq!((busy.status, busy.body.as_str()), (203, "come back later, $1"), "{proxy:?}");
        assert_eq!(stage.proxy.request("POST", "/busy", "").status, 503, "{proxy:?}");
        stage.backends.iter_mut().for_each(Backend::kill);
        let gone = stage.proxy.request("GET", "/notes", "");
        assert_eq!((gone.status, gone.body.as_str()), (203, "come back later, $1"), "{proxy:?}");
        assert!([502, 503].contains(&stage.proxy.request("POST", "/notes", "").status), "{proxy:?}");
    });
}

/// Anybody can write a header.
#[test]
fn only_a_trusted_proxy_says_who_asks() {
    for (trusted, seen, quota) in [
        ("[]", "127.0.0.1", [200, 429, 429]),
        ("[ 10.0.0.0/8 ]", "127.0.0.1", [200, 429, 429]),
        ("[ 127.0.0.0/8 ]", "6.6.6.6, 127.0.0.1", [200, 200, 429]),
    ] {
        let keys = format!("{ROUTES}    trusted: {trusted}\n    rate_limit: {{ quota: 1/min, burst: 1, per: client }}");
        both(&keys, |proxy, stage| {
            let ask =
                |client: &str| stage.proxy.request("GET", "/notes/whence", &format!("X-Forwarded-For: {client}\r\n"));
            let first = ask("6.6.6.6");
            assert_eq!(first.body, seen, "{proxy:?}, {trusted}");
            let statuses = [first.status, ask("7.7.7.7").status, ask("6.6.6.6").status];
            assert_eq!(statuses, quota, "{proxy:?}, {trusted}");
        });
    }
}

#[test]
fn a_body_has_a_limit() {
    for (limit, status) in [("4B", 200), ("3B", 413)] {
        both(&format!("{ROUTES}    limits: {{ body: {limit} }}"), |proxy, stage| {
            assert_eq!(stage.proxy.request("POST", "/notes", "").status, status, "{proxy:?}, {limit}");
        });
    }
}

#[test]
fn what_the_file_lacks_is_not_there() {
    both(ROUTES, |proxy, stage| {
        for (method, path) in
            [("GET", "/"), ("GET", "/notes/1/2"), ("GET", "/notesx"), ("PUT", "/notes"), ("GET", "/none?/notes")]
        {
            assert_eq!(stage.tries(method, path), (0, 404), "{proxy:?}: {method} {path}");
        }
        for (method, path) in [("GET", "/notes?page=2"), ("HEAD", "/notes"), ("GET", "/notes/x.y")] {
            assert_eq!(stage.tries(method, path), (1, 200), "{proxy:?}: {method} {path}");
            assert_eq!(stage.backends.iter().flat_map(Backend::seen).filter(|seen| seen.ends_with(path)).count(), 1);
        }
    });
}
