use std::time::Duration;

use crate::{InvalidConfig, Mode, Time, nanos};

/// When to eject, for how long, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How often success rates are compared and ejection counts forgiven. Default: 10 s (Envoy,
    /// `interval`).
    pub sweep_every: Duration,
    /// Failures in a row that eject; 0 turns the rule off. Default: 5 (Envoy, `consecutive_5xx`).
    pub consecutive_failures: u32,
    /// Standard deviations below the mean success rate that eject; 0 turns the rule off. Default:
    /// 1.9 (Envoy, `success_rate_stdev_factor` 1900).
    pub success_rate_sigmas: f64,
    /// Endpoints with enough requests that the comparison needs. Default: 5 (Envoy,
    /// `success_rate_minimum_hosts`): a single outlier among n lies sqrt(n - 1) sigma off, which
    /// passes 1.9 from n = 5 on.
    pub success_rate_hosts_min: u32,
    /// Requests in a sweep that make an endpoint comparable. Default: 100 (Envoy,
    /// `success_rate_request_volume`).
    pub success_rate_requests_min: u32,
    /// The first ejection's length; the n-th in a row is n times as long. Default: 30 s (Envoy,
    /// `base_ejection_time`).
    pub base_ejection: Duration,
    /// The longest ejection. Default: 300 s (Envoy, `max_ejection_time`).
    pub max_ejection: Duration,
    /// The largest share of endpoints ejected at once, rounded down: at the default, fewer than 10
    /// endpoints never lose one. Default: 0.1 (Envoy, `max_ejection_percent`).
    pub max_ejected: f64,
    /// With a smaller share than this serving, all endpoints are eligible; 0 turns panic off.
    /// Default: 0.5 (Envoy, `healthy_panic_threshold`).
    pub panic_below: f64,
    /// The time over which an endpoint that has come back, or is new, reaches its full weight; zero
    /// turns slow start off. Default: 30 s (nginx's and Envoy's documented examples).
    pub slow_start: Duration,
    /// The weight at which a slow start begins. Default: 0.1 (Envoy, `min_weight_percent`).
    pub slow_start_min: f64,
    /// Shadow: detect, report and count, but leave the eligible set alone.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            sweep_every: Duration::from_secs(10),
            consecutive_failures: 5,
            success_rate_sigmas: 1.9,
            success_rate_hosts_min: 5,
            success_rate_requests_min: 100,
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.1,
            panic_below: 0.5,
            slow_start: Duration::from_secs(30),
            slow_start_min: 0.1,
            mode: Mode::Enforce,
        }
    }
}

impl Config {
    /// No ejection: only availability, panic and slow start remain.
    pub fn without_ejection() -> Self {
        Config { consecutive_failures: 0, success_rate_sigmas: 0.0, ..Config::default() }
    }

    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if nanos(self.sweep_every) == 0 {
            return refuse("sweep_every", "above zero");
        }
        if !(0.0..f64::INFINITY).contains(&self.success_rate_sigmas) {
            return refuse("success_rate_sigmas", "0 or more");
        }
        if self.success_rate_hosts_min < 2 {
            return refuse("success_rate_hosts_min", "at least 2");
        }
        if self.success_rate_requests_min == 0 {
            return refuse("success_rate_requests_min", "at least 1");
        }
        if nanos(self.base_ejection) == 0 {
            return refuse("base_ejection", "above zero");
        }
        if self.max_ejection < self.base_ejection {
            return refuse("max_ejection", "at least base_ejection");
        }
        if !(0.0..=1.0).contains(&self.max_ejected) {
            return refuse("max_ejected", "from 0 to 1");
        }
        if !(0.0..=1.0).contains(&self.panic_below) {
            return refuse("panic_below", "from 0 to 1");
        }
        if !(self.slow_start_min > 0.0 && self.slow_start_min <= 1.0) {
            return refuse("slow_start_min", "above 0, at most 1");
        }
        Ok(())
    }
}

/// What has changed, for the timeline and for the balancer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transition {
    /// An endpoint is ejected until `until`.
    Ejected {
        /// The endpoint.
        endpoint: usize,
        /// Which rule ejected it.
        cause: Cause,
        /// When it comes back.
        until: Time,
    },
    /// An ejection has ended.
    Returned {
        /// The endpoint.
        endpoint: usize,
    },
    /// An endpoint carries this part of its weight from now on: pass it to
    /// [`Balancer::set_slow_start`](crate::balance::Balancer::set_slow_start).
    SlowStart {
        /// The endpoint.
        endpoint: usize,
        /// From `slow_start_min` to 1.
        factor: f64,
    },
    /// Too few endpoints serve: all are eligible.
    PanicEntered,
    /// Enough endpoints serve again.
    PanicLeft,
    /// Active health checks have given an endpoint up.
    Unhealthy {
        /// The endpoint.
        endpoint: usize,
    },
    /// Active health checks have found an endpoint well.
    Healthy {
        /// The endpoint.
        endpoint: usize,
    },
}

/// Which rule ejected an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    ConsecutiveFailures,
    /// A success rate far below its peers'.
    SuccessRate,
}

/// What was decided so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ejections, in either mode.
    pub ejections: u64,
    /// Ejections that the cap, or being the last, prevented.
    pub capped: u64,
    /// Ejections that changed nothing because of [`Mode::Shadow`].
    pub shadowed: u64,
    /// Times that panic was entered.
    pub panics: u64,
}
