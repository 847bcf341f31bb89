//! Caches: in a store, or in a gateway's own memory.

use plimsoll_model::system::StoreKind;
use plimsoll_policy::cache::{Config, Lookup, Ticket, WriteMode};
use plimsoll_policy::{Cache, Time};

use crate::compile::{CacheOwner, Op, Pc};
use crate::component::edge::{Parent, What};
use crate::component::instance::CHECKED;
use crate::component::task::{Context, TaskParent, Waiting};
use crate::engine::{Answer, Event, Ref};
use crate::journal::{Kept, Stage};
use crate::plan::Plan;
use crate::world::{Wake, World};

/// A fetch that a task makes for a cache.
pub(crate) struct Fetch {
    ticket: Ticket,
    since: u64,
    site: u32,
    /// Whether nobody waits for it: an entry is refreshed ahead of its expiry.
    refresh: bool,
}

/// A write that waits to be flushed to its origin.
pub(crate) struct Behind {
    instance: u32,
    endpoint: u32,
    write: Pc,
    context: Context,
}

/// Which cache: a store's, by keyspace, or a gateway instance's, by site.
pub(crate) type CacheId = (u32, u32, bool);

/// The caches of a store, by keyspace.
pub(crate) fn build(plan: &Plan, store: u32) -> Vec<Option<Cache<u32>>> {
    let StoreKind::Redis(redis) = &plan.system.stores[store as usize].kind else {
        return Vec::new();
    };
    let here = |keyspace: usize| {
        plan.code
            .sites
            .iter()
            .filter(move |site| site.owner == CacheOwner::Store(store) && site.keyspace.index() == keyspace)
    };
    let used: Vec<usize> = (0..plan.system.keyspaces.len()).filter(|&k| here(k).next().is_some()).collect();
    let keys: f64 = used.iter().map(|&k| plan.system.keyspaces[k].keys as f64).sum();
    (0..plan.system.keyspaces.len())
        .map(|k| {
            let first = here(k).next()?;
            // A site that looks up knows the freshness; one that writes behind, the flush.
            let mut config: Config = here(k).find(|site| site.reads).unwrap_or(first).config;
            // Kinds of keys share the store's room in proportion to their number.
            let share = plan.system.keyspaces[k].keys as f64 / keys.max(1.0);
            config.capacity = ((redis.capacity as f64 * share) as u32).max(1);
            if let Some(flush) = here(k).find_map(|site| site.flush) {
                let flush_every = std::time::Duration::from_nanos(flush);
                config.write = WriteMode::Behind { flush_every, buffer: config.capacity };
            }
            Some(Cache::new(config).expect(CHECKED))
        })
        .collect()
}

