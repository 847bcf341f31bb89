//! Locks of rows and tables, and those who wait for them.

use std::collections::VecDeque;

use plimsoll_model::system::Lock;

use crate::component::client::FRESH_KEY;
use crate::component::store::OpKind;
use crate::engine::{Answer, Event, Ref};
use crate::world::World;

/// What is locked: (shard, table, row).
pub(crate) type LockId = (u32, u32, u32);

/// A lock's holder and those who wait for it.
#[derive(Default)]
pub(crate) struct LockState {
    /// Those who hold it: one, or for a table all who use it without wanting it for themselves.
    pub(super) holders: Vec<Holder>,
    /// Whether the holder wants it for itself.
    pub(super) exclusive: bool,
    pub(super) waiting: VecDeque<Ref>,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Operation(Ref),
    Transaction(Ref),
    /// A migration, by its fault.
    Migration(u32),
}

/// The row that stands for a whole table.
const TABLE: u32 = u32::MAX;

/// PostgreSQL looks for a deadlock after so long (`deadlock_timeout`, 1 s by default).
const DEADLOCK_CHECK: u64 = 1_000_000_000;

impl World<'_> {
    /// Takes the locks that an operation needs; false if it has to wait.
    pub(super) fn take_locks(&mut self, op: Ref) -> bool {
        let o = &self.ops[op];
        let store = self.nodes[o.node as usize].store;
        let shard = self.nodes[o.node as usize].shard;
        let OpKind::Operation(operation) = o.kind else { return true };
        let spec = &self.nodes[o.node as usize].spec.operations[operation as usize];
        if spec.lock == Lock::None && !self.plan.table_locks[store as usize] {
            return true;
        }
        let key = o.context.key;
        let mut wanted: [Option<(LockId, bool)>; 2] = [None, None];
        if self.plan.table_locks[store as usize] {
            wanted[0] = Some(((shard, spec.table, TABLE), spec.lock == Lock::Table));
        }
        if spec.lock == Lock::Row && key & FRESH_KEY == 0 {
            wanted[1] = Some(((shard, spec.table, key), true));
        }
        for (lock, exclusive) in wanted.into_iter().flatten() {
            if !self.take_lock(op, lock, exclusive) {
                return false;
            }
        }
        true
    }

    pub(super) fn take_lock(&mut self, op: Ref, lock: LockId, exclusive: bool) -> bool {
        let holder = self.holder(op);
        let o = &mut self.ops[op];
        let store = self.nodes[o.node as usize].store;
        let mine = |locks: &[LockId]| locks.contains(&lock);
        let held = mine(&o.locks) || self.transactions.get(o.transaction).is_some_and(|tx| mine(&tx.locks));
        if held {
            return true;
        }
        let state = self.stores[store as usize].locks.entry(lock).or_default();
        let free = state.holders.is_empty() || (!state.exclusive && !exclusive);
        if free && state.waiting.is_empty() {
            state.holders.push(holder);
            state.exclusive = exclusive;
            o.locks.push(lock);
            return true;
        }
        state.waiting.push_back(op);
        o.waits_for = Some((lock, exclusive));
        self.queue.at(self.now + DEADLOCK_CHECK, Event::LockCheck { op });
        false
    }

    pub(super) fn holder(&self, op: Ref) -> Holder {
        let transaction = self.ops[op].transaction;
        if transaction.is_none() { Holder::Operation(op) } else { Holder::Transaction(transaction) }
    }

    pub(super) fn release_locks(&mut self, store: u32, locks: &[LockId], holder: Holder) {
        for &lock in locks {
            let Some(state) = self.stores[store as usize].locks.get_mut(&lock) else { continue };
            state.holders.retain(|h| *h != holder);
            self.grant_locks(store, lock);
        }
    }

    /// Gives a lock to those who wait for it, in turn, as far as they may share it.
    pub(super) fn grant_locks(&mut self, store: u32, lock: LockId) {
        loop {
            let Some(state) = self.stores[store as usize].locks.get_mut(&lock) else { return };
            let Some(&op) = state.waiting.front() else {
                if state.holders.is_empty() {
                    self.stores[store as usize].locks.remove(&lock);
                }
                return;
            };
            let Some(o) = self.ops.get(op) else {
                state.waiting.pop_front();
                continue;
            };
            // One whose server died is about to fail.
            if self.nodes[o.node as usize].epoch != o.epoch {
                state.waiting.pop_front();
                continue;
            }
            let exclusive = o.waits_for.is_some_and(|(_, exclusive)| exclusive);
            if !(state.holders.is_empty() || (!state.exclusive && !exclusive)) {
                return;
            }
            state.waiting.pop_front();
            state.exclusive = exclusive;
            let holder = self.holder(op);
            let state = self.stores[store as usize].locks.get_mut(&lock).expect("just seen");
            state.holders.push(holder);
            let o = &mut self.ops[op];
            o.waits_for = None;
            o.locks.push(lock);
            if self.take_locks(op) {
                self.node_start(op);
            }
        }
    }

    /// An operation has waited for a lock as long as PostgreSQL waits before it looks for a cycle.
    pub(crate) fn lock_check(&mut self, op: Ref) {
        let Some(o) = self.ops.get(op) else { return };
        let Some((mut lock, _)) = o.waits_for else { return };
        let me = self.holder(op);
        let store = self.nodes[o.node as usize].store;
        for _ in 0..64 {
            let Some(state) = self.stores[store as usize].locks.get(&lock) else { return };
            let Some(&holder) = state.holders.first() else { return };
            if holder == me {
                // A cycle: this transaction is the one that is given up.
                if let Some(state) = self.stores[store as usize].locks.get_mut(&lock) {
                    state.waiting.retain(|waiter| *waiter != op);
                }
                self.ops[op].waits_for = None;
                return self.complete_op(op, Answer::Error);
            }
            let Holder::Transaction(tx) = holder else { return };
            let next =
                self.ops.refs().find(|&other| self.ops[other].transaction == tx && self.ops[other].waits_for.is_some());
            match next.and_then(|other| self.ops[other].waits_for) {
                Some((waited, _)) => lock = waited,
                None => return,
            }
        }
    }

    /// A migration takes a table for itself, in every shard, as soon as those who use it are done.
    pub(crate) fn lock_table(&mut self, store: u32, table: u32, fault: u32) {
        for shard in 0..self.stores[store as usize].shards {
            let state = self.stores[store as usize].locks.entry((shard, table, TABLE)).or_default();
            // What runs already ends beside it; what comes waits for it.
            state.holders.push(Holder::Migration(fault));
            state.exclusive = true;
        }
    }

    pub(crate) fn unlock_table(&mut self, store: u32, table: u32, fault: u32) {
        for shard in 0..self.stores[store as usize].shards {
            self.release_locks(store, &[(shard, table, TABLE)], Holder::Migration(fault));
        }
    }
}
