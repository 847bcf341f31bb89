//! Operations at a node: sent, waiting for what a session wrote, at work, over.

use plimsoll_model::system::{Lock, StoreKind};
use plimsoll_policy::Outcome;
use plimsoll_policy::read_your_writes::{Position, Read};

use super::{Holder, session};
use crate::component::client::FRESH_KEY;
use crate::component::edge::What;
use crate::component::store::{OpKind, StoreOp};
use crate::engine::{Answer, Event, Ref, duration};
use crate::world::World;

// Purposes of draws.
pub(super) const TIME: u64 = 1;
const SHARD: u64 = 1 << 42;

impl World<'_> {
    /// Sends an operation to its node.
    #[inline(always)]
    pub(super) fn send_op(&mut self, attempt: Ref, node: u32, connection: Option<(u32, u32)>, transaction: Ref) {
        let a = &mut self.attempts[attempt];
        let c = &self.calls[a.call];
        let end = c.end;
        let n = &self.nodes[node as usize];
        let spec = n.spec;
        let mut context = c.context;
        context.draw = context.draw.part(a.number as u64);
        if node != a.target {
            // Another shard's part: it takes a time of its own.
            context.draw = context.draw.part(SHARD | n.shard as u64);
        }
        let (kind, takes, bytes) = match c.what {
            What::Operation { operation, .. } => {
                let op = &spec.operations[operation as usize];
                (OpKind::Operation(operation), duration(&op.time, context.draw.bits(TIME)), op.size)
            }
            _ => (OpKind::Command, 0, 0),
        };
        a.bytes = bytes;
        let (op, o) = self.ops.place(StoreOp::blank);
        o.attempt = attempt;
        o.node = node;
        o.epoch = n.epoch;
        o.life = self.ends[end as usize].life;
        o.connection = connection;
        o.transaction = transaction;
        o.kind = kind;
        o.context = context;
        o.takes = takes;
        o.running = false;
        o.locks.clear();
        o.waits_for = None;
        o.stale = false;
        o.waits = None;
        o.commit = 0;
        self.send_op_event(end, node, op);
    }

    /// An operation has ended for its attempt; one that asks all shards is as slow as the slowest,
    /// and fails with the first.
    #[inline(always)]
    pub(super) fn op_answered(&mut self, attempt: Ref, answer: Answer) {
        if let Some(a) = self.attempts.get_mut(attempt)
            && a.shards_left > 1
            && answer.is_ok()
        {
            a.shards_left -= 1;
            return;
        }
        self.answer_last(attempt, answer);
    }

    /// An operation reaches its node.
    pub(crate) fn op_arrive(&mut self, op: Ref) {
        let Some(o) = self.ops.get(op) else { return };
        let n = &mut self.nodes[o.node as usize];
        if !n.up || n.epoch != o.epoch {
            return self.fail_op(op, Answer::Reset);
        }
        if n.paused_at.is_some() {
            n.held.push((0, Event::OpArrive { op }));
            return;
        }
        n.counter.now.offered += u64::from(o.waits.is_none());
        match &n.spec.kind {
            StoreKind::Redis(_) => self.redis_command(op),
            StoreKind::Postgres(pg) => {
                if pg.reads.read_your_writes && !self.has_caught_up(op) {
                    return;
                }
                let o = &self.ops[op];
                let n = &self.nodes[o.node as usize];
                let locks = match o.kind {
                    OpKind::Operation(operation) => {
                        n.spec.operations[operation as usize].lock != Lock::None
                            || self.plan.table_locks[n.store as usize]
                    }
                    _ => false,
                };
                if !locks || self.take_locks(op) {
                    self.start_on_node(op);
                }
            }
            StoreKind::Quorum(_) => self.node_start(op),
        }
    }

    /// Whether a node shows what the session of a read has written. If not, the read waits there, its connection with
    /// it, and then asks the primary.
    #[inline]
    pub(super) fn has_caught_up(&mut self, op: Ref) -> bool {
        let o = &self.ops[op];
        let n = &self.nodes[o.node as usize];
        let (store, shard, number) = (n.store, n.shard, n.number);
        let OpKind::Operation(operation) = o.kind else { return true };
        if n.spec.operations[operation as usize].write
            || self.stores[store as usize].primary[shard as usize] == number
            || !o.transaction.is_none()
        {
            return true;
        }
        let now = self.now;
        let time = self.time();
        let session = session(&o.context);
        let log = &mut self.stores[store as usize].logs[shard as usize];
        let at = Position { timeline: log.timeline, lsn: log.applied(number, now) };
        let Some(sessions) = &mut log.sessions else { return true };
        match sessions.read(time, session, at, o.waits) {
            Read::Replica => true,
            Read::Wait { until, waiting } => {
                let visible = log.visible_at(number, waiting.floor.lsn).unwrap_or(u64::MAX);
                self.ops[op].waits = Some(waiting);
                self.queue.at(visible.min(until.as_nanos()), Event::OpArrive { op });
                false
            }
            Read::Primary => {
                self.ask_primary(op);
                false
            }
        }
    }

    /// A read has waited for a replica in vain: it gives its connection back and takes one to the primary.
    #[inline(never)]
    pub(super) fn ask_primary(&mut self, op: Ref) {
        let o = &self.ops[op];
        let (node, attempt, connection, life) = (o.node, o.attempt, o.connection, o.life);
        let since = o.waits.map_or(self.now, |waits| waits.since.as_nanos());
        self.ops.remove(op);
        self.nodes[node as usize].counter.now.failed += 1;
        if let Some((end, pool)) = connection
            && self.ends[end as usize].life == life
        {
            self.release_connection(end, pool);
        }
        let (store, shard) = (self.nodes[node as usize].store, self.nodes[node as usize].shard);
        let primary = self.primary_node(store, shard);
        let time = self.time();
        let Some(a) = self.attempts.get_mut(attempt) else { return };
        a.target = primary;
        let took = self.now - since;
        let end = self.calls[a.call].end;
        let e = &mut self.ends[end as usize];
        e.balancer.on_done((node - e.first_target) as usize, time, took, Outcome::Success, None);
        e.balancer.on_start((primary - e.first_target) as usize, time);
        self.take_connection(attempt, end, primary);
    }

    /// A place to run for an operation, or one in the node's queue.
    pub(crate) fn node_start(&mut self, op: Ref) {
        self.start_on_node(op);
    }

    #[inline(always)]
    pub(super) fn start_on_node(&mut self, op: Ref) {
        let now = self.now;
        let o = &mut self.ops[op];
        let n = &mut self.nodes[o.node as usize];
        if n.free > 0 {
            n.free -= 1;
            n.busy.add(now, 1);
            o.running = true;
            let mut takes = n.slow.apply(o.takes);
            if let Some((law, places)) = n.scalability {
                takes = (takes as f64 * law.stretch(f64::from(places - n.free))) as u64;
            }
            self.queue.at(now + takes, Event::OpDone { op });
        } else {
            n.queue.push_back(op);
            n.waiting.add(now, 1);
        }
    }

    pub(super) fn node_next(&mut self, node: u32) {
        let now = self.now;
        let n = &mut self.nodes[node as usize];
        n.free += 1;
        n.busy.add(now, -1);
        while let Some(op) = n.queue.pop_front() {
            n.waiting.add(now, -1);
            if self.ops.contains(op) {
                return self.node_start(op);
            }
        }
    }

    /// A node has done an operation.
    pub(crate) fn op_done(&mut self, op: Ref) {
        let Some(o) = self.ops.get_mut(op) else { return };
        let node = o.node;
        let n = &mut self.nodes[node as usize];
        if n.epoch != o.epoch {
            return;
        }
        if let Some(since) = n.paused_at {
            n.held.push((self.now - since, Event::OpDone { op }));
            return;
        }
        let (store, shard, spec) = (n.store, n.shard, n.spec);
        let kind = o.kind;
        if std::mem::replace(&mut o.running, false) {
            self.node_next(node);
        }
        let StoreKind::Postgres(pg) = &spec.kind else {
            return self.complete_op(op, Answer::Ok);
        };
        let o = &mut self.ops[op];
        match kind {
            OpKind::Operation(operation) => {
                let spec = &spec.operations[operation as usize];
                let key = o.context.key;
                if !spec.write {
                    let replica = node != self.primary_node(store, shard);
                    let totals = &mut self.nodes[node as usize].counter.now;
                    totals.reads += 1;
                    totals.replica_reads += replica as u64;
                    if pg.replicas > 0 && key & FRESH_KEY == 0 {
                        let stale = self.is_stale(store, shard, node, key);
                        self.ops[op].stale = stale;
                    }
                    return self.complete_op(op, Answer::Ok);
                }
                let transaction = o.transaction;
                if let Some(tx) = self.transactions.get_mut(transaction) {
                    tx.wrote.push(key);
                    return self.complete_op(op, Answer::Ok);
                }
                let wait = self.log_commit(store, shard, &[key], op, pg.synchronous);
                self.complete_later(op, wait);
            }
            OpKind::Commit { second } => {
                let transaction = o.transaction;
                let Some(tx) = self.transactions.get_mut(transaction) else {
                    return self.complete_op(op, Answer::Ok);
                };
                if tx.crosses && !second {
                    // Two-phase commit: prepared here, now the same on the other shard.
                    return self.second_commit(op);
                }
                let wrote = std::mem::take(&mut tx.wrote);
                let wait = self.log_commit(store, shard, &wrote, op, pg.synchronous);
                self.complete_later(op, wait);
            }
            OpKind::Command | OpKind::Replica { .. } => self.complete_op(op, Answer::Ok),
        }
    }

    pub(super) fn complete_later(&mut self, op: Ref, wait: u64) {
        if wait == 0 {
            self.complete_op(op, Answer::Ok);
        } else {
            self.queue.at(self.now + wait, Event::OpComplete { op });
        }
    }

    /// An operation and what follows it are done.
    pub(crate) fn complete_op(&mut self, op: Ref, answer: Answer) {
        let Some(o) = self.ops.get_mut(op) else { return };
        if matches!(o.kind, OpKind::Replica { .. }) {
            return self.quorum_part(op, answer);
        }
        let (transaction, attempt, connection) = (o.transaction, o.attempt, o.connection);
        let (commits, life) = (matches!(o.kind, OpKind::Commit { .. }), o.life);
        let holder = if transaction.is_none() { Holder::Operation(op) } else { Holder::Transaction(transaction) };
        let n = &mut self.nodes[o.node as usize];
        let same_life = n.epoch == o.epoch;
        let totals = &mut n.counter.now;
        if answer.is_ok() {
            totals.ok += 1;
            totals.stale += o.stale as u64;
            if o.commit > 0 {
                // From its acknowledgement on the session knows how far a replica has to be.
                let log = &mut self.stores[n.store as usize].logs[n.shard as usize];
                if let Some(sessions) = &mut log.sessions {
                    sessions.wrote(session(&o.context), Position { timeline: log.timeline, lsn: o.commit });
                }
            }
        } else {
            totals.failed += 1;
        }
        if !o.locks.is_empty() {
            let (store, locks) = (n.store, std::mem::take(&mut o.locks));
            match self.transactions.get_mut(transaction) {
                Some(tx) => tx.locks.extend(locks),
                // Alone, or its transaction was given up meanwhile.
                None => self.release_locks(store, &locks, holder),
            }
        }
        self.ops.remove(op);
        if commits {
            return self.end_transaction(transaction, answer);
        }
        if let Some((end, pool)) = connection
            && same_life
            && self.ends[end as usize].life == life
        {
            self.release_connection(end, pool);
        }
        self.op_answered(attempt, answer);
    }

    /// An operation cannot be done: its connection is broken.
    pub(crate) fn fail_op(&mut self, op: Ref, answer: Answer) {
        let o = &self.ops[op];
        if matches!(o.kind, OpKind::Replica { .. }) {
            return self.quorum_part(op, answer);
        }
        let (node, connection, attempt, transaction) = (o.node, o.connection, o.attempt, o.transaction);
        let same_life = self.nodes[node as usize].epoch == o.epoch;
        let life = o.life;
        let commits = matches!(o.kind, OpKind::Commit { .. });
        let store = self.nodes[node as usize].store;
        let holder = self.holder(op);
        let locks = std::mem::take(&mut self.ops[op].locks);
        self.release_locks(store, &locks, holder);
        self.ops.remove(op);
        self.nodes[node as usize].counter.now.failed += 1;
        if let Some((end, pool)) = connection {
            let now = self.now;
            if same_life && self.ends[end as usize].life == life {
                let p = &mut self.ends[end as usize].pools[pool as usize];
                p.open = p.open.saturating_sub(1);
                p.used.add(now, -1);
                self.disconnect(node, 1);
            }
        }
        if commits {
            return self.end_transaction(transaction, answer);
        }
        if self.attempts.contains(attempt) {
            self.soon(Event::Answered { attempt, answer });
        }
    }
}
