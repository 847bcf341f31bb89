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

fn run<F: Future<Output = ()>>(future: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

type Send = h2::client::SendRequest<Bytes>;

async fn connect(gateway: &Gateway) -> Send {
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
    let backend = Backend::new(|_| {
        pause(500);
        Does::Answer(ok("whole"))
    });
    let gateway = gateway(&[&backend], "drain: 5s");
    run(async {
        let send = connect(&gateway).await;
        let slow = {
            let send = send.clone();
            tokio::task::spawn_local(async move { ask(&send, "GET", "/", None).await.2 })
        };
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let stopping = tokio::task::spawn_blocking(move || gateway.stop(true));
        assert_eq!(slow.await.unwrap(), b"whole");
        stopping.await.unwrap();
        assert!(send.ready().await.is_err());
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
