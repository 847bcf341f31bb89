//! Pipeline: the policies around a call, in the one order that makes sense, as one state machine.
//!
//! ```text
//! deadline( retry( breaker( rate limit( adaptive limit( bulkhead( call ))))))
//! ```
//!
//! The deadline is outermost, so that queue waits, backoffs and every attempt count against it;
//! the per-try timeout is innermost, and starts when an attempt does. The retry is outside the
//! breaker, so that each attempt asks it anew and each outcome reaches it. The limits are inside
//! the breaker, so that our own rejections never look like the target's failures. A hedge is one
//! more attempt of the same try, paid for by the same budget.
//!
//! A driver follows one call like this:
//!
//! ```text
//! start ─► attempt ─┬─► Now(Attempt) ──────────► make the call, abort it at its deadline ─► settle
//!            ▲      ├─► Queued(Waiting) ─┬─ a settle grants its ticket ─► resume ─► make the call
//!            │      │                    └─ its time is over ───────────► give_up ─► the end
//!            │      └─► Err(Rejected): the end; a rejection of our own is never retried
//!            │
//!            └── settle says Retry { at }; otherwise Wait (another attempt of this call is still
//!                out), Done or Exhausted: the end
//! ```
//!
//! and for hedging, once [`Pipeline::hedge_after`] an attempt's start has passed, `hedge` gives an
//! extra attempt. Whichever is back first is settled, the others are given to `cancel`.

mod call;

use std::time::Duration;

use crate::adaptive_limit::{self, AdaptiveLimit};
use crate::bulkhead::{self, Bulkhead, Granted};
use crate::circuit_breaker::{self, CircuitBreaker, Transition};
use crate::deadline::{self, Deadline, Timeouts};
use crate::hedge::{self, Hedge};
use crate::rate_limit::{self, RateLimit};
use crate::retry::{self, Retry, Stop, Tries};
use crate::retry_budget::{self, RetryBudget};
use crate::{InvalidConfig, Mode, Outcome, Reason, Rejected, Time};

pub use call::{Admission, Attempt, Flight, Next, NoHedge, Reply, Settled, Totals, Waiting};

/// Which policies there are. The default is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Config {
    /// From the call's start to its end.
    pub timeout: Option<Duration>,
    /// From an attempt's start to its end.
    pub per_try_timeout: Option<Duration>,
    /// Whether the two act. In shadow mode the caller's deadline is not enforced either.
    pub timeout_mode: Mode,
    /// Further attempts after a failure.
    pub retry: Option<retry::Config>,
    /// What retries and hedges may cost together. Without it they are limited a call, not in all.
    pub budget: Option<retry_budget::Config>,
    /// Stops calling a target that fails.
    pub breaker: Option<circuit_breaker::Config>,
    /// Calls in a stretch of time.
    pub rate_limit: Option<rate_limit::Config>,
    /// Calls in flight, by latency.
    pub adaptive_limit: Option<adaptive_limit::Config>,
    /// Calls in flight, and calls that wait.
    pub bulkhead: Option<bulkhead::Config>,
    /// Extra attempts for slow calls.
    pub hedge: Option<hedge::Config>,
}

/// The policies around the calls to one target.
#[derive(Clone, Debug)]
pub struct Pipeline {
    timeouts: Timeouts,
    retry: Option<Retry>,
    budget: Option<RetryBudget>,
    breaker: Option<CircuitBreaker>,
    // In boxes, so that the lack of them does not keep the others apart in memory.
    rate_limit: Option<Box<RateLimit>>,
    adaptive_limit: Option<Box<AdaptiveLimit>>,
    bulkhead: Option<Box<Bulkhead>>,
    hedge: Option<Box<Hedge>>,
    totals: Totals,
    /// Reconfigurations: the generations of policies made by one start where no permit of
    /// another's can be.
    epoch: u32,
    config: Config,
}

