//! One eligibility from three lights: active health, passive outlier ejection, draining.
//!
//! The simulator and the gateway both drive this type beside a [`Balancer`](crate::balance::Balancer);
//! indices are the balancer's. An endpoint serves if its checks find it healthy, it is not ejected
//! and not draining. If fewer than the panic threshold would serve, all but the draining ones are
//! eligible: health signals that condemn most of a fleet are more often wrong (a shared dependency,
//! a bad check) than right, and the few left could not carry the load anyway.

use crate::balance::Eligible;
use crate::hash::mix;
use crate::health::{self, Change, HealthCheck, Poll, Probe};
use crate::outlier_ejection::{self, OutlierEjection, Transition};
use crate::{InvalidConfig, Outcome, Time};

/// A fleet's settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Active checks. Default: none.
    pub health: Option<health::Config>,
    /// Passive ejection, panic and slow start. Default: all on.
    pub ejection: outlier_ejection::Config,
}

/// Endpoints and who of them may be used.
#[derive(Clone, Debug)]
pub struct Members {
    config: Config,
    ejection: OutlierEjection,
    /// By endpoint; empty without active checks.
    checks: Vec<Option<HealthCheck>>,
    transitions: Vec<Transition>,
    seed: u64,
}

impl Members {
    /// `endpoints` endpoints, all taken to be healthy until checks say otherwise. `seed_random`
    /// spreads the first probes.
    pub fn new(config: Config, endpoints: usize, now: Time, seed_random: u64) -> Result<Self, InvalidConfig> {
        let ejection = OutlierEjection::new(config.ejection.clone(), endpoints, now)?;
        let mut members = Members { config, ejection, checks: Vec::new(), transitions: Vec::new(), seed: seed_random };
        if let Some(health) = members.config.health {
            for i in 0..endpoints {
                let check = HealthCheck::new(health, true, now, mix(members.seed ^ i as u64))?;
                members.checks.push(Some(check));
            }
        }
        Ok(members)
    }

    /// A request to endpoint `i` ended. One that was `throttled`, refused by a quota of the endpoint's own, says nothing of
    /// how well it is: under an overload all of them refuse, and were they left out for that, the rest would have to
    /// refuse even more. (Envoy's outlier detection and HAProxy's `observe layer7` don't count a 429 either.)
    #[inline]
    pub fn record(&mut self, now: Time, i: usize, outcome: Outcome, throttled: bool) -> &[Transition] {
        self.ejection.record(now, i, if throttled { Outcome::Ignored } else { outcome })
    }

    /// The endpoints that may be used now.
    #[inline]
    pub fn eligible(&self) -> &Eligible {
        self.ejection.eligible()
    }

    /// The next time at which [`on_wake`](Self::on_wake) or [`poll_check`](Self::poll_check) has
    /// something to do.
    pub fn next_wake(&self) -> Option<Time> {
        let checks = self.checks.iter().flatten().map(HealthCheck::next_wake);
        checks.chain(self.ejection.next_wake()).min()
    }

    /// Ends what is due: ejections, steps of slow starts, probes past their deadline. Idempotent.
    /// Then take the probes to send from [`poll_check`](Self::poll_check).
    pub fn on_wake(&mut self, now: Time) -> &[Transition] {
        self.transitions.clear();
        self.transitions.extend_from_slice(self.ejection.on_wake(now));
        for i in 0..self.checks.len() {
            let Some(check) = &mut self.checks[i] else {
                continue;
            };
            // A check with a probe in flight sends none, so that no probe is lost here.
            if check.next_wake() <= now
                && check.has_probe_in_flight()
                && let Poll::TimedOut(change) = check.poll(now, 0)
            {
                self.apply(now, i, change);
            }
        }
        &self.transitions
    }

    /// The next probe to send now and its target. Call until it is `None`, with fresh random bits.
    pub fn poll_check(&mut self, now: Time, random: u64) -> Option<(usize, Probe)> {
        self.checks.iter_mut().enumerate().find_map(|(i, check)| {
            let check = check.as_mut().filter(|c| c.next_wake() <= now && !c.has_probe_in_flight())?;
            match check.poll(now, random) {
                Poll::Send(probe) => Some((i, probe)),
                Poll::Idle | Poll::TimedOut(_) => None,
            }
        })
    }

