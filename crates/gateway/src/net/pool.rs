//! Connections to instances that wait for their next request, one pool a core.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use plimsoll_policy::Time;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Connections that one core keeps to one instance.
const KEPT: usize = 1024;
/// How fresh a connection must be for a request that may not be sent twice, ns: the server may be about
/// to close an older one.
const FRESH: u64 = 1_000_000_000;

struct Idle {
    stream: TcpStream,
    since: Time,
}

/// A core's idle connections, by the slot of the instance's address.
#[derive(Default)]
pub struct Pool {
    slots: RefCell<Vec<Vec<Idle>>>,
}

impl Pool {
    /// The connection used last, if one is still good. `once` says that the request must not be sent
    /// twice.
    pub fn take(&self, slot: usize, now: Time, idle_max: u64, once: bool) -> Option<TcpStream> {
        let mut slots = self.slots.borrow_mut();
        let idle = slots.get_mut(slot)?;
        let oldest = if once { idle_max.min(FRESH) } else { idle_max };
        while let Some(mut last) = idle.pop() {
            if now.nanos_since(last.since) > idle_max {
                // Those below have waited longer still.
                idle.clear();
            } else if now.nanos_since(last.since) > oldest {
                idle.push(last);
                return None;
            } else if is_quiet(&mut last.stream) {
                return Some(last.stream);
            }
        }
        None
    }

    /// A connection whose answer is whole.
    pub fn put(&self, slot: usize, now: Time, stream: TcpStream) {
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= slot {
            slots.resize_with(slot + 1, Vec::new);
        }
        if slots[slot].len() < KEPT {
            slots[slot].push(Idle { stream, since: now });
        }
    }

    /// Closes what has waited too long.
    pub fn sweep(&self, now: Time, idle_max: u64) {
        for idle in self.slots.borrow_mut().iter_mut() {
            idle.retain(|idle| now.nanos_since(idle.since) <= idle_max);
            if idle.is_empty() {
                *idle = Vec::new();
            }
        }
    }
}

/// Whether a connection has neither ended nor sent what nobody asked for. The runtime knows whether there
/// is anything to read, so this is no system call.
fn is_quiet(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut cx = Context::from_waker(Waker::noop());
    matches!(Pin::new(stream).poll_read(&mut cx, &mut buffer), Poll::Pending)
}
