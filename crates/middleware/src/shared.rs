//! A pipeline behind its lock: what several services, their clones and their handles share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use plimsoll_policy::bulkhead::{Granted, Ticket};
use plimsoll_policy::circuit_breaker;
use plimsoll_policy::pipeline::{self, Config, Pipeline};
use plimsoll_policy::{Counts, InvalidConfig, Time};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::lock;
use crate::secret::Random;

/// A pipeline that several services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Whether the configuration has retries or hedges: asked before the lock is taken.
    repeats: AtomicBool,
    pub(crate) clock: Clock,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) pipeline: Pipeline,
    /// Those in the bulkhead's queue.
    pub(crate) waiters: BTreeMap<Ticket, oneshot::Sender<Granted>>,
    pub(crate) random: Random,
}

/// What a pipeline's policies have decided so far, and how they stand. `None` where there is no such policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// Calls and attempts.
    pub totals: pipeline::Totals,
    /// Attempts in time and too late.
    pub timeouts: Counts,
    /// Retries.
    pub retry: Option<Counts>,
    /// What the retry budget paid and refused.
    pub budget: Option<Counts>,
    /// The circuit breaker.
    pub breaker: Option<Counts>,
    /// Its state.
    pub breaker_state: Option<circuit_breaker::State>,
    /// The rate limit.
    pub rate_limit: Option<Counts>,
    /// The adaptive limit.
    pub adaptive_limit: Option<Counts>,
    /// The limit that it has found, not rounded.
    pub limit: Option<f64>,
    /// Calls that hold one of its permits.
    pub limit_in_flight: Option<u32>,
    /// The bulkhead.
    pub bulkhead: Option<Counts>,
    /// Calls that hold one of its permits.
    pub bulkhead_in_flight: Option<u32>,
    /// Calls that wait for one.
    pub waiting: Option<u32>,
    /// Hedges.
    pub hedge: Option<Counts>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Result<Arc<Shared>, InvalidConfig> {
        let clock = Clock::start();
        let pipeline = Pipeline::new(config, clock.now())?;
        let state = State { pipeline, waiters: BTreeMap::new(), random: Random::new() };
        let repeats = AtomicBool::new(repeats(&config));
        Ok(Arc::new(Shared { state: Mutex::new(state), repeats, clock }))
    }

    /// Whether a request may be made more than once.
    pub(crate) fn repeats(&self) -> bool {
        self.repeats.load(Ordering::Relaxed)
    }

    pub(crate) fn set_config(&self, config: Config) -> Result<(), InvalidConfig> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.pipeline.set_config(config, now)?;
        self.repeats.store(repeats(&config), Ordering::Relaxed);
        while let Some(granted) = state.pipeline.grant(now) {
            state.grant(now, Some(granted));
        }
        Ok(())
    }

    pub(crate) fn config(&self) -> Config {
        *lock(&self.state).pipeline.config()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut state = lock(&self.state);
        // An open breaker becomes half-open because time passes: readers see it in time.
        state.pipeline.on_wake(self.clock.now());
        let pipeline = &state.pipeline;
        Snapshot {
            totals: pipeline.totals(),
            timeouts: pipeline.timeouts().counts(),
            retry: pipeline.retry().map(|policy| policy.counts()),
            budget: pipeline.budget().map(|policy| policy.counts()),
            breaker: pipeline.breaker().map(|policy| policy.counts()),
            breaker_state: pipeline.breaker().map(|policy| policy.state()),
            rate_limit: pipeline.rate_limit().map(|policy| policy.counts()),
            adaptive_limit: pipeline.adaptive_limit().map(|policy| policy.counts()),
            limit: pipeline.adaptive_limit().map(|policy| policy.limit()),
            limit_in_flight: pipeline.adaptive_limit().map(|policy| policy.in_flight()),
            bulkhead: pipeline.bulkhead().map(|policy| policy.counts()),
            bulkhead_in_flight: pipeline.bulkhead().map(|policy| policy.in_flight()),
            waiting: pipeline.bulkhead().map(|policy| policy.waiting()),
            hedge: pipeline.hedging().map(|policy| policy.counts()),
        }
    }
}

impl State {
    /// Hands a permit to the waiter whose turn it is.
    pub(crate) fn grant(&mut self, now: Time, granted: Option<Granted>) {
        let mut granted = granted;
        while let Some(next) = granted.take() {
            // A waiter leaves this map and the policy's queue under one lock: who is granted is there.
            let sent = match self.waiters.remove(&next.ticket) {
                Some(waiter) => waiter.send(next),
                None => Err(next),
            };
            debug_assert!(sent.is_ok(), "a permit for nobody at {now:?}");
        }
    }
}

fn repeats(config: &Config) -> bool {
    config.retry.is_some() || config.hedge.is_some()
}
