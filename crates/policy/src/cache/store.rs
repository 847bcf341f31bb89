use super::freshness::{Entry, Freshness, Lookup, Ticket};
use super::write_behind::WriteBehind;
use super::{Config, WriteMode};
use crate::hash::{below, mix};
use crate::keyed::Keyed;
use crate::{InvalidConfig, Time};

/// Entries compared for an eviction (Redis, `maxmemory-samples` 5: close to true LRU).
const EVICTION_SAMPLES: u32 = 5;

/// What a cache has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lookups answered by a fresh entry, known absences included.
    pub fresh: u64,
    /// Lookups answered by a stale entry.
    pub stale: u64,
    /// Lookups that went to the origin.
    pub misses: u64,
    /// Lookups that waited for another caller's fetch.
    pub waits: u64,
    /// Refreshes handed out with a fresh or stale answer.
    pub refreshes: u64,
    /// Fills refused because their ticket was void.
    pub void_fills: u64,
    /// Entries evicted for want of room.
    pub evictions: u64,
    /// Writes acknowledged before they reached the origin.
    pub buffered: u64,
    /// Buffered keys lost by [`Cache::flush`].
    pub lost: u64,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Stored; callers that wait for this key can have it.
    Stored,
    /// The ticket was void: the key was written, invalidated, evicted or fetched by a successor. The
    /// value may answer its own caller and nobody else.
    Refused,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Aside: the entry is gone.
    Invalidated,
    /// Through: the entry holds what was written.
    Stored,
    /// Behind: acknowledged; a batch will carry it to the origin.
    Buffered,
    /// Behind, and the buffer is full: nothing was done. Write to the origin, then
    /// [`put`](Cache::put).
    BufferFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dirty {
    Clean,
    /// In the next batch.
    Waiting,
    /// In the batch under way.
    Flushing,
    /// In the batch under way, and written again since.
    Both,
}

#[derive(Clone, Debug)]
struct Slot<V> {
    entry: Entry,
    /// By the count of lookups; compared as an age, so that it may wrap.
    used: u32,
    dirty: Dirty,
    /// `None` while the first fetch is out, and for a key known to be absent.
    value: Option<V>,
}

/// A bounded cache with `u64` keys.
#[derive(Clone, Debug)]
pub struct Cache<V> {
    config: Config,
    freshness: Freshness,
    slots: Keyed<Slot<V>>,
    tick: u32,
    behind: Option<WriteBehind>,
    counts: Counts,
}

impl<V> Cache<V> {
    /// An empty cache. Memory grows with its entries, up to the capacity.
    pub fn new(config: Config) -> Result<Self, InvalidConfig> {
        let freshness = Freshness::new(&config)?;
        let behind = match config.write {
            WriteMode::Behind { flush_every, buffer } => Some(WriteBehind::new(flush_every, buffer)),
            WriteMode::Aside | WriteMode::Through => None,
        };
        Ok(Cache { config, freshness, slots: Keyed::new(), tick: 0, behind, counts: Counts::default() })
    }

    /// Decides about a key, with its value if it may be served: a fresh or stale answer without a
    /// value says that the key is known to be absent.
    #[inline]
    pub fn lookup(&mut self, now: Time, key: u64, random: u64) -> (Lookup, Option<&V>) {
        self.tick = self.tick.wrapping_add(1);
        let at = match self.slots.find(key) {
            Some(at) => at,
            // The first caller's ticket has to be kept somewhere.
            None => self.insert(now, key, None, random),
        };
        let tick = self.tick;
        let slot = self.slots.at_mut(at);
        slot.used = tick;
        let decided = if slot.dirty == Dirty::Clean {
            self.freshness.decide(now, &mut slot.entry, random)
        } else {
            // The origin does not have it yet: nothing fresher exists.
            Lookup::Fresh { refresh: None }
        };
        match decided {
            Lookup::Fresh { refresh } => {
                self.counts.fresh += 1;
                self.counts.refreshes += u64::from(refresh.is_some());
            }
            Lookup::Stale { refresh } => {
                self.counts.stale += 1;
                self.counts.refreshes += u64::from(refresh.is_some());
            }
            Lookup::Miss { .. } => self.counts.misses += 1,
            Lookup::Wait { .. } => self.counts.waits += 1,
        }
        let answer = self.freshness.answer(decided);
        match answer {
            Lookup::Fresh { .. } | Lookup::Stale { .. } => (answer, self.slots.at(at).1.value.as_ref()),
            Lookup::Miss { .. } | Lookup::Wait { .. } => (answer, None),
        }
    }

