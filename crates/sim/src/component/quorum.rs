//! A leaderless store: an operation goes to every node and ends when enough have answered.

use plimsoll_model::system::{Quorum, StoreKind};

use crate::component::client::FRESH_KEY;
use crate::component::edge::What;
use crate::component::store::{OpKind, StoreOp};
use crate::engine::{Answer, Event, Ref, duration};
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
            What::Operation { operation, .. } => {
                (operation, self.plan.system.stores[store as usize].operations[operation as usize].write)
            }
            _ => (0, false),
        };
        let spec = &self.plan.system.stores[store as usize].operations[operation as usize];
        self.attempts[attempt].bytes = spec.size;
        let key = context.key;
        let state = &mut self.stores[store as usize];
        state.counter.now.offered += 1;
        let expected = state.versions.get(&key).copied().unwrap_or(0);
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
                life: 0,
                connection: None,
                transaction: Ref::NONE,
                kind: OpKind::Replica { operation },
                context: crate::component::task::Context { draw, ..context },
                takes: duration(&spec.time, draw.bits(TIME)),
                running: false,
                locks: Vec::new(),
                waits_for: None,
                stale: false,
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
        let known = n.versions.get(&key).copied().unwrap_or(0);
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
                self.nodes[node as usize].versions.insert(key, version.max(known));
            }
        } else {
            progress.version = progress.version.max(known);
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
                let acknowledged = state.versions.entry(key).or_insert(0);
                *acknowledged = progress.version.max(*acknowledged);
                let first = state.first;
                // Those that did not take part get it later.
                let later = duration(&quorum.propagation, draw.bits(PROPAGATION));
                for number in 0..quorum.nodes {
                    let wake = Wake::Propagate { node: first + number, key, version: progress.version };
                    self.wake_at(now + later, wake);
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
        let known = self.nodes[node as usize].versions.entry(key).or_insert(0);
        *known = version.max(*known);
    }
}

/// Between attempts to hand a write to a node that was down.
const HANDOFF: u64 = 1_000_000_000;
