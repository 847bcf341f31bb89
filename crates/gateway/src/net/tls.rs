//! TLS in front: certificates from PEM files, ring's cryptography, HTTP/2 offered first.

use std::path::Path;
use std::sync::Arc;

use plimsoll_model::system::Tls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

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
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
    let chain = chain.map_err(|error| format!("{}: {error}", setting.certificate))?;
    if chain.is_empty() {
        return Err(format!("{}: there is no certificate in it", setting.certificate));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&setting.key)?);
    let key = key.map_err(|error| format!("{}: {error}", setting.key))?;
    let both = |error: tokio_rustls::rustls::Error| format!("{}, {}: {error}", setting.certificate, setting.key);
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(both)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(both)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}
