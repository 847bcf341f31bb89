//! Buffers: filled by one side, emptied by the other, and given back while nobody needs them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of a buffer: a head and a small body at once, or a stretch of a large one.
pub const SIZE: usize = 16 << 10;
/// Buffers that a core keeps for later.
const SPARE: usize = 256;

/// A core's spare buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer.
    pub fn take(&self) -> Buffer {
        let bytes = self.spare.borrow_mut().pop().unwrap_or_else(|| vec![0; SIZE]);
        Buffer { bytes, start: 0, end: 0 }
    }

    /// Reads into a buffer that is here only while something is in it: of those who wait, none holds one.
    pub fn poll_read<S: AsyncRead + Unpin>(
        &self,
        buffer: &mut Buffer,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if buffer.bytes.is_empty() {
            *buffer = self.take();
        } else if buffer.is_full() {
            buffer.grow();
        }
        let read = buffer.poll_read(stream, cx);
        if read.is_pending() && buffer.is_empty() {
            self.put(std::mem::take(buffer));
        }
        read
    }

    /// A buffer that is needed no more. One that has grown is not kept.
    pub fn put(&self, buffer: Buffer) {
        let mut spare = self.spare.borrow_mut();
        if buffer.bytes.len() == SIZE && spare.len() < SPARE {
            spare.push(buffer.bytes);
        }
    }
}

/// Bytes that have arrived and are not yet consumed.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What has arrived.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is here.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether no more fits without [`grow`](Self::grow).
    pub fn is_full(&self) -> bool {
        self.start == 0 && self.end == self.bytes.len()
    }

    /// The first bytes are done with.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Doubles the room.
    pub fn grow(&mut self) {
        let size = (self.bytes.len() * 2).max(SIZE);
        self.bytes.resize(size, 0);
    }

    /// Puts bytes as if they had arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        while self.bytes.len() - self.end < bytes.len() {
            self.grow();
        }
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Reads what is there into the free room, of which there must be some. `Ok(0)` is the end.
    pub fn poll_read<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.end == self.bytes.len() {
            self.compact();
        }
        let mut free = ReadBuf::new(&mut self.bytes[self.end..]);
        match Pin::new(stream).poll_read(cx, &mut free) {
            Poll::Ready(Ok(())) => {
                let count = free.filled().len();
                self.end += count;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_consumed_makes_room() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.push(&[1; SIZE]);
        assert!(buffer.is_full());
        buffer.consume(SIZE - 2);
        assert_eq!(buffer.bytes(), [1, 1]);
        buffer.push(&[2; 3]);
        assert_eq!(buffer.bytes(), [1, 1, 2, 2, 2]);
        buffer.consume(100);
        assert!(buffer.is_empty());
        buffer.push(&[3; SIZE + 1]);
        assert_eq!(buffer.bytes().len(), SIZE + 1);
        buffers.put(buffer);
        assert_eq!(buffers.spare.borrow().len(), 0, "a grown one is not kept");
        buffers.put(buffers.take());
        assert_eq!(buffers.spare.borrow().len(), 1);
    }

    #[test]
    fn whoever_waits_holds_no_buffer() {
        let buffers = Buffers::default();
        let mut buffer = Buffer::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut here, mut there) = tokio::io::duplex(64);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(buffers.poll_read(&mut buffer, &mut here, &mut cx).is_pending());
            assert_eq!((buffer.bytes.len(), buffers.spare.borrow().len()), (0, 1));
            tokio::io::AsyncWriteExt::write_all(&mut there, b"abc").await.unwrap();
            assert!(matches!(buffers.poll_read(&mut buffer, &mut here, &mut cx), Poll::Ready(Ok(3))));
            // What has come stays.
            assert!(buffers.poll_read(&mut buffer, &mut here, &mut cx).is_pending());
            assert_eq!((buffer.bytes(), buffers.spare.borrow().len()), (&b"abc"[..], 0));
        });
    }
}
