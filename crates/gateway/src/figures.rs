//! Figures: a core writes its own, and whoever asks adds them up.
//!
//! Each counter has one writer, so that counting is a load and a store and never a locked instruction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts. Only the counter's own core may.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// One more.
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper ends of the buckets of response times, ns: from 0.5 ms to 10 s, as Prometheus' client libraries
/// have them, with two below.
pub const BUCKETS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Times, in buckets.
#[derive(Debug, Default)]
pub struct Times {
    /// By bucket; the last one has no upper end.
    pub buckets: [Counter; BUCKETS.len() + 1],
    /// The sum, ns.
    pub sum: Counter,
}

impl Times {
    /// Takes a time in.
    #[inline]
    pub fn record(&self, nanos: u64) {
        let bucket = BUCKETS.iter().position(|end| nanos <= *end).unwrap_or(BUCKETS.len());
        self.buckets[bucket].bump();
        self.sum.add(nanos);
    }
}

/// Why the gateway answered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Own {
    /// The quota is used up.
    RateLimited,
    /// Too many requests are held.
    InFlight,
    /// The adaptive limit is reached.
    Limit,
    /// A bulkhead is full, or the wait for it was too long.
    Bulkhead,
    /// The load was shed.
    Shed,
    /// A degradation level has switched it off.
    Degraded,
    /// The breaker is open.
    Breaker,
    /// There was no time left.
    Deadline,
    /// Nobody could be asked.
    NoTarget,
    /// No connection could be made.
    ConnectError,
    /// The connection broke, or what came was no answer.
    Reset,
    /// There was no answer in time.
    Timeout,
    /// The request was malformed, too large or too slow.
    BadRequest,
    /// There is no such endpoint.
    NotFound,
    /// It had come as far as its `Max-Forwards` lets it.
    MaxForwards,
    /// The fallback was given.
    Fallback,
    /// An answer from the cache.
    Cached,
    /// A request with the same idempotency key is under way.
    InProgress,
    /// The idempotency key came with another request before.
    KeyReused,
    /// No other idempotency key can be remembered.
    KeysFull,
    /// The answer to this idempotency key was too large to be kept.
    NotKept,
}

impl Own {
    /// All of them, with the names that figures have.
    pub const ALL: [(Own, &'static str); 21] = [
        (Own::RateLimited, "rate_limited"),
        (Own::InFlight, "max_in_flight"),
        (Own::Limit, "limit"),
        (Own::Bulkhead, "bulkhead"),
        (Own::Shed, "shed"),
        (Own::Degraded, "degraded"),
        (Own::Breaker, "breaker"),
        (Own::Deadline, "deadline"),
        (Own::NoTarget, "no_target"),
        (Own::ConnectError, "connect_error"),
        (Own::Reset, "reset"),
        (Own::Timeout, "timeout"),
        (Own::BadRequest, "bad_request"),
        (Own::NotFound, "not_found"),
        (Own::MaxForwards, "max_forwards"),
        (Own::Fallback, "fallback"),
        (Own::Cached, "cached"),
        (Own::InProgress, "in_progress"),
        (Own::KeyReused, "key_reused"),
        (Own::KeysFull, "keys_full"),
        (Own::NotKept, "not_kept"),
    ];

    /// The name that figures have.
    pub fn name(self) -> &'static str {
        Own::ALL[self as usize].1
    }
}

/// A route's figures on one core.
#[derive(Debug, Default)]
pub struct RouteFigures {
    /// Answers by the first digit of their status; at 0, clients that went away.
    pub answers: [Counter; 6],
    /// From the end of a request's head to the end of its answer.
    pub times: Times,
    /// Answers of the gateway's own, by reason.
    pub own: [Counter; Own::ALL.len()],
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Requests answered well of which an attempt had failed.
    pub rescued: Counter,
    /// Requests shed by class.
    pub shed: [Counter; 8],
}

