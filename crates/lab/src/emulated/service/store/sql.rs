//! A database's node that is a real PostgreSQL, as it is asked: a statement for each operation, which spends the described
//! time in the server.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use plimsoll_model::draw::{Draw, duration};
use plimsoll_model::run::EventKind;
use plimsoll_model::system::{Lock, Operation, Postgres, Store, StoreId};
use tokio::task::AbortHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::super::pool::{Link, Taken};
use super::rows::{Asked, Told};
use crate::answer::Answer;
use crate::context::FRESH_KEY;
use crate::emulated::Process;
use crate::postgres::DATABASE;
use crate::store::board::{Beat, Board};
use crate::store::schema::{statement, table, tables};
use crate::tally::Of;

/// Acknowledged rows that are remembered, for the next failover.
const REMEMBERED: usize = 100_000;
/// While a replica is waited for it is asked again after so long, ns.
const AGAIN: u64 = 2_000_000;

/// Where a node's log is, in bytes. On a primary that is what it has on disk: its commits until now are there, and others'
/// unfinished transactions are not waited for.
const WRITTEN: &str = "SELECT (pg_current_wal_flush_lsn() - '0/0')::int8";
const REPLAYED: &str = "SELECT (COALESCE(pg_last_wal_replay_lsn(), '0/0') - '0/0')::int8";

/// A connection.
pub(in super::super) struct SqlLink {
    pub(super) client: Client,
    /// The task that has the socket.
    connection: AbortHandle,
    statements: BTreeMap<u32, Statement>,
    /// What its transaction has written: table, key, version.
    wrote: Vec<(u32, u32, u64)>,
    /// And the number of it in the ledger.
    number: Option<i64>,
}

impl std::fmt::Debug for SqlLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqlLink")
    }
}

impl Drop for SqlLink {
    fn drop(&mut self) {
        // By itself it would wait for the answer to a statement that nobody wants any more.
        self.connection.abort();
    }
}

impl SqlLink {
    /// Connects. Dropped, it is closed, and the server gives up what it does for it.
    pub(in super::super) async fn connect(at: SocketAddr) -> Result<SqlLink, Answer> {
        let mut config = Config::new();
        config.host(at.ip().to_string()).port(at.port()).user(DATABASE).dbname(DATABASE);
        config.application_name("plimsoll service");
        let (client, connection) = config.connect(NoTls).await.map_err(|error| match error.as_db_error() {
            Some(error) if error.code().code() == TOO_MANY => Answer::Busy,
            _ => Answer::Refused,
        })?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(SqlLink { client, connection, statements: BTreeMap::new(), wrote: Vec::new(), number: None })
    }

    pub(in super::super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// `too_many_connections`
const TOO_MANY: &str = "53300";

/// An instance's side of a real database.
pub(super) struct Real {
    pub(super) process: Process,
    pub(super) store: StoreId,
    statements: Vec<String>,
    /// By node: how slow faults make its statements.
    slow: Mutex<Vec<(f64, u64)>>,
    /// By shard.
    pub(super) timelines: Mutex<Vec<u32>>,
    beats: Vec<Beat>,
    boards: BTreeMap<u32, Board>,
    /// The first number of this process in ledgers, and the next.
    pub(super) first: i64,
    pub(super) next: AtomicI64,
    /// Rows of ledgers whose commit was acknowledged: shard, timeline, number.
    pub(super) acknowledged: Mutex<VecDeque<(u32, u32, i64)>>,
    /// Ledgers that are being looked through.
    pub(super) counting: AtomicU32,
    refused: AtomicBool,
    /// By node: how far it has been seen to be.
    shown: Vec<Mutex<Shown>>,
}

/// How far a replica shows the log.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    /// On this timeline: another may be shorter.
    timeline: u32,
    at: u64,
    /// When somebody last asked it, ns.
    asked: u64,
}

impl Shown {
    /// What is known of it, and whether it is time to ask: one asks for all who wait.
    fn look(&mut self, timeline: u32, at: u64, now: u64) -> (u64, bool) {
        if self.timeline != timeline {
            *self = Shown { timeline, ..Shown::default() };
        }
        let asks = self.at < at && now >= self.asked + AGAIN;
        if asks {
            self.asked = now;
        }
        (self.at, asks)
    }

