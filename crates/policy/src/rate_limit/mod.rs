//! Rate limit: how many calls, or units of cost, a caller may make in a stretch of time.
//!
//! The default is GCRA ([`gcra`]): one timestamp a key, no window boundary to exploit, and an
//! exact time to come back. A sliding and a fixed window stand beside it; the fixed one is there
//! to be compared, since it admits twice its quota around a boundary.
//!
//! Quotas are for all callers together or for each key. The number of keys is bounded: past it the
//! key unused for the longest time is forgotten, which gives that caller a fresh quota and nobody
//! else. A cost of zero is exempt: health checks ask for nothing and get it.
//!
//! A limit that several processes share keeps its state in a store: the driver runs
//! [`gcra::Gcra::decide`]'s arithmetic there, on the store's clock, and passes the answer to
//! [`RateLimit::admit_by_store`], which also says what happens while the store is down.

mod fixed_window;
pub mod gcra;
mod keyed;
mod sliding_window;

use std::time::Duration;

use crate::{Counts, InvalidConfig, Mode, Reason, Rejected, Time};

use fixed_window::FixedWindow;
use gcra::Gcra;
use keyed::Cells;
use sliding_window::SlidingWindow;

/// The quota, how it is counted, and whose it is. There is no default quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Units of cost for each `per`.
    pub limit: u32,
    /// The stretch of time that `limit` is for.
    pub per: Duration,
    /// How it is counted. Default GCRA.
    pub algorithm: Algorithm,
    /// Whose quota it is. Default everybody's together.
    pub scope: Scope,
    /// What a limit with a store does while the store is down. Default fail open: a limiter is
    /// there to protect the service, not to take it down (Envoy's `failure_mode_deny: false`).
    pub store_down: StoreDown,
    /// Whether to act.
    pub mode: Mode,
}

impl Config {
    /// `limit` units for each `per`, by GCRA, for all callers together.
    pub fn new(limit: u32, per: Duration) -> Self {
        Config {
            limit,
            per,
            algorithm: Algorithm::Gcra { burst: None },
            scope: Scope::Shared,
            store_down: StoreDown::FailOpen,
            mode: Mode::Enforce,
        }
    }
}

/// How a quota is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Generic cell rate: a steady `limit / per`, and up to `burst` at once after a pause. Over
    /// any stretch of time `t` it admits at most `burst + t x limit / per`.
    Gcra {
        /// Units at once. Default a tenth of the limit, at least 1, so that the worst `per`
        /// admits 110% of the quota; a burst of the whole limit, as many libraries have it,
        /// admits 200%.
        burst: Option<u32>,
    },
    /// At most `limit` in any stretch of `per`, wherever it starts; all of it at once if asked.
    /// Counted in tenths of `per`, rounded towards fewer.
    SlidingWindow,
    /// At most `limit` from one multiple of `per` to the next: up to twice the limit within an
    /// instant around the boundary.
    FixedWindow,
}

/// Whose quota it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All callers share one.
    Shared,
    /// Each key has its own.
    PerKey {
        /// Keys remembered; past it the least recently seen of a sample is forgotten.
        max_keys: u32,
    },
}

/// What a limit with a store does while the store is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreDown {
    /// Lets calls through: no limit for a while.
    FailOpen,
    /// Rejects calls: no service for a while.
    FailClosed,
}

/// What the store that holds a shared limit's state said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreAnswer {
    /// Within the quota.
    Allowed,
    /// Over the quota.
    Denied {
        /// When to come back, on this process's clock.
        retry_at: Option<Time>,
    },
    /// The store did not answer in time, or with an error.
    Down,
}

/// Holds callers to a quota.
#[derive(Clone, Debug)]
pub struct RateLimit {
    state: State,
    counts: Counts,
    config: Config,
}

#[derive(Clone, Debug)]
enum State {
    Gcra(Gcra, Cells<Time>),
    Sliding(SlidingWindow, Cells<sliding_window::Cell>),
    Fixed(FixedWindow, Cells<fixed_window::Cell>),
}

impl RateLimit {
    /// Refuses a limit, `per`, burst or number of keys of zero, and more than one unit a
    /// nanosecond.
    pub fn new(config: Config, _now: Time) -> Result<Self, InvalidConfig> {
        Ok(RateLimit { state: State::new(&config)?, counts: Counts::default(), config })
    }

