//! What the policies of the system file do to real requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::*;

#[test]
fn a_dead_instance_is_tried_elsewhere() {
    let backend = Backend::ok("alive");
    let text = file(&[nobody(), backend.address], "retry: { attempts: 2, backoff: 1ms, when: [connect_error] }", "");
    let gateway = start(&text);
    for _ in 0..20 {
        assert_eq!(get(&gateway, "/").body, "alive");
    }
    gateway.stop(true);
    let gateway = start(&file(&[nobody()], "", ""));
    assert_eq!(get(&gateway, "/").status, 502);
    gateway.stop(true);
}

#[test]
fn only_what_is_safe_is_repeated() {
    let backend = Backend::new(|received| match received.number % 2 {
        0 => Does::Answer(answer(503, "", "busy")),
        _ => Does::Answer(ok("done")),
    });
    let keys = "retry: { attempts: 2, backoff: 1ms, budget: none }";
    let gateway = start(&file(&[backend.address], keys, ""));
    assert_eq!(get(&gateway, "/").body, "done");
    let mut client = Client::of(&gateway);
    // A PUT is repeated with its body, a POST is not.
    let put = client.ask("PUT /items/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(put.body, "done");
    let post = client.ask("POST /items HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((post.status, post.body.as_str()), (503, "busy"));
    gateway.stop(true);
    // Unless the service behind knows the request by a key.
    let keyed = start(&file(&[backend.address], keys, "idempotency: { header: Idempotency-Key }"));
    let mut client = Client::of(&keyed);
    assert_eq!(client.get("/").body, "done"); // an even number again
    let post = client.ask("POST /items HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 1\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(post.body, "done");
    keyed.stop(true);
}

#[test]
fn the_budget_bounds_retries() {
    let backend = Backend::new(|_| Does::Answer(answer(503, "", "busy")));
    let keys = "retry: { attempts: 3, backoff: 1ms, budget: { share: 10%, min_per_second: 0/s } }";
    let gateway = start(&file(&[backend.address], keys, ""));
    let mut client = Client::of(&gateway);
    for _ in 0..200 {
        assert_eq!(client.get("/").status, 503);
    }
    let requests = backend.requests();
    assert!((215..=225).contains(&requests), "{requests} attempts for 200 requests");
    gateway.stop(true);
}

#[test]
fn slow_instances_meet_their_deadline() {
    let (gate, left) = (Gate::default(), Arc::new(AtomicU64::new(0)));
    let (stuck, told) = (gate.clone(), left.clone());
    let backend = Backend::new(move |received| {
        let left = received.field("x-request-timeout-ms").unwrap().parse().unwrap();
        told.store(left, Ordering::SeqCst);
        stuck.pass();
        Does::Answer(ok("late"))
    });
    let gateway = start(&file(&[backend.address], "timeout: 1s", ""));
    assert_eq!(get(&gateway, "/").status, 504);
    assert!((51..=1_000).contains(&left.load(Ordering::SeqCst)));
    // The caller's own is shorter.
    let got = Client::of(&gateway).ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 50\r\n\r\n");
    assert_eq!(got.status, 504);
    assert!(left.load(Ordering::SeqCst) <= 50);
    gate.open();
    gateway.stop(true);
}

#[test]
fn one_that_keeps_failing_is_ejected() {
    let bad = Backend::new(|_| Does::Answer(answer(500, "", "bad")));
    let good = Backend::ok("good");
    let keys = "outliers: { consecutive_failures: 5, eject_for: 30s, max_ejected: 50%, panic_below: 10% }";
    let gateway = gateway(&[&bad, &good], keys);
    let mut client = Client::of(&gateway);
    let failed = (0..100).filter(|_| client.get("/").status == 500).count();
    assert_eq!((failed, bad.requests()), (5, 5));
    gateway.stop(true);
}

#[test]
fn the_breaker_opens_and_closes() {
    let broken = Arc::new(AtomicBool::new(true));
    let state = broken.clone();
    let backend = Backend::new(move |_| match state.load(Ordering::SeqCst) {
        true => Does::Answer(answer(500, "", "bad")),
        false => Does::Answer(ok("good")),
    });
    let keys = "breaker: { failure_rate: 50%, window: 10s, min_calls: 10, open_for: 300ms, ramp: 0 }";
    let gateway = gateway(&[&backend], keys);
    let mut client = Client::of(&gateway);
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 500);
    }
    let got = client.get("/");
    assert_eq!((got.status, got.field("retry-after")), (503, Some("1")));
    assert_eq!(backend.requests(), 10);
    broken.store(false, Ordering::SeqCst);
    eventually("the breaker closes", || client.get("/").status == 200);
    gateway.stop(true);
}

#[test]
fn health_checks_take_an_instance_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(false));
    let state = well.clone();
    let sick = Backend::new(move |received| {
        let healthy = state.load(Ordering::SeqCst);
        match received.head.starts_with("GET /up ") {
            true => Does::AnswerAndClose(answer(if healthy { 200 } else { 500 }, "", "")),
            false => Does::Answer(ok("sick")),
        }
    });
    let other = Backend::ok("other");
    let keys = "health: { path: /up, every: 50ms, timeout: 50ms, unhealthy_after: 2, healthy_after: 2 }";
    let gateway = gateway(&[&sick, &other], keys);
    let mut client = Client::of(&gateway);
    let mut answers = |what: &str| (0..20).filter(|_| client.get("/").body == what).count();
    eventually("the sick one is out", || answers("sick") == 0);
    well.store(true, Ordering::SeqCst);
    eventually("it is back", || answers("sick") > 0);
    gateway.stop(true);
}

