//! Reload, drain, metrics, logs.

use crate::support::*;

#[test]
fn reloads_lose_no_request_and_no_state() {
    let backend = Backend::ok("ok");
    let text = |timeout: &str| {
        let keys = format!(
            "timeout: {timeout}\nrate_limit: {{ quota: 2/min, burst: 2, per: user }}\nheaders: {{ user: X-User }}"
        );
        file(&[backend.address], &keys, "")
    };
    let gateway = start(&text("10s"));
    let mut kept = Client::of(&gateway);
    let ann = "GET / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\n\r\n";
    assert_eq!((kept.ask(ann).status, kept.ask(ann).status), (200, 200));
    gateway.reload(plan(&text("20s"))).unwrap();
    // The connection is there, and so is what she has used.
    assert_eq!(kept.ask(ann).status, 429);
    gateway.stop(true);

    let plain = |timeout: usize| file(&[backend.address], &format!("timeout: {timeout}s"), "");
    let gateway = start(&plain(10));
    let load = Load::start(gateway.addresses()[0], 4);
    for round in 0..50 {
        gateway.reload(plan(&plain(10 + round % 2))).unwrap();
        load.goes_on(1);
    }
    let (answered, failed) = load.end();
    assert!(answered > 100 && failed == 0, "{answered} answered, {failed} failed");
    gateway.stop(true);
}

#[test]
fn a_plan_that_needs_another_process_is_refused() {
    let backend = Backend::ok("ok");
    let gateway = gateway(&[&backend], "");
    let other = plan(&file(&[backend.address], "cores: 3", ""));
    assert_eq!(
        gateway.reload(other).unwrap_err().to_string(),
        "`cores` cannot change while the gateway runs: start another in its place"
    );
    assert_eq!(get(&gateway, "/").status, 200);
    gateway.stop(true);
}

#[test]
fn new_instances_and_routes_are_taken_up() {
    let (old, new) = (Backend::ok("old"), Backend::ok("new"));
    let gateway = gateway(&[&old], "");
    assert_eq!(get(&gateway, "/").body, "old");
    let api = "endpoints: { GET /fresh: [] }";
    let text = file(&[new.address], "", api).replace("edge GET / ]", "edge GET /fresh ]");
    gateway.reload(plan(&text)).unwrap();
    assert_eq!(get(&gateway, "/").status, 404);
    assert_eq!(get(&gateway, "/fresh").body, "new");
    gateway.stop(true);
}

#[test]
fn stopping_ends_what_is_under_way() {
    let backend = Backend::new(|_| {
        pause(30); // so that something is under way at any time
        Does::Answer(ok("whole"))
    });
    let gateway = gateway(&[&backend], "drain: 5s");
    let load = Load::start(gateway.addresses()[0], 8);
    let mut idle = Client::of(&gateway);
    assert_eq!(idle.get("/").status, 200);
    load.goes_on(10);
    gateway.stop(false);
    let (answered, failed) = load.end();
    assert!(answered > 10 && failed == 0, "{answered} answered, {failed} failed");
    assert!(idle.is_closed());
}

#[test]
fn whoever_takes_longer_than_the_drain_is_cut_off() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], "drain: 300ms");
    let mut client = Client::that_asked(&gateway, "/");
    eventually("it is there", || backend.requests() == 1);
    let stopping = std::thread::spawn(move || gateway.stop(true));
    eventually("the gateway has stopped", || stopping.is_finished());
    assert!(client.next(false).is_none());
    gate.open();
}

