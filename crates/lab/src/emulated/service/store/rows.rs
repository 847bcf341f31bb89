//! Databases: which node is asked, and transactions. How a node is asked depends on whether it is a real one.

use std::sync::PoisonError;

use plimsoll_model::draw::{mix, scale};
use plimsoll_model::system::{Lock, Operation, Postgres};
use plimsoll_policy::{Eligible, Outcome};

use super::super::join;
use super::super::pool::Taken;
use super::hop::Hop;
use super::{Asker, Got, Op, Transaction, What};
use crate::answer::Answer;
use crate::context::Context;

/// After a failed connection, nobody is sent to a replica for so long, ns.
const DOWN: u64 = 1_000_000_000;

/// An operation, as a node is asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) number: u32,
    pub(super) key: u32,
    /// A replica answers only if it shows this, and it is waited for so long, ns.
    pub(super) floor: Option<(u32, u64)>,
    pub(super) wait: u64,
    /// And if it is no further behind, ns.
    pub(super) max_lag: Option<u64>,
    /// Whether a replica is asked.
    pub(super) replica: bool,
    /// Whether a transaction has begun on the connection.
    pub(super) within: bool,
}

impl Asked {
    pub(super) fn new(number: u32, key: u32) -> Asked {
        Asked { number, key, floor: None, wait: 0, max_lag: None, replica: false, within: false }
    }
}

/// What a node answers: where on its log a write is; or an error after which the connection is still good.
pub(super) type Told = Result<Option<(u32, u64)>, Answer>;

impl Asker {
    fn primary(&self, shard: u32) -> usize {
        let primaries = self.primaries.lock().unwrap_or_else(PoisonError::into_inner);
        primaries.get(shard as usize).map_or(0, |node| *node as usize)
    }

    pub(super) async fn rows(&self, pg: &Postgres, op: &Op, context: &Context) -> Result<Got, Answer> {
        let shard = if pg.shards == 1 { 0 } else { scale(mix(u64::from(context.key) ^ 0x5348_4152), pg.shards) };
        match &op.what {
            What::Begin(crosses) => {
                let node = self.primary(shard);
                let mut hop = Hop::new(self);
                hop.delay(node, context.draw, 0).await;
                let mut taken = hop.without(self.pools[node].take()).await?;
                self.begin(&mut taken, &mut hop).await?;
                hop.delay(node, context.draw, 1).await;
                hop.ended();
                let (store, crosses) = (self.store, *crosses && pg.shards > 1);
                let taken = tokio::sync::Mutex::new(Some(taken));
                let transaction = Transaction { store, shard, node, crosses, taken };
                Ok(Got { transaction: Some(transaction), ..Got::default() })
            }
            What::Operation(number) => {
                let operation = &self.spec().operations[*number as usize];
                if let Some(transaction) = &op.transaction
                    && transaction.store == self.store
                {
                    return self.within(transaction, *number, context).await;
                }
                if operation.scatter && pg.shards > 1 {
                    let asks = (0..pg.shards).map(|shard| {
                        let context =
                            Context { draw: context.draw.part(u64::from(shard) | 1 << 42), ..context.clone() };
                        async move { self.one_row(pg, operation, *number, shard, &context).await }
                    });
                    let mut last = Got::default();
                    for got in join::all(asks).await {
                        last = got?;
                    }
                    return Ok(last);
                }
                self.one_row(pg, operation, *number, shard, context).await
            }
            _ => Err(Answer::Error),
        }
    }

    async fn within(&self, transaction: &Transaction, number: u32, context: &Context) -> Result<Got, Answer> {
        let node = transaction.node;
        let mut slot = transaction.taken.lock().await;
        // What is not put back, because its caller gave up half-way, is closed.
        let Some(mut taken) = slot.take() else { return Err(Answer::Reset) };
        let mut hop = Hop::new(self);
        hop.delay(node, context.draw, 0).await;
        let asked = Asked { within: true, ..Asked::new(number, context.key) };
        let told = self.operate(&mut taken, node, transaction.shard, &asked, &mut hop).await?;
        hop.delay(node, context.draw, 1).await;
        hop.ended();
        *slot = Some(taken);
        told.map(|_| Got::default())
    }

