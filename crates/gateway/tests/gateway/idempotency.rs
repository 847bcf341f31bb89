//! Answers by idempotency key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;

/// A request with a key, and perhaps with credentials.
fn post(path: &str, key: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nIdempotency-Key: {key}\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// A backend that says how many requests it had.
pub(crate) fn counting() -> Backend {
    Backend::new(|received| Does::Answer(answer(201, "Set-Cookie: a=b\r\n", &format!("number {}", received.number))))
}

#[test]
fn a_repeated_request_gets_the_first_ones_answer() {
    let backend = counting();
    let gateway = gateway(&[&backend], "idempotency: {}\nadmin: 127.0.0.1:0");
    let mut client = Client::of(&gateway);
    let first = client.ask(&post("/items", "1", "", "hi"));
    assert_eq!((first.status, first.body.as_str(), first.field("idempotent-replayed")), (201, "number 0", None));
    for key in ["1", "\"1\"", " 1 "] {
        let again = client.ask(&post("/items", key, "", "hi"));
        assert_eq!((again.status, again.body.as_str()), (201, "number 0"), "{key}");
        assert_eq!((again.field("idempotent-replayed"), again.field("set-cookie")), (Some("true"), Some("a=b")));
    }
    // The same body in chunks is the same request, however they are cut.
    for chunks in ["2\r\nhi\r\n0\r\n\r\n", "1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"] {
        let chunked = format!(
            "POST /items HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        );
        assert_eq!(client.ask(&chunked).body, "number 0");
    }
    // Another's key is another key, and so is another key.
    assert_eq!(client.ask(&post("/items", "1", "Authorization: other\r\n", "hi")).body, "number 1");
    assert_eq!(client.ask(&post("/items", "2", "", "hi")).body, "number 2");
    // Without a key, and where repeating does no harm, nothing is remembered.
    let plain = "POST /items HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!((client.ask(plain).body, client.ask(plain).body), ("number 3".to_owned(), "number 4".to_owned()));
    let get = "GET /items/1 HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 1\r\n\r\n";
    assert_eq!((client.ask(get).body, client.ask(get).body), ("number 5".to_owned(), "number 6".to_owned()));
    let metrics = Client::new(gateway.admin().unwrap()).get("/metrics").body;
    for line in ["plimsoll_idempotency_total{what=\"replayed\"} 5", "plimsoll_idempotency_keys 3"] {
        assert!(metrics.lines().any(|other| other == line), "no {line} in\n{metrics}");
    }
    gateway.stop(true);
}

#[test]
fn what_is_no_repetition_is_refused() {
    let backend = counting();
    let gateway = gateway(&[&backend], "idempotency: { header: X-Key, max_keys: 2 }\nlimits: { retry_body: 1KiB }");
    let mut client = Client::of(&gateway);
    let mut ask = |path: &str, key: &str, body: &str| {
        let text = post(path, key, "", body).replace("Idempotency-Key", "X-Key");
        let got = client.ask(&text);
        if got.field("connection") == Some("close") {
            client = Client::of(&gateway);
        }
        got.status
    };
    assert_eq!(ask("/items", "1", "hi"), 201);
    assert_eq!(ask("/items", "1", "ho"), 422, "another body");
    assert_eq!(ask("/items?a=b", "1", "hi"), 422, "another query");
    assert_eq!(ask("/items", "", "hi"), 400, "an empty key");
    assert_eq!(ask("/items", &"k".repeat(256), "hi"), 400, "too long a key");
    assert_eq!(ask("/items", "1\r\nX-Key: 2", "hi"), 400, "two keys");
    assert_eq!(ask("/items", "2", &"x".repeat(2048)), 413, "a body that is too large to be kept");
    assert_eq!(ask("/items", "2", "hi"), 201);
    assert_eq!(ask("/items", "3", "hi"), 503, "no room for a third key");
    assert_eq!(backend.requests(), 2);
    gateway.stop(true);
}

#[test]
fn whoever_comes_while_the_first_is_at_work_is_told_so() {
    let (entered, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (inside, may) = (entered.clone(), go.clone());
    let backend = Backend::new(move |_| {
        inside.fetch_add(1, Ordering::SeqCst);
        eventually("the test goes on", || may.load(Ordering::SeqCst));
        Does::Answer(ok("done"))
    });
    let gateway = gateway(&[&backend], "idempotency: { lease: 1min }");
    let mut first = Client::of(&gateway);
    first.send(&post("/items", "1", "", "hi"));
    eventually("it is at work", || entered.load(Ordering::SeqCst) == 1);
    let got = Client::of(&gateway).ask(&post("/items", "1", "", "hi"));
    assert_eq!(got.status, 409);
    let seconds: u64 = got.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    go.store(true, Ordering::SeqCst);
    assert_eq!(first.next(false).unwrap().body, "done");
    assert_eq!(Client::of(&gateway).ask(&post("/items", "1", "", "hi")).body, "done");
    assert_eq!(backend.requests(), 1);
    gateway.stop(true);
}

#[test]
fn what_failed_is_made_again_and_what_nobody_knows_is_not() {
    let backend = Backend::new(|received| match (received.field("idempotency-key"), received.number) {
        (Some("fails"), number) if number < 2 => Does::Answer(answer(500, "", "bad")),
        (Some("breaks"), _) => Does::Reset,
        _ => Does::Answer(ok("done")),
    });
    let gateway = gateway(&[&backend], "idempotency: { lease: 1s }");
    let mut client = Client::of(&gateway);
    let mut ask = |key: &str| client.ask(&post("/items", key, "", "hi")).status;
    assert_eq!((ask("fails"), ask("fails"), ask("fails"), ask("fails")), (500, 500, 200, 200));
    assert_eq!(backend.requests(), 3, "the last one was a repetition");
    // It may have had its effect before the connection broke.
    assert_eq!((ask("breaks"), ask("breaks")), (502, 409));
    assert_eq!(backend.requests(), 4);
    eventually("its lease is over", || ask("breaks") == 502);
    gateway.stop(true);
}

#[test]
fn what_is_refused_on_its_way_leaves_no_trace() {
    let backend = counting();
    let keys = "idempotency: {}\nrate_limit: { quota: 2/min, burst: 2 }";
    let gateway = gateway(&[&backend], keys);
    let mut client = Client::of(&gateway);
    let mut ask = |key: &str| client.ask(&post("/items", key, "", "hi")).status;
    assert_eq!((ask("1"), ask("2"), ask("3")), (201, 201, 429));
    // A repetition costs nothing of the quota, and the third key is free for whoever comes next.
    assert_eq!((ask("1"), ask("3")), (201, 429));
    gateway.stop(true);
}

#[test]
fn reloads_keep_the_answers() {
    let backend = counting();
    let text = |keep: &str| file(&[backend.address], &format!("idempotency: {{ keep: {keep} }}"), "");
    let gateway = start(&text("1h"));
    let mut client = Client::of(&gateway);
    assert_eq!(client.ask(&post("/items", "1", "", "hi")).body, "number 0");
    gateway.reload(plan(&text("2h"))).unwrap();
    assert_eq!(client.ask(&post("/items", "1", "", "hi")).body, "number 0");
    gateway.reload(plan(&file(&[backend.address], "", ""))).unwrap();
    assert_eq!(client.ask(&post("/items", "1", "", "hi")).body, "number 1");
    gateway.stop(true);
}

#[test]
fn whoever_leaves_takes_no_answer_along() {
    let backend = Backend::new(|received| {
        if received.number == 0 {
            pause(300);
        }
        Does::Answer(ok("done"))
    });
    let gateway = gateway(&[&backend], "idempotency: {}\nstops_when_cancelled: false");
    let mut client = Client::of(&gateway);
    client.send(&post("/items", "1", "", "hi"));
    eventually("it is under way", || backend.connections.load(Ordering::SeqCst) == 1);
    drop(client);
    let mut again = Client::of(&gateway);
    again.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    eventually("its answer is there", || again.ask(&post("/items", "1", "", "hi")).status == 200);
    assert_eq!(backend.requests(), 1);
    gateway.stop(true);
}