    /// A fetch has brought a value after `fetch_ns`, or `None`: the key is absent.
    pub fn fill(&mut self, now: Time, key: u64, ticket: Ticket, value: Option<V>, fetch_ns: u64, random: u64) -> Fill {
        let Some(slot) = self.slots.get_mut(key).filter(|s| s.entry.accepts(ticket)) else {
            self.counts.void_fills += u64::from(ticket != Ticket::VOID);
            return Fill::Refused;
        };
        self.freshness.fill(now, &mut slot.entry, fetch_ns, value.is_none(), random);
        slot.value = value;
        Fill::Stored
    }

    /// A fetch has failed: the next caller may try. Whether the ticket was still good.
    pub fn give_up(&mut self, key: u64, ticket: Ticket) -> bool {
        self.slots.get_mut(key).is_some_and(|slot| slot.entry.release(ticket))
    }

    /// Stores a value that did not come from a fetch, such as one just written to the origin.
    pub fn put(&mut self, now: Time, key: u64, value: V, random: u64) {
        let at = match self.slots.find(key) {
            Some(at) => at,
            None => self.insert(now, key, None, random),
        };
        self.store(now, at, value, random);
    }

    /// Drops a key and voids its ticket. A write that waits for its flush stays: it is newer than
    /// whatever the invalidation is about.
    pub fn invalidate(&mut self, key: u64) -> bool {
        match self.slots.find(key) {
            Some(at) if self.slots.at(at).1.dirty == Dirty::Clean => {
                self.slots.remove_at(at);
                true
            }
            _ => false,
        }
    }

    /// A key was written. Aside and through: call it once the origin has accepted the write. Behind:
    /// call it instead of writing to the origin.
    pub fn write(&mut self, now: Time, key: u64, value: V, random: u64) -> Write {
        let Some(behind) = &mut self.behind else {
            if self.config.write == WriteMode::Aside {
                self.invalidate(key);
                return Write::Invalidated;
            }
            self.put(now, key, value, random);
            return Write::Stored;
        };
        let at = self.slots.find(key);
        let dirty = at.map_or(Dirty::Clean, |at| self.slots.at(at).1.dirty);
        let dirty = match dirty {
            Dirty::Waiting | Dirty::Both => dirty,
            _ if !behind.has_room() => return Write::BufferFull,
            Dirty::Clean => {
                behind.push(now, key);
                Dirty::Waiting
            }
            Dirty::Flushing => {
                behind.push(now, key);
                Dirty::Both
            }
        };
        let at = at.unwrap_or_else(|| self.insert(now, key, None, random));
        self.store(now, at, value, random);
        self.slots.at_mut(at).dirty = dirty;
        self.counts.buffered += 1;
        Write::Buffered
    }

    /// When a batch of buffered writes is due.
    pub fn next_wake(&self) -> Option<Time> {
        self.behind.as_ref()?.next_wake()
    }