    async fn one_row(
        &self,
        pg: &Postgres,
        operation: &Operation,
        number: u32,
        shard: u32,
        context: &Context,
    ) -> Result<Got, Answer> {
        let asked = Asked::new(number, context.key);
        let primary = self.primary(shard);
        // A real replica locks nothing.
        let locks = self.real.is_some() && operation.lock != Lock::None;
        if operation.write || locks || !pg.reads.from_replicas || pg.replicas == 0 {
            return self.ask_node(primary, &asked, shard, context).await;
        }
        let per_shard = 1 + pg.replicas;
        let first = shard * per_shard;
        let now = self.process.tools.clock.now();
        let mut eligible = Eligible::none(self.pools.len());
        {
            let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
            for node in (first..first + per_shard).map(|node| node as usize) {
                if node != primary && down[node] <= now.as_nanos() {
                    eligible.insert(node);
                }
            }
        }
        let floor = context.wrote(self.store.0).filter(|_| pg.reads.read_your_writes);
        let of_replica = Asked { floor, wait: pg.reads.wait, max_lag: pg.reads.max_lag, replica: true, ..asked };
        let picked = {
            let mut balancer = self.balancer.lock().unwrap_or_else(PoisonError::into_inner);
            let picked = balancer.pick(now, context.session(), context.draw.bits(7), &eligible);
            if let Some(node) = picked {
                balancer.on_start(node, now);
            }
            picked
        };
        let Some(node) = picked else { return self.ask_node(primary, &asked, shard, context).await };
        let done = Ended { asker: self, node, started: now.as_nanos() };
        let got = self.ask_node(node, &of_replica, shard, context).await;
        drop(done);
        match got {
            // It is too far behind.
            Err(Answer::Conflict) => self.ask_node(primary, &asked, shard, context).await,
            got => got,
        }
    }

    pub(super) async fn ask_node(
        &self,
        node: usize,
        asked: &Asked,
        shard: u32,
        context: &Context,
    ) -> Result<Got, Answer> {
        let mut hop = Hop::new(self);
        hop.delay(node, context.draw, 0).await;
        let answered = async {
            let mut taken = hop.without(self.pools[node].take()).await?;
            let told = self.operate(&mut taken, node, shard, asked, &mut hop).await?;
            taken.back();
            Ok(told)
        };
        let told = match answered.await {
            Ok(told) => told,
            Err(answer) => {
                if matches!(answer, Answer::Refused | Answer::Reset) {
                    let until = self.process.tools.clock.now().as_nanos() + DOWN;
                    self.down.lock().unwrap_or_else(PoisonError::into_inner)[node] = until;
                }
                return Err(answer);
            }
        };
        hop.delay(node, context.draw, 1).await;
        hop.ended();
        told.map(|at| Got { at, ..Got::default() })
    }

    /// Commits a transaction. Where it is on the log, if it wrote.
    pub(super) async fn end(&self, transaction: &Transaction) -> Result<Option<(u32, u64)>, Answer> {
        let Some(mut taken) = transaction.taken.lock().await.take() else { return Err(Answer::Reset) };
        if transaction.crosses {
            let shards = self.primaries.lock().unwrap_or_else(PoisonError::into_inner).len() as u32;
            let other = (transaction.shard + 1 + scale(self.process.bits(), shards.max(2) - 1)) % shards;
            let node = self.primary(other);
            let mut second = self.pools[node].take().await?;
            self.second_shard(&mut second).await?;
            second.back();
        }
        let at = self.commit(&mut taken, transaction.node, transaction.shard).await?;
        taken.back();
        Ok(at)
    }

    /// Gives a transaction up.
    pub(super) async fn give_up(&self, transaction: &Transaction) {
        if let Some(mut taken) = transaction.taken.lock().await.take()
            && self.rollback(&mut taken).await.is_ok()
        {
            taken.back();
        }
    }

    // --- a node, by either way of asking it

    async fn begin(&self, taken: &mut Taken, hop: &mut Hop<'_>) -> Result<(), Answer> {
        match &self.real {
            Some(real) => real.begin(taken).await,
            None => self.emulated_begin(taken, hop).await,
        }
    }

    async fn operate(
        &self,
        taken: &mut Taken,
        node: usize,
        shard: u32,
        asked: &Asked,
        hop: &mut Hop<'_>,
    ) -> Result<Told, Answer> {
        match &self.real {
            Some(real) => real.operate(taken, node, shard, asked).await,
            None => self.emulated_operate(taken, shard, asked, hop).await,
        }
    }

    async fn commit(&self, taken: &mut Taken, node: usize, shard: u32) -> Told {
        match &self.real {
            Some(real) => real.commit(taken, node, shard).await,
            None => self.emulated_commit(taken, shard).await,
        }
    }

    async fn rollback(&self, taken: &mut Taken) -> Result<(), Answer> {
        match &self.real {
            Some(real) => real.rollback(taken).await,
            None => taken.ask("/rollback").await.map(drop),
        }
    }

    /// The other shard's part of a two-phase commit: prepared there, and then committed there.
    async fn second_shard(&self, taken: &mut Taken) -> Result<(), Answer> {
        match &self.real {
            Some(real) => real.second_shard(taken).await,
            None => self.emulated_second_shard(taken).await,
        }
    }
}

struct Ended<'a> {
    asker: &'a Asker,
    node: usize,
    started: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let now = self.asker.process.tools.clock.now();
        let took = now.as_nanos() - self.started;
        let mut balancer = self.asker.balancer.lock().unwrap_or_else(PoisonError::into_inner);
        balancer.on_done(self.node, now, took, Outcome::Success, None);
    }
}
