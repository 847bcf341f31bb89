//! How real stores are started: all at once, with what the system file says of them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_model::draw::duration;
use plimsoll_model::system::{Postgres, Redis as Memory, StoreKind, System};

use super::{Part, Shard, Stores, lock};
use crate::clock::Clock;
use crate::layout::Layout;
use crate::postgres::{self, Cluster, Heartbeat, PATIENCE};
use crate::process::Supervisor;
use crate::redis::{self, Redis};
use crate::stack::StackError;
use crate::store::board::Beat;
use crate::store::schema;
use crate::store::watch::Watch;
use crate::tally::{Of, Tally};

/// Connections of a server that are kept for the run, beside those of the system file.
const KEPT: u32 = 5;
/// Of them, those that the run has all the time.
const OWN: u32 = 3;
/// What a Redis needs without keys, and what a small entry takes in it, both with its times, bytes.
const BARE: u64 = 3 << 20;
const ENTRY: u64 = 160;

impl Stores {
    /// Starts all that are real, at once, with what the system file says of them.
    pub(crate) fn start(system: &System, layout: &Layout, supervisor: &Arc<Supervisor>) -> Result<Stores, StackError> {
        let tally = Arc::new(Tally::new(Clock::start()));
        let mut stores = Stores {
            tally: tally.clone(),
            per_shard: BTreeMap::new(),
            shards: BTreeMap::new(),
            memories: BTreeMap::new(),
            watches: Vec::new(),
            nodes: Mutex::default(),
        };
        let (mut shards, mut memories) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            let (mut databases, mut caches) = (Vec::new(), Vec::new());
            for at in (0..system.stores.len() as u32).filter(|at| layout.real[*at as usize]) {
                match &system.stores[at as usize].kind {
                    StoreKind::Postgres(pg) => databases.extend((0..pg.shards).map(|shard| {
                        let tally = tally.clone();
                        let start = move || Shard::start(system, layout, supervisor, tally, (at, shard), pg);
                        ((at, shard), scope.spawn(start))
                    })),
                    StoreKind::Redis(memory) => {
                        let start = move || start_memory(system, layout, supervisor, at, memory);
                        caches.push((at, scope.spawn(start)));
                    }
                    StoreKind::Quorum(_) => {}
                }
            }
            shards.extend(databases.into_iter().map(|(at, thread)| (at, thread.join())));
            memories.extend(caches.into_iter().map(|(at, thread)| (at, thread.join())));
        });
        for (at, started) in shards {
            let shard = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let count = lock(&shard.cluster).count() as u32;
            stores.per_shard.insert(at.0, count);
            (0..count).for_each(|node| stores.add(Part::Node(at.0, at.1 * count + node)));
            stores.shards.insert(at, shard);
        }
        for (at, started) in memories {
            let memory = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            stores.add(Part::Node(at, 0));
            stores.watches.push(Watch::memory(memory.address(), Of::Node(at, 0), tally.clone())?);
            stores.memories.insert(at, Mutex::new(memory));
        }
        Ok(stores)
    }
}

impl Shard {
    fn start(
        system: &System,
        layout: &Layout,
        supervisor: &Arc<Supervisor>,
        tally: Arc<Tally>,
        (store, shard): (u32, u32),
        pg: &Postgres,
    ) -> Result<Shard, StackError> {
        let spec = &system.stores[store as usize];
        let per_shard = 1 + pg.replicas;
        let places = &layout.stores[store as usize][(shard * per_shard) as usize..((shard + 1) * per_shard) as usize];
        let name = if pg.shards > 1 { format!("{}.shard{}", spec.name, shard + 1) } else { spec.name.clone() };
        let cluster = Cluster::start(
            supervisor,
            postgres::Options {
                // No other part's name ends like this.
                name: format!("{name}.node"),
                replicas: pg.replicas as usize,
                max_connections: pg.max_connections + KEPT + OWN,
                synchronous: usize::from(pg.synchronous),
                settings: vec![("superuser_reserved_connections".to_owned(), KEPT.to_string())],
                ports: places.iter().map(|place| place.main.port()).collect(),
                ..postgres::Options::default()
            },
        )?;
        cluster
            .connect(0)?
            .run(&schema::create(spec, pg.concurrency), PATIENCE)
            .map_err(postgres::PostgresError::from)?;
        let heartbeat = if pg.replicas > 0 {
            let beat = Beat::open(supervisor.directory(), store, shard)?;
            Some(Arc::new(Heartbeat::start(&cluster, move |at| beat.set(at))?))
        } else {
            None
        };
        let usual = duration(&pg.replication_lag, u64::MAX / 2);
        let mut watches = Vec::new();
        for node in 0..cluster.count() {
            if node > 0 {
                // Before it lags it has the tables.
                cluster.catch_up(node)?;
                cluster.delay_apply(node, Duration::from_nanos(usual))?;
            }
            let (sql, of) = (cluster.sql().clone(), Of::Node(store, shard * per_shard + node as u32));
            watches.push(Watch::start(sql, cluster.address(node), of, tally.clone(), heartbeat.clone())?);
        }
        let more = AtomicU64::new(0);
        Ok(Shard {
            cluster: Mutex::new(cluster),
            usual,
            more,
            locks: Mutex::default(),
            exhausted: Mutex::default(),
            watches,
        })
    }
}

fn start_memory(
    system: &System,
    layout: &Layout,
    supervisor: &Arc<Supervisor>,
    store: u32,
    memory: &Memory,
) -> Result<Redis, StackError> {
    let name = format!("{}.redis", system.stores[store as usize].name);
    let most = BARE + ENTRY * u64::from(memory.capacity);
    let mut settings =
        vec![("maxmemory".to_owned(), most.to_string()), ("maxmemory-policy".to_owned(), "allkeys-lru".to_owned())];
    if memory.persistent {
        settings.push(("appendonly".to_owned(), "yes".to_owned()));
        settings.push(("appenddirname".to_owned(), format!("{name}.files")));
    }
    let port = Some(layout.stores[store as usize][0].main.port());
    Ok(Redis::start(supervisor, redis::Options { name, port, settings })?)
}
