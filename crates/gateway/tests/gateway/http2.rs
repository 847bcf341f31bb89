//! HTTP/2 in front, with and without TLS.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use plimsoll_gateway::Gateway;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::support::*;

pub(crate) fn run<F: Future<Output = ()>>(future: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

pub(crate) type Send = h2::client::SendRequest<Bytes>;

pub(crate) async fn connect(gateway: &Gateway) -> Send {
    let stream = TcpStream::connect(gateway.addresses()[0]).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    send
}

async fn ask(
    send: &Send,
    method: &str,
    path: &str,
    body: Option<&'static [u8]>,
) -> (StatusCode, http::HeaderMap, Vec<u8>) {
    let mut send = send.clone().ready().await.unwrap();
    let request = Request::builder().method(method).uri(format!("http://test{path}")).body(()).unwrap();
    let (response, mut stream) = send.send_request(request, body.is_none()).unwrap();
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body), true).unwrap();
    }
    let (parts, mut body) = response.await.unwrap().into_parts();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        let _ = body.flow_control().release_capacity(data.len());
        content.extend_from_slice(&data);
    }
    (parts.status, parts.headers, content)
}

fn backend() -> Backend {
    Backend::new(|received| {
        assert_eq!(received.field("host"), Some("test"));
        let text = String::from_utf8_lossy(&received.body).into_owned();
        match received.head.split(' ').nth(1).unwrap() {
            "/items/large" => Does::Answer(ok(&"x".repeat(500_000))),
            "/items/chunked" => Does::Answer(
                b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
            ),
            "/items/none" => Does::Answer(b"HTTP/1.1 204 X\r\n\r\n".to_vec()),
            _ => Does::Answer(ok(&text.replace("\r\n", "|"))),
        }
    })
}

#[test]
fn streams_go_there_and_back_at_once() {
    let backend = backend();
    for keys in ["", "retry: {}"] {
        let gateway = gateway(&[&backend], keys);
        run(async {
            let send = connect(&gateway).await;
            let (status, headers, body) = ask(&send, "GET", "/items/chunked", None).await;
            assert_eq!((status.as_u16(), &body[..]), (200, &b"abc"[..]));
            assert!(headers.get("x-a").is_some() && headers.get("transfer-encoding").is_none());
            assert_eq!(ask(&send, "POST", "/items", Some(b"hello")).await.2, b"5|hello|0||");
            assert_eq!(ask(&send, "PUT", "/items/1", Some(b"hi")).await.2, b"2|hi|0||");
            assert_eq!(ask(&send, "GET", "/items/none", None).await.0.as_u16(), 204);
            let head = ask(&send, "HEAD", "/items/large", None).await;
            assert_eq!((head.1["content-length"].to_str().unwrap(), head.2.len()), ("500000", 0));
            assert_eq!(ask(&send, "GET", "/nowhere", None).await.0.as_u16(), 404);
            let large = || async { ask(&send, "GET", "/items/large", None).await.2.len() };
            let mut all = Vec::new();
            for _ in 0..8 {
                let send = send.clone();
                all.push(tokio::task::spawn_local(
                    async move { ask(&send, "GET", "/items/large", None).await.2.len() },
                ));
            }
            for one in all {
                assert_eq!(one.await.unwrap(), 500_000);
            }
            assert_eq!(large().await, 500_000);
        });
        gateway.stop(true);
    }
}

/// Trailers, cookies, `Expect`: what HTTP/1.1 says in other words.
#[test]
fn what_the_two_say_differently_is_translated() {
    let backend = Backend::new(|received| {
        assert_eq!(received.field("cookie"), Some("a=b; c=d"));
        assert_eq!(received.field("via"), Some("2.0 edge"));
        let body = String::from_utf8_lossy(&received.body).replace("\r\n", "|");
        let answer = format!(
            "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Sum: 7\r\n\r\n",
            body.len()
        );
        Does::Answer(answer.into_bytes())
    });
    for keys in ["", "retry: {}"] {
        let gateway = gateway(&[&backend], keys);
        run(async {
            let mut send = connect(&gateway).await.ready().await.unwrap();
            let request = Request::builder().method("PUT").uri("http://test/items/1").header("content-length", "2");
            let request = request.header("trailer", "x-end").header("expect", "100-continue");
            let request = request.header("cookie", "a=b").header("cookie", "c=d").body(()).unwrap();
            let (mut response, mut stream) = send.send_request(request, false).unwrap();
            let informed = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
            assert_eq!(informed.unwrap().unwrap().status().as_u16(), 100);
            stream.send_data(Bytes::from_static(b"hi"), false).unwrap();
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("x-end"),
                http::HeaderValue::from_static("1"),
            )]);
            stream.send_trailers(trailers).unwrap();
            let (parts, mut body) = response.await.unwrap().into_parts();
            assert!(parts.headers.contains_key("date"), "{parts:?}");
            let mut content = Vec::new();
            while let Some(data) = body.data().await {
                content.extend_from_slice(&data.unwrap());
            }
            assert_eq!(String::from_utf8_lossy(&content), "2|hi|0|x-end: 1||");
            let trailers = body.trailers().await.unwrap().expect("trailers");
            assert_eq!(trailers["x-sum"], "7");
        });
        gateway.stop(true);
    }
}