#[test]
fn bulkheads_let_so_many_through() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], &observed("bulkhead: { permits: 2, queue: 1, max_wait: 60s }"));
    let mut asked = Vec::new();
    for held in 1..=3 {
        asked.push(ask(&gateway, "/"));
        eventually("it is taken up", || figure(&gateway, "plimsoll_in_flight") == held);
    }
    eventually("two are let through", || backend.requests() == 2);
    assert_eq!(get(&gateway, "/").status, 503);
    gate.open();
    assert!(asked.into_iter().all(|one| one.join().unwrap().status == 200));
    gateway.stop(true);
}

#[test]
fn whoever_waited_and_left_gives_the_permit_back() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], &observed("bulkhead: { permits: 1, queue: 8, max_wait: 60s }"));
    let first = ask(&gateway, "/");
    eventually("the first is there", || backend.requests() == 1);
    let waiting = Client::that_asked(&gateway, "/");
    eventually("another waits", || figure(&gateway, "plimsoll_in_flight") == 2);
    drop(waiting);
    eventually("it has left", || figure(&gateway, "plimsoll_in_flight") == 1);
    gate.open();
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(get(&gateway, "/").status, 200);
    assert_eq!(backend.requests(), 2, "nothing was asked for the one who left");
    gateway.stop(true);
}

#[test]
fn quotas_are_for_each_user() {
    let backend = Backend::ok("ok");
    let keys = "rate_limit: { quota: 2/min, burst: 2, per: user }\nheaders: { user: X-User }";
    let gateway = gateway(&[&backend], keys);
    let mut client = Client::of(&gateway);
    let mut ask = |user: &str| client.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"));
    assert_eq!([ask("ann").status, ask("ann").status, ask("bob").status], [200, 200, 200]);
    let refused = ask("ann");
    assert_eq!(refused.status, 429);
    let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((25..=30).contains(&seconds), "{seconds}");
    assert_eq!(ask("bob").status, 200);
    gateway.stop(true);
}

#[test]
fn shadows_let_everything_through() {
    let backend = Backend::ok("ok");
    let gateway = gateway(&[&backend], "rate_limit: { quota: 1/min, shadow: true }");
    assert!((0..5).all(|_| get(&gateway, "/").status == 200));
    gateway.stop(true);
}

#[test]
fn a_slow_request_is_hedged() {
    let gate = Gate::default();
    let stuck = gate.clone();
    gate.open();
    let first = Backend::new(move |_| {
        stuck.pass();
        Does::Answer(ok("first"))
    });
    let second = Backend::ok("second");
    let keys = "hedge: { percentile: 90%, min_samples: 20, min_delay: 20ms }";
    let gateway = gateway(&[&first, &second], keys);
    let mut client = Client::of(&gateway);
    for _ in 0..200 {
        client.get("/");
    }
    // From here on the first answers nobody: without a hedge, who comes to it would get a 504.
    gate.shut();
    let before = first.requests();
    for _ in 0..4 {
        assert_eq!(client.get("/").body, "second");
    }
    assert!(first.requests() > before, "the first was asked too");
    gate.open();
    gateway.stop(true);
}

