//! An instance's end of an edge to a store: its policies, by the middleware's pipeline, pooled connections, the choice
//! among nodes, transactions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Waker, Poll};

use plimsoll_gateway::redis::Script;
use plimsoll_middleware::{Classify, Permit, PipelineHandle, PipelineLayer, PipelineService, Requests};
use plimsoll_model::draw::{Draw, duration, mix, scale};
use plimsoll_model::system::{Dist, EdgeId, Operation, Postgres, RetryWhen, Store, StoreId, StoreKind, ZoneId};
use plimsoll_policy::circuit_breaker::State as Breaker;
use plimsoll_policy::pipeline::Reply;
use plimsoll_policy::retry::Hint;
use plimsoll_policy::{Balancer, Eligible, InvalidConfig, Outcome, Reason};
use tower_layer::Layer;
use tower_service::Service;

use super::pool::{Pool, Taken};
use crate::answer::Answer;
use crate::caller::{network, tell_breaker};
use crate::context::Context;
use crate::emulated::Process;
use crate::emulated::keys::{LOOKUP, lock_of};
use crate::tally::{Of, Raised};
use crate::wire::client::Answer as Wire;
use crate::wire::resp::Value;
use crate::wire::server::Boxed;

/// An instance's end of an edge to a store.
pub(super) struct StoreEnd {
    asker: Arc<Asker>,
    pipeline: PipelineService<Asking, Repeats, ByAnswer>,
    handle: PipelineHandle,
}

struct Asker {
    process: Process,
    of: Of,
    name: String,
    store: StoreId,
    pools: Vec<Arc<Pool>>,
    /// By shard: the primary's number, and the timeline with where it began.
    primaries: Mutex<Vec<u32>>,
    balancer: Mutex<Balancer>,
    /// By node: until when nobody is sent there, ns.
    down: Mutex<Vec<u64>>,
    delays: Vec<Dist>,
    retry_when: RetryWhen,
    scripts: Mutex<BTreeMap<&'static str, Vec<u8>>>,
    /// Acknowledged commits: shard, timeline and number.
    acknowledged: Mutex<VecDeque<(u32, u32, u64)>>,
}

/// What is asked of a store.
#[derive(Clone)]
pub(super) enum What {
    /// One of its operations.
    Operation(u32),
    /// A transaction, and whether it touches a second shard.
    Begin(bool),
    /// A look into a cache: the key, and how long the right to fetch is good, ms.
    Lookup(Vec<u8>, u64),
    /// A cache's entry, and how long it is kept, ms.
    Set(Vec<u8>, Vec<u8>, u64),
    /// A cache's entry goes.
    Delete(Vec<u8>),
    /// A unit of a quota: its key, and how it is counted.
    Quota(Vec<u8>, Script),
}

/// A request to a store.
#[derive(Clone)]
pub(super) struct Op {
    pub(super) what: What,
    pub(super) context: Context,
    pub(super) transaction: Option<Arc<Transaction>>,
    repeatable: bool,
    attempt: Arc<std::sync::atomic::AtomicU32>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Got {
    /// Where on its shard's log a write is.
    pub(super) at: Option<(u32, u64)>,
    pub(super) transaction: Option<Transaction>,
    pub(super) value: Option<Value>,
}

/// A transaction: one connection until it is over.
pub(super) struct Transaction {
    store: StoreId,
    shard: u32,
    crosses: bool,
    taken: tokio::sync::Mutex<Option<Taken>>,
}

#[derive(Clone)]
struct Asking(Arc<Asker>);

#[derive(Clone, Copy)]
struct Repeats;

#[derive(Clone)]
struct ByAnswer(Arc<Asker>);

impl Requests<Op> for Repeats {
    fn repeat(&self, op: &Op) -> Option<Op> {
        op.repeatable.then(|| op.clone())
    }

    fn key(&self, op: &Op) -> u64 {
        op.context.user_key()
    }
}

impl Classify<Got, Answer> for ByAnswer {
    type Held = Got;

    fn hold(&self, got: Got, _permit: Permit) -> Got {
        got
    }

