//! The real stores of a run. Faults that keep a node down or stopped are counted, as those of processes are. What waits
//! for servers runs on threads that may wait.

mod start;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::{Part, blocking};
use crate::postgres::{Cluster, Exhaustion, PATIENCE, TableLock};
use crate::redis::Redis;
use crate::store::schema;
use crate::store::watch::Watch;
use crate::tally::{Of, Tally};

/// Real stores.
#[derive(Debug)]
pub(crate) struct Stores {
    /// What they say of themselves.
    pub(crate) tally: Arc<Tally>,
    per_shard: BTreeMap<u32, u32>,
    shards: BTreeMap<(u32, u32), Shard>,
    memories: BTreeMap<u32, Mutex<Redis>>,
    watches: Vec<Watch>,
    nodes: Mutex<BTreeMap<Part, Node>>,
}

#[derive(Debug)]
struct Shard {
    cluster: Mutex<Cluster>,
    /// What replicas are behind without a fault, and by how much more because of faults, ns.
    usual: u64,
    more: AtomicU64,
    locks: Mutex<Vec<(u32, TableLock)>>,
    /// What faults have taken of nodes' connections, by node and fault.
    exhausted: Mutex<BTreeMap<(Part, usize), Exhaustion>>,
    watches: Vec<Watch>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    up: bool,
    killed: u32,
    paused: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Stores {
    fn add(&self, part: Part) {
        lock(&self.nodes).insert(part, Node { up: true, killed: 0, paused: 0 });
    }

    /// All nodes.
    pub(crate) fn parts(&self) -> Vec<Part> {
        lock(&self.nodes).keys().copied().collect()
    }

    /// Whether a part is one of these.
    pub(crate) fn has(&self, part: Part) -> bool {
        lock(&self.nodes).contains_key(&part)
    }

    fn node(&self, part: Part) -> Node {
        lock(&self.nodes).get(&part).copied().unwrap_or(Node { up: false, killed: 0, paused: 0 })
    }

    fn change<T>(&self, part: Part, change: impl FnOnce(&mut Node) -> T) -> Result<T, String> {
        lock(&self.nodes).get_mut(&part).map(change).ok_or_else(|| "it is no real store".to_owned())
    }

    /// Whether a node's server runs; it may be stopped.
    pub(crate) fn runs(&self, part: Part) -> bool {
        self.node(part).up
    }

    /// Whether it runs and is not stopped.
    pub(crate) fn is_up(&self, part: Part) -> bool {
        let node = self.node(part);
        node.up && node.paused == 0
    }

    /// A node's shard, and its number there.
    fn shard(&self, part: Part) -> Option<(&Shard, usize)> {
        let Part::Node(store, node) = part else { return None };
        let per_shard = *self.per_shard.get(&store)?;
        Some((self.shards.get(&(store, node / per_shard))?, (node % per_shard) as usize))
    }

    fn memory(&self, part: Part) -> Result<&Mutex<Redis>, String> {
        let Part::Node(store, _) = part else { return Err("it is no store".to_owned()) };
        self.memories.get(&store).ok_or_else(|| "it is no store in memory".to_owned())
    }

    /// Kills a node with all its processes.
    pub(crate) async fn kill(self: Arc<Self>, part: Part) -> Result<(), String> {
        self.change(part, |node| (node.killed, node.up, node.paused) = (node.killed + 1, false, 0))?;
        blocking(move || match self.shard(part) {
            Some((shard, node)) => lock(&shard.cluster).kill(node).map_err(told),
            None => lock(self.memory(part)?).kill().map_err(told),
        })
        .await
    }

    /// One fault less keeps a node down: whether it may start again.
    pub(crate) fn revive(&self, part: Part) -> bool {
        let less = |node: &mut Node| {
            node.killed = node.killed.saturating_sub(1);
            node.killed == 0 && !node.up
        };
        self.change(part, less).unwrap_or(false)
    }

    /// Whether a node is down, and no fault keeps it so.
    pub(crate) fn may_start(&self, part: Part) -> bool {
        let node = self.node(part);
        node.killed == 0 && !node.up
    }

    /// Nobody starts it again.
    pub(crate) fn leaves(&self, part: Part) {
        let _ = self.change(part, |node| node.killed += 1);
    }

    /// Starts a node that is down: as what it was, or, if another has become primary, as its replica, rewound.
    pub(crate) async fn boot(self: Arc<Self>, part: Part) -> Result<(), String> {
        blocking(move || {
            match self.shard(part) {
                Some((shard, node)) => {
                    let mut cluster = lock(&shard.cluster);
                    // Another fault may have struck while its turn came.
                    if !self.may_start(part) {
                        return Ok(());
                    }
                    cluster.bring_back(node).map_err(told)?;
                    if node != cluster.primary() {
                        cluster.delay_apply(node, shard.delay()).map_err(told)?;
                    }
                }
                None => lock(self.memory(part)?).restart().map_err(told)?,
            }
            self.change(part, |node| node.up = true)
        })
        .await
    }

    /// Stops all processes of a node where they are. What is down stands still already.
    pub(crate) async fn pause(self: Arc<Self>, part: Part) -> Result<(), String> {
        let first = |node: &mut Node| {
            node.paused += u32::from(node.up);
            node.up && node.paused == 1
        };
        if !self.change(part, first)? {
            return Ok(());
        }
        blocking(move || match self.shard(part) {
            Some((shard, node)) => lock(&shard.cluster).freeze(node).map(drop).map_err(told),
            None => lock(self.memory(part)?).freeze().map(drop).map_err(told),
        })
        .await
    }

    /// One fault less stops a node.
    pub(crate) async fn resume(self: Arc<Self>, part: Part) -> Result<(), String> {
        let last = |node: &mut Node| {
            node.paused = node.paused.saturating_sub(1);
            node.up && node.paused == 0
        };
        if self.node(part).paused == 0 || !self.change(part, last)? {
            return Ok(());
        }
        blocking(move || match self.shard(part) {
            Some((shard, node)) => lock(&shard.cluster).thaw(node).map(drop).map_err(told),
            None => lock(self.memory(part)?).thaw().map(drop).map_err(told),
        })
        .await
    }

    /// Makes the replica that has received most the primary, and says which it is once it takes writes. A primary that
    /// runs is ended first, in order if it answers.
    pub(crate) async fn take_over(self: Arc<Self>, store: u32, shard: u32) -> Result<(u32, Vec<usize>), String> {
        let per_shard = self.per_shard.get(&store).copied().unwrap_or(1);
        blocking(move || {
            let of = self.shards.get(&(store, shard)).ok_or("it has no replicas")?;
            let mut cluster = lock(&of.cluster);
            let old = Part::Node(store, shard * per_shard + cluster.primary() as u32);
            self.change(old, |node| (node.up, node.paused) = (false, 0))?;
            let to = cluster.most_advanced().map_err(told)?;
            let (_, ahead) = cluster.take_over(to).map_err(told)?;
            Ok((shard * per_shard + to as u32, ahead))
        })
        .await
    }

    /// Has the other replicas follow a new primary.
    pub(crate) async fn settle(self: Arc<Self>, store: u32, shard: u32, ahead: Vec<usize>) -> Result<(), String> {
        blocking(move || {
            let of = self.shards.get(&(store, shard)).ok_or("it has no replicas")?;
            let mut cluster = lock(&of.cluster);
            cluster.settle(&ahead).map_err(told)?;
            for node in ahead {
                cluster.delay_apply(node, of.delay()).map_err(told)?;
            }
            Ok(())
        })
        .await
    }

    /// Holds a store's replicas so much further behind than they usually are, ns.
    pub(crate) async fn set_lag(self: Arc<Self>, store: u32, more: u64) -> Result<(), String> {
        blocking(move || {
            for (at, shard) in self.shards.range((store, 0)..=(store, u32::MAX)) {
                shard.more.store(more, Ordering::Relaxed);
                let cluster = lock(&shard.cluster);
                let count = cluster.count() as u32;
                for node in (0..cluster.count()).filter(|node| *node != cluster.primary()) {
                    if self.is_up(Part::Node(store, at.1 * count + node as u32)) {
                        cluster.delay_apply(node, shard.delay()).map_err(told)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Locks a table on every primary, or lets it go.
    pub(crate) async fn lock_table(self: Arc<Self>, store: u32, table: u32, held: bool) -> Result<(), String> {
        blocking(move || {
            for shard in self.shards.range((store, 0)..=(store, u32::MAX)).map(|(_, shard)| shard) {
                if held {
                    let taken = lock(&shard.cluster).lock_table(&schema::table(table)).map_err(told)?;
                    lock(&shard.locks).push((table, taken));
                } else {
                    let mut locks = lock(&shard.locks);
                    if let Some(at) = locks.iter().position(|(of, _)| *of == table) {
                        locks.swap_remove(at);
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes every connection that a node has left, until a fault is over.
    pub(crate) async fn exhaust(self: Arc<Self>, part: Part, fault: usize) -> Result<(), String> {
        blocking(move || {
            let (shard, node) = self.shard(part).ok_or("it has no connections to take")?;
            let taken = lock(&shard.cluster).exhaust(node).map_err(told)?;
            lock(&shard.exhausted).insert((part, fault), taken);
            Ok(())
        })
        .await
    }

    /// Gives them back.
    pub(crate) async fn give_back(self: Arc<Self>, part: Part, fault: usize) -> Result<(), String> {
        blocking(move || {
            if let Some((shard, _)) = self.shard(part) {
                let taken = lock(&shard.exhausted).remove(&(part, fault));
                drop(taken);
            }
            Ok(())
        })
        .await
    }

    /// Empties a store in memory, and sees that it is empty.
    pub(crate) async fn flush(self: Arc<Self>, store: u32) -> Result<(), String> {
        blocking(move || {
            let part = Part::Node(store, 0);
            let memory = lock(self.memory(part)?);
            let keys: u64 = memory.ask(&["DBSIZE"], PATIENCE).map_err(told)?.parse().unwrap_or(0);
            memory.flush().map_err(told)?;
            self.tally.count(Of::Node(store, 0), |totals| totals.lost += keys);
            Ok(())
        })
        .await
    }

    /// Nodes whose server ended by itself, and how.
    pub(crate) fn lost(&self) -> Vec<(Part, String)> {
        let mut lost = Vec::new();
        for part in self.parts() {
            let node = self.node(part);
            if !node.up || node.killed > 0 {
                continue;
            }
            // Whoever is at work on it sees for himself.
            let lives = match self.shard(part) {
                Some((shard, number)) => match shard.cluster.try_lock() {
                    Ok(cluster) => cluster.lives(number),
                    Err(TryLockError::Poisoned(_)) => false,
                    Err(TryLockError::WouldBlock) => true,
                },
                None => self.memory(part).map_or(true, |memory| lock(memory).lives()),
            };
            // It may have been struck a moment ago.
            if !lives && self.node(part).up {
                let _ = self.change(part, |node| node.up = false);
                lost.push((part, "the server is gone".to_owned()));
            }
        }
        lost
    }

    /// Asks nobody any more.
    pub(crate) fn stop(&self) {
        let of_shards = self.shards.values().flat_map(|shard| &shard.watches);
        of_shards.chain(&self.watches).for_each(Watch::stop);
    }
}

impl Shard {
    /// How much later than on the primary a commit shows on replicas.
    fn delay(&self) -> Duration {
        Duration::from_nanos(self.usual.saturating_add(self.more.load(Ordering::Relaxed)))
    }
}
