//! Cache-aside, and the ways to write: with a store that any of the instances may have filled.

use plimsoll_model::draw::exponential;
use plimsoll_model::system::{CacheWrite, EdgeId, KeyspaceId, Program};
use plimsoll_policy::cache::Config;
use plimsoll_policy::{Mode, nanos, unit};

use super::store::What;
use super::task::Task;
use crate::answer::Answer;
use crate::clock::wall_ms;
use crate::wire::resp::Value;

fn name(task: &Task, keyspace: KeyspaceId) -> Vec<u8> {
    let name = &task.instance.process.system.keyspaces[keyspace.index()].name;
    format!("{name}:{}", task.context.key).into_bytes()
}

/// Looks a key up; on a miss does the steps and fills it.
pub(super) async fn look_up(
    task: &mut Task,
    edge: EdgeId,
    keyspace: KeyspaceId,
    config: &Config,
    on_miss: &Program,
) -> Result<(), Answer> {
    let key = name(task, keyspace);
    let right = config.lock.map_or(0, |lock| (nanos(lock) / 1_000_000).max(1));
    let tools = task.instance.process.tools.clone();
    loop {
        let Ok(got) = task.ask(edge, What::Lookup(key.clone(), right)).await else {
            // A cache that is gone is a miss that cannot be filled.
            return task.run(on_miss).await;
        };
        let Some(Value::List(parts)) = got.value else { return task.run(on_miss).await };
        let (Some(Value::Text(entry)), Some(Value::Number(may))) = (parts.first(), parts.get(1)) else {
            return task.run(on_miss).await;
        };
        let entry = Entry::read(entry);
        let now = wall_ms(tools.clock);
        if let Some(entry) = entry.filter(|_| config.mode == Mode::Enforce) {
            let fresh = entry.fresh_until > now;
            if !fresh {
                task.degraded = true;
            }
            let early = fresh && entry.expires_early(now, config.early_expiration, task.context.draw.bits(EARLY));
            if !fresh && *may < 0 || early {
                refresh(task, edge, keyspace, *config, on_miss);
            }
            return Ok(());
        }
        // Whoever has the right fetches; the others look again, a little at a time.
        if *may > 0 && config.mode == Mode::Enforce {
            tools.timer.wait((*may as u64 * 1_000_000).min(LOOK_AGAIN)).await;
            continue;
        }
        return fetch(task, edge, key, config, on_miss).await;
    }
}

async fn fetch(task: &mut Task, edge: EdgeId, key: Vec<u8>, config: &Config, on_miss: &Program) -> Result<(), Answer> {
    let clock = task.instance.process.tools.clock;
    let started = clock.now();
    if let Err(answer) = task.run(on_miss).await {
        // Another may try.
        let _ = task.ask(edge, What::Delete(key)).await;
        return Err(answer);
    }
    let took = clock.now().nanos_since(started);
    let (value, keep) = Entry::text(wall_ms(clock), took, config, task.context.draw.bits(FILL));
    let _ = task.ask(edge, What::Set(key, value, keep)).await;
    Ok(())
}

/// Fetches anew while nobody waits.
fn refresh(task: &Task, edge: EdgeId, keyspace: KeyspaceId, config: Config, on_miss: &Program) {
    let mut refresher = Task::new(&task.instance, task.below(), None);
    refresher.context.key = task.context.key;
    let (key, on_miss) = (name(task, keyspace), on_miss.clone());
    tokio::spawn(async move { fetch(&mut refresher, edge, key, &config, &on_miss).await });
}

/// Writes a key into a cache and its origin, or drops it.
pub(super) async fn write(
    task: &mut Task,
    edge: EdgeId,
    keyspace: KeyspaceId,
    kind: CacheWrite,
    write: &Program,
) -> Result<(), Answer> {
    let key = name(task, keyspace);
    let clock = task.instance.process.tools.clock;
    let entry = |task: &Task| Entry::text(wall_ms(clock), 0, &Config::default(), task.context.draw.bits(FILL));
    match kind {
        CacheWrite::Through => {
            task.run(write).await?;
            let (value, keep) = entry(task);
            let _ = task.ask(edge, What::Set(key, value, keep)).await;
        }
        CacheWrite::Invalidate => {
            task.run(write).await?;
            let _ = task.ask(edge, What::Delete(key)).await;
        }
        CacheWrite::Behind { flush } => {
            let (value, keep) = entry(task);
            // With the cache gone there is nowhere to put the write.
            task.ask(edge, What::Set(key, value, keep)).await.map_err(|_| Answer::Unavailable)?;
            let mut later = Task::new(&task.instance, task.below(), None);
            let (timer, write) = (task.instance.process.tools.timer.clone(), write.clone());
            tokio::spawn(async move {
                timer.wait(flush).await;
                later.run(&write).await
            });
        }
    }
    Ok(())
}

/// While another fetches, one looks again after so long, ns: a tenth of what people notice.
const LOOK_AGAIN: u64 = 5_000_000;

// Purposes of draws.
const EARLY: u64 = 6 << 40;
const FILL: u64 = 7 << 40;

/// An entry: until when it is fresh, and how long its fetch took.
struct Entry {
    fresh_until: u64,
    fetch_us: u64,
}

impl Entry {
    fn read(text: &[u8]) -> Option<Entry> {
        let (fresh, fetch) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        Some(Entry { fresh_until: fresh.parse().ok()?, fetch_us: fetch.parse().ok()? })
    }

    /// A new entry as text, and how long it is kept, ms.
    fn text(now: u64, took: u64, config: &Config, random: u64) -> (Vec<u8>, u64) {
        let ttl = nanos(config.ttl) as f64 * (1.0 + config.ttl_jitter * (2.0 * unit(random) - 1.0)) / 1e6;
        let stale = nanos(config.stale_while_revalidate.unwrap_or(config.ttl)) / 1_000_000;
        let fresh_until = now.saturating_add(ttl as u64);
        (format!("{fresh_until} {}", took / 1000).into_bytes(), (ttl as u64).saturating_add(stale).max(1))
    }

    /// XFetch, as the policy has it: Vattani, Chierichetti and Lowenstein, VLDB 2015.
    fn expires_early(&self, now: u64, beta: f64, random: u64) -> bool {
        let ahead = self.fetch_us as f64 / 1000.0 * beta * exponential(random);
        beta > 0.0 && ahead >= (self.fresh_until - now) as f64
    }
}
