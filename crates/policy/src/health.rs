//! Active health checks: when to probe a target, and what the answers make of it.
//!
//! ```text
//!      ┌─────────┐ ── unhealthy_after failures in a row ──► ┌───────────┐
//!      │ healthy │                                          │ unhealthy │
//!      └─────────┘ ◄── healthy_after passes in a row ────── └───────────┘
//! ```
//!
//! The driver sends the probes. Their times are jittered, so that many gateways, or many targets of
//! one, do not probe in step. A probe that has not answered by its deadline counts as failed, and
//! what it answers later does not count.

use std::time::Duration;

use crate::{InvalidConfig, Mode, Time, nanos, unit};

/// How a target is probed and judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// From one probe to the next. Default: 5 s (NGINX Plus, `health_check interval`).
    pub every: Duration,
    /// How long a probe may take. Default: 1 s (Kubernetes, `timeoutSeconds`).
    pub timeout: Duration,
    /// Failures in a row that make a target unhealthy. Default: 3 (HAProxy, `fall`).
    pub unhealthy_after: u32,
    /// Passes in a row that make it healthy again. Default: 2 (HAProxy, `rise`).
    pub healthy_after: u32,
    /// The part of `every` by which each wait varies, up or down. Default: 0.1.
    pub jitter: f64,
    /// Shadow: probe, report and count, but leave the target in service.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
            jitter: 0.1,
            mode: Mode::Enforce,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if nanos(self.every) == 0 {
            return refuse("every", "above zero");
        }
        if nanos(self.timeout) == 0 || self.timeout > self.every {
            return refuse("timeout", "above zero, at most every");
        }
        if self.unhealthy_after == 0 {
            return refuse("unhealthy_after", "at least 1");
        }
        if self.healthy_after == 0 {
            return refuse("healthy_after", "at least 1");
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return refuse("jitter", "from 0 to below 1");
        }
        Ok(())
    }
}

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "send the probe and settle it"]
pub struct Probe {
    number: u64,
    /// When it counts as failed.
    pub deadline: Time,
}

/// What the driver has to do for a target now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nothing before [`HealthCheck::next_wake`].
    Idle,
    /// Send this probe.
    Send(Probe),
    /// The probe in flight has missed its deadline. Poll again.
    TimedOut(Option<Change>),
}

/// A target's state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was healthy and is not any more.
    Unhealthy,
    /// It was unhealthy and is well again.
    Healthy,
}

/// Results so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Probes that passed.
    pub passed: u64,
    /// Probes that failed, those that timed out included.
    pub failed: u64,
    /// Changes to unhealthy that [`Mode::Shadow`] kept from having an effect.
    pub shadowed: u64,
}

/// One target's health.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    config: Config,
    healthy: bool,
    /// Results in a row that speak against the current state.
    contrary: u32,
    due: Time,
    in_flight: Option<Probe>,
    sent: u64,
    counts: Counts,
}

impl HealthCheck {
    /// A target in the given state, probed first at a random time within one interval.
    pub fn new(config: Config, healthy: bool, now: Time, random: u64) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(HealthCheck {
            config,
            healthy,
            contrary: 0,
            due: now.plus_nanos((unit(random) * nanos(config.every) as f64) as u64),
            in_flight: None,
            sent: 0,
            counts: Counts::default(),
        })
    }

    /// What is due now. Call until it is [`Poll::Idle`].
    pub fn poll(&mut self, now: Time, random: u64) -> Poll {
        match self.in_flight {
            Some(probe) if probe.deadline <= now => {
                self.in_flight = None;
                Poll::TimedOut(self.judge(false))
            }
            None if self.due <= now => {
                let every = nanos(self.config.every) as f64;
                let vary = 1.0 + self.config.jitter * (2.0 * unit(random) - 1.0);
                self.due = now.plus_nanos(((every * vary) as u64).max(1));
                self.sent += 1;
                let probe = Probe { number: self.sent, deadline: now + self.config.timeout };
                self.in_flight = Some(probe);
                Poll::Send(probe)
            }
            _ => Poll::Idle,
        }
    }

    /// A probe has answered. One that had timed out before changes nothing.
    pub fn settle(&mut self, probe: Probe, passed: bool) -> Option<Change> {
        if self.in_flight.is_none_or(|p| p.number != probe.number) {
            return None;
        }
        self.in_flight = None;
        self.judge(passed)
    }

    /// When [`poll`](Self::poll) has something to do next.
    pub fn next_wake(&self) -> Time {
        self.in_flight.map_or(self.due, |probe| probe.deadline)
    }

    /// Whether a probe is out.
    pub fn has_probe_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether the target may be used: always in [`Mode::Shadow`].
    pub fn in_service(&self) -> bool {
        self.healthy || self.config.mode == Mode::Shadow
    }

    /// Whether the checks find the target well.
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Results so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the settings and keeps the state.
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<(), InvalidConfig> {
        config.check()?;
        self.due = self.due.min(now + config.every);
        self.config = config;
        Ok(())
    }

    fn judge(&mut self, passed: bool) -> Option<Change> {
        *(if passed { &mut self.counts.passed } else { &mut self.counts.failed }) += 1;
        if passed == self.healthy {
            self.contrary = 0;
            return None;
        }
        self.contrary += 1;
        let needed = if passed { self.config.healthy_after } else { self.config.unhealthy_after };
        if self.contrary < needed {
            return None;
        }
        self.contrary = 0;
        self.healthy = passed;
        self.counts.shadowed += u64::from(!passed && self.config.mode == Mode::Shadow);
        Some(if passed { Change::Healthy } else { Change::Unhealthy })
    }
}
