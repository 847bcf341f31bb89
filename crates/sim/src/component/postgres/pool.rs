//! Pooled connections: taken, waited for, opened, given back.

use plimsoll_model::run::EventKind;
use plimsoll_model::system::StoreKind;

use crate::component::edge::{Parent, What};
use crate::component::store::Transaction;
use crate::engine::{Answer, Event, Ref};
use crate::world::World;

impl World<'_> {
    /// An attempt takes a pooled connection to a node, or waits for one.
    pub(super) fn take_connection(&mut self, attempt: Ref, end: u32, node: u32) {
        // Only a new connection finds out at once that nobody listens.
        if !self.nodes[node as usize].up {
            return self.soon(Event::Answered { attempt, answer: Answer::Refused });
        }
        let now = self.now;
        let e = &mut self.ends[end as usize];
        let pool = (node - e.first_target) as usize;
        let mut p = &mut e.pools[pool];
        if p.idle > 0 {
            p.idle -= 1;
        } else if p.open >= p.size {
            return self.wait_for_pool(attempt, end, pool);
        } else if self.connect(node) {
            p = &mut self.ends[end as usize].pools[pool];
            p.open += 1;
        } else {
            let store = self.nodes[node as usize].spec.name.clone();
            let text = "too many connections: all of max_connections are taken";
            self.happened(EventKind::PoolExhausted, store, text);
            return self.soon(Event::Answered { attempt, answer: Answer::Refused });
        }
        p.used.add(now, 1);
        self.connected(attempt, end, pool as u32);
    }

    /// Every connection of a pool is taken: an attempt waits for one.
    #[inline(never)]
    pub(super) fn wait_for_pool(&mut self, attempt: Ref, end: u32, pool: usize) {
        let now = self.now;
        let e = &mut self.ends[end as usize];
        let p = &mut e.pools[pool];
        p.waiting.push_back(attempt);
        p.queue.add(now, 1);
        let (delay, lane) = e.pool_timeout;
        if !p.exhausted_noted {
            p.exhausted_noted = true;
            let name = self.plan.system.edge_name(plimsoll_model::system::EdgeId(e.edge));
            self.happened(EventKind::PoolExhausted, name, "every pooled connection is taken: requests wait");
        }
        if delay < u64::MAX {
            self.after(delay, lane, Event::PoolTimeout { attempt });
        }
    }

    /// Opens a connection to a node, if it takes one more.
    pub(super) fn connect(&mut self, node: u32) -> bool {
        let n = &mut self.nodes[node as usize];
        let most = match &n.spec.kind {
            StoreKind::Postgres(pg) => pg.max_connections,
            _ => u32::MAX,
        };
        if n.connections >= most || n.exhausted > 0 {
            return false;
        }
        n.connections += 1;
        n.connected.add(self.now, 1);
        true
    }

    /// Closes connections to a node.
    pub(crate) fn disconnect(&mut self, node: u32, connections: u32) {
        let n = &mut self.nodes[node as usize];
        let closed = connections.min(n.connections);
        n.connections -= closed;
        n.connected.add(self.now, -(closed as i64));
    }

    /// An attempt has waited too long for a connection.
    pub(crate) fn pool_timeout(&mut self, attempt: Ref) {
        let Some(a) = self.attempts.get(attempt) else { return };
        let end = self.calls[a.call].end;
        let e = &mut self.ends[end as usize];
        // What asks every shard may wait for several.
        let home = (a.target - e.first_target) as usize;
        let pools = if a.shards_left > 0 { 0..e.pools.len() } else { home..home + 1 };
        let mut waited = false;
        for p in &mut e.pools[pools] {
            if let Some(at) = p.waiting.iter().position(|&waiter| waiter == attempt) {
                p.waiting.remove(at);
                p.queue.add(self.now, -1);
                waited = true;
            }
        }
        if waited {
            self.answered(attempt, Answer::Unavailable);
        }
    }

    /// A connection is free: the next attempt that still waits takes it.
    #[inline]
    pub(super) fn release_connection(&mut self, end: u32, pool: u32) {
        let now = self.now;
        loop {
            let p = &mut self.ends[end as usize].pools[pool as usize];
            match p.waiting.pop_front() {
                Some(attempt) => {
                    p.queue.add(now, -1);
                    if self.attempts.contains(attempt) {
                        return self.connected(attempt, end, pool);
                    }
                }
                None => {
                    p.idle += 1;
                    p.used.add(now, -1);
                    return;
                }
            }
        }
    }

    /// An attempt has its connection.
    pub(super) fn connected(&mut self, attempt: Ref, end: u32, pool: u32) {
        let a = &self.attempts[attempt];
        let c = &self.calls[a.call];
        let node = self.ends[end as usize].first_target + pool;
        match (c.what, c.parent) {
            (What::Begin { store, crosses }, Parent::Task(task)) => {
                let n = &self.nodes[node as usize];
                let tx = self.transactions.insert(Transaction {
                    store,
                    node,
                    epoch: n.epoch,
                    end,
                    pool,
                    life: self.ends[end as usize].life,
                    owner: task,
                    outer: self.tasks[task].transaction,
                    locks: Vec::new(),
                    wrote: Vec::new(),
                    outbox: Vec::new(),
                    crosses,
                });
                self.tasks[task].transaction = tx;
                self.soon(Event::Answered { attempt, answer: Answer::Ok });
            }
            _ => self.send_op(attempt, node, Some((end, pool)), Ref::NONE),
        }
    }
}