#[test]
fn operators_see_and_change_what_runs() {
    let (first, second) = (Backend::ok("first"), Backend::ok("second"));
    let keys = "admin: 127.0.0.1:0\nbreaker: {}\nretry: { budget: 20% }\nrate_limit: { quota: 1k/s }";
    let gateway = gateway(&[&first, &second], keys);
    let admin = gateway.admin().unwrap();
    let ask =
        |method: &str, path: &str| Client::new(admin).ask(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((ask("GET", "/health").status, ask("GET", "/ready").status), (200, 200));
    assert_eq!((ask("GET", "/nothing").status, ask("POST", "/metrics").status), (404, 405));
    let mut client = Client::of(&gateway);
    (0..10).for_each(|_| drop(client.get("/")));
    client.get("/items/9");
    let metrics = ask("GET", "/metrics").body;
    for line in [
        "plimsoll_requests_total{route=\"GET /\",code=\"2xx\"} 10".to_owned(),
        "plimsoll_request_seconds_count{route=\"GET /items/:id\"} 1".to_owned(),
        format!("plimsoll_attempts_total{{instance=\"{}\",result=\"connect_error\"}} 0", first.address),
        "plimsoll_breaker_state{target=\"api\",state=\"closed\"} 1".to_owned(),
        "plimsoll_decisions_total{target=\"edge\",policy=\"rate_limit\",decision=\"admitted\"} 11".to_owned(),
        "plimsoll_ready 1".to_owned(),
    ] {
        assert!(metrics.lines().any(|other| other == line), "no {line} in\n{metrics}");
    }
    assert!(metrics.contains("plimsoll_retry_budget_left{target=\"api\"} 1"), "{metrics}");

    let drained = ask("POST", &format!("/upstreams/api/{}/drain", first.address));
    let value: serde_json::Value = serde_json::from_str(&drained.body).unwrap();
    assert_eq!(value[0]["instances"][0]["draining"], true);
    assert!((0..10).all(|_| client.get("/").body == "second"));
    ask("POST", &format!("/upstreams/api/{}/undrain", first.address));
    assert!((0..10).any(|_| client.get("/").body == "first"));
    ask("POST", &format!("/upstreams/api/{}/weight/0", second.address));
    assert!((0..10).all(|_| client.get("/").body == "first"));
    for bad in ["/upstreams/api/1.2.3.4:5/drain", "/upstreams/none/x/drain"] {
        assert_eq!(ask("POST", bad).status, 404, "{bad}");
    }
    assert_eq!(ask("POST", &format!("/upstreams/api/{}/weight/-1", first.address)).status, 404);
    gateway.stop(true);
}

#[test]
fn requests_leave_lines() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::ok("hello");
    let text = file(&[backend.address], "access_log: log.json", "");
    let gateway = plimsoll_gateway::Gateway::start(plan(&text), folder.path()).unwrap();
    let mut client = Client::of(&gateway);
    client.ask("GET /items/7?x HTTP/1.1\r\nHost: a\r\nUser-Agent: test \"1\"\r\n\r\n");
    client.get("/nowhere");
    let lines = || std::fs::read_to_string(folder.path().join("log.json")).unwrap_or_default();
    eventually("both lines are there", || lines().lines().count() == 2);
    let text = lines();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["target"], &lines[0]["status"], &lines[0]["bytes"]),
        (&"/items/7?x".into(), &200.into(), &5.into())
    );
    assert_eq!((&lines[0]["route"], &lines[0]["user_agent"]), (&"GET /items/:id".into(), &"test \"1\"".into()));
    assert_eq!(lines[0]["upstream"], backend.address.to_string());
    assert!(lines[0]["upstream_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&lines[1]["status"], &lines[1]["own"]), (&404.into(), &"not_found".into()));
    gateway.stop(true);
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = file(&[nobody()], &format!("listen: [\"{address}\"]"), "");
    let error = plimsoll_gateway::Gateway::start(plan(&text), std::path::Path::new(".")).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: Address already in use")), "{error}");
}

#[test]
fn instances_follow_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Backend::ok("first"), Backend::ok("second"));
    let list = folder.path().join("api.txt");
    std::fs::write(&list, format!("{}\n", first.address)).unwrap();
    let text = file(&[], "", "").replace("at: []", "at: { file: api.txt, every: 20ms }");
    let gateway = plimsoll_gateway::Gateway::start(plan(&text), folder.path()).unwrap();
    let mut client = Client::of(&gateway);
    assert_eq!(client.get("/").body, "first");
    std::fs::write(&list, format!("# moved\n{} 2\n", second.address)).unwrap();
    eventually("the second has taken over", || (0..5).all(|_| client.get("/").body == "second"));
    // A file that cannot be read changes nothing.
    std::fs::write(&list, "nonsense here too\n").unwrap();
    eventually("that is said", || gateway.notices().iter().any(|notice| notice.contains("api.txt:1")));
    assert_eq!(client.get("/").body, "second");
    gateway.stop(true);
}
