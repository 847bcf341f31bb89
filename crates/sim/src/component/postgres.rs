//! A relational database: primaries and replicas in shards, pooled connections, locks,
//! transactions, replication and failover.

use std::collections::VecDeque;

use plimsoll_model::lag::Lag;
use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Dist, Lock, Postgres, Store, StoreKind};
use plimsoll_policy::read_your_writes::{Position, Read, ReadYourWrites};
use plimsoll_policy::{Eligible, Outcome, Time};

use crate::component::client::FRESH_KEY;
use crate::component::edge::{Parent, Target, What};
use crate::component::store::{OpKind, StoreOp, Transaction};
use crate::component::task::Context;
use crate::engine::{Answer, Draw, Event, Ref, duration, mix, scale};
use crate::world::{Wake, World};

/// One shard's commits, and what its replicas have of them.
pub(crate) struct Log {
    pub(crate) commits: u64,
    timeline: u32,
    /// By node of the shard; the primary's is unused.
    replicas: Vec<Replica>,
    /// The last commit that wrote a key.
    written: Vec<u64>,
    sessions: Option<ReadYourWrites>,
    /// Whether the primary that was stopped for a promotion comes back as a replica after it.
    returns: bool,
}

/// How far a replica is.
struct Replica {
    applied: u64,
    /// Commits not yet visible: (number, time of the commit, time at which it is visible).
    pending: VecDeque<(u64, u64, u64)>,
    free_at: u64,
    lag: Lag,
}

/// What is locked: (shard, table, row).
pub(crate) type LockId = (u32, u32, u32);

/// A lock's holder and those who wait for it.
#[derive(Default)]
pub(crate) struct LockState {
    /// Those who hold it: one, or for a table all who use it without wanting it for themselves.
    holders: Vec<Holder>,
    /// Whether the holder wants it for itself.
    exclusive: bool,
    waiting: VecDeque<Ref>,
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

// Purposes of draws.
const TIME: u64 = 1;
const LAG: u64 = 2;
const REPLICA: u64 = 3;
const SECOND_SHARD: u64 = 4;
const SHARD: u64 = 1 << 42;

impl Log {
    pub(crate) fn new(store: &Store, nodes: u32, draw: Draw, shard: u32) -> Self {
        let lag = match &store.kind {
            StoreKind::Postgres(pg) => &pg.replication_lag,
            StoreKind::Redis(_) | StoreKind::Quorum(_) => &Dist::Constant(0),
        };
        let draw = draw.part(LAG).part(u64::from(shard));
        let replica = |number| Replica {
            applied: 0,
            pending: VecDeque::new(),
            free_at: 0,
            lag: Lag::new(lag, draw.part(u64::from(number))),
        };
        Log {
            commits: 0,
            timeline: 1,
            replicas: (0..nodes).map(replica).collect(),
            written: Vec::new(),
            sessions: None,
            returns: false,
        }
    }

    /// The last commit that a node shows.
    fn applied(&mut self, number: u32, now: u64) -> u64 {
        let replica = &mut self.replicas[number as usize];
        while let Some(&(commit, _, visible)) = replica.pending.front()
            && visible <= now
        {
            replica.applied = commit;
            replica.pending.pop_front();
        }
        replica.applied
    }

    /// How far a replica is behind: the age of the oldest commit that it does not show, ns.
    fn lag(&mut self, number: u32, now: u64) -> u64 {
        self.applied(number, now);
        self.replicas[number as usize].pending.front().map_or(0, |&(_, committed, _)| now - committed)
    }

    /// When a replica will show a commit; none if it shows it.
    fn visible_at(&self, number: u32, commit: u64) -> Option<u64> {
        let replica = &self.replicas[number as usize];
        let at = replica.pending.partition_point(|&(number, ..)| number < commit);
        replica.pending.get(at).map(|&(.., visible)| visible)
    }
}

impl<'a> World<'a> {
    fn pg(&self, store: u32) -> &'a Postgres {
        match &self.plan.system.stores[store as usize].kind {
            StoreKind::Postgres(pg) => pg,
            _ => unreachable!("only called for PostgreSQL"),
        }
    }

