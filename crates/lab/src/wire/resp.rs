//! As much of Redis' protocol (RESP2) as a caller takes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `:1`
    Number(i64),
    /// `+OK`, or a string.
    Text(Vec<u8>),
    /// There is nothing.
    Nothing,
    /// Several.
    List(Vec<Value>),
    /// `-ERR ...`
    Error(String),
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Link {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> std::io::Result<Link> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Link { stream, buffer: Vec::new() })
    }

    /// Sends a command and reads its answer; none if the connection broke.
    pub async fn command(&mut self, parts: &[&[u8]]) -> Option<Value> {
        let mut out = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&out).await.ok()?;
        loop {
            if let Some((value, taken)) = value(&self.buffer, 0).ok()? {
                self.buffer.drain(..taken);
                return Some(value);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Whether the other side has closed it, as far as is known.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// The first whole value and its length; none if more has to come.
fn value(bytes: &[u8], depth: u32) -> Result<Option<(Value, usize)>, ()> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (kind, line) = bytes[..end].split_first().ok_or(())?;
    let text = std::str::from_utf8(line).map_err(drop)?;
    let number = || text.parse::<i64>().map_err(drop);
    let start = end + 2;
    Ok(match kind {
        b':' => Some((Value::Number(number()?), start)),
        b'+' => Some((Value::Text(line.to_vec()), start)),
        b'-' => Some((Value::Error(text.to_owned()), start)),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Some((Value::Nothing, start)),
            Ok(length) if bytes.len() < start + length + 2 => None,
            Ok(length) => Some((Value::Text(bytes[start..start + length].to_vec()), start + length + 2)),
        },
        b'*' if depth < 4 => {
            let mut values = Vec::new();
            let mut at = start;
            for _ in 0..number()?.clamp(0, 1 << 16) {
                let Some((next, taken)) = value(&bytes[at..], depth + 1)? else { return Ok(None) };
                values.push(next);
                at += taken;
            }
            Some((Value::List(values), at))
        }
        _ => return Err(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_whole() {
        let list = Value::List(vec![Value::Text(b"a".to_vec()), Value::Number(-1)]);
        assert_eq!(value(b"*2\r\n$1\r\na\r\n:-1\r\n+", 0), Ok(Some((list, 16))));
        assert_eq!(value(b"*2\r\n$1\r\na\r\n:-1", 0), Ok(None));
        assert_eq!(value(b"$-1\r\n", 0), Ok(Some((Value::Nothing, 5))));
        assert_eq!(value(b"?\r\n", 0), Err(()));
    }
}