    fn saw(&mut self, timeline: u32, at: u64) {
        if self.timeline == timeline {
            self.at = self.at.max(at);
        }
    }
}

impl Real {
    pub(super) fn new(process: &Process, store: StoreId, pg: &Postgres) -> std::io::Result<Real> {
        let spec = &process.system.stores[store.index()];
        let beats = (0..pg.shards).map(|shard| Beat::open(&process.own, store.0, shard));
        let boards = tables(spec).into_iter().map(|table| Ok((table, Board::open(&process.own, store.0, table)?)));
        // No two processes count from the same number.
        let first = (process.bits() >> 1) as i64 & !0xffff_ffff;
        Ok(Real {
            statements: spec.operations.iter().map(statement).collect(),
            slow: Mutex::new(vec![(1.0, 0); (pg.shards * (1 + pg.replicas)) as usize]),
            timelines: Mutex::new(vec![1; pg.shards as usize]),
            beats: beats.collect::<std::io::Result<_>>()?,
            boards: boards.collect::<std::io::Result<_>>()?,
            first,
            next: AtomicI64::new(first),
            acknowledged: Mutex::default(),
            counting: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            shown: (0..pg.shards * (1 + pg.replicas)).map(|_| Mutex::default()).collect(),
            process: process.clone(),
            store,
        })
    }

    fn spec(&self) -> &Store {
        &self.process.system.stores[self.store.index()]
    }

    fn timeline(&self, shard: u32) -> u32 {
        self.timelines.lock().unwrap_or_else(PoisonError::into_inner)[shard as usize]
    }

    pub(super) fn set_slow(&self, node: u32, factor: f64, added: u64) {
        if let Some(slow) = self.slow.lock().unwrap_or_else(PoisonError::into_inner).get_mut(node as usize) {
            *slow = (factor, added);
        }
    }

    /// What a statement on a node takes, s. The server sleeps whole milliseconds: the rest is a matter of chance, and so
    /// the mean is right.
    fn seconds(&self, node: usize, operation: &Operation) -> f64 {
        let (factor, added) = self.slow.lock().unwrap_or_else(PoisonError::into_inner)[node];
        let takes = duration(&operation.time, self.process.bits()) as f64 * factor + added as f64;
        let millis = takes / 1e6;
        let more = Draw(self.process.bits()).happens(0, millis.fract());
        (millis.trunc() + f64::from(u8::from(more))) / 1e3
    }

    pub(super) async fn begin(&self, taken: &mut Taken) -> Result<(), Answer> {
        let link = link(taken)?;
        link.wrote.clear();
        link.number = None;
        link.client.batch_execute("BEGIN").await.map_err(|error| self.answer(&error))
    }

    pub(super) async fn operate(
        &self,
        taken: &mut Taken,
        node: usize,
        shard: u32,
        asked: &Asked,
    ) -> Result<Told, Answer> {
        let counted = Counted::new(self, node);
        let told = self.answered(link(taken)?, node, shard, asked).await;
        counted.ended(&told);
        if matches!(told, Ok((Ok(_), _))) && !self.spec().operations[asked.number as usize].write {
            self.process.tools.tally.count(Of::Node(self.store.0, node as u32), |totals| {
                totals.reads += 1;
                totals.replica_reads += u64::from(asked.replica);
            });
        }
        match told {
            Ok((told, _)) => Ok(told),
            Err(answer) => Err(answer),
        }
    }

