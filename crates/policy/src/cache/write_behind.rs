use std::time::Duration;

use crate::{Time, nanos};

/// The keys that were written and have not reached the origin.
///
/// One batch is under way at a time; what is written meanwhile goes into the next one. A key that is
/// written again before its batch starts costs the origin nothing.
#[derive(Clone, Debug)]
pub(super) struct WriteBehind {
    flush_ns: u64,
    buffer: u32,
    /// In the order of their first write.
    waiting: Vec<u64>,
    flushing: Vec<u64>,
    /// When the oldest waiting key was written.
    since: Time,
}

impl WriteBehind {
    pub(super) fn new(flush_every: Duration, buffer: u32) -> Self {
        WriteBehind {
            flush_ns: nanos(flush_every),
            buffer,
            waiting: Vec::new(),
            flushing: Vec::new(),
            since: Time::ZERO,
        }
    }

    pub(super) fn configure(&mut self, flush_every: Duration, buffer: u32) {
        self.flush_ns = nanos(flush_every);
        self.buffer = buffer;
    }

    /// Keys not yet at the origin.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.flushing.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.len() < self.buffer as usize
    }

    pub(super) fn push(&mut self, now: Time, key: u64) {
        if self.waiting.is_empty() {
            self.since = now;
        }
        self.waiting.push(key);
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        (self.flushing.is_empty() && !self.waiting.is_empty()).then(|| self.since.plus_nanos(self.flush_ns))
    }

    /// The batch to write now; empty if none is due or one is under way.
    pub(super) fn start(&mut self, now: Time) -> &[u64] {
        if self.next_wake().is_none_or(|at| at > now) {
            return &[];
        }
        std::mem::swap(&mut self.waiting, &mut self.flushing);
        &self.flushing
    }

    /// The keys of the batch under way, which is over.
    pub(super) fn end(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.flushing)
    }

    pub(super) fn clear(&mut self) -> usize {
        let lost = self.len();
        self.waiting.clear();
        self.flushing.clear();
        lost
    }
}
