//! What only a real gateway needs: read with its defaults, and refused in words.

use std::time::Duration;

use plimsoll_model::system::{Addresses, LogFormat, RedisAt, RedisTls, Serving, StoreKind};

use crate::{parse_text, small};

/// The small file with a gateway of these further lines before its service.
fn gateway(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    small(&[("services:\n", &format!("services:\n  edge:\n    kind: gateway\n    upstream: api\n{lines}"))])
}

fn serving(lines: &str) -> Serving {
    let system = parse_text(gateway(lines).as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    *system.services[0].serving.clone().expect("a gateway")
}

#[test]
fn what_is_left_out_has_its_default() {
    let serving = serving("");
    assert_eq!(serving.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!((serving.admin, serving.tls, serving.access_log), (None, None, None));
    assert_eq!((serving.limits.header_bytes, serving.limits.body_bytes), (16 << 10, 1 << 20));
    assert_eq!(Duration::from_nanos(serving.limits.header_timeout), Duration::from_secs(10));
    assert_eq!((serving.headers.user, serving.headers.deadline.as_str()), (None, "X-Request-Timeout-Ms"));
}

#[test]
fn what_is_stated_is_read() {
    let log = serving("access_log: stdout").access_log.unwrap();
    assert_eq!((log.to.as_str(), log.format), ("stdout", LogFormat::Json));
    assert_eq!(serving("trusted: [ 10.0.0.0/8, \"::1\" ]").trusted.len(), 2);
    let at = |at: &str| {
        let text = small(&[("  api:\n", &format!("  api:\n    at: {at}\n"))]);
        let system = parse_text(text.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        system.services[0].at.clone().unwrap()
    };
    let Addresses::List(list) = at("[ a:80, { address: b:80, weight: 2 } ]") else { panic!("a list") };
    assert_eq!(list.iter().map(|a| (a.address.as_str(), a.weight)).collect::<Vec<_>>(), [("a:80", 1.0), ("b:80", 2.0)]);
    let dns = |server: Option<&str>| {
        let server = server.map(|server| server.parse().unwrap());
        Addresses::Dns { host: "api.internal".to_owned(), port: 80, server, every: 10_000_000_000 }
    };
    assert_eq!(at("{ dns: api.internal:80 }"), dns(None));
    assert_eq!(at("{ dns: api.internal:80, server: 127.0.0.1:8600 }"), dns(Some("127.0.0.1:8600")));
    assert_eq!(
        at("{ file: api.txt, every: 2s }"),
        Addresses::File { path: "api.txt".to_owned(), every: 2_000_000_000 }
    );
}

/// The small file with a Redis of these keys.
fn redis(keys: &str) -> String {
    small(&[("stores:\n", &format!("stores:\n  counts: {{ kind: redis, {keys} }}\n"))])
}

#[test]
fn a_redis_is_read_with_what_lets_us_in() {
    let at = |keys: &str| {
        let system = parse_text(redis(keys).as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let StoreKind::Redis(redis) = &system.stores[0].kind else { panic!("a Redis") };
        redis.at.clone()
    };
    assert_eq!(at("pool: 3"), None);
    let address = "10.0.0.9:6379".to_owned();
    let plain = RedisAt { address, database: 0, user: None, password_file: None, tls: None };
    assert_eq!(at("at: 10.0.0.9:6379"), Some(plain.clone()));
    let tls = RedisTls {
        ca: "ca.pem".to_owned(),
        name: Some("counts".to_owned()),
        own: Some(("edge.pem".to_owned(), "edge.key".to_owned())),
    };
    let all = RedisAt {
        database: 7,
        user: Some("edge".to_owned()),
        password_file: Some("password".to_owned()),
        tls: Some(tls),
        ..plain
    };
    let keys = "at: 10.0.0.9:6379, database: 7, user: edge, password_file: password, \
                tls: { ca: ca.pem, name: counts, certificate: edge.pem, key: edge.key }";
    assert_eq!(at(keys), Some(all));
    for (keys, why) in [
        ("database: 2", "`database` plays a part only beside `at`"),
        ("password_file: x", "`password_file` plays a part only beside `at`"),
        ("at: a:1, user: edge", "`user` plays a part only beside `password_file`"),
        ("at: a:1, database: -1", "expected a whole number from 0"),
        ("at: a:1, password: secret", "redis has no key `password`"),
        ("tls: { ca: x }", "`tls` plays a part only beside `at`"),
        ("at: a:1, tls: true", "expected a mapping"),
        ("at: a:1, tls: {}", "`ca`"),
        ("at: a:1, tls: { ca: x, key: y }", "`key` plays a part only beside `certificate`"),
        ("at: a:1, tls: { ca: x, certificate: y }", "a certificate needs its key: add `key: redis-client.key`"),
    ] {
        let problems = parse_text(redis(keys).as_bytes()).expect_err(keys).render(false);
        assert!(problems.contains(why), "{keys}: no `{why}` in\n{problems}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    for (lines, why) in [
        ("listen: []", "a gateway listens on at least one address"),
        ("listen: [\":80\"]", "write `0.0.0.0:80` for all of them"),
        ("listen: [localhost:80]", "a name is no IP address"),
        ("admin: 127.0.0.1", "expected an IP address and a port"),
        ("trusted: [10.0.0.0/33]", "it is neither an address nor an address with its leading bits"),
        ("limits: { header_count: 129 }", "expected at most 128, found `129`"),
        ("limits: { header_bytes: 10B }", "expected from 1KiB to 1MiB, found `10B`"),
        ("limits: { headers: 5 }", "gateway_limits has no key `headers`"),
        ("headers: { user: \"X User\" }", "it has other marks than letters, digits and `-`"),
        ("at: [10.0.0.1]", "the port is missing"),
        ("at: [\"10.0.0.1:0\"]", "the port is no number from 1 to 65535"),
        ("at: []", "a service has at least one address"),
        ("at: { dns: api:80, server: ns.internal }", "expected an IP address and a port"),
        ("at: { dns: api:80, file: x }", "either `dns` or `file`, not both"),
        ("routes: [ { to: api, fallback_answer: { status: 203 } } ]", "plays a part only where `fallback` is `true`"),
        ("routes: [ { to: api, fallback: true, fallback_answer: { status: 99 } } ]", "a status from 200 to 599"),
    ] {
        let problems = parse_text(gateway(lines).as_bytes()).expect_err(lines).render(false);
        assert!(problems.contains(why), "{lines}: no `{why}` in\n{problems}");
    }
}
