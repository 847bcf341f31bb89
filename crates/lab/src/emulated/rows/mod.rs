//! A database's node in memory: it takes the time that the file says, has a number of connections and of places to
//! run, locks, commits, and has replicas that lag. It has no rows, only their keys.
//!
//! | request | answer |
//! |---|---|
//! | `POST /op/N?key=K&wait=NS&max_lag=NS&floor=T:N` | 200; 421 from a replica that is too far behind; 409 for a write to a replica |
//! | `POST /begin`, `/commit`, `/rollback` | a transaction, which is the connection's |
//! | `POST /replicate` | from the primary: what it has committed |

mod locks;
mod log;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use plimsoll_model::draw::duration;
use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Dist, Lock, Scalability, Store, StoreKind};
use tokio::sync::Semaphore;

use super::{CannotRun, Process};
use crate::answer::Took;
use crate::context::FRESH_KEY;
use crate::control::{self, Controlled, Order, State};
use crate::layout::Place;
use crate::tally::{Of, Time};
use crate::wire::server::{Boxed, Handler, listen, serve};
use locks::{Locks, Taken};
use log::Log;

/// Where on the log an answer is: `1:42`, a timeline and a number.
const AT: &str = "x-plimsoll-at";
/// On answers of a replica that had not shown the last write of the key.
const STALE: &str = "x-plimsoll-stale";

pub(super) struct Node {
    process: Process,
    of: Of,
    store: u32,
    name: String,
    /// How many nodes its shard has, the first of them, and itself among them.
    shard: (u32, u32, u32),
    places: Semaphore,
    places_all: u32,
    running: AtomicU32,
    scalability: Option<Scalability>,
    commit: Dist,
    synchronous: bool,
    max_connections: u32,
    connections: AtomicU32,
    /// Whether others have every connection that was left.
    exhausted: AtomicBool,
    refused: AtomicBool,
    slow: Mutex<(f64, u64)>,
    locks: Locks,
    log: Log,
    in_flight: AtomicU64,
    migrations: Mutex<Vec<(u32, Taken)>>,
}

/// What a connection has open. Dropped with it.
struct Session {
    node: Arc<Node>,
    /// It came when none was left.
    late: bool,
    transaction: Mutex<Option<Transaction>>,
}

#[derive(Default)]
struct Transaction {
    keys: Vec<u32>,
    locks: Vec<Taken>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.node.connections.fetch_sub(1, Ordering::Relaxed);
        self.node.process.tools.tally.level(self.node.of, "max_connections", -1);
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) async fn run(
    process: Process,
    place: Place,
    store: u32,
    node: u32,
    primary: bool,
    timeline: u32,
    own: &Path,
) -> Result<(), CannotRun> {
    let spec: &Store = &process.system.stores[store as usize];
    let (concurrency, scalability, per_shard) = match &spec.kind {
        StoreKind::Postgres(pg) => (pg.concurrency, pg.scalability, 1 + pg.replicas),
        StoreKind::Quorum(quorum) => (quorum.concurrency, quorum.scalability, 1),
        StoreKind::Redis(_) => return Err(CannotRun::Io(std::io::Error::other("it has no rows"))),
    };
    let (commit, synchronous, max_connections) = match &spec.kind {
        StoreKind::Postgres(pg) => (pg.commit.clone(), pg.synchronous, pg.max_connections),
        _ => (Dist::Constant(0), false, u32::MAX),
    };
    let (first, number) = (node / per_shard * per_shard, node % per_shard);
    let peers: Vec<_> = (first..first + per_shard).map(|n| process.layout.stores[store as usize][n as usize]).collect();
    let log =
        Log::new(&process, spec, peers, number, own.join(format!("store-{store}-{node}.log")), primary, timeline)?;
    let node = Arc::new(Node {
        of: Of::Node(store, node),
        store,
        name: crate::names::node(&process.system, store, node),
        shard: (per_shard, first, number),
        places: Semaphore::new(concurrency as usize),
        places_all: concurrency,
        running: AtomicU32::new(0),
        scalability,
        commit,
        synchronous,
        max_connections,
        connections: AtomicU32::new(0),
        exhausted: AtomicBool::new(false),
        refused: AtomicBool::new(false),
        slow: Mutex::new((1.0, 0)),
        locks: Locks::default(),
        log,
        in_flight: AtomicU64::new(0),
        migrations: Mutex::default(),
        process,
    });
    let listener = listen(place.main)?;
    let tally = node.process.tools.tally.clone();
    tokio::spawn(control::answer(place.control, tally, node.clone()));
    node.log.start();
    serve(listener, true, move || node.clone().connection()).await;
    Ok(())
}

