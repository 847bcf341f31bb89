//! Bulkhead: how many calls to one target may be in flight, so that a slow target takes some of
//! our capacity and not all of it.
//!
//! By default a call that finds no permit is rejected at once. With a queue, a bounded number of
//! calls waits, first come first served: a settled call hands its permit to the waiter at the
//! head. A permit is taken when a call is made, never while a caller is merely becoming ready.

mod queue;

use std::time::Duration;

use crate::{Counts, InvalidConfig, Mode, Outcome, Reason, Rejected, Time, nanos};
use queue::Queue;

/// How many calls run, how many wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Calls in flight. Default 25 (resilience4j `maxConcurrentCalls`:
    /// <https://resilience4j.readme.io/docs/bulkhead>).
    pub permits: u32,
    /// Calls that wait for a permit. Default 0 (resilience4j `maxWaitDuration` 0): waiting hides an
    /// overload and adds to it.
    pub queue: u32,
    /// How long a call waits at most. Default 1 s; plays no part while `queue` is 0.
    pub max_wait: Duration,
    /// Whether to act.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config { permits: 25, queue: 0, max_wait: Duration::from_secs(1), mode: Mode::Enforce }
    }
}

/// The right to make one call.
#[must_use = "a permit that is not settled is never given to another call"]
#[derive(Debug)]
pub struct Permit {
    generation: u32,
    /// Whether it is one of the configured permits, or one let through in shadow mode.
    counted: bool,
}

impl Permit {
    /// The permit where no bulkhead is configured.
    pub(crate) const fn none() -> Permit {
        Permit { generation: 0, counted: false }
    }
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    slot: u32,
    generation: u32,
}

/// The answer to a call that may wait.
#[must_use]
#[derive(Debug)]
pub enum Admission {
    /// Go ahead.
    Now(Permit),
    /// Wait until the ticket is [`Granted`], and [`leave`](Bulkhead::leave) at `until`.
    Queued {
        /// The place in the queue.
        ticket: Ticket,
        /// When the wait is over, granted or not.
        until: Time,
    },
}

/// A permit handed from a settled call to a waiter.
#[must_use = "the waiter holds a permit now: resume it, or settle the permit"]
#[derive(Debug)]
pub struct Granted {
    /// Whose turn it is.
    pub ticket: Ticket,
    /// What it gets.
    pub permit: Permit,
}

/// Limits the calls in flight to one target.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    in_flight: u32,
    permits: u32,
    generation: u32,
    queue: Queue,
    counts: Counts,
    config: Config,
}

impl Bulkhead {
    /// Refuses no permits at all, a queue of more than 2^24 calls, and a queue without a wait.
    pub fn new(config: Config, now: Time) -> Result<Self, InvalidConfig> {
        Self::with_generation(config, now, 0)
    }

    /// As `new`, but permits of a bulkhead with other generations are stale here.
    pub(crate) fn with_generation(config: Config, _now: Time, generation: u32) -> Result<Self, InvalidConfig> {
        validate(&config)?;
        Ok(Bulkhead {
            in_flight: 0,
            permits: config.permits,
            generation,
            queue: Queue::default(),
            counts: Counts::default(),
            config,
        })
    }

    /// A permit now, or a rejection: what a call that cannot wait asks for.
    #[inline]
    pub fn admit(&mut self, _now: Time) -> Result<Permit, Rejected> {
        // Waiters come first, should a change of configuration have left room beside them.
        if self.in_flight < self.permits && self.queue.len == 0 {
            return Ok(self.take());
        }
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Ok(Permit { generation: self.generation, counted: false });
        }
        self.counts.rejected += 1;
        Err(Rejected::new(Reason::BulkheadFull))
    }

    /// A permit now, or a place in the queue until `deadline` at most, or a rejection.
    #[inline]
    pub fn admit_or_queue(&mut self, now: Time, deadline: Time) -> Result<Admission, Rejected> {
        if (self.in_flight < self.permits && self.queue.len == 0)
            || self.config.queue == 0
            || self.config.mode == Mode::Shadow
        {
            return self.admit(now).map(Admission::Now);
        }
        self.enqueue(now, deadline)
    }

    #[inline(never)]
    fn enqueue(&mut self, now: Time, deadline: Time) -> Result<Admission, Rejected> {
        if self.waiting() >= self.config.queue {
            // A driver that is late with its timers must not keep the living out.
            self.drop_expired(now);
        }
        if self.waiting() >= self.config.queue {
            self.counts.rejected += 1;
            return Err(Rejected::new(Reason::BulkheadFull));
        }
        let until = now.plus_nanos(nanos(self.config.max_wait)).min(deadline);
        let ticket = self.queue.push(until);
        Ok(Admission::Queued { ticket, until })
    }

    /// Ends a call. If somebody waits, the permit is theirs. The outcome makes no difference: a
    /// cancelled call gives back its place like any other.
    #[inline]
    pub fn settle(&mut self, now: Time, permit: Permit, _outcome: Outcome) -> Option<Granted> {
        if !permit.counted || permit.generation != self.generation {
            return None;
        }
        self.in_flight -= 1;
        if self.queue.len == 0 {
            return None;
        }
        self.grant(now)
    }

    /// A permit for the waiter at the head if there is one free: after the configuration has grown,
    /// call it until it returns `None`.
    #[inline(never)]
    pub fn grant(&mut self, now: Time) -> Option<Granted> {
        self.drop_expired(now);
        if self.in_flight >= self.permits {
            return None;
        }
        let ticket = self.queue.pop()?;
        Some(Granted { ticket, permit: self.take() })
    }

    /// A waiter gives up: its time is over or its caller went away. `timed_out` says which it was;
    /// only a timeout is a rejection. False if it had left or been granted before.
    pub fn leave(&mut self, ticket: Ticket, timed_out: bool) -> bool {
        let left = self.queue.remove(ticket);
        self.counts.rejected += u64::from(left && timed_out);
        left
    }

    fn drop_expired(&mut self, now: Time) {
        while self.queue.head_until().is_some_and(|until| until <= now) {
            self.queue.pop();
            self.counts.rejected += 1;
        }
    }

    #[inline]
    fn take(&mut self) -> Permit {
        self.in_flight += 1;
        self.counts.admitted += 1;
        Permit { generation: self.generation, counted: true }
    }

    /// Forgets every call in flight and every waiter, as when the target's process is gone;
    /// permits given before change nothing any more.
    pub fn reset(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
        while self.queue.pop().is_some() {}
    }

    /// Whether a call that cannot wait would be turned away.
    pub(crate) fn is_full(&self) -> bool {
        (self.in_flight >= self.permits || self.queue.len > 0) && self.config.mode == Mode::Enforce
    }

    /// Calls that hold a permit.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Calls that wait.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.queue.len
    }

    /// Replaces the configuration. Calls in flight and waiters stay, also where there are now more
    /// of them than allowed. Follow a growth with [`grant`](Self::grant).
    pub fn set_config(&mut self, config: Config, _now: Time) -> Result<(), InvalidConfig> {
        validate(&config)?;
        self.permits = config.permits;
        self.config = config;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Calls let through and turned away; a waiter counts when it gets its permit or times out.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn validate(config: &Config) -> Result<(), InvalidConfig> {
    let refuse = |field, expected| Err(InvalidConfig { field, expected });
    if config.permits == 0 {
        return refuse("permits", "at least 1");
    }
    if config.queue > 1 << 24 {
        return refuse("queue", "at most 16777216");
    }
    if config.queue > 0 && config.max_wait.is_zero() {
        return refuse("max_wait", "a duration above zero, since there is a queue");
    }
    Ok(())
}