#[test]
fn a_fallback_stands_in() {
    let backend = Backend::new(|_| Does::Answer(answer(500, "", "bad")));
    let keys = "routes:\n  - match: GET /\n    to: api\n    fallback: true\n    fallback_answer: { body: later }\n  - { to: api }";
    let gateway = gateway(&[&backend], keys);
    let got = get(&gateway, "/");
    assert_eq!((got.status, got.body.as_str(), got.field("content-type")), (200, "later", Some("text/plain")));
    assert_eq!(get(&gateway, "/items/1").status, 500);
    gateway.stop(true);
}

#[test]
fn weights_share_the_load() {
    let (heavy, light, none) = (Backend::ok("heavy"), Backend::ok("light"), Backend::ok("none"));
    let text = file(&[heavy.address, light.address, none.address], "balance: weighted", "");
    let weighted = |text: &str, address: std::net::SocketAddr, weight: f64| {
        text.replace(&address.to_string(), &format!("{{ address: \"{address}\", weight: {weight} }}"))
    };
    let text = weighted(&weighted(&text, heavy.address, 3.0), none.address, 0.0);
    let gateway = start(&text);
    let mut client = Client::of(&gateway);
    for _ in 0..40 {
        client.get("/");
    }
    assert_eq!([heavy.requests(), light.requests(), none.requests()], [30, 10, 0]);
    gateway.stop(true);
}

#[test]
fn a_stale_connection_is_no_failure() {
    // Each connection takes a request or two, and is closed without a word.
    let backend = Backend::new(|received| match received.number % 3 {
        0 => Does::Answer(ok("ok")),
        1 => Does::Reset,
        _ => Does::AnswerAndClose(ok("ok")),
    });
    let gateway = gateway(&[&backend], "");
    let mut client = Client::of(&gateway);
    assert!((0..50).all(|_| client.get("/").status == 200));
    gateway.stop(true);
}

const CACHED: &str = "routes:\n  - { match: GET /items*, to: api, cache: { key: item, ttl: 300ms, stale: 10s, negative: 1s } }\n  - { to: api }";

#[test]
fn kept_answers_are_given_again() {
    let backend = Backend::new(|received| {
        let number = received.number;
        match received.head.split(' ').nth(1).unwrap() {
            "/items/private" => Does::Answer(answer(200, "Cache-Control: private\r\n", &number.to_string())),
            "/items/absent" => Does::Answer(answer(404, "", "no such thing")),
            "/items/chunked" => {
                Does::Answer(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec())
            }
            _ => Does::Answer(ok(&number.to_string())),
        }
    });
    let gateway = gateway(&[&backend], &observed(CACHED));
    let mut client = Client::of(&gateway);
    assert_eq!([client.get("/items/1").body, client.get("/items/1").body], ["0", "0"]);
    let again = client.get("/items/1");
    assert_eq!((again.field("age"), again.field("content-length")), (Some("0"), Some("1")));
    let head = client.ask("HEAD /items/1 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(head.field("content-length"), Some("1"));
    // Other hosts, queries, users and answers are other things.
    assert_eq!(client.get("/items/1?x").body, "1");
    assert_eq!(client.ask("GET /items/1 HTTP/1.1\r\nHost: other\r\n\r\n").body, "2");
    assert_eq!(client.ask("GET /items/1 HTTP/1.1\r\nHost: test\r\nCookie: a=b\r\n\r\n").body, "3");
    assert_eq!([client.get("/items/private").body, client.get("/items/private").body], ["4", "5"]);
    let absent = [client.get("/items/absent").status, client.get("/items/absent").status];
    assert_eq!((absent, backend.requests()), ([404, 404], 7));
    assert!(client.get("/items/chunked").body.starts_with("3\r\nabc"));
    assert_eq!(client.get("/items/chunked").body, "abc");
    // Past its time it is given once more, while it is fetched anew.
    eventually("it is fresh", || {
        let body = client.get("/items/1").body;
        assert!(["0", "8"].contains(&body.as_str()), "{body}");
        body == "8"
    });
    assert!(figure(&gateway, "plimsoll_cache_total{cache=\"item\",what=\"stale\"}") > 0);
    gateway.stop(true);
}

#[test]
fn one_fetches_and_the_others_wait() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], &observed(CACHED));
    let waits = |count: u64| {
        let name = "plimsoll_cache_total{cache=\"item\",what=\"wait\"}";
        eventually("the others wait", || figure(&gateway, name) == count);
    };
    let all: Vec<_> = (0..10).map(|_| ask(&gateway, "/items/1")).collect();
    waits(9);
    gate.open();
    assert!(all.into_iter().all(|one| one.join().unwrap().body == "done"));
    assert_eq!(backend.requests(), 1);
    // The one that fetches leaves: another takes its place.
    gate.shut();
    let first = Client::that_asked(&gateway, "/items/2");
    eventually("it fetches", || backend.requests() == 2);
    let second = ask(&gateway, "/items/2");
    waits(10);
    drop(first);
    eventually("another fetches", || backend.requests() == 3);
    gate.open();
    assert_eq!(second.join().unwrap().body, "done");
    gateway.stop(true);
}

