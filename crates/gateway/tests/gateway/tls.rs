//! TLS in front, as bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use plimsoll_gateway::Gateway;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, crypto};

use crate::support::*;

/// A request that arrives together with the end of the handshake has been read with it, and nothing more comes
/// that would make the connection readable.
#[test]
fn a_request_may_come_with_the_handshake() {
    let backend = Backend::ok("at once");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/data");
    let text = file(&[backend.address], "tls: { certificate: test.pem, key: test.key }", "");
    let gateway = Gateway::start(plan(&text), &folder).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("test.pem")).unwrap()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    for _ in 0..10 {
        let mut tls = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = TcpStream::connect(gateway.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let mut out = Vec::new();
        while tls.is_handshaking() {
            out.clear();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            stream.write_all(&out).unwrap();
            tls.read_tls(&mut stream).unwrap();
            tls.process_new_packets().unwrap();
        }
        // The client's last message and the request, in one piece.
        tls.writer().write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        out.clear();
        while tls.wants_write() {
            tls.write_tls(&mut out).unwrap();
        }
        stream.write_all(&out).unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while !answer.ends_with(b"at once") {
            assert!(tls.read_tls(&mut stream).unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
            tls.process_new_packets().unwrap();
            if let Ok(count) = tls.reader().read(&mut piece) {
                answer.extend_from_slice(&piece[..count]);
            }
        }
    }
    gateway.stop(true);
}
