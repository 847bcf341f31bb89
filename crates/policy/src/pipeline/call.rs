//! What travels with a call through the pipeline, and what the pipeline answers.

use crate::bulkhead::{self, Granted, Ticket};
use crate::deadline::Deadline;
use crate::retry::{Hint, Stop, Tries};
use crate::{Outcome, Rejected, Time, adaptive_limit, circuit_breaker};

/// One call: what it has used up so far. It may be dropped at any point.
#[derive(Clone, Debug)]
pub struct Flight {
    pub(super) deadline: Deadline,
    pub(super) tries: Tries,
    pub(super) cost: u32,
    pub(super) hedges: u16,
    /// Extra attempts of the current try.
    pub(super) extra: u8,
    /// Attempts that are out.
    pub(super) outstanding: u8,
    pub(super) repeatable: bool,
    pub(super) done: bool,
}

impl Default for Flight {
    /// A call that is over: for a driver's memory of calls, where there is none.
    fn default() -> Self {
        Flight {
            deadline: Deadline::NEVER,
            tries: Tries::default(),
            cost: 1,
            hedges: 0,
            extra: 0,
            outstanding: 0,
            repeatable: false,
            done: true,
        }
    }
}

impl Flight {
    /// Sets what an attempt costs the rate limit: 1 if never set, 0 for calls exempt from it, such
    /// as health checks.
    pub fn with_cost(mut self, cost: u32) -> Self {
        self.cost = cost;
        self
    }

    /// When the call must have ended: the earlier of the caller's deadline and our own.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Attempts made, hedges included.
    pub fn attempts(&self) -> u32 {
        self.tries.made + u32::from(self.hedges)
    }

    /// Attempts that are neither settled nor cancelled.
    pub fn outstanding(&self) -> u32 {
        u32::from(self.outstanding)
    }
}

/// One attempt in progress: its permits and its deadline.
#[must_use = "an attempt that is neither settled nor cancelled keeps its permits"]
#[derive(Debug)]
pub struct Attempt {
    pub(super) deadline: Deadline,
    pub(super) breaker: circuit_breaker::Permit,
    pub(super) adaptive: adaptive_limit::Permit,
    pub(super) started: Time,
    pub(super) bulkhead: bulkhead::Permit,
}

impl Attempt {
    /// When to abort it: the earlier of the call's deadline and the per-try timeout's end.
    #[inline]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// When it was let through, after any wait.
    #[inline]
    pub fn started(&self) -> Time {
        self.started
    }

    /// The target answered at `answered`, and since then it is the caller who takes its time to take the
    /// answer in: that is no latency of the target's. The permits stay held.
    #[inline]
    pub fn exclude_since(&mut self, answered: Time, now: Time) {
        let handed_on = now.nanos_since(answered);
        self.started = self.started.plus_nanos(handed_on);
        self.adaptive.exclude(handed_on);
        self.breaker.exclude(handed_on);
    }
}

/// An attempt that waits for a permit of the bulkhead.
#[must_use = "resume it when its ticket is granted, give it up when its time is over"]
#[derive(Debug)]
pub struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) until: Time,
    pub(super) breaker: circuit_breaker::Permit,
    pub(super) adaptive: adaptive_limit::Permit,
}

impl Waiting {
    /// The place in the queue: what [`Granted`] names.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// When to give up: the longest wait, or the call's deadline.
    pub fn until(&self) -> Time {
        self.until
    }
}

/// The answer to an attempt.
#[must_use]
#[derive(Debug)]
pub enum Admission {
    /// Make the call.
    Now(Attempt),
    /// Wait for a permit.
    Queued(Waiting),
}

/// How an attempt ended, as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// For the breaker and the limits, and whether there is anything to retry.
    pub outcome: Outcome,
    /// Whether a failure is one that a retry may mend (a `when` filter, for instance). Default
    /// yes.
    pub retryable: bool,
    /// What the target said about coming back.
    pub hint: Hint,
}

impl Reply {
    /// A reply without hints.
    pub const fn new(outcome: Outcome) -> Self {
        Reply { outcome, retryable: true, hint: Hint { throttled: false, retry_after: None } }
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Reply::new(outcome)
    }
}

/// What follows a settled attempt.
#[must_use]
#[derive(Debug)]
pub struct Settled {
    /// For the call that the attempt was of.
    pub next: Next,
    /// For a call that waited, if one did: it goes ahead now.
    pub granted: Option<Granted>,
}

/// What a call does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The call is over: it succeeded, or ended in a way that is nobody's failure. Cancel the
    /// attempts that are still out.
    Done,
    /// This attempt failed, but another of the same call is still out.
    Wait,
    /// Attempt again at `at`.
    Retry {
        /// After the backoff.
        at: Time,
    },
    /// The call has failed, and why it is not retried.
    Exhausted(Stop),
}

/// Why no extra attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHedge {
    /// No hedge is configured.
    NotConfigured,
    /// The call may not be repeated, or is over.
    NotRepeatable,
    /// The breaker is not closed: a target in doubt gets no extra calls.
    BreakerNotClosed,
    /// There are enough extra attempts, the budget is empty, or the hedge is in [`Mode::Shadow`](crate::Mode::Shadow).
    Declined,
    /// Another policy said no.
    Rejected(Rejected),
}

/// Calls and the attempts made for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls started.
    pub calls: u64,
    /// Attempts let through, first ones, retries and hedges.
    pub attempts: u64,
    /// Extra attempts among them.
    pub hedges: u64,
}

impl Totals {
    /// Attempts a call: what this layer multiplies the load by. Layers multiply with each other.
    pub fn amplification(&self) -> f64 {
        if self.calls == 0 { 1.0 } else { self.attempts as f64 / self.calls as f64 }
    }
}
