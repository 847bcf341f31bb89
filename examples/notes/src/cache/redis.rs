//! A client for the few commands that are needed here, within a timeout and a circuit breaker.
//!
//! The `redis` crate does this and much more. It is not used because it would add some thirty crates to this
//! workspace's lock file; a service of your own has little reason to do without it. The breaker would stay as it is.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_middleware::{ByResult, Error, Once, PipelineHandle, PipelineLayer};
use plimsoll_policy::{InvalidConfig, circuit_breaker, pipeline};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tower::{Layer, ServiceExt, service_fn};

/// A cache that takes longer than this is worse than none.
const TIMEOUT: Duration = Duration::from_millis(100);
/// Connections that are kept for the next command.
const IDLE_MAX: usize = 32;
/// No value of ours is longer.
const VALUE_MAX: usize = 1 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// There is no such key, or the condition was not met.
    Nil,
    /// A status or a value.
    Text(String),
    /// A number.
    Number(i64),
}

/// A Redis server.
pub struct Redis {
    address: Arc<str>,
    idle: Arc<Mutex<Vec<BufReader<TcpStream>>>>,
    policies: PipelineLayer<Once, ByResult>,
}

impl Redis {
    /// Connects when it is first asked.
    pub fn new(address: &str, breaker: bool) -> Result<Redis, InvalidConfig> {
        let config = circuit_breaker::Config {
            minimum_calls: 10,
            open_for: Duration::from_secs(1),
            ramp: Duration::ZERO,
            ..circuit_breaker::Config::default()
        };
        let layer = PipelineLayer::new(pipeline::Config {
            timeout: Some(TIMEOUT),
            breaker: breaker.then_some(config),
            ..pipeline::Config::default()
        })?;
        let policies = layer.requests(Once).classify(ByResult);
        Ok(Redis { address: address.into(), idle: Arc::default(), policies })
    }

    /// Sends commands in one go, and returns their answers.
    pub async fn run(&self, commands: &[&[&str]]) -> Result<Vec<Reply>, Error<io::Error>> {
        let (address, idle, count) = (self.address.clone(), self.idle.clone(), commands.len());
        let bytes = encode(commands);
        let job = Box::pin(async move {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut link = match kept {
                Some(link) => link,
                None => connect(&address).await?,
            };
            // One that the server has closed since: it was restarted, say. Each command may be run twice.
            if link.get_ref().try_read(&mut [0]).is_ok() {
                link = connect(&address).await?;
            }
            link.write_all(&bytes).await?;
            let mut replies = Vec::with_capacity(count);
            for _ in 0..count {
                replies.push(reply(&mut link).await?);
            }
            // Only now: one whose answers nobody has read must not be used again.
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(link);
            }
            Ok(replies)
        });
        self.policies.layer(service_fn(|job| job)).oneshot(job).await
    }

    /// The breaker's state and counts.
    pub fn handle(&self) -> PipelineHandle {
        self.policies.handle()
    }
}

async fn connect(address: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

fn encode(commands: &[&[&str]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        bytes.extend(format!("*{}\r\n", command.len()).bytes());
        for word in *command {
            bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
        }
    }
    bytes
}

async fn reply(link: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let mut line = String::new();
    if (&mut *link).take(VALUE_MAX as u64).read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let rest = line.trim_end().get(1..).unwrap_or_default();
    match line.as_bytes()[0] {
        b'+' => Ok(Reply::Text(rest.to_owned())),
        b'-' => Err(wrong(rest)),
        b':' => rest.parse().map(Reply::Number).map_err(|_| wrong("a number that is none")),
        b'$' if rest == "-1" => Ok(Reply::Nil),
        b'$' => {
            let length = rest.parse().ok().filter(|length| *length <= VALUE_MAX);
            let length = length.ok_or_else(|| wrong("a value that is too long"))?;
            let mut value = vec![0; length + 2];
            link.read_exact(&mut value).await?;
            value.truncate(length);
            String::from_utf8(value).map(Reply::Text).map_err(|_| wrong("a value that is no text"))
        }
        _ => Err(wrong("an answer of a kind that was not asked for")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let bytes = encode(&[&["GET", "a"], &["SET", "b", "x\r\ny"]]);
        let expected = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$4\r\nx\r\ny\r\n";
        assert_eq!(String::from_utf8(bytes).as_deref(), Ok(expected));
    }
}