/// An instance's figures on one core.
#[derive(Debug, Default)]
pub struct InstanceFigures {
    /// Answers by the first digit of their status.
    pub answers: [Counter; 6],
    /// No connection could be made.
    pub connect_errors: Counter,
    /// The connection broke.
    pub resets: Counter,
    /// No answer in time.
    pub timeouts: Counter,
    /// Connections made.
    pub connections: Counter,
    /// From the start of an attempt to the head of its answer.
    pub times: Times,
}

/// A core's own figures.
#[derive(Debug, Default)]
pub struct CoreFigures {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed at once because there are too many.
    pub refused: Counter,
    /// Connections closed, of those accepted.
    pub closed: Counter,
    /// Lines of the access log that found no room.
    pub log_dropped: Counter,
}

/// Everybody's figures.
#[derive(Debug, Default)]
pub struct Figures {
    routes: Mutex<BTreeMap<(String, usize), Arc<RouteFigures>>>,
    instances: Mutex<BTreeMap<(usize, usize), Arc<InstanceFigures>>>,
    cores: Mutex<BTreeMap<usize, Arc<CoreFigures>>>,
}

fn entry<K: Ord + Clone, V: Default>(map: &Mutex<BTreeMap<K, Arc<V>>>, key: K) -> Arc<V> {
    map.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

fn all<K: Ord + Clone, V>(map: &Mutex<BTreeMap<K, Arc<V>>>) -> Vec<(K, Arc<V>)> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Figures {
    /// A core's figures of a route.
    pub fn route(&self, name: &str, core: usize) -> Arc<RouteFigures> {
        entry(&self.routes, (name.to_owned(), core))
    }

    /// A core's figures of the address with this slot.
    pub fn instance(&self, slot: usize, core: usize) -> Arc<InstanceFigures> {
        entry(&self.instances, (slot, core))
    }

    /// A core's own figures.
    pub fn core(&self, core: usize) -> Arc<CoreFigures> {
        entry(&self.cores, core)
    }

    /// All routes' figures, by name.
    pub fn routes(&self) -> Vec<(String, Vec<Arc<RouteFigures>>)> {
        grouped(all(&self.routes).into_iter().map(|((name, _), figures)| (name, figures)))
    }

    /// All instances' figures, by slot.
    pub fn instances(&self) -> Vec<(usize, Vec<Arc<InstanceFigures>>)> {
        grouped(all(&self.instances).into_iter().map(|((slot, _), figures)| (slot, figures)))
    }

    /// All cores' figures.
    pub fn cores(&self) -> Vec<Arc<CoreFigures>> {
        all(&self.cores).into_iter().map(|(_, figures)| figures).collect()
    }
}

fn grouped<K: PartialEq, V>(items: impl Iterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in items {
        match groups.last_mut() {
            Some((last, values)) if *last == key => values.push(value),
            _ => groups.push((key, vec![value])),
        }
    }
    groups
}

/// A sum over cores.
pub fn sum<T>(figures: &[Arc<T>], count: impl Fn(&T) -> u64) -> u64 {
    figures.iter().map(|figures| count(figures)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_places() {
        for (at, (own, name)) in Own::ALL.into_iter().enumerate() {
            assert_eq!((own as usize, own.name()), (at, name));
        }
    }

    #[test]
    fn cores_add_up() {
        let figures = Figures::default();
        figures.route("GET /", 0).times.record(700_000);
        figures.route("GET /", 1).times.record(20_000_000_000);
        figures.route("GET /a", 1).retries.bump();
        let routes = figures.routes();
        assert_eq!(routes.len(), 2);
        let root = &routes[0].1;
        assert_eq!(sum(root, |f| f.times.buckets[1].get()), 1);
        assert_eq!(sum(root, |f| f.times.buckets[BUCKETS.len()].get()), 1);
        assert_eq!(sum(root, |f| f.times.sum.get()), 20_000_700_000);
    }
}
