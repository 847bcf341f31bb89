//! WebSocket over a stream (RFC 8441): `CONNECT` with `:protocol` in front, `Upgrade` behind.
//!
//! HTTP/2 knows no `Sec-WebSocket-Key`. The server gets one that the gateway makes, and the gateway checks what
//! the server makes of it, as any client of HTTP/1.1 has to (RFC 6455, section 4.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::random::Random;

/// What a server appends to a key before it takes the digest (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of one write to a stream, at most: a frame's usual size.
const FRAME: usize = 16 << 10;

/// A key: 16 random bytes.
pub fn key(random: &Random) -> String {
    STANDARD.encode([random.bits().to_le_bytes(), random.bits().to_le_bytes()].concat())
}

/// What a server answers to a key.
pub fn accept(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, (key.to_owned() + GUID).as_bytes());
    STANDARD.encode(digest)
}

/// A stream as a connection.
pub struct Duplex {
    recv: RecvStream,
    send: SendStream<Bytes>,
    /// What has arrived and was not yet read.
    arrived: Bytes,
    ended: bool,
}

impl Duplex {
    /// A stream whose head was answered.
    pub fn new(recv: RecvStream, send: SendStream<Bytes>) -> Duplex {
        Duplex { recv, send, arrived: Bytes::new(), ended: false }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.arrived.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                Some(Ok(data)) => this.arrived = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.arrived.len().min(buf.remaining());
        buf.put_slice(&this.arrived[..count]);
        this.arrived.advance(count);
        // The client may send as much again: so the server's pace is the client's.
        let _ = this.recv.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = &bytes[..bytes.len().min(FRAME)];
        this.send.reserve_capacity(bytes.len());
        let mut room = this.send.capacity();
        while room == 0 {
            room = match ready!(this.send.poll_capacity(cx)) {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let count = room.min(bytes.len());
        this.send.send_data(Bytes::copy_from_slice(&bytes[..count]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            this.ended = true;
            this.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_as_the_standard_says() {
        // RFC 6455, section 1.3
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let random = Random::new(1);
        let key = key(&random);
        assert_eq!(STANDARD.decode(&key).unwrap().len(), 16);
    }
}
