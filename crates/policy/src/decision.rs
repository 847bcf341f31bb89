use crate::Time;

/// How a guarded call ended, as the policy that admitted it should count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did what was asked.
    Success,
    /// It failed in a way that makes another call now a bad idea: 5xx, 408, 429, timeout, refused
    /// or reset connection.
    Failure,
    /// It ended in a way that says nothing about the target: every other 4xx, a rejection by one of
    /// our own policies.
    Ignored,
    /// The caller went away, or a hedge won: nobody knows how it would have ended.
    Cancelled,
}

/// Why a policy said no, and when asking again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The policy's reason.
    pub reason: Reason,
    /// The earliest time at which the answer may differ, where the policy knows it.
    pub retry_at: Option<Time>,
}

impl Rejected {
    /// A rejection that cannot say when to come back.
    #[inline]
    pub const fn new(reason: Reason) -> Self {
        Rejected { reason, retry_at: None }
    }

    /// A rejection that holds until `retry_at`.
    #[inline]
    pub const fn until(reason: Reason, retry_at: Time) -> Self {
        Rejected { reason, retry_at: Some(retry_at) }
    }
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason.as_str())
    }
}

impl std::error::Error for Rejected {}

/// The reasons for which a policy rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The deadline has passed, or would pass before the call could end.
    DeadlineExceeded,
    /// The circuit breaker is open, or half-open with every probe taken.
    BreakerOpen,
    /// Every permit of the bulkhead is taken and its queue, if any, is full.
    BulkheadFull,
    /// A caller waited in the bulkhead's queue for as long as it may.
    BulkheadTimeout,
    /// The rate limit's quota is used up.
    RateLimited,
    /// The adaptive limit is reached.
    LimitReached,
    /// Load shedding dropped it.
    Shed,
    /// The retry budget is empty.
    BudgetExhausted,
    /// There is no healthy target.
    NoTarget,
    /// The degradation level has switched this off.
    Degraded,
    /// The same idempotency key is in progress.
    InProgress,
    /// The same idempotency key came with another body.
    KeyReused,
    /// The lease is held by another, or this token is older than one already seen.
    Fenced,
}

impl Reason {
    /// The reason in a few words, for reports and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::DeadlineExceeded => "deadline exceeded",
            Reason::BreakerOpen => "circuit breaker open",
            Reason::BulkheadFull => "bulkhead full",
            Reason::BulkheadTimeout => "bulkhead queue timed out",
            Reason::RateLimited => "rate limited",
            Reason::LimitReached => "adaptive limit reached",
            Reason::Shed => "load shed",
            Reason::BudgetExhausted => "retry budget exhausted",
            Reason::NoTarget => "no healthy target",
            Reason::Degraded => "switched off by degradation level",
            Reason::InProgress => "idempotency key in progress",
            Reason::KeyReused => "idempotency key reused with another body",
            Reason::Fenced => "fenced off",
        }
    }
}

/// Whether a policy acts on what it decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Decide and act.
    #[default]
    Enforce,
    /// Decide and count, but let everything through: how a policy is tried on live traffic.
    Shadow,
}

/// What a policy has decided since it was made. Plain counts: a driver reads and subtracts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls let through because the policy agreed.
    pub admitted: u64,
    /// Calls turned away.
    pub rejected: u64,
    /// Calls that the policy would have turned away, let through in [`Mode::Shadow`].
    pub shadowed: u64,
}

/// A configuration value that a policy refuses at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    /// The field's name in the policy's `Config`.
    pub field: &'static str,
    /// What the field must be.
    pub expected: &'static str,
}

impl std::fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}", self.field, self.expected)
    }
}

impl std::error::Error for InvalidConfig {}
