//! Interim answers (1xx) of an instance, on their way to the client.

use std::cell::RefCell;
use std::task::Context;

use super::Incoming;

/// Interim answers that an attempt may have before its answer, and the bytes of their heads in all. A server that has
/// more would keep the client waiting by them for ever, and fill what stores them; browsers and libraries stop at
/// 5 to 100.
const MOST: u32 = 32;
const BYTES_MOST: usize = 64 << 10;

/// What an attempt has had of them.
#[derive(Debug, Default)]
pub struct Counted {
    count: u32,
    bytes: usize,
}

impl Counted {
    /// One more, with a head of so many bytes. Whether it may be.
    pub fn add(&mut self, bytes: usize) -> bool {
        self.count += 1;
        self.bytes += bytes;
        self.count <= MOST && self.bytes <= BYTES_MOST
    }
}

/// Those of attempts that are made beside each other, until whoever watches the client takes them.
#[derive(Debug, Default)]
pub struct Interims(RefCell<Vec<(u16, Vec<u8>)>>);

impl Interims {
    /// One has come: its status, and its head as HTTP/1.1 has it.
    pub fn push(&self, status: u16, head: Vec<u8>) {
        self.0.borrow_mut().push((status, head));
    }

    /// Passes on what has come.
    pub fn pass<I: Incoming>(&self, incoming: &mut I, cx: &mut Context<'_>) {
        self.0.borrow_mut().drain(..).for_each(|(status, head)| incoming.interim(status, &head));
        incoming.poll_interim(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_and_no_more() {
        let mut counted = Counted::default();
        assert!((0..MOST).all(|_| counted.add(100)));
        assert!(!counted.add(100));
        let mut counted = Counted::default();
        assert!(counted.add(BYTES_MOST) && !counted.add(1));
    }
}