impl Node {
    /// A connection, if it takes one more. What it has of others does not count.
    fn connection(self: Arc<Self>) -> Option<Handler> {
        let session = {
            self.connections.fetch_add(1, Ordering::Relaxed);
            self.process.tools.tally.level(self.of, "max_connections", 1);
            let late = self.exhausted.load(Ordering::Relaxed);
            Arc::new(Session { node: self, late, transaction: Mutex::default() })
        };
        let handler: Handler = Box::new(move |request| {
            let session = session.clone();
            let future: Boxed<Response<Bytes>> = Box::pin(async move { session.answer(request).await });
            future
        });
        Some(handler)
    }
}

/// What a node is to the others.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Primary,
    Replica,
}

impl Session {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let node = &self.node;
        let path = request.uri().path();
        if path == "/replicate" {
            return plain(match node.log.replicated(request.body()) {
                Ok(()) => StatusCode::OK,
                Err(()) => StatusCode::BAD_REQUEST,
            });
        }
        let exhausted = self.late && node.exhausted.load(Ordering::Relaxed);
        if exhausted || node.connections.load(Ordering::Relaxed) > node.max_connections.saturating_add(node.shard.0) {
            if !node.refused.swap(true, Ordering::Relaxed) {
                let text = "too many connections: all of max_connections are taken";
                node.process.tools.tally.happened(EventKind::PoolExhausted, &*node.name, text);
            }
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            return response;
        }
        let started = node.process.tools.clock.now().as_nanos();
        let counted = !matches!(path, "/begin" | "/rollback");
        let read = self.reads(path);
        if counted {
            node.process.tools.tally.count(node.of, |totals| totals.offered += 1);
        }
        let flight = Flight::new(node);
        let answered = match path {
            "/begin" => {
                *self.lock() = Some(Transaction::default());
                if node.log.is_primary() { Ok(Response::default()) } else { Err(StatusCode::CONFLICT) }
            }
            "/commit" => self.commit().await,
            "/rollback" => {
                *self.lock() = None;
                Ok(Response::default())
            }
            path => match path.strip_prefix("/op/").and_then(|number| number.parse().ok()) {
                Some(operation) => self.operation(operation, request.uri().query().unwrap_or_default()).await,
                None => Err(StatusCode::NOT_FOUND),
            },
        };
        drop(flight);
        let took = node.process.tools.clock.now().as_nanos() - started;
        if counted {
            let stale = answered.as_ref().is_ok_and(|response| response.headers().contains_key(STALE));
            node.process.tools.tally.ended(node.of, took, |totals| match &answered {
                Ok(_) => {
                    totals.ok += 1;
                    totals.stale += u64::from(stale);
                    totals.reads += u64::from(read.is_some());
                    totals.replica_reads += u64::from(read == Some(Role::Replica));
                }
                Err(_) => totals.failed += 1,
            });
        }
        let mut response = answered.unwrap_or_else(plain);
        // A commit says what it waited for others; the rest is the commit's own time, and the way there and back.
        if path != "/commit" {
            Took { nanos: took, logical: 0 }.put(&mut response);
        }
        response
    }

    /// As what the node answers a read; none if it is asked for something else.
    fn reads(&self, path: &str) -> Option<Role> {
        let number: usize = path.strip_prefix("/op/")?.parse().ok()?;
        let operation = self.node.process.system.stores[self.node.store as usize].operations.get(number)?;
        let role = if self.node.log.is_primary() { Role::Primary } else { Role::Replica };
        (!operation.write).then_some(role)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Transaction>> {
        self.transaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn operation(&self, number: usize, query: &str) -> Result<Response<Bytes>, StatusCode> {
        let node = &self.node;
        let spec = &node.process.system.stores[node.store as usize];
        let operation = spec.operations.get(number).ok_or(StatusCode::NOT_FOUND)?;
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let nanos = |name: &str| value(name).and_then(|value| value.parse::<u64>().ok());
        let key = value("key").and_then(|key| key.parse().ok()).unwrap_or(FRESH_KEY);
        let primary = node.log.is_primary();
        if operation.write && !primary {
            return Err(StatusCode::CONFLICT);
        }
        if !primary {
            let floor = value("floor").and_then(|floor| {
                let (timeline, number) = floor.split_once(':')?;
                Some((timeline.parse().ok()?, number.parse().ok()?))
            });
            node.log.caught_up(floor, nanos("wait").unwrap_or(0), nanos("max_lag")).await?;
        }
        let mut taken = node.locks.take(operation.table, operation.lock, key).await;
        node.work(&operation.time, Some(Time::Operation(node.store, number as u32))).await;
        let stale = !operation.write && node.log.is_stale(key);
        let mut response = Response::new(Bytes::new());
        let in_transaction = {
            let mut transaction = self.lock();
            if let Some(transaction) = &mut *transaction {
                transaction.locks.append(&mut taken);
                if operation.write {
                    transaction.keys.push(key);
                }
                true
            } else {
                false
            }
        };
        if operation.write && !in_transaction {
            if !node.log.is_primary() {
                return Err(StatusCode::CONFLICT);
            }
            let at = node.log.commit(&[key], node.synchronous).await;
            put_at(&mut response, at);
        }
        if stale {
            response.headers_mut().insert(STALE, HeaderValue::from_static("1"));
        }
        // What it locked is free once the commit is through.
        drop(taken);
        Ok(response)
    }

    async fn commit(&self) -> Result<Response<Bytes>, StatusCode> {
        let node = &self.node;
        let keys = self.lock().as_mut().map(|transaction| std::mem::take(&mut transaction.keys));
        let keys = keys.ok_or(StatusCode::CONFLICT)?;
        node.work(&node.commit, None).await;
        let worked = node.process.tools.clock.now();
        if !node.log.is_primary() {
            *self.lock() = None;
            return Err(StatusCode::CONFLICT);
        }
        let mut response = Response::new(Bytes::new());
        if !keys.is_empty() {
            let at = node.log.commit(&keys, node.synchronous).await;
            put_at(&mut response, at);
        }
        *self.lock() = None;
        Took { nanos: node.process.tools.clock.now().nanos_since(worked), logical: 0 }.put(&mut response);
        Ok(response)
    }
}

impl Node {
    /// A place to run, and the time that it takes.
    async fn work(&self, time: &Dist, what: Option<Time>) {
        let tools = &self.process.tools;
        tools.tally.level(self.of, "queue", 1);
        let waits = Waits(self);
        // The semaphore is never closed.
        let permit = self.places.acquire().await;
        drop(waits);
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        let busy = Busy(self);
        tools.tally.level(self.of, "concurrency", 1);
        let slow = *self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let mut takes = duration(time, self.process.bits()) as f64 * slow.0 + slow.1 as f64;
        if let Some(law) = self.scalability {
            takes *= law.stretch(f64::from(running.min(self.places_all)));
        }
        let began = tools.clock.now();
        tools.timer.wait(takes as u64).await;
        if let Some(what) = what {
            tools.tally.took(what, tools.clock.now().nanos_since(began));
        }
        drop(busy);
        drop(permit);
    }
}

struct Waits<'n>(&'n Node);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.process.tools.tally.level(self.0.of, "queue", -1);
    }
}

