//! A leaderless store: an operation goes to every node and ends when enough have answered.

use plimsoll_model::system::{Quorum, StoreKind};

use crate::component::client::FRESH_KEY;
use crate::component::edge::What;
use crate::component::store::{OpKind, StoreOp};
use crate::engine::{Answer, Event, Ref, duration, mix};
use crate::world::{Wake, World};

const TIME: u64 = 1;
const PROPAGATION: u64 = 2;

/// A quorum operation's progress, at its attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Progress {
    needed: u32,
    answered: u32,
    failed: u32,
    nodes: u32,
    /// The newest version that an answer had; the one that a write brings.
    version: u32,
    /// The newest version acknowledged when a read began.
    expected: u32,
    write: bool,
}

/// Versions of keys, 0 of one that was never written: a table that is looked into with nearly every
/// operation of every node, and never gone through.
#[derive(Default)]
pub(crate) struct Versions {
    /// Key and version, by linear probing; an unused place has version 0.
    places: Vec<(u32, u32)>,
    used: usize,
}

impl Versions {
    #[inline]
    fn get(&self, key: u32) -> u32 {
        if self.places.is_empty() { 0 } else { self.places[self.place(key)].1 }
    }

    /// Raises a key's version; a lower one changes nothing.
    fn raise(&mut self, key: u32, version: u32) {
        // At most half full: probes stay short.
        if 2 * self.used >= self.places.len() {
            let room = (2 * self.places.len()).max(64);
            for (key, version) in std::mem::replace(&mut self.places, vec![(0, 0); room]) {
                if version > 0 {
                    let place = self.place(key);
                    self.places[place] = (key, version);
                }
            }
        }
        let place = self.place(key);
        self.used += (self.places[place].1 == 0) as usize;
        self.places[place] = (key, version.max(self.places[place].1));
    }

    /// Where a key is, or would be.
    #[inline]
    fn place(&self, key: u32) -> usize {
        let mask = self.places.len() - 1;
        let mut place = mix(key as u64) as usize & mask;
        while self.places[place].1 > 0 && self.places[place].0 != key {
            place = (place + 1) & mask;
        }
        place
    }
}

impl<'a> World<'a> {
    fn quorum(&self, store: u32) -> &'a Quorum {
        match &self.plan.system.stores[store as usize].kind {
            StoreKind::Quorum(quorum) => quorum,
            _ => unreachable!("only called for quorum stores"),
        }
    }

    /// An attempt asks every node.
    pub(crate) fn ask_quorum(&mut self, attempt: Ref) {
        let a = &self.attempts[attempt];
        let c = &self.calls[a.call];
        let (end, what) = (c.end, c.what);
        let mut context = c.context;
        context.draw = context.draw.part(a.number as u64);
        let store = self.nodes[a.target as usize].store;
        let quorum = self.quorum(store);
        let (operation, write) = match what {
            What::Operation { operation, write, .. } => (operation, write),
            _ => (0, false),
        };
        let spec = &self.plan.system.stores[store as usize].operations[operation as usize];
        self.attempts[attempt].bytes = spec.size;
        let key = context.key;
        let state = &mut self.stores[store as usize];
        state.counter.now.offered += 1;
        let expected = if key & FRESH_KEY == 0 { state.versions.get(key) } else { 0 };
        let version = if write { expected + 1 } else { 0 };
        let first = state.first;
        self.attempts[attempt].quorum = Some(Box::new(Progress {
            needed: if write { quorum.write } else { quorum.read },
            nodes: quorum.nodes,
            version,
            expected,
            write,
            ..Progress::default()
        }));
        for number in 0..quorum.nodes {
            let node = first + number;
            let draw = context.draw.part(number as u64 | 1 << 33);
            let op = self.ops.insert(StoreOp {
                attempt,
                node,
                epoch: self.nodes[node as usize].epoch,
                kind: OpKind::Replica { operation },
                context: crate::component::task::Context { draw, ..context },
                takes: duration(&spec.time, draw.bits(TIME)),
                ..StoreOp::blank()
            });
            if self.nodes[node as usize].up {
                self.send_op_event(end, node, op);
            } else {
                self.soon(Event::OpArrive { op });
            }
        }
    }

    /// A node has done its part, or cannot.
    pub(crate) fn quorum_part(&mut self, op: Ref, answer: Answer) {
        let now = self.now;
        let o = &self.ops[op];
        let (attempt, node, key, draw) = (o.attempt, o.node, o.context.key, o.context.draw);
        self.ops.remove(op);
        let n = &mut self.nodes[node as usize];
        let store = n.store;
        if answer.is_ok() {
            n.counter.now.ok += 1;
        } else {
            n.counter.now.failed += 1;
        }
        let Some(a) = self.attempts.get_mut(attempt) else { return };
        let Some(progress) = &mut a.quorum else { return };
        if !answer.is_ok() {
            progress.failed += 1;
            if progress.nodes - progress.failed < progress.needed {
                self.stores[store as usize].counter.now.failed += 1;
                progress.needed = u32::MAX;
                self.answer(attempt, Answer::Unavailable);
            }
            return;
        }
        if progress.needed == u32::MAX {
            return;
        }
        progress.answered += 1;
        if progress.write {
            let version = progress.version;
            if key & FRESH_KEY == 0 {
                self.nodes[node as usize].versions.raise(key, version);
            }
        } else if key & FRESH_KEY == 0 {
            progress.version = progress.version.max(self.nodes[node as usize].versions.get(key));
        }
        let progress = **progress;
        if progress.answered != progress.needed {
            return;
        }
        let state = &mut self.stores[store as usize];
        state.counter.now.ok += 1;
        if progress.write {
            let quorum = self.quorum(store);
            let state = &mut self.stores[store as usize];
            if key & FRESH_KEY == 0 {
                state.versions.raise(key, progress.version);
                let first = state.first;
                // Those that did not take part get it later.
                let later = duration(&quorum.propagation, draw.bits(PROPAGATION));
                for node in first..first + quorum.nodes {
                    if self.nodes[node as usize].versions.get(key) < progress.version {
                        self.wake_at(now + later, Wake::Propagate { node, key, version: progress.version });
                    }
                }
            }
        } else if progress.version < progress.expected {
            state.counter.now.stale += 1;
        }
        if let Some(progress) = &mut self.attempts[attempt].quorum {
            progress.needed = u32::MAX;
        }
        self.answer(attempt, Answer::Ok);
    }

    /// A write reaches a node that did not take part in it.
    pub(crate) fn propagate(&mut self, node: u32, key: u32, version: u32) {
        if !self.nodes[node as usize].up {
            // It hears of it when it is back: hinted handoff.
            return self.wake_at(self.now + HANDOFF, Wake::Propagate { node, key, version });
        }
        self.nodes[node as usize].versions.raise(key, version);
    }
}

/// Between attempts to hand a write to a node that was down.
const HANDOFF: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_only_rise() {
        let mut versions = Versions::default();
        assert_eq!(versions.get(7), 0);
        for round in 1..=3 {
            for key in 0..1_000u32 {
                versions.raise(key * 4_096, round * (key % 5 + 1));
            }
        }
        versions.raise(4_096, 1);
        for key in 0..1_000u32 {
            assert_eq!(versions.get(key * 4_096), 3 * (key % 5 + 1));
        }
        assert_eq!((versions.get(1), versions.used), (0, 1_000));
    }
}