impl Pipeline {
    /// Refuses what any of its policies refuses.
    pub fn new(config: Config, now: Time) -> Result<Self, InvalidConfig> {
        Ok(Pipeline {
            timeouts: Timeouts::new(timeouts(&config), now)?,
            retry: config.retry.map(|c| Retry::new(c, now)).transpose()?,
            budget: config.budget.map(|c| RetryBudget::new(c, now)).transpose()?,
            breaker: config.breaker.map(|c| CircuitBreaker::new(c, now)).transpose()?,
            rate_limit: config.rate_limit.map(|c| RateLimit::new(c, now)).transpose()?.map(Box::new),
            adaptive_limit: config.adaptive_limit.map(|c| AdaptiveLimit::new(c, now)).transpose()?.map(Box::new),
            bulkhead: config.bulkhead.map(|c| Bulkhead::new(c, now)).transpose()?.map(Box::new),
            hedge: config.hedge.map(Hedge::new).transpose()?.map(Box::new),
            totals: Totals::default(),
            epoch: 0,
            config,
        })
    }

    /// A call starts at `now`, for a caller who waits until `caller_deadline`. `repeatable` says
    /// that making it twice does no harm: an idempotent method, or an idempotency key.
    #[inline]
    pub fn start(&mut self, now: Time, caller_deadline: Option<Time>, repeatable: bool) -> Flight {
        self.totals.calls += 1;
        if let Some(budget) = &mut self.budget {
            budget.deposit(now);
        }
        let caller = caller_deadline.map_or(Deadline::NEVER, Deadline::at);
        Flight {
            deadline: self.timeouts.start(now, caller),
            tries: Tries::default(),
            cost: 1,
            hedges: 0,
            extra: 0,
            outstanding: 0,
            repeatable,
            done: false,
        }
    }

    /// Asks to make an attempt for `flight`. `key` is whose quota it counts against, where the
    /// rate limit has keys. A rejection ends the call.
    #[inline]
    pub fn attempt(&mut self, now: Time, flight: &mut Flight, key: u64) -> Result<Admission, Rejected> {
        let deadline = self.timeouts.attempt(now, flight.deadline)?;
        let (breaker, adaptive) = self.enter(now, flight, key)?;
        let bulkhead = match &mut self.bulkhead {
            None => bulkhead::Permit::none(),
            Some(bulkhead) => {
                let latest = self.timeouts.enforced(flight.deadline).time();
                match bulkhead.admit_or_queue(now, latest) {
                    Ok(bulkhead::Admission::Now(permit)) => permit,
                    Ok(bulkhead::Admission::Queued { ticket, until }) => {
                        return Ok(Admission::Queued(Waiting { ticket, until, breaker, adaptive }));
                    }
                    Err(rejected) => {
                        self.leave(now, breaker, adaptive);
                        return Err(rejected);
                    }
                }
            }
        };
        self.count_try(flight);
        Ok(Admission::Now(Attempt { deadline, breaker, adaptive, started: now, bulkhead }))
    }

    /// The policies between the retry and the bulkhead.
    #[inline]
    fn enter(
        &mut self,
        now: Time,
        flight: &Flight,
        key: u64,
    ) -> Result<(circuit_breaker::Permit, adaptive_limit::Permit), Rejected> {
        let breaker = match &mut self.breaker {
            Some(breaker) => breaker.admit(now)?,
            None => circuit_breaker::Permit::none(now),
        };
        if let Some(rate_limit) = &mut self.rate_limit
            && let Err(rejected) = rate_limit.admit(now, key, flight.cost)
        {
            self.leave(now, breaker, adaptive_limit::Permit::none());
            return Err(rejected);
        }
        let adaptive = match &mut self.adaptive_limit {
            None => adaptive_limit::Permit::none(),
            Some(limit) => match limit.admit(now) {
                Ok(permit) => permit,
                Err(rejected) => {
                    self.leave(now, breaker, adaptive_limit::Permit::none());
                    return Err(rejected);
                }
            },
        };
        Ok((breaker, adaptive))
    }

    /// Gives back what `enter` gave, for a call that is not made.
    #[cold]
    fn leave(&mut self, now: Time, breaker: circuit_breaker::Permit, adaptive: adaptive_limit::Permit) {
        if let Some(policy) = &mut self.breaker {
            policy.settle(now, breaker, Outcome::Ignored, 0);
        }
        if let Some(policy) = &mut self.adaptive_limit {
            policy.settle(now, adaptive, Outcome::Ignored);
        }
    }