    /// The shard that a key belongs to.
    fn shard_of(&self, store: u32, key: u32) -> u32 {
        let shards = self.stores[store as usize].shards;
        if shards == 1 { 0 } else { scale(mix(key as u64 ^ 0x5348_4152), shards) }
    }

    fn nodes_per_shard(&self, store: u32) -> u32 {
        let state = &self.stores[store as usize];
        state.nodes / state.shards
    }

    pub(crate) fn primary_node(&self, store: u32, shard: u32) -> u32 {
        let state = &self.stores[store as usize];
        state.first + shard * self.nodes_per_shard(store) + state.primary[shard as usize]
    }

    /// The node that an operation goes to.
    pub(crate) fn choose_node(&mut self, call: Ref) -> Option<u32> {
        let c = &self.calls[call];
        let end = c.end;
        let (what, context) = (c.what, c.context);
        let Target::Postgres(store) = self.ends[end as usize].to else {
            unreachable!("the others' first node is the one to ask");
        };
        if let Some(tx) = self.transaction_in(c.parent, store) {
            return Some(self.transactions[tx].node);
        }
        let shard = self.shard_of(store, context.key);
        let primary = self.primary_node(store, shard);
        let pg = self.pg(store);
        let What::Operation { write, .. } = what else { return Some(primary) };
        if write || !pg.reads.from_replicas || pg.replicas == 0 {
            return Some(primary);
        }
        let now = self.now;
        let time = self.time();
        let per_shard = self.nodes_per_shard(store);
        let base = primary - self.stores[store as usize].primary[shard as usize];
        let state = &mut self.stores[store as usize];
        let first = state.first;
        let log = &mut state.logs[shard as usize];
        let mut eligible = Eligible::none(state.nodes as usize);
        for number in 0..per_shard {
            let node = base + number;
            let mut behind = || pg.reads.max_lag.is_some_and(|max| log.lag(number, now) > max);
            if node != primary && self.nodes[node as usize].up && !behind() {
                eligible.insert((node - first) as usize);
            }
        }
        let random = context.draw.bits(REPLICA | 1 << 32);
        let picked = self.ends[end as usize].balancer.pick(time, session(&context), random, &eligible);
        Some(picked.map_or(primary, |node| first + node as u32))
    }

    fn transaction_in(&self, parent: Parent, store: u32) -> Option<Ref> {
        let Parent::Task(task) = parent else { return None };
        let mut tx = self.tasks.get(task)?.transaction;
        while let Some(t) = self.transactions.get(tx) {
            if t.store == store {
                return Some(tx);
            }
            tx = t.outer;
        }
        None
    }

    /// An attempt asks a store: for a connection first, then for the operation.
    pub(crate) fn ask_store(&mut self, attempt: Ref) {
        let a = &self.attempts[attempt];
        let node = a.target;
        let c = &self.calls[a.call];
        let (end, parent, what) = (c.end, c.parent, c.what);
        let store = self.nodes[node as usize].store;
        if matches!(self.ends[end as usize].to, Target::Quorum(_)) {
            return self.ask_quorum(attempt);
        }
        if self.is_scattered(store, what) {
            self.attempts[attempt].shards_left = self.stores[store as usize].shards;
            self.ask_one(attempt, end, node, parent, what, store);
            let home = self.nodes[node as usize].shard;
            for shard in (0..self.stores[store as usize].shards).filter(|&shard| shard != home) {
                let node = self.primary_node(store, shard);
                self.take_connection(attempt, end, node);
            }
            return;
        }
        self.ask_one(attempt, end, node, parent, what, store);
    }

    /// Asks one node, over the connection of the transaction where there is one.
    #[inline(always)]
    fn ask_one(&mut self, attempt: Ref, end: u32, node: u32, parent: Parent, what: What, store: u32) {
        if matches!(what, What::Operation { .. })
            && let Some(tx) = self.transaction_in(parent, store)
        {
            self.send_op(attempt, node, None, tx);
        } else {
            self.take_connection(attempt, end, node);
        }
    }