    /// A probe of endpoint `i` has answered.
    pub fn settle_check(&mut self, now: Time, i: usize, probe: Probe, passed: bool) -> &[Transition] {
        self.transitions.clear();
        if let Some(check) = self.checks.get_mut(i).and_then(Option::as_mut) {
            let change = check.settle(probe, passed);
            self.apply(now, i, change);
        }
        &self.transitions
    }

    /// Adds an endpoint at the index that the balancer gave it. It starts slowly, and if it is not
    /// `healthy` yet, only once its checks have passed.
    pub fn add(&mut self, now: Time, i: usize, healthy: bool) -> Result<&[Transition], InvalidConfig> {
        let mut in_service = true;
        if let Some(health) = self.config.health {
            if self.checks.len() <= i {
                self.checks.resize(i + 1, None);
            }
            self.seed = mix(self.seed);
            let check = HealthCheck::new(health, healthy, now, self.seed)?;
            in_service = check.in_service();
            self.checks[i] = Some(check);
        }
        Ok(self.ejection.add(now, i, in_service))
    }

    /// Endpoint `i` was at work before it was added: it has no need of a slow start.
    pub fn skip_slow_start(&mut self, i: usize) {
        self.ejection.skip_slow_start(i);
    }

    /// Removes endpoint `i`.
    pub fn remove(&mut self, now: Time, i: usize) -> &[Transition] {
        if let Some(check) = self.checks.get_mut(i) {
            *check = None;
        }
        self.ejection.remove(now, i)
    }

    /// Endpoint `i` takes no new requests while it drains.
    pub fn set_draining(&mut self, i: usize, draining: bool) -> &[Transition] {
        self.ejection.set_draining(i, draining)
    }

    /// Whether so few endpoints serve that all are eligible.
    pub fn in_panic(&self) -> bool {
        self.ejection.in_panic()
    }

    /// Whether the checks find endpoint `i` well; true without checks.
    pub fn is_healthy(&self, i: usize) -> bool {
        self.checks.get(i).and_then(Option::as_ref).is_none_or(HealthCheck::is_healthy)
    }

    /// The ejection half, for its counts and states.
    pub fn ejection(&self) -> &OutlierEjection {
        &self.ejection
    }

    /// The check of endpoint `i`, if it has one.
    pub fn check(&self, i: usize) -> Option<&HealthCheck> {
        self.checks.get(i)?.as_ref()
    }

    /// Changes the settings and keeps the state of everything that stays configured.
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<&[Transition], InvalidConfig> {
        if let Some(health) = &config.health {
            health.check()?;
        }
        self.transitions.clear();
        self.transitions.extend_from_slice(self.ejection.set_config(config.ejection.clone(), now)?);
        for i in 0..self.ejection.len() {
            if self.checks.len() <= i && config.health.is_some() {
                self.checks.push(None);
            }
            let in_service = match (config.health, self.checks.get_mut(i)) {
                (Some(health), Some(Some(check))) => {
                    check.set_config(health, now)?;
                    check.in_service()
                }
                (Some(health), Some(check)) if self.ejection.is_present(i) => {
                    self.seed = mix(self.seed);
                    *check = Some(HealthCheck::new(health, true, now, self.seed)?);
                    true
                }
                _ => true,
            };
            self.transitions.extend_from_slice(self.ejection.set_available(now, i, in_service));
        }
        if config.health.is_none() {
            self.checks.clear();
        }
        self.config = config;
        Ok(&self.transitions)
    }

    fn apply(&mut self, now: Time, i: usize, change: Option<Change>) {
        let Some(change) = change else { return };
        self.transitions.push(match change {
            Change::Unhealthy => Transition::Unhealthy { endpoint: i },
            Change::Healthy => Transition::Healthy { endpoint: i },
        });
        let in_service = self.checks[i].as_ref().is_none_or(HealthCheck::in_service);
        self.transitions.extend_from_slice(self.ejection.set_available(now, i, in_service));
    }
}