    #[inline]
    fn count_try(&mut self, flight: &mut Flight) {
        flight.tries.made = flight.tries.made.saturating_add(1);
        flight.extra = 0;
        flight.outstanding += 1;
        self.totals.attempts += 1;
    }

    /// The turn of a waiting attempt has come: `granted` names its ticket. The per-try timeout
    /// starts here. If the caller has gone in the meantime, resume and then cancel.
    pub fn resume(&mut self, now: Time, flight: &mut Flight, waiting: Waiting, granted: Granted) -> Attempt {
        debug_assert_eq!(waiting.ticket, granted.ticket, "granted to another waiter");
        let Waiting { breaker, mut adaptive, .. } = waiting;
        // The wait is ours, not the target's latency.
        adaptive.restart(now);
        self.count_try(flight);
        Attempt {
            deadline: self.timeouts.per_try(now, flight.deadline),
            breaker,
            adaptive,
            started: now,
            bulkhead: granted.permit,
        }
    }

    /// A waiting attempt leaves the queue: its time is over (`now` is at or past
    /// [`Waiting::until`]) or its caller went away. The rejection says which limit it met.
    pub fn give_up(&mut self, now: Time, flight: &Flight, waiting: Waiting) -> Rejected {
        let Waiting { ticket, until, breaker, adaptive } = waiting;
        if let Some(bulkhead) = &mut self.bulkhead {
            bulkhead.leave(ticket, now >= until);
        }
        self.leave(now, breaker, adaptive);
        let deadline = self.timeouts.enforced(flight.deadline);
        Rejected::new(if deadline.has_passed(now) { Reason::DeadlineExceeded } else { Reason::BulkheadTimeout })
    }

    /// An attempt is over. `random` jitters the backoff, and the open time if the breaker trips.
    #[inline(always)]
    pub fn settle(&mut self, now: Time, flight: &mut Flight, attempt: Attempt, reply: Reply, random: u64) -> Settled {
        let granted = self.release(now, attempt, reply.outcome, random);
        flight.outstanding = flight.outstanding.saturating_sub(1);
        let next = match reply.outcome {
            // What comes in after the winner changes nothing.
            _ if flight.done => Next::Done,
            Outcome::Failure if flight.outstanding > 0 => Next::Wait,
            Outcome::Failure => self.after_failure(now, flight, reply, random),
            outcome => {
                flight.done = true;
                if outcome == Outcome::Success
                    && let Some(budget) = &mut self.budget
                {
                    budget.succeed(flight.tries.made > 1);
                }
                Next::Done
            }
        };
        Settled { next, granted }
    }

    fn after_failure(&mut self, now: Time, flight: &mut Flight, reply: Reply, random: u64) -> Next {
        let deadline = self.timeouts.enforced(flight.deadline);
        let decision = match &mut self.retry {
            None => Err(Stop::NotConfigured),
            Some(_) if !flight.repeatable => Err(Stop::NotRepeatable),
            Some(_) if !reply.retryable => Err(Stop::NotRetryable),
            Some(retry) => {
                let budget = &mut self.budget;
                let pay = || budget.as_mut().is_none_or(|budget| budget.withdraw(now).is_ok());
                retry.next(now, &mut flight.tries, deadline, reply.hint, random, pay)
            }
        };
        match decision {
            Ok(at) => Next::Retry { at },
            Err(stop) => {
                flight.done = true;
                Next::Exhausted(stop)
            }
        }
    }

    /// An attempt is abandoned: another has won, or the caller went away.
    #[inline]
    pub fn cancel(&mut self, now: Time, flight: &mut Flight, attempt: Attempt) -> Option<Granted> {
        flight.outstanding = flight.outstanding.saturating_sub(1);
        self.release(now, attempt, Outcome::Cancelled, 0)
    }

