//! Answers by idempotency key, to streams of HTTP/2.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use plimsoll_gateway::Gateway;

use crate::http2::{Send, connect, run};
use crate::idempotency::counting;
use crate::support::*;

struct Answer {
    status: u16,
    fields: HeaderMap,
    body: String,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn is_replayed(&self) -> bool {
        self.fields.get("idempotent-replayed").is_some_and(|value| value == "true")
    }
}

/// Starts a request with a key, all of which is sent.
async fn begin(send: &Send, key: &str, body: &'static str) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let mut send = send.clone().ready().await.unwrap();
    let request = Request::builder().method("POST").uri("http://test/items").header("idempotency-key", key);
    let (response, mut stream) = send.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
    (response, stream)
}

async fn end(response: h2::client::ResponseFuture) -> Answer {
    let (parts, mut recv) = response.await.unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(data) = recv.data().await {
        body.extend_from_slice(&data.unwrap());
    }
    let body = String::from_utf8(body).unwrap();
    Answer { status: parts.status.as_u16(), fields: parts.headers, body, trailers: recv.trailers().await.unwrap() }
}

async fn post(send: &Send, key: &str, body: &'static str) -> Answer {
    end(begin(send, key, body).await.0).await
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_stream_that_repeats_another_gets_its_answer() {
    let backend = counting();
    let gateway = gateway(&[&backend], "idempotency: {}");
    run(async {
        let send = connect(&gateway).await;
        let first = post(&send, "1", "hi").await;
        assert_eq!((first.status, first.body.as_str(), first.is_replayed()), (201, "number 0", false));
        let (again, other) = (post(&send, "\"1\"", "hi").await, connect(&gateway).await);
        for again in [again, post(&other, "1", "hi").await] {
            assert_eq!((again.status, again.body.as_str(), again.is_replayed()), (201, "number 0", true));
            assert_eq!(
                (&again.fields["set-cookie"], &again.fields["content-length"]),
                (&"a=b".parse().unwrap(), &"8".parse().unwrap())
            );
            let strange = ["connection", "keep-alive", "transfer-encoding"];
            assert!(strange.iter().all(|name| !again.fields.contains_key(*name)), "{:?}", again.fields);
        }
        assert_eq!(post(&send, "1", "ho").await.status, 422, "another body");
        assert_eq!(post(&send, "2", "hi").await.body, "number 1");
    });
    // The protocol makes no other request of it.
    let one = "POST /items HTTP/1.1\r\nHost: test\r\nIdempotency-Key: 1\r\nContent-Length: 2\r\n\r\nhi";
    let got = Client::of(&gateway).ask(one);
    assert_eq!((got.body.as_str(), got.field("idempotent-replayed")), ("number 0", Some("true")));
    assert_eq!(backend.requests(), 2);
    gateway.stop(true);
}

#[test]
fn streams_that_come_while_the_first_is_at_work_are_told_so() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], "idempotency: { lease: 1min }");
    run(async {
        let send = connect(&gateway).await;
        let (first, _stream) = begin(&send, "1", "hi").await;
        until("it is at work", async || backend.connections.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
        // On its connection and on another, as many as like.
        let other = connect(&gateway).await;
        for send in [&send, &other, &send] {
            let refused = post(send, "1", "hi").await;
            let after: u64 = refused.fields["retry-after"].to_str().unwrap().parse().unwrap();
            assert!(refused.status == 409 && (1..=60).contains(&after), "{} {after}", refused.status);
        }
        gate.open();
        assert_eq!(end(first).await.body, "done");
        let again = post(&send, "1", "hi").await;
        assert_eq!((again.body.as_str(), again.is_replayed()), ("done", true));
    });
    assert_eq!(backend.requests(), 1);
    gateway.stop(true);
}

/// A gateway whose first request was reset by its client while the instance was at it.
async fn reset_at_work(gateway: &Gateway, backend: &Backend) -> Send {
    let send = connect(gateway).await;
    let (response, mut stream) = begin(&send, "1", "hi").await;
    until("it is at work", async || backend.requests() == 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop((response, stream));
    send
}

#[test]
fn a_stream_that_is_reset_leaves_its_key_in_progress_until_the_lease_ends() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], "idempotency: { lease: 2s }");
    run(async {
        let send = reset_at_work(&gateway, &backend).await;
        // Nobody knows what became of it.
        assert_eq!(post(&send, "1", "hi").await.status, 409);
        gate.open();
        until("its lease is over", async || post(&send, "1", "hi").await.status == 200).await;
        assert!(post(&send, "1", "hi").await.is_replayed());
    });
    assert_eq!(backend.requests(), 2);
    gateway.stop(true);
}

#[test]
fn a_stream_that_is_reset_takes_no_answer_along_where_requests_go_on() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], "idempotency: {}\nstops_when_cancelled: false");
    run(async {
        let send = reset_at_work(&gateway, &backend).await;
        assert_eq!(post(&send, "1", "hi").await.status, 409);
        gate.open();
        until("its answer is there", async || post(&send, "1", "hi").await.status == 200).await;
        let again = post(&send, "1", "hi").await;
        assert_eq!((again.body.as_str(), again.is_replayed()), ("done", true));
    });
    assert_eq!(backend.requests(), 1);
    gateway.stop(true);
}

#[test]
fn trailers_are_the_first_ones_alone() {
    let answer = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nX-A: b\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    let backend = Backend::new(|_| Does::Answer(answer.into()));
    let gateway = gateway(&[&backend], "idempotency: {}");
    run(async {
        let send = connect(&gateway).await;
        let first = post(&send, "1", "hi").await;
        assert_eq!((first.body.as_str(), &first.trailers.expect("trailers")["x-sum"]), ("abc", &"7".parse().unwrap()));
        let again = post(&send, "1", "hi").await;
        assert!(again.is_replayed() && again.trailers.is_none());
        assert_eq!(
            (again.body.as_str(), again.fields["x-a"].as_bytes(), again.fields["content-length"].as_bytes()),
            ("abc", &b"b"[..], &b"3"[..])
        );
        assert!(!again.fields.contains_key("trailer"), "what is announced has to come: {:?}", again.fields);
    });
    assert_eq!(backend.requests(), 1);
    gateway.stop(true);
}