#[test]
fn the_important_go_first_when_seats_are_few() {
    let (gate, order) = (Gate::default(), Arc::new(Mutex::new(Vec::new())));
    let (stuck, seen) = (gate.clone(), order.clone());
    let backend = Backend::new(move |received| {
        seen.lock().unwrap().push(received.head.split(' ').nth(1).unwrap().to_owned());
        stuck.pass();
        Does::Answer(ok("done"))
    });
    let keys = "max_in_flight: 1\nqueue: 2\nheaders: { class: X-Class }\nlimits: { connections: 100 }";
    let gateway = gateway(&[&backend], &observed(keys));
    let address = gateway.addresses()[0];
    let ask = |name: &'static str, class: u8| {
        std::thread::spawn(move || {
            let request = format!("GET /items/{name} HTTP/1.1\r\nHost: a\r\nX-Class: {class}\r\n\r\n");
            Client::new(address).ask(&request).status
        })
    };
    let waiting = |count| eventually("it waits", || figure(&gateway, "plimsoll_queue_waiting") == count);
    let first = ask("first", 3);
    eventually("the first has a seat", || backend.requests() == 1);
    let low = ask("low", 5);
    waiting(1);
    let middle = ask("middle", 2);
    waiting(2);
    // The queue is full: the least important gives way.
    let high = ask("high", 0);
    assert_eq!(low.join().unwrap(), 503);
    gate.open();
    assert_eq!([first, middle, high].map(|one| one.join().unwrap()), [200; 3]);
    assert_eq!(*order.lock().unwrap(), ["/items/first", "/items/high", "/items/middle"]);
    assert_eq!(get(&gateway, "/").status, 200);
    gateway.stop(true);
}

#[test]
fn groups_of_routes_share_permits() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], "bulkheads: { items: { endpoints: [GET /items/:id], permits: 1 } }");
    let first = ask(&gateway, "/items/1");
    eventually("the first is there", || backend.requests() == 1);
    assert_eq!(get(&gateway, "/items/2").status, 503);
    let other = ask(&gateway, "/");
    eventually("another route is let through", || backend.requests() == 2);
    gate.open();
    assert_eq!((first.join().unwrap().status, other.join().unwrap().status), (200, 200));
    gateway.stop(true);
}

#[test]
fn the_adaptive_limit_refuses_what_is_too_much() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], "limit: { algorithm: aimd, initial: 2, min: 1, max: 2 }");
    let asked = [ask(&gateway, "/"), ask(&gateway, "/")];
    eventually("two are let through", || backend.requests() == 2);
    assert_eq!([get(&gateway, "/").status, get(&gateway, "/").status], [503, 503]);
    gate.open();
    assert_eq!(asked.map(|one| one.join().unwrap().status), [200, 200]);
    gateway.stop(true);
}

#[test]
fn an_impatient_caller_ejects_nobody() {
    let (backend, gate) = Backend::gated();
    let other = Backend::ok("other");
    let keys = "outliers: { consecutive_failures: 3, max_ejected: 50%, panic_below: 10% }\nbreaker: { min_calls: 5 }";
    let gateway = gateway(&[&backend, &other], keys);
    let mut client = Client::of(&gateway);
    let late = (0..40).filter(|_| {
        let got = client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 20\r\n\r\n");
        got.status == 504
    });
    assert!(late.count() >= 20, "every other one comes to an instance that does not answer");
    gate.open();
    let answers: Vec<String> = (0..4).map(|_| client.get("/").body).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "done").count(), 2, "{answers:?}");
    gateway.stop(true);
}

