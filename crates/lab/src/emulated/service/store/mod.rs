//! An instance's end of an edge to a store: its policies, by the middleware's pipeline, and whom it asks behind them.

mod emulated;
mod hop;
mod keys;
mod ledger;
mod quorum;
mod rows;
pub(super) mod sql;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Waker, Poll};

use plimsoll_gateway::redis::Script;
use plimsoll_middleware::{Classify, Permit, PipelineHandle, PipelineLayer, PipelineService, Requests};
use plimsoll_model::system::{Dist, EdgeId, RetryWhen, Store, StoreId, StoreKind, ZoneId};
use plimsoll_policy::circuit_breaker::State as Breaker;
use plimsoll_policy::pipeline::Reply;
use plimsoll_policy::retry::Hint;
use plimsoll_policy::{Balancer, InvalidConfig, Outcome, Reason};
use tower_layer::Layer;
use tower_service::Service;

use super::pool::{Kind, Pool, Taken};
use crate::answer::Answer;
use crate::caller::{network, tell_breaker};
use crate::context::Context;
use crate::emulated::Process;
use crate::tally::{Of, Raised};
use crate::wire::resp::Value;
use crate::wire::server::Boxed;
use sql::Real;

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
    /// Where the store is a real database.
    real: Option<Arc<Real>>,
    /// How slow faults make a real store in memory.
    slow: Mutex<(f64, u64)>,
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
    attempt: Arc<AtomicU32>,
    /// Whether an attempt has failed.
    failed: Arc<AtomicBool>,
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
    /// The primary that it began on.
    node: usize,
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
        let (kind, real) = match &spec.kind {
            StoreKind::Redis(_) => (Kind::Keys, None),
            StoreKind::Postgres(pg) if process.layout.real[store.index()] => {
                let expected = "a store whose files can be opened in the run's directory";
                let real = Real::new(process, store, pg).map_err(|_| InvalidConfig { field: "to", expected })?;
                (Kind::Sql, Some(Arc::new(real)))
            }
            _ => (Kind::Rows, None),
        };
        let places = process.layout.callees(system, edge, instance);
        let (of, name, tools) = (Of::Edge(edge.0), system.edge_name(edge), &process.tools);
        let pools = places
            .iter()
            .map(|place| Pool::new(*place, kind, size, timeout, of, name.clone(), tools.clone()))
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
            real,
            slow: Mutex::new((1.0, 0)),
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
        let op = Op { what, context, transaction, repeatable, attempt: Arc::default(), failed: Arc::default() };
        let failed = op.failed.clone();
        match self.pipeline.clone().call(op).await {
            Ok(got) => {
                if failed.load(Ordering::Relaxed) {
                    self.asker.process.tools.tally.count(self.asker.of, |totals| totals.rescued += 1);
                }
                Ok(got)
            }
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
        self.asker.end(transaction).await
    }

    /// Gives a transaction up.
    pub(super) async fn rollback(&self, transaction: &Transaction) {
        self.asker.give_up(transaction).await;
    }

    /// Other nodes are the primaries from now on: who was acknowledged what is not on their logs has lost it.
    pub(super) fn set_primaries(&self, primaries: &[u32], kept: &[(u32, u64)]) {
        *self.asker.primaries.lock().unwrap_or_else(PoisonError::into_inner) = primaries.to_vec();
        self.asker.down.lock().unwrap_or_else(PoisonError::into_inner).fill(0);
        if let Some(real) = &self.asker.real {
            return real.moved(primaries, kept);
        }
        let lost = self.asker.emulated_lost(kept);
        if lost > 0 {
            self.asker.process.tools.tally.count(Of::Store(self.asker.store.0), |totals| totals.lost += lost);
        }
    }

    /// Statements of a real store's node are slower from now on.
    pub(super) fn set_slow(&self, node: u32, factor: f64, added: u64) {
        match &self.asker.real {
            Some(real) => real.set_slow(node, factor, added),
            None => *self.asker.slow.lock().unwrap_or_else(PoisonError::into_inner) = (factor, added),
        }
    }

    /// Whether it is not known yet what a failover lost.
    pub(super) fn is_counting(&self) -> bool {
        self.asker.real.as_ref().is_some_and(|real| real.is_counting())
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
    fn edge(&self) -> u32 {
        match self.of {
            Of::Edge(edge) => edge,
            _ => 0,
        }
    }

    fn spec(&self) -> &Store {
        &self.process.system.stores[self.store.index()]
    }

    async fn attempt(self: &Arc<Self>, op: Op) -> Result<Got, Answer> {
        let tools = &self.process.tools;
        let number = op.attempt.fetch_add(1, Ordering::Relaxed);
        let started = tools.clock.now().as_nanos();
        let _flies = Raised::new(&tools.tally, self.of, "in_flight");
        // Whatever becomes of it, an attempt that was begun is counted.
        let mut counted = Counted { asker: self, started, number, answer: Answer::Timeout };
        let mut context = op.context.clone();
        context.draw = context.draw.part(u64::from(number));
        let result = match &self.spec().kind {
            StoreKind::Postgres(pg) => match (self.rows(pg, &op, &context).await, &self.real) {
                // A server without a connection left turns callers away, and says so.
                (Err(Answer::Busy), Some(real)) => {
                    real.refused();
                    Err(Answer::Unavailable)
                }
                (result, _) => result,
            },
            StoreKind::Redis(_) => self.keys(&op, &context).await,
            StoreKind::Quorum(quorum) => self.quorum(quorum.read, quorum.write, &op, &context).await,
        };
        counted.answer = result.as_ref().map_or_else(|answer| *answer, |_| Answer::Ok);
        drop(counted);
        if result.is_err() {
            op.failed.store(true, Ordering::Relaxed);
        }
        result
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
