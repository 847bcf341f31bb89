//! Transactions: one connection from their begin to their end, on one shard or two.

use super::Holder;
use super::operation::TIME;
use crate::component::store::{OpKind, StoreOp};
use crate::component::task::Context;
use crate::engine::{Answer, Event, Ref, duration, scale};
use crate::world::World;

// A purpose of draws.
const SECOND_SHARD: u64 = 4;

impl World<'_> {
    /// A task commits its transaction.
    pub(crate) fn commit(&mut self, task: Ref) {
        let tx = self.tasks[task].transaction;
        let t = &self.transactions[tx];
        let (node, store, crosses, epoch) = (t.node, t.store, t.crosses, t.epoch);
        let pg = self.pg(store);
        let context = self.tasks[task].context;
        let draw = context.draw.part(self.tasks[task].pc as u64);
        let takes = duration(&pg.commit, draw.bits(TIME));
        let op = self.ops.insert(StoreOp {
            node,
            epoch,
            transaction: tx,
            kind: OpKind::Commit { second: !crosses },
            context: Context { draw, ..context },
            takes,
            ..StoreOp::blank()
        });
        let end = self.transactions[tx].end;
        self.tasks[task].waiting = crate::component::task::Waiting::Timer;
        self.send_op_event(end, node, op);
    }

    /// The second shard of a two-phase commit: prepare there, then commit on both.
    pub(super) fn second_commit(&mut self, op: Ref) {
        let o = &self.ops[op];
        let store = self.nodes[o.node as usize].store;
        let (shards, shard) = (self.stores[store as usize].shards, self.nodes[o.node as usize].shard);
        let other = (shard + 1 + scale(o.context.draw.bits(SECOND_SHARD), shards.max(2) - 1)) % shards;
        let node = self.primary_node(store, other);
        let pg = self.pg(store);
        let o = &mut self.ops[op];
        // Prepare and commit there, and the commit here: three more forced writes.
        let each = duration(&pg.commit, o.context.draw.bits(TIME + 8));
        o.takes = 3 * each;
        o.kind = OpKind::Commit { second: true };
        o.node = node;
        o.epoch = self.nodes[node as usize].epoch;
        self.op_arrive(op);
    }

    /// A commit has ended, one way or the other.
    pub(super) fn end_transaction(&mut self, tx: Ref, answer: Answer) {
        let Some(t) = self.transactions.get_mut(tx) else { return };
        let task = t.owner;
        let outbox = std::mem::take(&mut t.outbox);
        if answer.is_ok() {
            self.close_transaction(tx);
            self.outbox_committed(outbox);
        }
        // A failed commit goes on to the rollback, which closes it.
        if self.tasks.contains(task) {
            self.soon(Event::Resume { task, answer });
        }
    }

    /// A task gives its transaction up.
    pub(crate) fn rollback(&mut self, task: Ref) {
        let tx = self.tasks[task].transaction;
        if self.transactions.contains(tx) {
            self.close_transaction(tx);
        }
    }

    pub(super) fn close_transaction(&mut self, tx: Ref) {
        let t = &mut self.transactions[tx];
        let (store, node, epoch, end, pool, owner, outer) = (t.store, t.node, t.epoch, t.end, t.pool, t.owner, t.outer);
        let life = t.life;
        let locks = std::mem::take(&mut t.locks);
        self.transactions.remove(tx);
        if let Some(task) = self.tasks.get_mut(owner) {
            task.transaction = outer;
        }
        self.release_locks(store, &locks, Holder::Transaction(tx));
        if self.nodes[node as usize].epoch == epoch && self.ends[end as usize].life == life {
            self.release_connection(end, pool);
        }
    }
}