#[test]
fn hints_reach_a_stream_before_its_answer() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
    let answer = [hints.as_bytes(), b"HTTP/1.1 102 Processing\r\n\r\n", &ok("final")].concat();
    let backend = Backend::new(move |_| Does::Answer(answer.clone()));
    for keys in ["", "retry: {}", "hedge: {}"] {
        let gateway = gateway(&[&backend], keys);
        run(async {
            let mut send = connect(&gateway).await.ready().await.unwrap();
            let request = Request::builder().uri("http://test/").body(()).unwrap();
            let (mut response, _) = send.send_request(request, true).unwrap();
            let mut informed = Vec::new();
            while informed.len() < 2 {
                let next = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
                let next = next.expect("both come").unwrap();
                let names: Vec<String> = next.headers().keys().map(ToString::to_string).collect();
                informed.push((next.status().as_u16(), names));
            }
            assert_eq!(informed, [(103, vec!["link".to_owned()]), (102, vec![])]);
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "final");
        });
        gateway.stop(true);
    }
}

/// A server of WebSockets at `/ws`, which agrees as it should where `right`, and echoes what it gets.
fn websocket_backend(right: bool) -> Backend {
    Backend::new(move |received| {
        assert_eq!(received.head.split("\r\n").next(), Some("GET /ws HTTP/1.1"));
        assert_eq!((received.field("upgrade"), received.field("connection")), (Some("websocket"), Some("upgrade")));
        assert_eq!(received.field("sec-websocket-version"), Some("13"));
        assert!(received.field("content-length").is_none() && received.field("transfer-encoding").is_none());
        let accept = plimsoll_gateway::front::http2::websocket::accept(received.field("sec-websocket-key").unwrap());
        let accept = if right { accept } else { "somebody else's".to_owned() };
        let head = format!(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\nfirst"
        );
        Does::Echo(head.into_bytes())
    })
}

/// `CONNECT` for a WebSocket.
fn websocket(uri: &str, protocol: &'static str) -> Request<()> {
    let request = Request::builder().method("CONNECT").uri(uri).header("sec-websocket-version", "13");
    let mut request = request.body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
    request
}

#[test]
fn websockets_pass_over_streams() {
    let backend = websocket_backend(true);
    let gateway = gateway(&[&backend], "drain: 1s");
    run(async {
        let stream = TcpStream::connect(gateway.addresses()[0]).await.unwrap();
        let (mut send, mut connection) = h2::client::handshake(stream).await.unwrap();
        // The server says that it knows how to.
        let started = std::time::Instant::now();
        while !send.is_extended_connect_protocol_enabled() {
            assert!(started.elapsed() < std::time::Duration::from_secs(10));
            let step = std::future::poll_fn(|cx| Future::poll(std::pin::Pin::new(&mut connection), cx));
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), step).await;
        }
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let (response, mut stream) = send.send_request(websocket("http://test/ws", "websocket"), false).unwrap();
        let (parts, mut body) = response.await.unwrap().into_parts();
        assert_eq!((parts.status.as_u16(), &parts.headers["sec-websocket-protocol"]), (200, &"chat".parse().unwrap()));
        for gone in ["upgrade", "connection", "sec-websocket-accept"] {
            assert!(!parts.headers.contains_key(gone), "{parts:?}");
        }
        // More than any window, there and back.
        let large = vec![b'x'; 300_000];
        let sent = [&b"ping"[..], &large].concat();
        let sending = {
            let sent = sent.clone();
            tokio::task::spawn_local(async move {
                let mut left = Bytes::from(sent);
                while !left.is_empty() {
                    stream.reserve_capacity(left.len());
                    let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                    let piece = left.split_to(room.min(left.len()));
                    stream.send_data(piece, false).unwrap();
                }
                stream
            })
        };
        let mut got = Vec::new();
        while got.len() < 5 + sent.len() {
            let data = body.data().await.unwrap().unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            got.extend_from_slice(&data);
        }
        assert!(got.starts_with(b"firstping") && got[5..] == sent[..]);
        // The end of one side is passed on, and the server's end comes back.
        let mut stream = sending.await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        while let Some(data) = body.data().await {
            assert_eq!(data.unwrap(), "");
        }
    });
    gateway.stop(true);
}

