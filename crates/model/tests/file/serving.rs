//! What only a real gateway needs: read with its defaults, and refused in words.

use std::time::Duration;

use plimsoll_model::system::{Addresses, LogFormat, Serving};

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
    let dns = Addresses::Dns { host: "api.internal".to_owned(), port: 80, every: 10_000_000_000 };
    assert_eq!(at("{ dns: api.internal:80 }"), dns);
    assert_eq!(
        at("{ file: api.txt, every: 2s }"),
        Addresses::File { path: "api.txt".to_owned(), every: 2_000_000_000 }
    );
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    for (lines, why) in [
        ("listen: []", "a gateway listens on at least one address"),
        ("listen: [\":80\"]", "write `0.0.0.0:80` for all of them"),
        ("listen: [localhost:80]", "a name is no address to listen on"),
        ("admin: 127.0.0.1", "expected an IP address and a port"),
        ("trusted: [10.0.0.0/33]", "it is neither an address nor an address with its leading bits"),
        ("limits: { header_count: 129 }", "expected at most 128, found `129`"),
        ("limits: { header_bytes: 10B }", "expected from 1KiB to 1MiB, found `10B`"),
        ("limits: { headers: 5 }", "gateway_limits has no key `headers`"),
        ("headers: { user: \"X User\" }", "it has other marks than letters, digits and `-`"),
        ("at: [10.0.0.1]", "the port is missing"),
        ("at: [\"10.0.0.1:0\"]", "the port is no number from 1 to 65535"),
        ("at: []", "a service has at least one address"),
        ("at: { dns: api:80, file: x }", "either `dns` or `file`, not both"),
        ("routes: [ { to: api, fallback_answer: { status: 203 } } ]", "plays a part only where `fallback` is `true`"),
        ("routes: [ { to: api, fallback: true, fallback_answer: { status: 99 } } ]", "a status from 200 to 599"),
    ] {
        let problems = parse_text(gateway(lines).as_bytes()).expect_err(lines).render(false);
        assert!(problems.contains(why), "{lines}: no `{why}` in\n{problems}");
    }
}