    /// Gives the permits back, innermost first.
    #[inline(always)]
    fn release(&mut self, now: Time, attempt: Attempt, outcome: Outcome, random: u64) -> Option<Granted> {
        let granted = match &mut self.bulkhead {
            Some(bulkhead) => bulkhead.settle(now, attempt.bulkhead, outcome),
            None => None,
        };
        if let Some(limit) = &mut self.adaptive_limit {
            limit.settle(now, attempt.adaptive, outcome);
        }
        if let Some(breaker) = &mut self.breaker {
            // Other bits than the backoff's: a trip and a retry may follow from one settle.
            breaker.settle(now, attempt.breaker, outcome, random.rotate_left(32));
        }
        if let Some(hedge) = &mut self.hedge {
            let latency_ns = now.nanos_since(attempt.started);
            match outcome {
                Outcome::Success => hedge.observe(latency_ns, false),
                Outcome::Cancelled => hedge.observe(latency_ns, true),
                Outcome::Failure | Outcome::Ignored => {}
            }
        }
        granted
    }

    /// How long after an attempt's start to ask for an extra one; `None` if never.
    #[inline]
    pub fn hedge_after(&self, flight: &Flight) -> Option<Duration> {
        match &self.hedge {
            Some(hedge) if flight.repeatable => hedge.delay(),
            _ => None,
        }
    }

    /// Asks for an extra attempt beside the one that is out. It never waits, takes no probe, and
    /// when it is refused the call goes on as if nothing had been asked.
    pub fn hedge(&mut self, now: Time, flight: &mut Flight, key: u64) -> Result<Attempt, NoHedge> {
        let Some(hedge) = &mut self.hedge else {
            return Err(NoHedge::NotConfigured);
        };
        if !flight.repeatable || flight.done || flight.outstanding == 0 {
            return Err(NoHedge::NotRepeatable);
        }
        if let Some(breaker) = &self.breaker
            && breaker.state() != circuit_breaker::State::Closed
        {
            return Err(NoHedge::BreakerNotClosed);
        }
        if let Some(bulkhead) = &self.bulkhead
            && bulkhead.is_full()
        {
            // Asked before the budget: an extra attempt that cannot be made must not cost a retry.
            return Err(NoHedge::Rejected(Rejected::new(Reason::BulkheadFull)));
        }
        let budget = &mut self.budget;
        let pay = || budget.as_mut().is_none_or(|budget| budget.withdraw(now).is_ok());
        if !hedge.decide(u32::from(flight.extra), pay) {
            return Err(NoHedge::Declined);
        }
        let deadline = self.timeouts.attempt(now, flight.deadline).map_err(NoHedge::Rejected)?;
        let (breaker, adaptive) = self.enter(now, flight, key).map_err(NoHedge::Rejected)?;
        let bulkhead = match &mut self.bulkhead {
            None => bulkhead::Permit::none(),
            Some(bulkhead) => match bulkhead.admit(now) {
                Ok(permit) => permit,
                Err(rejected) => {
                    self.leave(now, breaker, adaptive);
                    return Err(NoHedge::Rejected(rejected));
                }
            },
        };
        flight.extra += 1;
        flight.hedges = flight.hedges.saturating_add(1);
        flight.outstanding += 1;
        self.totals.attempts += 1;
        self.totals.hedges += 1;
        Ok(Attempt { deadline, breaker, adaptive, started: now, bulkhead })
    }

    /// When time alone next changes something.
    pub fn next_wake(&self) -> Option<Time> {
        self.breaker.as_ref().and_then(CircuitBreaker::next_wake)
    }

    /// Does what time alone does. Nothing depends on its being called; an observer sees the
    /// breaker's state change in time if it is.
    pub fn on_wake(&mut self, now: Time) {
        if let Some(breaker) = &mut self.breaker {
            breaker.on_wake(now);
        }
    }

