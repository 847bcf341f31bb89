//! The discrete-event core: what is pending, where things live, what chance draws.

mod queue;
mod slab;

pub(crate) use plimsoll_model::draw::{
    Draw, KeySampler, alias_table, count, duration, exponential, mix, pick_alias, scale,
};
pub(crate) use queue::{EventQueue, LaneId};
pub(crate) use slab::{Ref, Slab};

/// Something that is due. Plain data, at most 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// An open-loop client's next request.
    Arrive { client: u32 },
    /// A closed-loop user has thought.
    Thought { client: u32, user: u32 },
    /// A core has done a task's work.
    WorkDone { task: Ref },
    /// A task goes on, with the answer to what it waited for.
    Resume { task: Ref, answer: Answer },
    /// A task has waited as long as its program says.
    Waited { task: Ref },
    /// A request that has its worker begins.
    Start { task: Ref },
    /// A request that has its bulkhead's permit asks for a worker.
    Seat { task: Ref },
    /// A task runs on from its program counter.
    Go { task: Ref },
    /// An attempt reaches its target.
    Deliver { attempt: Ref },
    /// A request that waited for its stopped process is in its hands.
    Admit { task: Ref },
    /// An attempt's answer reaches the caller.
    Answered { attempt: Ref, answer: Answer },
    /// An attempt takes too long.
    AttemptTimeout { attempt: Ref },
    /// The soonest of the timeouts of one length are due.
    Timeouts { queue: u16 },
    /// A call makes its next attempt.
    Retry { call: Ref },
    /// A call may send a hedge.
    Hedge { call: Ref },
    /// A call that waits for a bulkhead permit waits too long.
    BulkheadTimeout { call: Ref },
    /// A request that waits for a bulkhead on the server waits too long.
    ServerBulkheadTimeout { task: Ref },
    /// A request that waits for a seat at a gateway waits longer than the gateway's `timeout`.
    SeatTimeout { task: Ref },
    /// An attempt has waited too long for a pooled connection.
    PoolTimeout { attempt: Ref },
    /// An operation reaches its store.
    OpArrive { op: Ref },
    /// What follows a store's operation is done too.
    OpComplete { op: Ref },
    /// A store has done an operation.
    OpDone { op: Ref },
    /// An operation has waited long for a lock: look for a deadlock.
    LockCheck { op: Ref },
    /// A task that waits for another's fetch looks again.
    LookAgain { task: Ref },
    /// A rarer thing is due.
    Wake { what: u32 },
}

/// How something ended, as the one who asked sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answer {
    Ok,
    /// Well, but by a fallback or a stale copy.
    Degraded,
    /// 500
    Error,
    /// 503: a dependency is gone, or turned it away.
    Unavailable,
    /// 503 with a `Retry-After` of so many seconds: a queue is full, a limit is reached, a gateway's policy said no.
    Busy(u8),
    /// 429
    TooMany,
    /// 409: the same idempotency key is in progress.
    Conflict,
    /// No answer in time.
    Timeout,
    /// Nothing was sent: no connection.
    Refused,
    /// The connection broke.
    Reset,
    /// One of the caller's own policies said no, for so many seconds.
    Rejected(u8),
    /// The caller went away.
    Cancelled,
}

impl Answer {
    /// What a busy server says about coming back: a second, as nginx's and Envoy's examples do.
    pub(crate) const BUSY: Answer = Answer::Busy(1);

    /// When to come back, if it says so.
    #[inline(always)]
    pub(crate) fn retry_after(self) -> Option<std::time::Duration> {
        match self {
            Answer::Busy(seconds) => Some(std::time::Duration::from_secs(u64::from(seconds))),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn is_ok(self) -> bool {
        matches!(self, Answer::Ok | Answer::Degraded)
    }

    /// Whether a policy or a full queue turned it away, here or at the one that was asked.
    pub(crate) fn is_rejection(self) -> bool {
        matches!(self, Answer::Busy(_) | Answer::TooMany | Answer::Rejected(_))
    }
}
