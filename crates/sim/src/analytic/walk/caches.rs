//! What caches are asked, and what they answer.

use plimsoll_model::system::{KeyDist, ServiceId, StoreId, StoreKind};
use plimsoll_policy::{Mode, cache};

use super::Walk;
use crate::analytic::hit_ratio::{Asker, CacheLoad, Misses, misses};

/// What caches were asked in a pass, and what they answer.
#[derive(Clone, Debug, Default)]
pub(in crate::analytic) struct Caches<'s>(Vec<Cache<'s>>);

#[derive(Clone, Debug)]
struct Cache<'s> {
    at: CacheAt,
    load: CacheLoad<'s>,
    /// Number of the client's call that each asker stands for.
    calls: Vec<u32>,
    answers: Vec<Misses>,
}

/// Which cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum CacheAt {
    Store { store: StoreId, keyspace: u32 },
    Gateway { service: ServiceId, endpoint: u32 },
}

impl<'s> Caches<'s> {
    /// What they answer, in order.
    pub(in crate::analytic) fn misses(&self) -> impl Iterator<Item = Misses> {
        self.0.iter().flat_map(|cache| &cache.answers).copied()
    }

    fn answer(&self, at: CacheAt, call: u32) -> Misses {
        let cache = self.0.iter().find(|cache| cache.at == at);
        cache
            .and_then(|cache| cache.calls.iter().position(|&known| known == call).map(|i| cache.answers[i]))
            .unwrap_or(Misses::ALL)
    }

    pub(super) fn asker(&mut self, at: CacheAt, call: u32, keys: Option<&'s KeyDist>) -> (&mut CacheLoad<'s>, usize) {
        let cache = match self.0.iter().position(|cache| cache.at == at) {
            Some(index) => &mut self.0[index],
            None => {
                let load = CacheLoad { capacity: 0.0, ttl: f64::INFINITY, stale: 0.0, askers: Vec::new() };
                self.0.push(Cache { at, load, calls: Vec::new(), answers: Vec::new() });
                self.0.last_mut().expect("just pushed")
            }
        };
        let asker = cache.calls.iter().position(|&known| known == call).unwrap_or_else(|| {
            cache.calls.push(call);
            cache.load.askers.push(Asker { keys, lookups: 0.0, drops: 0.0 });
            cache.calls.len() - 1
        });
        (&mut cache.load, asker)
    }
}

impl<'s> Walk<'s> {
    /// Counts lookups and says what the cache answers. `capacity` is that of a gateway's own cache.
    pub(super) fn look_up(&mut self, at: CacheAt, config: &cache::Config, weight: f64, capacity: f64) -> Misses {
        let instances = match at {
            CacheAt::Store { .. } => 1.0,
            CacheAt::Gateway { service, .. } => self.instances(service),
        };
        let lookups = weight * self.per_s / instances;
        let (load, asker) = self.seen.asker(at, self.call, self.keys);
        load.capacity = capacity;
        load.ttl = config.ttl.as_secs_f64();
        load.stale = config.stale_while_revalidate.unwrap_or(config.ttl).as_secs_f64();
        load.askers[asker].lookups += lookups;
        if config.mode == Mode::Enforce { self.caches.answer(at, self.call) } else { Misses::ALL }
    }

    /// What the caches that this pass has seen answer in the next.
    pub(super) fn settle_caches(&mut self) {
        let room: Vec<f64> = self.seen.0.iter().map(|cache| self.room(cache)).collect();
        for (cache, room) in self.seen.0.iter_mut().zip(room) {
            cache.load.capacity = room;
            cache.answers = misses(&cache.load);
        }
    }

    /// Kinds of keys share a store's room in proportion to their number.
    fn room(&self, cache: &Cache) -> f64 {
        let CacheAt::Store { store, keyspace } = cache.at else { return cache.load.capacity };
        let StoreKind::Redis(redis) = &self.system.stores[store.index()].kind else { return 0.0 };
        let keys = |keyspace: u32| self.system.keyspaces[keyspace as usize].keys as f64;
        let here = self.seen.0.iter().filter_map(|other| match other.at {
            CacheAt::Store { store: of, keyspace } if of == store => Some(keys(keyspace)),
            _ => None,
        });
        redis.capacity as f64 * keys(keyspace) / here.sum::<f64>().max(1.0)
    }
}