    /// Whether an operation lacks the shards' key, and so asks them all.
    fn is_scattered(&self, store: u32, what: What) -> bool {
        let What::Operation { operation, .. } = what else { return false };
        self.stores[store as usize].shards > 1
            && self.plan.system.stores[store as usize].operations[operation as usize].scatter
    }

    /// An attempt takes a pooled connection to a node, or waits for one.
    fn take_connection(&mut self, attempt: Ref, end: u32, node: u32) {
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
            let text = "too many connections: the pools of all instances together exceed max_connections";
            self.happened(EventKind::PoolExhausted, store, text);
            return self.soon(Event::Answered { attempt, answer: Answer::Refused });
        }
        p.used.add(now, 1);
        self.connected(attempt, end, pool as u32);
    }

    /// Every connection of a pool is taken: an attempt waits for one.
    #[inline(never)]
    fn wait_for_pool(&mut self, attempt: Ref, end: u32, pool: usize) {
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
    fn connect(&mut self, node: u32) -> bool {
        let n = &mut self.nodes[node as usize];
        let most = match &n.spec.kind {
            StoreKind::Postgres(pg) => pg.max_connections,
            _ => u32::MAX,
        };
        if n.connections >= most {
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
    fn release_connection(&mut self, end: u32, pool: u32) {
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
    fn connected(&mut self, attempt: Ref, end: u32, pool: u32) {
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

    /// Sends an operation to its node.
    #[inline(always)]
    fn send_op(&mut self, attempt: Ref, node: u32, connection: Option<(u32, u32)>, transaction: Ref) {
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
        o.waits_since = None;
        o.commit = 0;
        self.send_op_event(end, node, op);
    }

    /// An operation has ended for its attempt; one that asks all shards is as slow as the slowest,
    /// and fails with the first.
    #[inline(always)]
    fn op_answered(&mut self, attempt: Ref, answer: Answer) {
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
        n.counter.now.offered += u64::from(o.waits_since.is_none());
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
    fn has_caught_up(&mut self, op: Ref) -> bool {
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
        let since = o.waits_since;
        match sessions.read(time, session, at, since.map(Time::from_nanos)) {
            Read::Replica => true,
            Read::Wait { until } => {
                let floor = sessions.floor(session);
                let visible = log.visible_at(number, floor).unwrap_or(u64::MAX);
                self.ops[op].waits_since = Some(since.unwrap_or(now));
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
    fn ask_primary(&mut self, op: Ref) {
        let o = &self.ops[op];
        let (node, attempt, connection, life) = (o.node, o.attempt, o.connection, o.life);
        let since = o.waits_since.unwrap_or(self.now);
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
    fn start_on_node(&mut self, op: Ref) {
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

    fn node_next(&mut self, node: u32) {
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

    fn complete_later(&mut self, op: Ref, wait: u64) {
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
            return self.end_transaction(transaction, attempt, answer);
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
            return self.end_transaction(transaction, attempt, answer);
        }
        if self.attempts.contains(attempt) {
            self.soon(Event::Answered { attempt, answer });
        }
    }

    // --- transactions

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
            attempt: Ref::NONE,
            node,
            epoch,
            life: 0,
            connection: None,
            transaction: tx,
            kind: OpKind::Commit { second: !crosses },
            context: Context { draw, ..context },
            takes,
            running: false,
            locks: Vec::new(),
            waits_for: None,
            stale: false,
            waits_since: None,
            commit: 0,
        });
        let end = self.transactions[tx].end;
        self.tasks[task].waiting = crate::component::task::Waiting::Timer;
        self.send_op_event(end, node, op);
    }

    /// The second shard of a two-phase commit: prepare there, then commit on both.
    fn second_commit(&mut self, op: Ref) {
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
    fn end_transaction(&mut self, tx: Ref, _attempt: Ref, answer: Answer) {
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

    fn close_transaction(&mut self, tx: Ref) {
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

    // --- locks

    /// Takes the locks that an operation needs; false if it has to wait.
    fn take_locks(&mut self, op: Ref) -> bool {
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

    fn take_lock(&mut self, op: Ref, lock: LockId, exclusive: bool) -> bool {
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

    fn holder(&self, op: Ref) -> Holder {
        let transaction = self.ops[op].transaction;
        if transaction.is_none() { Holder::Operation(op) } else { Holder::Transaction(transaction) }
    }

    fn release_locks(&mut self, store: u32, locks: &[LockId], holder: Holder) {
        for &lock in locks {
            let Some(state) = self.stores[store as usize].locks.get_mut(&lock) else { continue };
            state.holders.retain(|h| *h != holder);
            self.grant_locks(store, lock);
        }
    }

    /// Gives a lock to those who wait for it, in turn, as far as they may share it.
    fn grant_locks(&mut self, store: u32, lock: LockId) {
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

    // --- replication

    /// A commit goes into the log and to the replicas; how long it waits for them, ns.
    fn log_commit(&mut self, store: u32, shard: u32, keys: &[u32], op: Ref, synchronous: bool) -> u64 {
        if keys.is_empty() {
            return 0;
        }
        let pg = self.pg(store);
        let now = self.now;
        let per_shard = self.nodes_per_shard(store);
        let base = self.stores[store as usize].first + shard * per_shard;
        let primary = self.stores[store as usize].primary[shard as usize];
        let extra = self.stores[store as usize].extra_lag;
        let draw = self.stores[store as usize].draw.part(LAG).part(shard as u64);
        let state = &mut self.stores[store as usize];
        let log = &mut state.logs[shard as usize];
        log.commits += 1;
        let commit = log.commits;
        for &key in keys.iter().filter(|&&key| key & FRESH_KEY == 0) {
            if log.written.len() <= key as usize {
                log.written.resize(key as usize + 1, 0);
            }
            log.written[key as usize] = commit;
        }
        if pg.reads.read_your_writes {
            log.sessions.get_or_insert_with(|| sessions(pg, log.timeline));
        }
        self.ops[op].commit = commit;
        let mut wait = u64::MAX;
        for number in (0..per_shard).filter(|&number| number != primary) {
            let node = &self.nodes[(base + number) as usize];
            let apply = duration(&pg.apply, draw.part(number as u64 | 1 << 32).bits(commit));
            let replica = &mut log.replicas[number as usize];
            let there = node.slow.apply(replica.lag.at(now));
            let arrives = now + there + extra;
            let visible = arrives.max(replica.free_at) + node.slow.apply(apply);
            replica.free_at = visible;
            replica.pending.push_back((commit, now, visible));
            if synchronous && node.up {
                // It is waited for until it has the commit on disk, which is long before it shows it (PostgreSQL,
                // `synchronous_commit`: `on` and `remote_apply`).
                let flush = duration(&pg.commit, draw.part(number as u64 | 2 << 32).bits(commit));
                wait = wait.min(node.slow.apply(flush));
            }
        }
        if wait < u64::MAX { wait } else { 0 }
    }

    fn is_stale(&mut self, store: u32, shard: u32, node: u32, key: u32) -> bool {
        if node == self.primary_node(store, shard) {
            return false;
        }
        let now = self.now;
        let number = self.nodes[node as usize].number;
        let log = &mut self.stores[store as usize].logs[shard as usize];
        let applied = log.applied(number, now);
        log.written.get(key as usize).is_some_and(|&written| written > applied)
    }

    /// Replicas fall behind.
    pub(crate) fn add_lag(&mut self, store: u32, by: u64) {
        let lag = &mut self.stores[store as usize].extra_lag;
        *lag = lag.saturating_add(by);
    }

    /// They catch up, as far as no other fault holds them back: what was held back is there.
    pub(crate) fn remove_lag(&mut self, store: u32, by: u64) {
        let now = self.now;
        let state = &mut self.stores[store as usize];
        state.extra_lag -= by;
        for replica in state.logs.iter_mut().flat_map(|log| &mut log.replicas) {
            for (_, committed, visible) in &mut replica.pending {
                let due = if state.extra_lag == 0 { now } else { committed.saturating_add(state.extra_lag).max(now) };
                *visible = (*visible).min(due);
            }
            replica.free_at = replica.pending.back().map_or(now, |&(.., visible)| visible);
        }
    }

    // --- nodes that come and go

    /// A database server dies: connections break, transactions are rolled back.
    pub(crate) fn kill_node(&mut self, node: u32) {
        if !self.nodes[node as usize].up {
            return;
        }
        let name = self.node_name(node);
        self.happened(EventKind::InstanceDown, name, "the server died");
        self.nodes[node as usize].up = false;
        self.break_connections(node);
        let (store, shard) = (self.nodes[node as usize].store, self.nodes[node as usize].shard);
        if let StoreKind::Postgres(pg) = &self.plan.system.stores[store as usize].kind
            && self.primary_node(store, shard) == node
            && let Some(failover) = &pg.failover
        {
            let epoch = self.stores[store as usize].primary_epoch[shard as usize];
            self.wake_at(self.now + failover.detect, Wake::FailoverDecision { store, shard, epoch });
        }
        if let StoreKind::Redis(redis) = &self.plan.system.stores[store as usize].kind
            && !redis.persistent
        {
            self.flush_store(store);
        }
    }

    /// A database server is back: the primary it was, or a replica if another took its place.
    pub(crate) fn revive_node(&mut self, node: u32) {
        if self.nodes[node as usize].up {
            return;
        }
        self.nodes[node as usize].up = true;
        let name = self.node_name(node);
        self.happened(EventKind::InstanceUp, name, "the server is back");
    }

    pub(crate) fn pause_node(&mut self, node: u32) {
        let now = self.now;
        self.nodes[node as usize].paused_at.get_or_insert(now);
    }

    pub(crate) fn unpause_node(&mut self, node: u32) {
        let n = &mut self.nodes[node as usize];
        if n.paused_at.take().is_some() {
            for (left, event) in std::mem::take(&mut n.held) {
                self.queue.at(self.now + left, event);
            }
        }
    }

    /// Ends everything that a node was doing.
    fn break_connections(&mut self, node: u32) {
        let now = self.now;
        let n = &mut self.nodes[node as usize];
        n.epoch += 1;
        n.paused_at = None;
        n.held.clear();
        n.queue.clear();
        n.connections = 0;
        n.next_free = now;
        n.free = match &n.spec.kind {
            StoreKind::Postgres(pg) => pg.concurrency,
            StoreKind::Quorum(quorum) => quorum.concurrency,
            StoreKind::Redis(_) => 1,
        };
        for gauge in [&mut n.busy, &mut n.waiting, &mut n.connected] {
            gauge.set(now, 0);
        }
        let mut refused = Vec::new();
        for e in &mut self.ends {
            let local = node.wrapping_sub(e.first_target) as usize;
            let to_store =
                matches!(self.plan.system.edges[e.edge as usize].to, plimsoll_model::system::Component::Store(_));
            if !to_store || local >= e.pools.len() {
                continue;
            }
            let pool = &mut e.pools[local];
            pool.open = 0;
            pool.idle = 0;
            pool.used.set(now, 0);
            pool.queue.set(now, 0);
            refused.extend(pool.waiting.drain(..));
        }
        for attempt in refused.into_iter().filter(|&attempt| self.attempts.contains(attempt)).collect::<Vec<_>>() {
            self.soon(Event::Answered { attempt, answer: Answer::Refused });
        }
        let lost: Vec<Ref> = self.ops.refs().filter(|&op| self.ops[op].node == node).collect();
        for op in lost {
            if self.ops.contains(op) {
                self.fail_op(op, Answer::Reset);
            }
        }
    }

    /// A store's operators make a replica the primary.
    pub(crate) fn promote(&mut self, store: u32) {
        let StoreKind::Postgres(pg) = &self.plan.system.stores[store as usize].kind else { return };
        let takes = pg.failover.map_or(PROMOTION, |failover| failover.promote);
        for shard in 0..self.stores[store as usize].shards {
            let primary = self.primary_node(store, shard);
            let epoch = self.stores[store as usize].primary_epoch[shard as usize];
            // A primary that still runs is stopped first, and comes back as a replica.
            if self.nodes[primary as usize].up {
                self.nodes[primary as usize].up = false;
                self.break_connections(primary);
                self.stores[store as usize].logs[shard as usize].returns = true;
            }
            self.wake_at(self.now + takes, Wake::Promoted { store, shard, epoch });
        }
    }

    /// A lost primary has been noticed.
    pub(crate) fn failover_decision(&mut self, store: u32, shard: u32, epoch: u32) {
        let primary = self.primary_node(store, shard);
        if self.stores[store as usize].primary_epoch[shard as usize] != epoch || self.nodes[primary as usize].up {
            return;
        }
        let takes = self.pg(store).failover.map_or(PROMOTION, |failover| failover.promote);
        self.wake_at(self.now + takes, Wake::Promoted { store, shard, epoch });
    }

    /// The replica that is furthest takes over; what it does not have is lost.
    pub(crate) fn promoted(&mut self, store: u32, shard: u32, epoch: u32) {
        let now = self.now;
        if self.stores[store as usize].primary_epoch[shard as usize] != epoch {
            return;
        }
        let old = self.primary_node(store, shard);
        let synchronous = self.pg(store).synchronous;
        let per_shard = self.nodes_per_shard(store);
        let base = self.stores[store as usize].first + shard * per_shard;
        let log = &mut self.stores[store as usize].logs[shard as usize];
        let furthest = (0..per_shard)
            .filter(|&number| base + number != old && self.nodes[(base + number) as usize].up)
            .map(|number| (log.applied(number, now), std::cmp::Reverse(number)))
            .max();
        let Some((applied, std::cmp::Reverse(number))) = furthest else {
            let name = self.plan.system.stores[store as usize].name.clone();
            return self.happened(EventKind::Promoted, name, "no replica is left to promote");
        };
        // Synchronous commits are on a replica before they are acknowledged: it replays what it
        // has before it takes over.
        let kept = if synchronous { log.commits } else { applied };
        let lost = log.commits - kept;
        log.commits = kept;
        log.timeline += 1;
        let timeline = log.timeline;
        if let Some(sessions) = &mut log.sessions {
            sessions.failover(kept, timeline);
        }
        for (at, replica) in log.replicas.iter_mut().enumerate() {
            replica.pending.retain(|&(commit, ..)| commit <= kept);
            if at as u32 == number || base + at as u32 == old {
                replica.pending.clear();
                replica.applied = kept;
            }
        }
        for written in &mut log.written {
            *written = (*written).min(kept);
        }
        let returns = std::mem::take(&mut log.returns);
        let state = &mut self.stores[store as usize];
        state.primary[shard as usize] = number;
        state.primary_epoch[shard as usize] += 1;
        state.counter.now.lost += lost;
        if returns {
            self.nodes[old as usize].up = true;
        }
        let name = self.node_name(base + number);
        self.happened(EventKind::Promoted, name, format!("is the primary now; {lost} acknowledged commits are lost"));
    }
}

/// Promotion of a replica takes so long where the file does not say (measured: 0.1-0.3 s, and the
/// gap in writes 0.15-0.4 s).
const PROMOTION: u64 = 300_000_000;

/// The session that a request belongs to: its user's.
fn session(context: &Context) -> u64 {
    (context.client as u64) << 32 | context.user as u64
}

fn sessions(pg: &Postgres, timeline: u32) -> ReadYourWrites {
    let config = plimsoll_policy::read_your_writes::Config {
        wait_max: std::time::Duration::from_nanos(pg.reads.wait),
        ..Default::default()
    };
    ReadYourWrites::new(config, timeline).expect("its wait comes from the file's reader")
}