impl World<'_> {
    fn cache_id(&self, site: u32, instance: u32) -> CacheId {
        let site_ref = &self.plan.code.sites[site as usize];
        match site_ref.owner {
            CacheOwner::Store(store) => (store, site_ref.keyspace.0, false),
            CacheOwner::Gateway { .. } => (instance, site, true),
        }
    }

    fn cache(&mut self, id: CacheId) -> &mut Cache<u32> {
        let caches = match id {
            (store, _, false) => &mut self.stores[store as usize].caches,
            (instance, _, true) => &mut self.instances[instance as usize].caches,
        };
        caches[id.1 as usize].as_mut().expect("the site was compiled with it")
    }

    /// A task looks a key up: where it goes on, or none while it waits.
    pub(crate) fn cache_lookup(&mut self, task: Ref, site: u32, end: Pc) -> Option<Pc> {
        match self.plan.code.sites[site as usize].edge {
            Some(edge) => {
                self.cache_command(task, edge, Parent::CacheLookup { task });
                None
            }
            None => self.cache_decide(task, site, end),
        }
    }

    fn cache_command(&mut self, task: Ref, edge: u32, parent: Parent) {
        let t = &self.tasks[task];
        let end = self.instance_end(edge, t.instance);
        let context = Context { draw: t.context.draw.part(t.pc as u64), ..t.context };
        let plimsoll_model::system::Component::Store(store) = self.plan.system.edges[edge as usize].to else {
            unreachable!("caches are in stores");
        };
        self.start_call(end, parent, What::Command { store: store.0 }, context);
    }

    /// The cache has answered a lookup, or has not.
    pub(crate) fn cache_answered(&mut self, task: Ref, answer: Answer) {
        let Some(t) = self.tasks.get_mut(task) else { return };
        let Op::CacheLookup { site, end } = self.plan.code.ops[t.pc as usize] else {
            unreachable!("the task stands at its lookup");
        };
        if t.cancelled {
            return self.soon(Event::Resume { task, answer: Answer::Cancelled });
        }
        if !answer.is_ok() {
            // A cache that is gone is a miss that cannot be filled.
            t.pc += 1;
            return self.soon(Event::Go { task });
        }
        if let Some(pc) = self.cache_decide(task, site, end) {
            self.tasks[task].pc = pc;
            self.soon(Event::Go { task });
        }
    }

    fn cache_decide(&mut self, task: Ref, site: u32, end: Pc) -> Option<Pc> {
        let time = self.time();
        let now = self.now;
        let t = &self.tasks[task];
        let (instance, pc, context, endpoint) = (t.instance, t.pc, t.context, t.endpoint);
        let id = self.cache_id(site, instance);
        let random = context.draw.bits(pc as u64 | 1 << 36);
        let key = context.key as u64;
        let (lookup, _) = self.cache(id).lookup(time, key, random);
        let hit = matches!(lookup, Lookup::Fresh { .. } | Lookup::Stale { .. });
        if self.journal.is_some() && id.2 {
            let kept = match &lookup {
                Lookup::Fresh { refresh } | Lookup::Stale { refresh } => Kept::Hit { refresh: refresh.is_some() },
                Lookup::Miss { .. } => Kept::Miss,
                Lookup::Wait { until } => Kept::Wait(*until),
            };
            self.note_visit(instance, task, Stage::LooksUp(key, random, kept));
        }
        let segment = self.segment;
        if let (store, _, false) = id {
            let hits = &mut self.stores[store as usize].hits[segment];
            hits.0 += hit as u64;
            hits.1 += 1;
        }
        match lookup {
            Lookup::Fresh { refresh } | Lookup::Stale { refresh } => {
                if let Some(ticket) = refresh {
                    let draw = context.draw.part(pc as u64 | 1 << 37);
                    let context = Context { draw, deadline: u64::MAX, ..context };
                    let refresher = self.new_task(TaskParent::Background, instance, pc + 1, endpoint, context);
                    self.tasks[refresher].fetch = Some(Box::new(Fetch { ticket, since: now, site, refresh: true }));
                    self.note_visit(instance, refresher, Stage::Refreshes(key));
                    self.soon(Event::Go { task: refresher });
                }
                self.tasks[task].degraded |= matches!(lookup, Lookup::Stale { .. });
                Some(end)
            }
            Lookup::Miss { fetch } => {
                self.tasks[task].fetch = Some(Box::new(Fetch { ticket: fetch, since: now, site, refresh: false }));
                Some(pc + 1)
            }
            Lookup::Wait { until } => {
                self.tasks[task].waiting = Waiting::Fetch { site };
                self.fetch_waiters.entry((id, context.key)).or_default().push(task);
                self.queue.at(until.as_nanos().max(now + 1), Event::LookAgain { task });
                None
            }
        }
    }

    /// A task that waits for another's fetch looks again.
    pub(crate) fn look_again(&mut self, task: Ref) {
        let Some(t) = self.tasks.get(task) else { return };
        let Waiting::Fetch { site } = t.waiting else { return };
        self.leave_fetch(site, task);
        let t = &mut self.tasks[task];
        t.waiting = Waiting::Nothing;
        if t.cancelled {
            return self.soon(Event::Resume { task, answer: Answer::Cancelled });
        }
        self.soon(Event::Go { task });
    }

    /// A task no longer waits for another's fetch.
    pub(crate) fn leave_fetch(&mut self, site: u32, task: Ref) {
        let t = &self.tasks[task];
        let at = (self.cache_id(site, t.instance), t.context.key);
        if let Some(waiters) = self.fetch_waiters.get_mut(&at) {
            waiters.retain(|waiter| *waiter != task);
            if waiters.is_empty() {
                self.fetch_waiters.remove(&at);
            }
        }
    }

    fn wake_fetch_waiters(&mut self, id: CacheId, key: u32) {
        for task in self.fetch_waiters.remove(&(id, key)).unwrap_or_default() {
            if let Some(t) = self.tasks.get_mut(task) {
                t.waiting = Waiting::Nothing;
                self.soon(Event::Go { task });
            }
        }
    }

    /// A task stores what it fetched; false while it waits.
    pub(crate) fn cache_fill(&mut self, task: Ref, site: u32) -> bool {
        if self.tasks[task].fetch.is_none() {
            return true;
        }
        match self.plan.code.sites[site as usize].edge {
            Some(edge) => {
                self.cache_command(task, edge, Parent::CacheStore { task });
                false
            }
            None => {
                self.fill_now(task, true);
                // A refresh ends here: nobody waits for what comes after it.
                !self.end_refresh(task)
            }
        }
    }

    fn fill_now(&mut self, task: Ref, stored: bool) -> bool {
        let time = self.time();
        let now = self.now;
        let t = &mut self.tasks[task];
        let Some(fetch) = t.fetch.take() else { return false };
        let (instance, key) = (t.instance, t.context.key);
        let random = t.context.draw.bits(t.pc as u64 | 1 << 38);
        let refresh = fetch.refresh;
        if refresh {
            t.refreshing = true;
        }
        let id = self.cache_id(fetch.site, instance);
        if id.2 {
            self.note_visit(instance, task, Stage::Fetched(stored, random));
        }
        let cache = self.cache(id);
        if stored {
            let _ = cache.fill(time, key as u64, fetch.ticket, Some(0), now - fetch.since, random);
        } else {
            cache.give_up(key as u64, fetch.ticket);
        }
        self.wake_fetch_waiters(id, key);
        refresh
    }

    /// Ends a task that only refreshed an entry; whether it was one.
    fn end_refresh(&mut self, task: Ref) -> bool {
        let refreshing = self.tasks[task].refreshing;
        if refreshing {
            self.finish(task, Answer::Ok);
        }
        refreshing
    }

    /// A cache command that stores, writes or drops has ended: the task goes on, whatever came.
    pub(crate) fn cache_stored(&mut self, task: Ref, answer: Answer) {
        let Some(t) = self.tasks.get(task) else { return };
        let time = self.time();
        let key = t.context.key as u64;
        let random = t.context.draw.bits(t.pc as u64 | 1 << 38);
        let instance = t.instance;
        match self.plan.code.ops[t.pc as usize] {
            Op::CacheFill { .. } => {
                self.fill_now(task, answer.is_ok());
                if self.end_refresh(task) {
                    return;
                }
            }
            Op::CacheWritten { site, drop } if answer.is_ok() => {
                let id = self.cache_id(site, instance);
                let cache = self.cache(id);
                if drop {
                    cache.invalidate(key);
                } else {
                    cache.put(time, key, 0, random);
                }
            }
            Op::CacheBehind { site, write, .. } => {
                if !answer.is_ok() {
                    // With the cache gone there is nowhere to put the write.
                    return self.soon(Event::Resume { task, answer: Answer::Unavailable });
                }
                let id = self.cache_id(site, instance);
                let t = &self.tasks[task];
                let behind = Behind { instance, endpoint: t.endpoint, write, context: t.context };
                self.behind.insert((id, t.context.key), behind);
                let cache = self.cache(id);
                let _ = cache.write(time, key, 0, random);
                if let Some(at) = cache.next_wake() {
                    self.schedule_flush(id, at);
                }
            }
            _ => {}
        }
        self.soon(Event::Resume { task, answer: Answer::Ok });
    }

    fn schedule_flush(&mut self, id: CacheId, at: Time) {
        let at = at.as_nanos().max(self.now + 1);
        if self.flushes.get(&id).is_none_or(|&known| known > at || known <= self.now) {
            self.flushes.insert(id, at);
            self.wake_at(at, Wake::Flush { cache: id });
        }
    }

    /// Buffered writes go to their origin.
    pub(crate) fn flush_behind(&mut self, id: CacheId) {
        let time = self.time();
        let keys = self.cache(id).start_flush(time).to_vec();
        for &key in &keys {
            let Some(behind) = self.behind.remove(&(id, key as u32)) else { continue };
            let service = self.instances[behind.instance as usize].service;
            // Any instance of the service can carry it, if the one that took it is gone.
            let carrier = std::iter::once(behind.instance)
                .chain(self.slots(service).map(|i| i as u32))
                .find(|&instance| self.instances[instance as usize].accepts());
            if let Some(instance) = carrier {
                let draw = behind.context.draw.part(1 << 39);
                let context = Context { draw, deadline: u64::MAX, ..behind.context };
                let parent = TaskParent::Background;
                let task = self.new_task(parent, instance, behind.write, behind.endpoint, context);
                self.soon(Event::Go { task });
            }
        }
        let cache = self.cache(id);
        if !keys.is_empty() {
            cache.end_flush(time, true);
        }
        if let Some(at) = cache.next_wake() {
            self.schedule_flush(id, at);
        }
    }

    /// Whatever a task was fetching, another may fetch.
    pub(crate) fn cache_abandon(&mut self, task: Ref) {
        if self.tasks[task].fetch.is_some() {
            self.fill_now(task, false);
        }
    }

    /// A task writes a key to a cache, or drops it there.
    pub(crate) fn cache_store(&mut self, task: Ref, site: u32) {
        let edge = self.plan.code.sites[site as usize].edge.expect("only stores are written to");
        self.cache_command(task, edge, Parent::CacheStore { task });
    }

    /// A store loses all it holds in memory.
    pub(crate) fn flush_store(&mut self, store: u32) {
        let state = &mut self.stores[store as usize];
        let lost: usize = state.caches.iter_mut().flatten().map(Cache::flush).sum();
        state.counter.now.lost += lost as u64;
        self.behind.retain(|((owner, _, gateway), _), _| *gateway || *owner != store);
    }
}