#[test]
fn whoever_finds_every_connection_taken_waits_for_one() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], &observed("max_connections: 1\nmax_pending: 2"));
    let held = |count| eventually("it is taken up", || figure(&gateway, "plimsoll_in_flight") == count);
    let mut asked = Vec::new();
    for count in 1..=3 {
        asked.push(ask(&gateway, "/"));
        held(count);
    }
    eventually("the first is there", || backend.requests() == 1);
    assert_eq!(get(&gateway, "/").status, 503);
    gate.open();
    assert!(asked.into_iter().all(|one| one.join().unwrap().status == 200));
    // One that leaves the queue takes no connection along.
    gate.shut();
    let first = ask(&gateway, "/");
    eventually("it is there", || backend.requests() == 4);
    let leaves = Client::that_asked(&gateway, "/");
    held(2);
    drop(leaves);
    held(1);
    gate.open();
    assert_eq!((first.join().unwrap().status, get(&gateway, "/").status), (200, 200));
    gateway.stop(true);
}

#[test]
fn weights_of_the_balancer_are_in_the_order_of_the_instances() {
    let (heavy, light) = (Backend::ok("heavy"), Backend::ok("light"));
    let keys = "balance: { algorithm: weighted, weights: [3, 1] }";
    let gateway = start(&file(&[heavy.address, light.address], keys, "instances: 2"));
    let mut client = Client::of(&gateway);
    (0..40).for_each(|_| drop(client.get("/")));
    assert_eq!([heavy.requests(), light.requests()], [30, 10]);
    gateway.stop(true);
}

#[test]
fn reads_that_want_the_same_share_one_call() {
    let gate = Gate::default();
    let stuck = gate.clone();
    let backend = Backend::new(move |received| {
        stuck.pass();
        match received.head.split(' ').nth(1).unwrap() {
            "/items/own" => Does::Answer(answer(200, "Set-Cookie: a=b\r\n", &received.number.to_string())),
            "/items/bad" => Does::Answer(answer(500, "", "bad")),
            _ => Does::Answer(ok(&received.number.to_string())),
        }
    });
    let gateway = gateway(&[&backend], &observed("coalesce: true"));
    let mut joined = 0;
    let mut joins = |count: u64| {
        joined += count;
        let name = "plimsoll_coalesced_total{target=\"api\",what=\"joined\"}";
        eventually("the others wait", || figure(&gateway, name) == joined);
    };
    let mut all = |path: &'static str, count: u64| {
        gate.shut();
        let asked: Vec<_> = (0..count).map(|_| ask(&gateway, path)).collect();
        joins(count - 1);
        gate.open();
        asked.into_iter().map(|one| one.join().unwrap()).collect::<Vec<Got>>()
    };
    let got = all("/items/1", 10);
    assert!(got.iter().all(|got| got.body == "0" && got.field("age").is_none()), "{got:?}");
    // Not kept: the next one asks again.
    assert_eq!(get(&gateway, "/items/1").body, "1");
    assert!(all("/items/bad", 5).iter().all(|got| got.status == 500));
    assert_eq!(backend.requests(), 3);
    // What is somebody's own is asked for by each.
    let mut bodies: Vec<String> = all("/items/own", 3).into_iter().map(|got| got.body).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 3);
    // It goes on while one waits, whoever came first.
    gate.shut();
    let before = backend.requests();
    let first = Client::that_asked(&gateway, "/items/2");
    eventually("it is there", || backend.requests() == before + 1);
    let second = ask(&gateway, "/items/2");
    joins(1);
    drop(first);
    eventually("it has left", || figure(&gateway, "plimsoll_in_flight") == 1);
    gate.open();
    assert_eq!((second.join().unwrap().status, backend.requests()), (200, before + 1));
    gateway.stop(true);
}

#[test]
fn a_busy_gateway_switches_off_what_matters_least() {
    let backend = Backend::ok("ok");
    let level = "{ name: lite, enter: 1%, leave: 0%, reject: [ GET /items/:id ] }";
    let gateway = gateway(&[&backend], &format!("degradation: {{ levels: [ {level} ] }}"));
    let mut client = Client::of(&gateway);
    eventually("the level is entered", || {
        assert!((0..50).all(|_| client.get("/").status == 200));
        client.get("/items/1").status == 503
    });
    assert_eq!(client.get("/").status, 200);
    assert!(gateway.notices().iter().any(|notice| notice.contains("degradation: level 1")));
    gateway.stop(true);
}
