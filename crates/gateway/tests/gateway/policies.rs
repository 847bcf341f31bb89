//! What the policies of the system file do to real requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    let backend = Backend::new(|received| {
        let left: u64 = received.field("x-request-timeout-ms").unwrap().parse().unwrap();
        assert!(left <= 1_000, "{left}");
        pause(5_000);
        Does::Answer(ok("late"))
    });
    let gateway = start(&file(&[backend.address], "timeout: 1s", ""));
    assert_eq!(get(&gateway, "/").status, 504);
    // The caller's own is shorter.
    let started = std::time::Instant::now();
    let got = Client::of(&gateway).ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 50\r\n\r\n");
    assert_eq!(got.status, 504);
    assert!(started.elapsed() < Duration::from_millis(900));
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
    let backend = Backend::new(|_| {
        pause(300);
        Does::Answer(ok("slow"))
    });
    let gateway = gateway(&[&backend], "bulkhead: { permits: 2, queue: 1, max_wait: 5s }");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = gateway.addresses()[0];
            let client = std::thread::spawn(move || Client::new(address).get("/").status);
            pause(30);
            client
        })
        .collect();
    let mut statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 503]);
    gateway.stop(true);
}

#[test]
fn whoever_waited_and_left_gives_the_permit_back() {
    let backend = Backend::new(|_| {
        pause(200);
        Does::Answer(ok("slow"))
    });
    let gateway = gateway(&[&backend], "bulkhead: { permits: 1, queue: 8, max_wait: 5s }");
    let address = gateway.addresses()[0];
    let first = std::thread::spawn(move || Client::new(address).get("/").status);
    pause(50);
    let mut waiting = Client::new(address);
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    pause(50);
    drop(waiting);
    assert_eq!(first.join().unwrap(), 200);
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
    let slow = Arc::new(AtomicBool::new(false));
    let state = slow.clone();
    let first = Backend::new(move |_| {
        if state.load(Ordering::SeqCst) {
            pause(2_000);
        }
        Does::Answer(ok("first"))
    });
    let second = Backend::ok("second");
    let keys = "hedge: { percentile: 90%, min_samples: 20, min_delay: 20ms }";
    let gateway = gateway(&[&first, &second], keys);
    let mut client = Client::of(&gateway);
    for _ in 0..200 {
        client.get("/");
    }
    slow.store(true, Ordering::SeqCst);
    let started = std::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(client.get("/").body, "second");
    }
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
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
    let gateway = gateway(&[&backend], CACHED);
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
    pause(400);
    assert_eq!(client.get("/items/1").body, "0");
    eventually("it is fresh", || client.get("/items/1").body == "8");
    gateway.stop(true);
}

#[test]
fn one_fetches_and_the_others_wait() {
    let backend = Backend::new(|received| {
        pause(200);
        match received.head.contains("/items/fails") {
            true => Does::Answer(answer(500, "", "bad")),
            false => Does::Answer(ok("once")),
        }
    });
    let gateway = gateway(&[&backend], CACHED);
    let address = gateway.addresses()[0];
    let ask = |path: &'static str| std::thread::spawn(move || Client::new(address).get(path));
    let all: Vec<_> = (0..10).map(|_| ask("/items/1")).collect();
    assert!(all.into_iter().all(|one| one.join().unwrap().body == "once"));
    assert_eq!(backend.requests(), 1);
    // The one that fetches leaves: another takes its place.
    let mut first = Client::new(address);
    first.send("GET /items/2 HTTP/1.1\r\nHost: test\r\n\r\n");
    pause(50);
    let second = ask("/items/2");
    pause(50);
    drop(first);
    assert_eq!(second.join().unwrap().body, "once");
    gateway.stop(true);
}

#[test]
fn the_important_go_first_when_seats_are_few() {
    let backend = Backend::new(|received| {
        pause(400);
        Does::Answer(ok(received.head.split(' ').nth(1).unwrap()))
    });
    let keys = "max_in_flight: 1\nqueue: 2\nheaders: { class: X-Class }\nlimits: { connections: 100 }";
    let gateway = gateway(&[&backend], keys);
    let address = gateway.addresses()[0];
    let (sender, answers) = std::sync::mpsc::channel();
    let ask = |name: &'static str, class: u8| {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let request = format!("GET /items/{name} HTTP/1.1\r\nHost: a\r\nX-Class: {class}\r\n\r\n");
            sender.send((name, Client::new(address).ask(&request).status)).unwrap();
        });
        pause(60);
    };
    ask("first", 3);
    ask("low", 5);
    ask("middle", 2);
    // The queue is full: the least important gives way.
    ask("high", 0);
    let got: Vec<_> = (0..4).map(|_| answers.recv().unwrap()).collect();
    assert_eq!(got, [("low", 503), ("first", 200), ("high", 200), ("middle", 200)]);
    assert_eq!(get(&gateway, "/").status, 200);
    gateway.stop(true);
}