    /// The oldest transition of the breaker not yet polled. The last eight are kept.
    #[inline]
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.breaker.as_mut().and_then(CircuitBreaker::poll_transition)
    }

    /// A permit for the next waiter after the bulkhead has grown: call it until `None`.
    pub fn grant(&mut self, now: Time) -> Option<Granted> {
        self.bulkhead.as_mut().and_then(|bulkhead| bulkhead.grant(now))
    }

    /// Replaces the configuration and keeps the state of every policy that stays; nothing changes
    /// if any part is invalid. Attempts that are out may be settled as ever. Follow it with
    /// [`grant`](Self::grant).
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<(), InvalidConfig> {
        Pipeline::new(config, now)?;
        self.epoch = self.epoch.wrapping_add(1);
        let generation = self.epoch << 24;

        self.timeouts.set_config(timeouts(&config), now)?;
        match (&mut self.retry, config.retry) {
            (Some(retry), Some(config)) => retry.set_config(config, now)?,
            (retry, config) => *retry = config.map(|c| Retry::new(c, now)).transpose()?,
        }
        match (&mut self.budget, config.budget) {
            (Some(budget), Some(config)) => budget.set_config(config, now)?,
            (budget, config) => *budget = config.map(|c| RetryBudget::new(c, now)).transpose()?,
        }
        match (&mut self.breaker, config.breaker) {
            (Some(breaker), Some(config)) => breaker.set_config(config, now)?,
            (breaker, config) => {
                let new = |c| CircuitBreaker::with_generation(c, now, generation);
                *breaker = config.map(new).transpose()?;
            }
        }
        match (&mut self.rate_limit, config.rate_limit) {
            (Some(limit), Some(config)) => limit.set_config(config, now)?,
            (limit, config) => *limit = config.map(|c| RateLimit::new(c, now)).transpose()?.map(Box::new),
        }
        match (&mut self.adaptive_limit, config.adaptive_limit) {
            (Some(limit), Some(config)) => limit.set_config(config, now)?,
            (limit, config) => {
                let new = |c| AdaptiveLimit::with_generation(c, now, generation);
                *limit = config.map(new).transpose()?.map(Box::new);
            }
        }
        match (&mut self.bulkhead, config.bulkhead) {
            (Some(bulkhead), Some(config)) => bulkhead.set_config(config, now)?,
            // One with room for all, so that those who wait in it get their turn.
            (Some(bulkhead), None) => {
                let unlimited = bulkhead::Config { permits: u32::MAX, ..*bulkhead.config() };
                bulkhead.set_config(unlimited, now)?;
            }
            (bulkhead, config) => {
                let new = |c| Bulkhead::with_generation(c, now, generation);
                *bulkhead = config.map(new).transpose()?.map(Box::new);
            }
        }
        match (&mut self.hedge, config.hedge) {
            (Some(hedge), Some(config)) => hedge.set_config(config)?,
            (hedge, config) => *hedge = config.map(Hedge::new).transpose()?.map(Box::new),
        }
        self.config = config;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Calls and attempts so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The deadline policy.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The retry policy, if there is one.
    pub fn retry(&self) -> Option<&Retry> {
        self.retry.as_ref()
    }

    /// The retry budget, if there is one.
    pub fn budget(&self) -> Option<&RetryBudget> {
        self.budget.as_ref()
    }

    /// Retries and hedges that the budget would pay for at `now`, if there is one.
    pub fn budget_balance(&mut self, now: Time) -> Option<f64> {
        self.budget.as_mut().map(|budget| budget.balance(now))
    }

    /// The breaker, if there is one.
    pub fn breaker(&self) -> Option<&CircuitBreaker> {
        self.breaker.as_ref()
    }

    /// The rate limit, if there is one.
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        self.rate_limit.as_deref()
    }

    /// The adaptive limit, if there is one.
    pub fn adaptive_limit(&self) -> Option<&AdaptiveLimit> {
        self.adaptive_limit.as_deref()
    }

    /// The bulkhead, if there is one.
    pub fn bulkhead(&self) -> Option<&Bulkhead> {
        self.bulkhead.as_deref()
    }

    /// The hedge, if there is one.
    pub fn hedging(&self) -> Option<&Hedge> {
        self.hedge.as_deref()
    }
}

fn timeouts(config: &Config) -> deadline::Config {
    deadline::Config { timeout: config.timeout, per_try_timeout: config.per_try_timeout, mode: config.timeout_mode }
}