    fn classify(&self, result: &Result<Got, Answer>) -> Reply {
        let Err(answer) = result else { return Reply::new(Outcome::Success) };
        let when = &self.0.retry_when;
        let retryable = match answer {
            Answer::Refused => when.connect_error,
            Answer::Reset => when.reset,
            Answer::Timeout => when.timeout,
            Answer::TooMany => when.too_many_requests,
            Answer::Error => when.internal_error,
            Answer::Unavailable | Answer::Busy => when.unavailable,
            _ => false,
        };
        Reply { outcome: Outcome::Failure, retryable, hint: Hint::default() }
    }
}

impl Service<Op> for Asking {
    type Response = Got;
    type Error = Answer;
    type Future = Boxed<Result<Got, Answer>>;

    fn poll_ready(&mut self, _: &mut Waker<'_>) -> Poll<Result<(), Answer>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, op: Op) -> Self::Future {
        let asker = self.0.clone();
        Box::pin(async move { asker.attempt(op).await })
    }
}

impl StoreEnd {
    pub(super) fn new(
        process: &Process,
        edge: EdgeId,
        instance: u32,
        zone: Option<ZoneId>,
    ) -> Result<StoreEnd, InvalidConfig> {
        let system = &process.system;
        let of_edge = &system.edges[edge.index()];
        let plimsoll_model::system::Component::Store(store) = of_edge.to else {
            return Err(InvalidConfig { field: "to", expected: "a store" });
        };
        let spec = &system.stores[store.index()];
        let (size, timeout, shards, per_shard) = match &spec.kind {
            StoreKind::Postgres(pg) => (pg.pool, pg.pool_timeout, pg.shards, 1 + pg.replicas),
            StoreKind::Redis(redis) => (redis.pool, redis.pool_timeout, 1, 1),
            // A quorum store's clients have no pool: they talk to all nodes at once.
            StoreKind::Quorum(_) => (tokio::sync::Semaphore::MAX_PERMITS.min(1 << 20) as u32, u64::MAX, 1, 1),
        };
        let keys = matches!(spec.kind, StoreKind::Redis(_));
        let places = process.layout.callees(system, edge, instance);
        let (of, name, tools) = (Of::Edge(edge.0), system.edge_name(edge), &process.tools);
        let pools = places
            .iter()
            .map(|place| Pool::new(*place, keys, size, timeout, of, name.clone(), tools.clone()))
            .collect();
        let zone_of = |at: usize| (!spec.zones.is_empty()).then(|| spec.zones[at % spec.zones.len()]);
        let delays = (0..places.len()).map(|at| network(system, edge, zone, zone_of(at)).clone()).collect();
        let balancer = Balancer::new(of_edge.policies.balance.clone(), places.len(), process.bits())?;
        let asker = Arc::new(Asker {
            of,
            name,
            store,
            pools,
            primaries: Mutex::new((0..shards).map(|shard| shard * per_shard).collect()),
            balancer: Mutex::new(balancer),
            down: Mutex::new(vec![0; places.len()]),
            delays,
            retry_when: of_edge.policies.retry_when,
            scripts: Mutex::default(),
            acknowledged: Mutex::default(),
            process: process.clone(),
        });
        let layer = PipelineLayer::new(of_edge.policies.pipeline)?.requests(Repeats).classify(ByAnswer(asker.clone()));
        let handle = layer.handle();
        Ok(StoreEnd { pipeline: layer.layer(Asking(asker.clone())), handle, asker })
    }

    /// Which store it leads to.
    pub(super) fn store(&self) -> StoreId {
        self.asker.store
    }

    /// Asks through the policies.
    pub(super) async fn ask(
        &self,
        what: What,
        context: Context,
        transaction: Option<Arc<Transaction>>,
    ) -> Result<Got, Answer> {
        let repeatable = match &what {
            What::Operation(number) => {
                let spec = &self.asker.spec().operations[*number as usize];
                !spec.write && transaction.is_none()
            }
            _ => true,
        };
        let op = Op { what, context, transaction, repeatable, attempt: Arc::default() };
        match self.pipeline.clone().call(op).await {
            Ok(got) => Ok(got),
            Err(plimsoll_middleware::Error::Inner(answer)) => Err(answer),
            Err(plimsoll_middleware::Error::Rejected { reason, .. }) => {
                let late = reason == Reason::DeadlineExceeded;
                self.asker.process.tools.tally.count(self.asker.of, |totals| {
                    totals.offered += 1;
                    totals.failed += 1;
                    *(if late { &mut totals.timed_out } else { &mut totals.rejected }) += 1;
                });
                Err(if late { Answer::Timeout } else { Answer::Rejected })
            }
            Err(_) => Err(Answer::Timeout),
        }
    }

