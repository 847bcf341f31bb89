//! Caching: when an entry may be served, who refreshes it, and how writes reach the origin.
//!
//! ```text
//!    filled             ttl ± 10%              + stale_while_revalidate
//!      ├──────── fresh ────────┼──────────── stale ────────────┤ miss
//!                    (early    │ served; one caller gets a     │ one caller gets a ticket
//!                    refresh)  │ ticket and refreshes          │ and fetches, the others wait
//! ```
//!
//! A [`Ticket`] is the stampede lock: while it is out, and for at most `lock`, nobody else fetches the
//! key. It is also a lease in the sense of "Scaling Memcache at Facebook" (NSDI 2013): an
//! invalidation, a write or a successor makes it void, so that a fetch that began before a write
//! cannot put the old value back.
//!
//! [`Freshness`] holds the rules and [`Entry`] one key's state, for those with a store of their own;
//! [`Cache`] is both with a bounded store.
//!
//! Writes ([`WriteMode`]):
//! - aside: the origin, then the entry is dropped. The next reader fetches.
//! - through: the origin, then the entry is replaced. Readers never miss what was written.
//! - behind: the entry, and the origin up to `flush_every` later in a batch. A crash loses what was
//!   acknowledged and not flushed: at most the write rate x (`flush_every` + the time a flush takes), and never
//!   more keys than `buffer`; see [`WriteMode::loss_bound`].
//!
//! In [`Mode::Shadow`] everything is decided, counted and stored as usual, but every lookup is
//! answered with a miss, so that every request goes to the origin.

use std::time::Duration;

use crate::{InvalidConfig, Mode, nanos};

mod freshness;
mod store;
mod write_behind;

pub use freshness::{Entry, Freshness, Lookup, Ticket};
pub use store::{Cache, Counts, Fill, Write};

/// A cache's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How long an entry is fresh. Default: 60 s.
    pub ttl: Duration,
    /// The part of `ttl` by which each entry's varies, up or down, so that what was filled together
    /// does not expire together. Default: 0.1.
    pub ttl_jitter: f64,
    /// How long after its TTL an entry is still served while one caller refreshes it (RFC 5861);
    /// zero turns it off. Default: `None`, one `ttl`.
    pub stale_while_revalidate: Option<Duration>,
    /// The shortest time for which an absent key is remembered as absent. Default: 1 s. RFC 2308
    /// caps DNS's at hours; a web service's users retry within seconds.
    pub negative_ttl_min: Duration,
    /// The longest. Each is drawn from the range. Default: 5 s.
    pub negative_ttl_max: Duration,
    /// How long one caller has the only right to fetch a key; `None` lets everyone fetch. Default:
    /// 5 s (nginx, `proxy_cache_lock_age`).
    pub lock: Option<Duration>,
    /// The beta of probabilistic early expiration; 0 turns it off, 1 is the optimum of Vattani,
    /// Chierichetti and Lowenstein ("Optimal Probabilistic Cache Stampede Prevention", VLDB 2015).
    /// Default: 0, since stale-while-revalidate hides refreshes already.
    pub early_expiration: f64,
    /// Entries. Default: 50,000.
    pub capacity: u32,
    /// How writes reach the origin. Default: aside.
    pub write: WriteMode,
    /// Shadow: decide and count, and send every lookup to the origin.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ttl: Duration::from_secs(60),
            ttl_jitter: 0.1,
            stale_while_revalidate: None,
            negative_ttl_min: Duration::from_secs(1),
            negative_ttl_max: Duration::from_secs(5),
            lock: Some(Duration::from_secs(5)),
            early_expiration: 0.0,
            capacity: 50_000,
            write: WriteMode::Aside,
            mode: Mode::Enforce,
        }
    }
}

/// How writes reach the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum WriteMode {
    /// The origin first, then the entry is dropped.
    #[default]
    Aside,
    /// The origin first, then the entry is replaced.
    Through,
    /// The entry first, the origin later.
    Behind {
        /// The longest that a write waits for its flush to begin. Redis's `appendfsync everysec`
        /// makes the same trade at 1 s.
        flush_every: Duration,
        /// Keys that may wait, at most half of the capacity. Past it, writes go to the origin.
        buffer: u32,
    },
}

impl WriteMode {
    /// The most acknowledged writes that a crash loses, at a steady rate and with flushes that take
    /// `flush_takes`: rate x (interval + flush). Zero unless writes go behind.
    pub fn loss_bound(&self, writes_per_second: f64, flush_takes: Duration) -> f64 {
        match self {
            WriteMode::Aside | WriteMode::Through => 0.0,
            WriteMode::Behind { flush_every, .. } => {
                writes_per_second * (flush_every.as_secs_f64() + flush_takes.as_secs_f64())
            }
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if nanos(self.ttl) == 0 {
            return refuse("ttl", "above zero");
        }
        if !(0.0..1.0).contains(&self.ttl_jitter) {
            return refuse("ttl_jitter", "from 0 to below 1");
        }
        if self.negative_ttl_max < self.negative_ttl_min {
            return refuse("negative_ttl_max", "at least negative_ttl_min");
        }
        if self.lock.is_some_and(|lock| nanos(lock) == 0) {
            return refuse("lock", "above zero, or none");
        }
        if !(0.0..=100.0).contains(&self.early_expiration) {
            return refuse("early_expiration", "from 0 to 100");
        }
        if self.capacity == 0 {
            return refuse("capacity", "at least 1");
        }
        if let WriteMode::Behind { flush_every, buffer } = self.write {
            if nanos(flush_every) == 0 {
                return refuse("flush_every", "above zero");
            }
            if buffer == 0 || buffer > self.capacity / 2 {
                return refuse("buffer", "at least 1, at most half of the capacity");
            }
        }
        Ok(())
    }
}
