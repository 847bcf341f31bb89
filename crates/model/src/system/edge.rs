use plimsoll_policy as policy;

use super::{Component, Dist};

/// Who calls whom, and by which rules.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The caller.
    pub from: Component,
    /// The one called.
    pub to: Component,
    /// The caller's policies.
    pub policies: EdgePolicies,
    /// Line of the policies in the file, from 1; 0 where the file gives none.
    pub line: u32,
}

/// A caller's policies on one edge. Each instance of the caller has its own state.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgePolicies {
    /// One-way network delay, ns; none: as the system's `network` says for the two zones.
    pub latency: Option<Dist>,
    /// What an exchange takes beside the network and the one asked, ns: parsing, system calls, waking up. A calibration
    /// states it; none: nothing.
    pub overhead: Option<Dist>,
    /// Deadline, retries, budget, breaker, rate limit, bulkhead and hedging, in fixed order.
    pub pipeline: policy::PipelineConfig,
    /// Results that are worth another attempt.
    pub retry_when: RetryWhen,
    /// Which instance of the target is asked.
    pub balance: policy::balance::Config,
    /// Weights of the target's instances, in the order of their numbers, again and again; empty: all
    /// alike.
    pub weights: Vec<f64>,
    /// Active health checks of the target's instances, and their path.
    pub health: Option<Health>,
    /// Ejection of instances that keep failing.
    pub outliers: Option<policy::outlier_ejection::Config>,
    /// Requests that one caller has in flight to one instance at once.
    pub max_connections: Option<u32>,
    /// Whether reads of one caller that want the same share one call.
    pub coalesce: bool,
    /// Requests of one caller that wait for a connection; plays no part without `max_connections`.
    pub max_pending: u32,
}

/// Active health checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The path asked for.
    pub path: String,
    /// Interval, thresholds and timeout.
    pub config: policy::health::Config,
}

/// Results that are worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryWhen {
    /// The connection was refused or could not be made: nothing was sent.
    pub connect_error: bool,
    /// The connection broke.
    pub reset: bool,
    /// No answer in time.
    pub timeout: bool,
    /// 429
    pub too_many_requests: bool,
    /// 500
    pub internal_error: bool,
    /// 503
    pub unavailable: bool,
}