    /// Commits a transaction. Where it is on the log, if it wrote.
    pub(super) async fn commit(&self, transaction: &Transaction) -> Result<Option<(u32, u64)>, Answer> {
        let Some(mut taken) = transaction.taken.lock().await.take() else { return Err(Answer::Reset) };
        if transaction.crosses {
            self.asker.second_shard(transaction.shard).await?;
        }
        let answer = taken.ask("/commit").await?;
        if answer.status != 200 {
            return Err(Answer::Unavailable);
        }
        taken.back();
        Ok(self.asker.acknowledge(transaction.shard, &answer))
    }

    /// Gives a transaction up.
    pub(super) async fn rollback(&self, transaction: &Transaction) {
        if let Some(mut taken) = transaction.taken.lock().await.take()
            && taken.ask("/rollback").await.is_ok()
        {
            taken.back();
        }
    }

    /// Other nodes are the primaries from now on: who was acknowledged what is not on their logs has lost it.
    pub(super) fn set_primaries(&self, primaries: &[u32], kept: &[(u32, u64)]) {
        *self.asker.primaries.lock().unwrap_or_else(PoisonError::into_inner) = primaries.to_vec();
        self.asker.down.lock().unwrap_or_else(PoisonError::into_inner).fill(0);
        let acknowledged = self.asker.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = acknowledged.iter().filter(|(shard, timeline, number)| {
            kept.get(*shard as usize).is_some_and(|(of, kept)| timeline < of && number > kept)
        });
        let lost = lost.count() as u64;
        if lost > 0 {
            self.asker.process.tools.tally.count(Of::Store(self.asker.store.0), |totals| totals.lost += lost);
        }
    }