#[test]
fn groups_of_routes_share_permits() {
    let backend = Backend::new(|_| {
        pause(200);
        Does::Answer(ok("done"))
    });
    let gateway = gateway(&[&backend], "bulkheads: { items: { endpoints: [GET /items/:id], permits: 1 } }");
    let address = gateway.addresses()[0];
    let first = std::thread::spawn(move || Client::new(address).get("/items/1").status);
    pause(50);
    assert_eq!(get(&gateway, "/items/2").status, 503);
    assert_eq!(get(&gateway, "/").status, 200);
    assert_eq!(first.join().unwrap(), 200);
    gateway.stop(true);
}

#[test]
fn the_adaptive_limit_refuses_what_is_too_much() {
    let backend = Backend::new(|_| {
        pause(200);
        Does::Answer(ok("done"))
    });
    let gateway = gateway(&[&backend], "limit: { algorithm: aimd, initial: 2, min: 1, max: 2 }");
    let address = gateway.addresses()[0];
    let asked: Vec<_> = (0..4).map(|_| std::thread::spawn(move || Client::new(address).get("/").status)).collect();
    let mut statuses: Vec<u16> = asked.into_iter().map(|one| one.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
    gateway.stop(true);
}

#[test]
fn an_impatient_caller_ejects_nobody() {
    let backend = Backend::new(|_| {
        pause(50);
        Does::Answer(ok("ok"))
    });
    let other = Backend::ok("other");
    let keys = "outliers: { consecutive_failures: 3, max_ejected: 50%, panic_below: 10% }\nbreaker: { min_calls: 5 }";
    let gateway = gateway(&[&backend, &other], keys);
    let mut client = Client::of(&gateway);
    for _ in 0..40 {
        client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 5\r\n\r\n");
    }
    let answers: Vec<String> = (0..4).map(|_| client.get("/").body).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "ok").count(), 2, "{answers:?}");
    gateway.stop(true);
}

#[test]
fn whoever_finds_every_connection_taken_waits_for_one() {
    let backend = Backend::new(|_| {
        pause(400);
        Does::Answer(ok("done"))
    });
    let gateway = gateway(&[&backend], "max_connections: 1\nmax_pending: 2");
    let address = gateway.addresses()[0];
    let asked: Vec<_> = (0..4)
        .map(|_| {
            pause(50);
            std::thread::spawn(move || Client::new(address).get("/").status)
        })
        .collect();
    let statuses: Vec<u16> = asked.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 200, 503]);
    // One that leaves the queue takes no connection along.
    let first = std::thread::spawn(move || Client::new(address).get("/").status);
    pause(50);
    let mut leaves = Client::new(address);
    leaves.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    pause(50);
    drop(leaves);
    assert_eq!((first.join().unwrap(), get(&gateway, "/").status), (200, 200));
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
    let backend = Backend::new(|received| {
        pause(200);
        match received.head.split(' ').nth(1).unwrap() {
            "/items/own" => Does::Answer(answer(200, "Set-Cookie: a=b\r\n", &received.number.to_string())),
            "/items/bad" => Does::Answer(answer(500, "", "bad")),
            _ => Does::Answer(ok(&received.number.to_string())),
        }
    });
    let gateway = gateway(&[&backend], "coalesce: true");
    let address = gateway.addresses()[0];
    let all = |path: &'static str, count: usize| {
        let asked: Vec<_> = (0..count).map(|_| std::thread::spawn(move || Client::new(address).get(path))).collect();
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
    let before = backend.requests();
    let mut first = Client::new(address);
    first.send("GET /items/2 HTTP/1.1\r\nHost: test\r\n\r\n");
    pause(50);
    let second = std::thread::spawn(move || Client::new(address).get("/items/2").status);
    pause(50);
    drop(first);
    assert_eq!((second.join().unwrap(), backend.requests()), (200, before + 1));
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
