//! What an observer sees of a breaker: its states and the changes between them.

use crate::Time;

/// The states, as an observer sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are rejected.
    Open,
    /// A few probes pass.
    HalfOpen,
    /// A growing share of calls passes.
    Ramping,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
}

/// The last transitions that nobody has polled yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    entries: [Option<Transition>; 8],
    first: u8,
    len: u8,
}

impl Log {
    pub(super) fn push(&mut self, transition: Transition) {
        if self.len == 8 {
            self.pop();
        }
        self.entries[(self.first + self.len) as usize % 8] = Some(transition);
        self.len += 1;
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Transition> {
        if self.len == 0 {
            return None;
        }
        let popped = self.entries[self.first as usize].take();
        self.first = (self.first + 1) % 8;
        self.len -= 1;
        popped
    }
}