    /// Admits a call of `cost` units (1 for most, 0 for exempt ones) by `key`, or says when to come
    /// back. A shared limit takes no notice of the key. A call that costs more than the quota ever
    /// holds is told no time.
    #[inline]
    pub fn admit(&mut self, now: Time, key: u64, cost: u32) -> Result<(), Rejected> {
        if cost == 0 {
            return Ok(());
        }
        let decision = match &mut self.state {
            State::Gcra(gcra, cells) => {
                let tat = cells.get(key);
                let decision;
                (*tat, decision) = gcra.decide(*tat, now, cost);
                decision
            }
            State::Sliding(window, cells) => window.decide(cells.get(key), now, cost),
            State::Fixed(window, cells) => window.decide(cells.get(key), now, cost),
        };
        self.conclude(decision)
    }

    /// Turns a store's answer into a decision: counts, shadow mode and the store's absence are
    /// dealt with here.
    pub fn admit_by_store(&mut self, answer: StoreAnswer) -> Result<(), Rejected> {
        self.conclude(match (answer, self.config.store_down) {
            (StoreAnswer::Allowed, _) | (StoreAnswer::Down, StoreDown::FailOpen) => Ok(()),
            (StoreAnswer::Denied { retry_at }, _) => Err(retry_at),
            (StoreAnswer::Down, StoreDown::FailClosed) => Err(None),
        })
    }

    #[inline]
    fn conclude(&mut self, decision: Result<(), Option<Time>>) -> Result<(), Rejected> {
        match decision {
            Ok(()) => {
                self.counts.admitted += 1;
                Ok(())
            }
            Err(_) if self.config.mode == Mode::Shadow => {
                self.counts.shadowed += 1;
                Ok(())
            }
            Err(retry_at) => {
                self.counts.rejected += 1;
                Err(Rejected { reason: Reason::RateLimited, retry_at })
            }
        }
    }

    /// Keys remembered.
    pub fn keys(&self) -> usize {
        match &self.state {
            State::Gcra(_, cells) => cells.len(),
            State::Sliding(_, cells) => cells.len(),
            State::Fixed(_, cells) => cells.len(),
        }
    }

    /// Keys forgotten because there were too many.
    pub fn evicted(&self) -> u64 {
        match &self.state {
            State::Gcra(_, cells) => cells.evicted(),
            State::Sliding(_, cells) => cells.evicted(),
            State::Fixed(_, cells) => cells.evicted(),
        }
    }

    /// Replaces the configuration. What each key has used stays, unless the algorithm or the scope
    /// becomes another: then every quota starts afresh.
    pub fn set_config(&mut self, config: Config, _now: Time) -> Result<(), InvalidConfig> {
        let mut state = State::new(&config)?;
        match (&mut state, &mut self.state) {
            (State::Gcra(_, new), State::Gcra(_, old)) => new.take_over(old, |tat| tat),
            (State::Sliding(after, new), State::Sliding(before, old)) => {
                new.take_over(old, |cell| after.adopt(cell, before));
            }
            (State::Fixed(after, new), State::Fixed(before, old)) => {
                new.take_over(old, |cell| after.adopt(cell, before));
            }
            _ => {}
        }
        self.state = state;
        self.config = config;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Calls let through and turned away, exempt ones in neither.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl State {
    fn new(config: &Config) -> Result<State, InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if config.limit == 0 {
            return refuse("limit", "at least 1");
        }
        if config.per.as_nanos() < u128::from(config.limit) {
            return refuse("per", "at least a nanosecond for each unit of the limit");
        }
        let max_keys = match config.scope {
            Scope::Shared => None,
            Scope::PerKey { max_keys: 0 } => return refuse("scope.max_keys", "at least 1"),
            Scope::PerKey { max_keys } if max_keys > 1 << 28 => {
                return refuse("scope.max_keys", "at most 268435456");
            }
            Scope::PerKey { max_keys } => Some(max_keys),
        };
        Ok(match config.algorithm {
            Algorithm::Gcra { burst: Some(0) } => return refuse("burst", "at least 1"),
            Algorithm::Gcra { burst } => {
                let burst = burst.unwrap_or((config.limit / 10).max(1));
                State::Gcra(Gcra::new(config.limit, config.per, burst), Cells::new(max_keys))
            }
            Algorithm::SlidingWindow => {
                State::Sliding(SlidingWindow::new(config.limit, config.per), Cells::new(max_keys))
            }
            Algorithm::FixedWindow => State::Fixed(FixedWindow::new(config.limit, config.per), Cells::new(max_keys)),
        })
    }
}