#[test]
fn websockets_that_nobody_agreed_to_are_none() {
    let wrong = websocket_backend(false);
    let gateway_before = |backend: &Backend| gateway(&[backend], "");
    let ask = |gateway: &Gateway, protocol: &'static str| {
        let mut status = 0;
        let address = gateway.addresses()[0];
        run(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::task::spawn_local(async move {
                let _ = connection.await;
            });
            // The first answer comes after the server's settings.
            let plain = Request::builder().uri("http://test/nowhere").body(()).unwrap();
            assert_eq!(send.send_request(plain, true).unwrap().0.await.unwrap().status().as_u16(), 404);
            let (response, _stream) = send.send_request(websocket("http://test/ws", protocol), false).unwrap();
            status = response.await.unwrap().status().as_u16();
        });
        status
    };
    let gateway = gateway_before(&wrong);
    assert_eq!(ask(&gateway, "websocket"), 502, "it answers another key");
    assert_eq!(ask(&gateway, "connect-udp"), 501);
    gateway.stop(true);
    for (given, got) in [(200, 502), (403, 403)] {
        let other = Backend::new(move |_| Does::Answer(answer(given, "", "no")));
        let gateway = gateway_before(&other);
        assert_eq!(ask(&gateway, "websocket"), got);
        gateway.stop(true);
    }
}

#[test]
fn bodies_beyond_the_limit_are_refused() {
    let backend = backend();
    let gateway = gateway(&[&backend], "limits: { body: 10B }");
    run(async {
        let send = connect(&gateway).await;
        assert_eq!(ask(&send, "POST", "/items", Some(b"more than ten bytes")).await.0.as_u16(), 413);
        assert_eq!(ask(&send, "POST", "/items", Some(b"ten")).await.0.as_u16(), 200);
    });
    gateway.stop(true);
}

#[test]
fn a_gateway_that_stops_says_goaway_and_ends_its_streams() {
    let (backend, gate) = Backend::gated();
    let gateway = gateway(&[&backend], "drain: 30s");
    run(async {
        let send = connect(&gateway).await;
        let slow = {
            let send = send.clone();
            tokio::task::spawn_local(async move { ask(&send, "GET", "/", None).await.2 })
        };
        while backend.requests() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let stopping = tokio::task::spawn_blocking(move || gateway.stop(true));
        while send.clone().ready().await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        gate.open();
        assert_eq!(slow.await.unwrap(), b"done");
        stopping.await.unwrap();
    });
}

#[test]
fn tls_offers_both_protocols() {
    let backend = Backend::new(|received| {
        assert_eq!(received.field("x-forwarded-proto"), Some("https"));
        Does::Answer(ok("secret"))
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/data");
    let text = file(&[backend.address], "tls: { certificate: test.pem, key: test.key }", "");
    let gateway = Gateway::start(plan(&text), &folder).unwrap();
    run(async {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(folder.join("test.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let roots = Arc::new(roots);
        for protocol in ["h2", "http/1.1"] {
            let provider = Arc::new(crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            let stream = TcpStream::connect(gateway.addresses()[0]).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
            if protocol == "h2" {
                let (send, connection) = h2::client::handshake(stream).await.unwrap();
                tokio::task::spawn_local(async move {
                    let _ = connection.await;
                });
                assert_eq!(ask(&send, "GET", "/", None).await.2, b"secret");
            } else {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                for _ in 0..2 {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
                    let mut bytes = Vec::new();
                    while !bytes.ends_with(b"secret") {
                        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
                    }
                }
            }
        }
    });
    gateway.stop(true);
    let text = file(&[backend.address], "tls: { certificate: test.key, key: test.pem }", "");
    let error = Gateway::start(plan(&text), &folder).unwrap_err();
    assert_eq!(error.to_string(), "tls: test.key: there is no certificate in it");
}
