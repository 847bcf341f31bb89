//! Which Redis, and what it wants to see before it answers.

use std::path::Path;
use std::sync::Arc;

use plimsoll_model::system::RedisAt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::protocol::{Answer, answer, command};
use crate::net::tls;

/// A Redis, with what it takes to be let in. Two are equal where the files were read with the same bytes.
#[derive(Clone, Debug)]
pub struct Server {
    at: RedisAt,
    /// What the files held.
    secrets: Vec<Vec<u8>>,
    password: Option<Vec<u8>>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl PartialEq for Server {
    fn eq(&self, other: &Server) -> bool {
        self.at == other.at && self.secrets == other.secrets
    }
}

/// A connection to a Redis.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl Connection for TcpStream {}
impl Connection for TlsStream<TcpStream> {}

impl Server {
    /// Reads the files that the settings name, relative to `folder`.
    pub fn load(at: &RedisAt, folder: &Path) -> Result<Server, String> {
        let mut secrets = Vec::new();
        let mut read = |name: &String| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            secrets.push(bytes.clone());
            Ok::<Vec<u8>, String>(bytes)
        };
        let mut password = None;
        if let Some(name) = &at.password_file {
            let bytes = read(name)?;
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
            if line.is_empty() {
                return Err(format!(
                    "{}: its first line is the password, and it is empty",
                    folder.join(name).display()
                ));
            }
            password = Some(line.to_vec());
        }
        let mut connector = None;
        if let Some(setting) = &at.tls {
            let ca = (&*setting.ca, read(&setting.ca)?);
            let own = match &setting.own {
                Some((certificate, key)) => Some(((&**certificate, read(certificate)?), (&**key, read(key)?))),
                None => None,
            };
            let host = at.address.rsplit_once(':').map_or(&*at.address, |(host, _)| host);
            let host = setting.name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
            let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("`{host}` is no name of a server"))?;
            connector = Some((tls::client(&ca, own.as_ref())?, name));
        }
        Ok(Server { at: at.clone(), secrets, password, tls: connector })
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.at.address
    }

    /// Connects, and has itself let in.
    pub(super) async fn connect(&self) -> Result<Box<dyn Connection>, String> {
        let unreachable = |error: std::io::Error| format!("cannot be reached: {error}");
        let stream = TcpStream::connect(&self.at.address).await.map_err(unreachable)?;
        let _ = stream.set_nodelay(true);
        let mut stream: Box<dyn Connection> = match &self.tls {
            None => Box::new(stream),
            Some((config, name)) => {
                let connected = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
                Box::new(connected.map_err(|error| format!("cannot be trusted: {error}"))?)
            }
        };
        if let Some(password) = &self.password {
            let refused = "does not take the password";
            match &self.at.user {
                Some(user) => ask(&mut stream, &[b"AUTH", user.as_bytes(), password], refused).await?,
                None => ask(&mut stream, &[b"AUTH", password], refused).await?,
            };
        }
        if self.at.database > 0 {
            let number = self.at.database.to_string();
            ask(&mut stream, &[b"SELECT", number.as_bytes()], "does not have the database").await?;
        }
        Ok(stream)
    }
}

/// Sends one command and gives its answer. `refused` says what an error means.
pub(super) async fn ask(stream: &mut Box<dyn Connection>, parts: &[&[u8]], refused: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    command(&mut out, parts);
    let gone = |error: std::io::Error| format!("breaks off: {error}");
    stream.write_all(&out).await.map_err(gone)?;
    stream.flush().await.map_err(gone)?;
    let mut bytes = Vec::new();
    loop {
        match answer(&bytes) {
            Ok(Some((Answer::Text(text), _))) => return Ok(text),
            Ok(Some((Answer::Error(error), _))) => return Err(format!("{refused}: {error}")),
            Ok(None) => {}
            _ => return Err("answers what no Redis does".to_owned()),
        }
        if stream.read_buf(&mut bytes).await.map_err(gone)? == 0 {
            return Err("closes the connection".to_owned());
        }
    }
}