    /// The keys to write to the origin now, in the order of their first write; empty if none is due.
    /// Read their values with [`value`](Self::value) and end with [`end_flush`](Self::end_flush).
    pub fn start_flush(&mut self, now: Time) -> &[u64] {
        let Some(behind) = &mut self.behind else {
            return &[];
        };
        let batch = behind.start(now);
        for &key in batch {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.dirty = Dirty::Flushing;
            }
        }
        batch
    }

    /// The batch under way has reached the origin, or has failed and waits for the next one.
    pub fn end_flush(&mut self, now: Time, written: bool) {
        let Some(behind) = &mut self.behind else {
            return;
        };
        for key in behind.end() {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            slot.dirty = match slot.dirty {
                Dirty::Both => Dirty::Waiting,
                Dirty::Flushing if !written => {
                    behind.push(now, key);
                    Dirty::Waiting
                }
                Dirty::Flushing => Dirty::Clean,
                other => other,
            };
        }
    }

    /// Acknowledged keys that the origin does not have yet: what a crash would lose now.
    pub fn at_risk(&self) -> usize {
        self.behind.as_ref().map_or(0, WriteBehind::len)
    }

    /// The stored value, whatever its age.
    pub fn value(&self, key: u64) -> Option<&V> {
        self.slots.get(key)?.value.as_ref()
    }

    /// Empties the cache, as a restart does, and returns how many buffered keys that has lost.
    pub fn flush(&mut self) -> usize {
        self.slots.clear();
        let lost = self.behind.as_mut().map_or(0, WriteBehind::clear);
        self.counts.lost += lost as u64;
        lost
    }

    /// Keys stored, those being fetched for the first time included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the settings and keeps the entries with the lives they have; entries above a lower
    /// capacity go. Refused while buffered writes would lose their way to the origin.
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<(), InvalidConfig> {
        config.check()?;
        let at_risk = self.at_risk();
        if at_risk > config.capacity as usize / 2 {
            return Err(InvalidConfig { field: "capacity", expected: "twice the buffered writes" });
        }
        match (config.write, &mut self.behind) {
            (WriteMode::Behind { flush_every, buffer }, Some(behind)) => behind.configure(flush_every, buffer),
            (WriteMode::Behind { flush_every, buffer }, behind @ None) => {
                *behind = Some(WriteBehind::new(flush_every, buffer));
            }
            _ if at_risk > 0 => {
                return Err(InvalidConfig { field: "write", expected: "behind until the buffer is flushed" });
            }
            (_, behind) => *behind = None,
        }
        self.freshness.set(&config);
        self.config = config;
        while self.slots.len() > config.capacity as usize {
            self.evict(now, mix(self.slots.len() as u64));
        }
        Ok(())
    }

    fn insert(&mut self, now: Time, key: u64, value: Option<V>, random: u64) -> usize {
        if self.slots.len() >= self.config.capacity as usize {
            self.evict(now, random);
        }
        let slot = Slot { entry: Entry::default(), used: self.tick, dirty: Dirty::Clean, value };
        self.slots.insert_new(key, slot)
    }

    fn store(&mut self, now: Time, at: usize, value: V, random: u64) {
        let slot = self.slots.at_mut(at);
        self.freshness.fill(now, &mut slot.entry, 0, false, random);
        slot.value = Some(value);
        slot.used = self.tick;
    }

    /// Evicts the least recently used of a few random entries, or one that nobody may serve. Entries
    /// with buffered writes stay; they are at most half of all.
    fn evict(&mut self, now: Time, random: u64) {
        let mut victim: Option<(usize, u32)> = None;
        let mut random = random;
        let mut sampled = 0;
        while sampled < EVICTION_SAMPLES || victim.is_none() {
            random = mix(random);
            let at = below(random, self.slots.len());
            let (_, slot) = self.slots.at(at);
            sampled += 1;
            if slot.dirty != Dirty::Clean {
                continue;
            }
            let age =
                if self.freshness.is_dead(now, &slot.entry) { u32::MAX } else { self.tick.wrapping_sub(slot.used) };
            if victim.is_none_or(|(_, oldest)| age > oldest) {
                victim = Some((at, age));
            }
        }
        if let Some((at, _)) = victim {
            self.slots.remove_at(at);
            self.counts.evictions += 1;
        }
    }
}
