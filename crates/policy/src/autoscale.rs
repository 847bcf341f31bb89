//! Autoscaling: how many instances there should be, by how busy those are that serve.
//!
//! ```text
//!   desired = ceil(serving * utilization / target), from min to max
//!   desired > wanted ──► Grow, at once
//!   desired < wanted ──► Shrink, once the number has stood for the cooldown
//! ```
//!
//! The formula is that of Kubernetes' HorizontalPodAutoscaler ("Horizontal Pod Autoscaling", algorithm
//! details). Up at once, since what is missing is missed now; down slowly, since an instance that goes
//! takes its share of the next burst with it.

use std::time::Duration;

use crate::{InvalidConfig, Time};

/// An autoscaler's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Fewest instances, from 1. Default: 1 (Kubernetes, `minReplicas`).
    pub min: u32,
    /// Most instances, not below `min`. Default: 1.
    pub max: u32,
    /// The utilization that it steers to, above 0; 1 is all that limits an instance. Default: 0.7, a
    /// common headroom.
    pub target: f64,
    /// How long the number must have stood before it shrinks. Default: 5 min (Kubernetes,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`).
    pub cooldown: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { min: 1, max: 1, target: 0.7, cooldown: Duration::from_secs(300) }
    }
}

impl Config {
    fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if self.min == 0 {
            return refuse("min", "at least 1");
        }
        if self.max < self.min {
            return refuse("max", "not below min");
        }
        if !(self.target.is_finite() && self.target > 0.0) {
            return refuse("target", "above 0");
        }
        Ok(())
    }
}

/// What an autoscaler decides by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Instances that serve.
    pub serving: u32,
    /// Instances that are to be there: those that serve, that start, or that have been asked for.
    pub wanted: u32,
    /// The busy share of what limits those that serve, 0 to 1, since the last decision.
    pub utilization: f64,
    /// Whether a new version is rolling out: what it replaces is not for others to end.
    pub deploying: bool,
}

/// What is to be done about the number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Keep,
    /// So many more are to start.
    Grow(u32),
    /// So many are to drain and go.
    Shrink(u32),
}

/// An autoscaler.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    config: Config,
    changed_at: Time,
}

impl Autoscaler {
    /// Starts with a number that has stood since `now`.
    pub fn new(config: Config, now: Time) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(Autoscaler { config, changed_at: now })
    }

    /// What is to be done. While nothing serves nothing is known, and nothing is done: those that are on
    /// their way will tell.
    pub fn decide(&self, now: Time, seen: &Seen) -> Decision {
        if seen.serving == 0 || seen.utilization.is_nan() {
            return Decision::Keep;
        }
        let steered = (f64::from(seen.serving) * seen.utilization / self.config.target).ceil() as u32;
        let desired = steered.clamp(self.config.min, self.config.max);
        if desired > seen.wanted {
            return Decision::Grow(desired - seen.wanted);
        }
        let quiet = now.since(self.changed_at) >= self.config.cooldown;
        if desired < seen.wanted && quiet && !seen.deploying {
            return Decision::Shrink(seen.wanted - desired);
        }
        Decision::Keep
    }

    /// The number has changed because of a decision: the cooldown begins.
    pub fn changed(&mut self, now: Time) {
        self.changed_at = now;
    }
}