struct Busy<'n>(&'n Node);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.process.tools.tally.level(self.0.of, "concurrency", -1);
    }
}

struct Flight<'n>(&'n Node);

impl<'n> Flight<'n> {
    fn new(node: &'n Node) -> Flight<'n> {
        node.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight(node)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn put_at(response: &mut Response<Bytes>, (timeline, number): (u32, u64)) {
    if let Ok(value) = HeaderValue::from_str(&format!("{timeline}:{number}")) {
        response.headers_mut().insert(AT, value);
    }
}

fn plain(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

impl Controlled for Node {
    fn state(&self) -> State {
        State {
            ready: true,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            slow: *self.slow.lock().unwrap_or_else(PoisonError::into_inner),
            commits: self.log.commits(),
            primary: self.log.is_primary(),
            note: self.log.lag().to_string(),
            ..State::default()
        }
    }

    fn obey(&self, order: Order) -> Result<(), String> {
        match order {
            Order::Slow(factor, added) => {
                *self.slow.lock().unwrap_or_else(PoisonError::into_inner) = (factor, added);
                self.log.set_slow(factor, added);
            }
            Order::Promote(timeline) => self.log.promote(timeline),
            Order::Follow(number) => self.log.follow(number),
            Order::Lag(by) => self.log.set_lag(by),
            Order::Lock(table, true) => {
                // A migration waits for its turn as everybody does, and others wait behind it.
                let wanted = self.locks.table_for_itself(table);
                let mut migrations = self.migrations.lock().unwrap_or_else(PoisonError::into_inner);
                migrations.push((table, wanted));
            }
            Order::Lock(table, false) => {
                let mut migrations = self.migrations.lock().unwrap_or_else(PoisonError::into_inner);
                migrations.retain(|(held, _)| *held != table);
            }
            Order::Exhaust(exhausted) => self.exhausted.store(exhausted, Ordering::Relaxed),
            other => return Err(format!("a node of a database does not know {other:?}")),
        }
        Ok(())
    }
}

/// Locks that an operation takes: whether a row's, a table's or none.
fn wants(lock: Lock, key: u32) -> (bool, bool) {
    (lock == Lock::Table, lock == Lock::Row && key & FRESH_KEY == 0)
}