    /// What came of an operation, and whether it is stale.
    async fn answered(
        &self,
        link: &mut SqlLink,
        node: usize,
        shard: u32,
        asked: &Asked,
    ) -> Result<(Told, bool), Answer> {
        let failed = |error: tokio_postgres::Error| self.answer(&error);
        let operation = &self.spec().operations[asked.number as usize];
        let timeline = self.timeline(shard);
        if let Some((of, at)) = asked.floor
            && of >= timeline
            && !self.has_replayed(link, node, (of, at), asked.wait).await?
        {
            return Ok((Err(Answer::Conflict), false));
        }
        let statement = match link.statements.get(&asked.number) {
            Some(statement) => statement.clone(),
            None => {
                let types = [Type::INT8, Type::FLOAT8, Type::INT8];
                let text = &self.statements[asked.number as usize];
                let new = link.client.prepare_typed(text, &types).await.map_err(failed)?;
                link.statements.insert(asked.number, new.clone());
                new
            }
        };
        let alone = operation.lock == Lock::Table;
        if alone {
            let begin = if asked.within { "" } else { "BEGIN; " };
            let lock = format!("{begin}LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", table(operation.table));
            link.client.batch_execute(&lock).await.map_err(failed)?;
        }
        let key = i64::from(asked.key);
        let seconds = self.seconds(node, operation);
        // Of a transaction one row is enough.
        let number = (operation.write && link.number.is_none()).then(|| self.next.fetch_add(1, Ordering::Relaxed));
        let third = if operation.write { number } else { Some(self.oldest(shard, asked)) };
        let row = link.client.query_one(&statement, &[&key, &seconds, &third]).await.map_err(failed)?;
        let version = row.get::<_, Option<i64>>(0).unwrap_or(0).max(0) as u64;
        if !row.get::<_, bool>(1) {
            return Ok((Err(Answer::Conflict), false));
        }
        if operation.write {
            link.wrote.push((operation.table, asked.key, version));
            link.number = link.number.or(number);
        }
        if alone && !asked.within {
            link.client.batch_execute("COMMIT").await.map_err(failed)?;
        }
        let mut at = None;
        if operation.write && !asked.within {
            at = self.acknowledge(link, shard, timeline).await?;
        }
        let newest = self.boards.get(&operation.table).filter(|_| asked.replica && asked.key & FRESH_KEY == 0);
        let stale = newest.and_then(|board| board.newest(asked.key, timeline)).is_some_and(|newest| version < newest);
        Ok((Ok(at), stale))
    }

    /// Waits until a replica shows what a session wrote. It is asked in a statement of its own: the next one sees at least
    /// as much.
    async fn has_replayed(
        &self,
        link: &SqlLink,
        node: usize,
        (timeline, at): (u32, u64),
        wait: u64,
    ) -> Result<bool, Answer> {
        let clock = self.process.tools.clock;
        let until = clock.now().plus_nanos(wait);
        let shown = || self.shown[node].lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (mut known, asks) = shown().look(timeline, at, clock.now().as_nanos());
            if asks {
                known = position(&link.client, REPLAYED).await.map_err(|error| self.answer(&error))?;
                shown().saw(timeline, known);
            }
            if known >= at {
                return Ok(true);
            }
            if clock.now() >= until {
                return Ok(false);
            }
            self.process.tools.timer.wait(AGAIN).await;
        }
    }

    /// The oldest beat at which a replica is read.
    fn oldest(&self, shard: u32, asked: &Asked) -> i64 {
        let newest = self.beats[shard as usize].newest();
        let oldest = asked.max_lag.filter(|_| asked.replica).map(|most| newest.saturating_sub(most));
        oldest.map_or(0, |oldest| i64::try_from(oldest).unwrap_or(i64::MAX))
    }

    pub(super) async fn commit(&self, taken: &mut Taken, node: usize, shard: u32) -> Told {
        let counted = Counted::new(self, node);
        let timeline = self.timeline(shard);
        let told = async {
            let link = link(taken)?;
            link.client.batch_execute("COMMIT").await.map_err(|error| self.answer(&error))?;
            if link.wrote.is_empty() { Ok(None) } else { self.acknowledge(link, shard, timeline).await }
        };
        let told = told.await.map(|at| (Ok(at), false));
        counted.ended(&told);
        told.and_then(|(told, _)| told)
    }

