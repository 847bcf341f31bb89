//! TLS: certificates from PEM files, ring's cryptography. In front, HTTP/2 is offered first.

use std::path::Path;
use std::sync::Arc;

use plimsoll_model::system::Tls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};

/// What the two protocols are called in a handshake.
pub const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Reads a certificate and its key, and checks that they belong together.
pub fn load(setting: &Tls, folder: &Path) -> Result<Arc<ServerConfig>, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let certificate = read(&setting.certificate)?;
    let chain = certificates(&setting.certificate, &certificate)?;
    let key = private_key(&setting.key, &read(&setting.key)?)?;
    let both = |error: tokio_rustls::rustls::Error| format!("{}, {}: {error}", setting.certificate, setting.key);
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(both)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(both)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// A PEM file: its name and its bytes.
type Pem<'a> = (&'a str, Vec<u8>);

/// Settings of a client that trusts these authorities, and may show a certificate of its own.
pub fn client(ca: &Pem<'_>, own: Option<&(Pem<'_>, Pem<'_>)>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca.0, &ca.1)? {
        roots.add(authority).map_err(|error| format!("{}: {error}", ca.0))?;
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate.0, &certificate.1)?;
            let both = |error: tokio_rustls::rustls::Error| format!("{}, {}: {error}", certificate.0, key.0);
            builder.with_client_auth_cert(chain, private_key(key.0, &key.1)?).map_err(both)?
        }
    };
    Ok(Arc::new(config))
}

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("{name}: {error}"))?;
    if chain.is_empty() { Err(format!("{name}: there is no certificate in it")) } else { Ok(chain) }
}

fn private_key(name: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("{name}: {error}"))
}