    /// Looks after the breaker, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut before = Breaker::Closed;
        loop {
            let now = self.handle.snapshot().breaker_state.unwrap_or(Breaker::Closed);
            if now == Breaker::Open && before != Breaker::Open {
                self.asker.process.tools.tally.extra(self.asker.of, "trips", 1.0);
            }
            tell_breaker(&self.asker.process.tools.tally, &self.asker.name, before, now);
            before = now;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Asker {
    fn spec(&self) -> &Store {
        &self.process.system.stores[self.store.index()]
    }

    async fn attempt(&self, op: Op) -> Result<Got, Answer> {
        let tools = &self.process.tools;
        let number = op.attempt.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let started = tools.clock.now().as_nanos();
        let _flies = Raised::new(&tools.tally, self.of, "in_flight");
        // Whatever becomes of it, an attempt that was begun is counted.
        let mut counted = Counted { asker: self, started, number, answer: Answer::Timeout };
        let mut context = op.context.clone();
        context.draw = context.draw.part(u64::from(number));
        let result = match &self.spec().kind {
            StoreKind::Postgres(pg) => self.rows(pg, &op, &context).await,
            StoreKind::Redis(_) => self.keys(&op, &context).await,
            StoreKind::Quorum(quorum) => self.quorum(quorum.read, quorum.write, &op, &context).await,
        };
        counted.answer = result.as_ref().map_or_else(|answer| *answer, |_| Answer::Ok);
        drop(counted);
        result
    }

    async fn delay(&self, node: usize, draw: Draw, back: u64) {
        let nanos = self.delays.get(node).map_or(0, |dist| duration(dist, draw.bits(back | 1 << 20)));
        self.process.tools.timer.wait(nanos).await;
    }

    // --- databases

    fn primary(&self, shard: u32) -> usize {
        let primaries = self.primaries.lock().unwrap_or_else(PoisonError::into_inner);
        primaries.get(shard as usize).map_or(0, |node| *node as usize)
    }

    async fn rows(&self, pg: &Postgres, op: &Op, context: &Context) -> Result<Got, Answer> {
        let shard = if pg.shards == 1 { 0 } else { scale(mix(u64::from(context.key) ^ 0x5348_4152), pg.shards) };
        match &op.what {
            What::Begin(crosses) => {
                let node = self.primary(shard);
                self.delay(node, context.draw, 0).await;
                let mut taken = self.pools[node].take().await?;
                let answer = taken.ask("/begin").await?;
                self.delay(node, context.draw, 1).await;
                if answer.status != 200 {
                    return Err(Answer::Unavailable);
                }
                let (store, crosses) = (self.store, *crosses && pg.shards > 1);
                let transaction = Transaction { store, shard, crosses, taken: tokio::sync::Mutex::new(Some(taken)) };
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
                    for got in super::join::all(asks).await {
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
        let node = self.primary(transaction.shard);
        let mut slot = transaction.taken.lock().await;
        // What is not put back, because its caller gave up half-way, is closed.
        let Some(mut taken) = slot.take() else { return Err(Answer::Reset) };
        self.delay(node, context.draw, 0).await;
        let answer = taken.ask(&format!("/op/{number}?key={}", context.key)).await?;
        self.delay(node, context.draw, 1).await;
        *slot = Some(taken);
        if answer.status == 200 { Ok(Got::default()) } else { Err(Answer::Unavailable) }
    }

    async fn one_row(
        &self,
        pg: &Postgres,
        operation: &Operation,
        number: u32,
        shard: u32,
        context: &Context,
    ) -> Result<Got, Answer> {
        let target = format!("/op/{number}?key={}", context.key);
        let primary = self.primary(shard);
        if operation.write || !pg.reads.from_replicas || pg.replicas == 0 {
            return self.ask_node(primary, &target, shard, context).await;
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
        let mut of_replica = target.clone();
        if let Some(most) = pg.reads.max_lag {
            of_replica.push_str(&format!("&max_lag={most}"));
        }
        if pg.reads.read_your_writes
            && let Some((timeline, number)) = context.wrote(self.store.0)
        {
            of_replica.push_str(&format!("&floor={timeline}:{number}&wait={}", pg.reads.wait));
        }
        let picked = {
            let mut balancer = self.balancer.lock().unwrap_or_else(PoisonError::into_inner);
            let picked = balancer.pick(now, context.session(), context.draw.bits(7), &eligible);
            if let Some(node) = picked {
                balancer.on_start(node, now);
            }
            picked
        };
        let Some(node) = picked else { return self.ask_node(primary, &target, shard, context).await };
        let done = Ended { asker: self, node, started: now.as_nanos() };
        let got = self.ask_node(node, &of_replica, shard, context).await;
        drop(done);
        match got {
            // It is too far behind.
            Err(Answer::Conflict) => self.ask_node(primary, &target, shard, context).await,
            got => got,
        }
    }

    async fn ask_node(&self, node: usize, target: &str, shard: u32, context: &Context) -> Result<Got, Answer> {
        self.delay(node, context.draw, 0).await;
        let asked = async {
            let mut taken = self.pools[node].take().await?;
            let answer = taken.ask(target).await?;
            taken.back();
            Ok(answer)
        };
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(answer) => {
                if matches!(answer, Answer::Refused | Answer::Reset) {
                    let until = self.process.tools.clock.now().as_nanos() + DOWN;
                    self.down.lock().unwrap_or_else(PoisonError::into_inner)[node] = until;
                }
                return Err(answer);
            }
        };
        self.delay(node, context.draw, 1).await;
        match answer.status {
            200 => Ok(Got { at: self.acknowledge(shard, &answer), ..Got::default() }),
            421 => Err(Answer::Conflict),
            _ => Err(Answer::Unavailable),
        }
    }

    /// The other shard's part of a two-phase commit.
    async fn second_shard(&self, shard: u32) -> Result<(), Answer> {
        let shards = self.primaries.lock().unwrap_or_else(PoisonError::into_inner).len() as u32;
        let other = (shard + 1 + scale(self.process.bits(), shards.max(2) - 1)) % shards;
        let mut taken = self.pools[self.primary(other)].take().await?;
        // Prepared there, and then committed there.
        for target in ["/begin", "/commit", "/begin", "/commit"] {
            if taken.ask(target).await?.status != 200 {
                return Err(Answer::Unavailable);
            }
        }
        taken.back();
        Ok(())
    }

    fn acknowledge(&self, shard: u32, answer: &Wire) -> Option<(u32, u64)> {
        let (timeline, number) = answer.field("at")?.split_once(':')?;
        let at = (timeline.parse().ok()?, number.parse().ok()?);
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.push_back((shard, at.0, at.1));
        if acknowledged.len() > REMEMBERED {
            acknowledged.pop_front();
        }
        Some(at)
    }

    // --- stores in memory

    async fn keys(&self, op: &Op, context: &Context) -> Result<Got, Answer> {
        self.delay(0, context.draw, 0).await;
        let mut taken = self.pools[0].take().await?;
        let now = crate::clock::wall_ms(self.process.tools.clock).to_string();
        let value = match &op.what {
            What::Lookup(key, right) => {
                let right = right.to_string();
                let parts: [&[u8]; 4] = [key, &lock_of(key), now.as_bytes(), right.as_bytes()];
                self.script(&mut taken, LOOKUP, b"2", &parts).await?
            }
            What::Quota(key, script) => {
                let key = [script.prefix.as_bytes(), key].concat();
                let mut parts: Vec<&[u8]> = vec![&key];
                parts.extend(script.arguments.iter().map(String::as_bytes));
                self.script(&mut taken, script.text, b"1", &parts).await?
            }
            What::Set(key, value, ms) => {
                taken.command(&[b"SET", key, value, b"PX", ms.max(&1).to_string().as_bytes()]).await?
            }
            What::Delete(key) => taken.command(&[b"DEL", key]).await?,
            What::Operation(_) => taken.command(&[b"GET", format!("key:{}", context.key).as_bytes()]).await?,
            What::Begin(_) => return Err(Answer::Error),
        };
        taken.back();
        self.delay(0, context.draw, 1).await;
        match value {
            Value::Error(_) => Err(Answer::Error),
            value => Ok(Got { value: Some(value), ..Got::default() }),
        }
    }

    /// Runs a script, which the server is given first where it does not know it.
    async fn script(
        &self,
        taken: &mut Taken,
        script: &'static str,
        keys: &[u8],
        parts: &[&[u8]],
    ) -> Result<Value, Answer> {
        let known = self.scripts.lock().unwrap_or_else(PoisonError::into_inner).get(script).cloned();
        let mut name = match known {
            Some(name) => name,
            None => self.load(taken, script).await?,
        };
        loop {
            let mut command: Vec<&[u8]> = vec![b"EVALSHA", &name, keys];
            command.extend_from_slice(parts);
            match taken.command(&command).await? {
                Value::Error(why) if why.starts_with("NOSCRIPT") => name = self.load(taken, script).await?,
                value => return Ok(value),
            }
        }
    }

    async fn load(&self, taken: &mut Taken, script: &'static str) -> Result<Vec<u8>, Answer> {
        let Value::Text(name) = taken.command(&[b"SCRIPT", b"LOAD", script.as_bytes()]).await? else {
            return Err(Answer::Error);
        };
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).insert(script, name.clone());
        Ok(name)
    }

    // --- quorum stores

    /// Asks all nodes at once and goes on when enough have answered.
    async fn quorum(&self, read: u32, write: u32, op: &Op, context: &Context) -> Result<Got, Answer> {
        let What::Operation(number) = op.what else { return Err(Answer::Error) };
        let needed = if self.spec().operations[number as usize].write { write } else { read };
        let asks = (0..self.pools.len()).map(|node| {
            let context = Context { draw: context.draw.part(node as u64 | 1 << 43), ..context.clone() };
            let target = format!("/op/{number}?key={}", context.key);
            async move { self.ask_node(node, &target, 0, &context).await }
        });
        super::join::enough(asks, needed as usize).await
    }
}

/// After a failed connection, nobody is sent to a replica for so long, ns.
const DOWN: u64 = 1_000_000_000;
/// Acknowledged commits that are remembered, for the next failover.
const REMEMBERED: usize = 100_000;

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

struct Counted<'a> {
    asker: &'a Asker,
    started: u64,
    number: u32,
    answer: Answer,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let Counted { asker, started, number, answer } = self;
        let took = asker.process.tools.clock.now().as_nanos() - *started;
        asker.process.tools.tally.ended(asker.of, took, |totals| {
            totals.offered += 1;
            totals.retries += u64::from(*number > 0);
            match answer {
                Answer::Ok | Answer::Degraded => totals.ok += 1,
                answer => {
                    totals.failed += 1;
                    totals.rejected += u64::from(answer.is_rejection());
                    totals.timed_out += u64::from(*answer == Answer::Timeout);
                }
            }
        });
    }
}