    /// A commit was acknowledged. Where it is on the log, for sessions that read what they wrote.
    async fn acknowledge(&self, link: &mut SqlLink, shard: u32, timeline: u32) -> Told {
        for (table, key, version) in std::mem::take(&mut link.wrote) {
            if let Some(board) = self.boards.get(&table).filter(|_| key & FRESH_KEY == 0) {
                board.record(key, timeline, version);
            }
        }
        if let Some(number) = link.number.take() {
            let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            acknowledged.push_back((shard, timeline, number));
            if acknowledged.len() > REMEMBERED {
                acknowledged.pop_front();
            }
        }
        let plimsoll_model::system::StoreKind::Postgres(pg) = &self.spec().kind else { return Ok(None) };
        if !pg.reads.read_your_writes {
            return Ok(None);
        }
        let at = position(&link.client, WRITTEN).await.map_err(|error| self.answer(&error))?;
        Ok(Some((timeline, at)))
    }

    pub(super) async fn rollback(&self, taken: &mut Taken) -> Result<(), Answer> {
        let link = link(taken)?;
        link.wrote.clear();
        link.number = None;
        link.client.batch_execute("ROLLBACK").await.map_err(|error| self.answer(&error))
    }

    pub(super) async fn second_shard(&self, taken: &mut Taken) -> Result<(), Answer> {
        let link = link(taken)?;
        for _ in 0..2 {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let text = format!("INSERT INTO plimsoll_ledger VALUES ({number})");
            link.client.batch_execute(&text).await.map_err(|error| self.answer(&error))?;
        }
        Ok(())
    }

    /// What a caller makes of an error, as of an emulated store's.
    pub(super) fn answer(&self, error: &tokio_postgres::Error) -> Answer {
        let Some(error) = error.as_db_error() else { return Answer::Reset };
        match error.code().code() {
            // A server that shuts down or starts.
            "57P01" | "57P02" | "57P03" => Answer::Reset,
            // No connection is left, it is a replica now, or replay was in the way.
            TOO_MANY | "25006" | "40001" => Answer::Unavailable,
            _ => Answer::Error,
        }
    }

    /// A node has no connection left.
    pub(super) fn refused(&self) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            let text = "too many connections: all of max_connections are taken";
            self.process.tools.tally.happened(EventKind::PoolExhausted, &*self.spec().name, text);
        }
    }
}

/// A position in the log.
async fn position(client: &Client, sql: &str) -> Result<u64, tokio_postgres::Error> {
    let row = client.query_typed_one(sql, &[]).await?;
    Ok(row.get::<_, i64>(0).max(0) as u64)
}

fn link(taken: &mut Taken) -> Result<&mut SqlLink, Answer> {
    match &mut taken.link {
        Link::Sql(link) => Ok(link),
        _ => Err(Answer::Error),
    }
}

/// Counts an operation about its node.
struct Counted<'r> {
    real: &'r Real,
    of: Of,
    started: u64,
}

impl<'r> Counted<'r> {
    fn new(real: &'r Real, node: usize) -> Counted<'r> {
        let of = Of::Node(real.store.0, node as u32);
        real.process.tools.tally.count(of, |totals| totals.offered += 1);
        Counted { real, of, started: real.process.tools.clock.now().as_nanos() }
    }

    fn ended(self, told: &Result<(Told, bool), Answer>) {
        let tools = &self.real.process.tools;
        let took = tools.clock.now().as_nanos() - self.started;
        tools.tally.ended(self.of, took, |totals| match told {
            Ok((Ok(_), stale)) => {
                totals.ok += 1;
                totals.stale += u64::from(*stale);
            }
            _ => totals.failed += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_for_all_who_wait() {
        let mut shown = Shown::default();
        assert_eq!(shown.look(1, 10, AGAIN), (0, true));
        assert_eq!(shown.look(1, 10, 2 * AGAIN - 1), (0, false), "somebody has just asked");
        shown.saw(1, 9);
        assert_eq!(shown.look(1, 9, 2 * AGAIN - 1), (9, false), "that is known");
        assert_eq!(shown.look(1, 10, 2 * AGAIN), (9, true));
        shown.saw(1, 12);
        // What was seen before a promotion says nothing of the log after it.
        assert_eq!(shown.look(2, 11, 3 * AGAIN), (0, true));
        shown.saw(1, 12);
        assert_eq!(shown.look(2, 11, 3 * AGAIN), (0, false));
    }
}
