//! Connections that ask.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll_gateway::http1::request::room;
use plimsoll_gateway::http1::{Body, Response, head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{FIELD, HEAD_MAX};

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// What it says about coming back.
    pub retry_after: Option<Duration>,
    /// Its fields that mean something to a run, by their names without the prefix.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    keep: bool,
}

impl Answer {
    /// The value of a field that means something to a run.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No connection could be made: nothing was sent.
    Connect,
    /// The connection broke, or what came was no answer.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: bool,
}

impl Link {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> io::Result<Link> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Link { stream, buffer: Vec::with_capacity(1024), used: false })
    }

    /// Whether the other side has closed it, as far as is known.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0];
        // Nothing is to come between two exchanges: whatever does is the end.
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a whole request and reads the whole answer. An error says whether anything was heard.
    pub async fn exchange(&mut self, request: &[u8], method: &str) -> Result<Answer, bool> {
        self.stream.write_all(request).await.map_err(|_| false)?;
        let mut seen = 0;
        let (end, mut answer, framing) = loop {
            let Some(end) = head::end(&self.buffer, &mut seen, HEAD_MAX).map_err(|_| true)? else {
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return Err(!self.buffer.is_empty()),
                    Ok(_) => continue,
                }
            };
            let mut room = room();
            let response = Response::parse(&self.buffer[..end], &mut room, method).map_err(|_| true)?;
            if response.status < 200 {
                self.buffer.drain(..end);
                seen = 0;
                continue;
            }
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let of_run = |name: &str| name.get(..FIELD.len()).is_some_and(|start| start.eq_ignore_ascii_case(FIELD));
            let answer = Answer {
                status: response.status,
                retry_after: response
                    .value("retry-after")
                    .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
                    .map(Duration::from_secs),
                fields: response
                    .fields
                    .iter()
                    .filter(|field| of_run(field.name))
                    .map(|field| (field.name[FIELD.len()..].to_ascii_lowercase(), text(field.value)))
                    .collect(),
                body: Vec::new(),
                keep: response.keep_alive,
            };
            break (end, answer, response.framing);
        };
        self.buffer.drain(..end);
        let mut body = Body::new(framing, 16 << 10);
        while !body.is_over() {
            let buffer = &self.buffer;
            let content = &mut answer.body;
            let taken = body.unwrap(buffer, |range| content.extend_from_slice(&buffer[range])).map_err(|_| true)?;
            self.buffer.drain(..taken);
            if body.is_over() {
                break;
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if matches!(body, Body::UntilClose) => break,
                Ok(0) | Err(_) => return Err(true),
                Ok(_) => {}
            }
        }
        self.used = true;
        answer.keep &= self.buffer.is_empty();
        Ok(answer)
    }
}

/// Connections that wait to be used again, by address.
#[derive(Debug, Default)]
pub struct Links {
    idle: Mutex<BTreeMap<SocketAddr, Vec<Link>>>,
}

impl Links {
    fn take(&self, address: SocketAddr) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let links = idle.get_mut(&address)?;
        while let Some(link) = links.pop() {
            if !link.is_closed() {
                return Some(link);
            }
        }
        None
    }

    /// How many wait.
    pub fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }

    /// Asks, on a connection that is there or a new one. One that its server closed just as it was used is no
    /// failure of the server's: a request that may be repeated then goes on a fresh one.
    pub async fn ask(
        &self,
        address: SocketAddr,
        request: &[u8],
        method: &str,
        repeatable: bool,
    ) -> Result<Answer, Failed> {
        let mut link = self.take(address);
        loop {
            let mut at_hand = match link.take() {
                Some(link) => link,
                None => Link::connect(address).await.map_err(|_| Failed::Connect)?,
            };
            match at_hand.exchange(request, method).await {
                Ok(answer) => {
                    if answer.keep {
                        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                        idle.entry(address).or_default().push(at_hand);
                    }
                    return Ok(answer);
                }
                Err(false) if at_hand.used && repeatable => {}
                Err(_) => return Err(Failed::Reset),
            }
        }
    }
}

/// A request with a body.
pub fn request(method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + body.len());
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: plimsoll\r\n");
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() || !matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
        out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}
