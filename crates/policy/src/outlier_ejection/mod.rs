//! Outlier ejection: endpoints that fail more than their peers get no traffic for a while.
//!
//! ```text
//!             failures in a row, or a success rate 1.9 sigma below the mean
//!      ┌─────────┐ ───────────────────────────────────────────────► ┌─────────┐
//!      │ serving │                                                  │ ejected │
//!      └─────────┘ ◄─── slow start ◄─── base_ejection x ejections ── └─────────┘
//! ```
//!
//! The rules are Envoy's, with three changes. An ejection must leave the ejected share within the
//! cap and at least one endpoint serving, and the cap goes on holding when endpoints leave. The
//! success-rate rule asks in addition whether chance explains the gap, since among 20 equal
//! endpoints one lies 1.9 sigma below the mean in most sweeps. And what a host does while it is
//! ejected (answers to requests sent before) does not count.
//!
//! [`OutlierEjection`] also holds the one set of [`Eligible`] endpoints: it is told which are
//! available by other lights (active health, draining), and when fewer than `panic_below` of them
//! would serve, it panics: all are eligible, since sending everything to the few survivors would
//! take them down as well.

use crate::balance::Eligible;
use crate::{InvalidConfig, Mode, Outcome, Time, nanos};

mod config;

pub use config::{Cause, Config, Counts, Transition};

/// How far below the mean, in standard errors of its own sample, a success rate must lie before
/// chance is ruled out (three sigma: one false alarm in 740).
const CHANCE_SIGMAS: f64 = 3.0;

/// Steps in which a slow start rises: 5% each.
const SLOW_START_STEPS: u64 = 20;

#[derive(Clone, Debug)]
struct Host {
    present: bool,
    /// By other lights than ejection: healthy and not draining.
    available: bool,
    /// Not part of the fleet that panic falls back to.
    draining: bool,
    ejected_until: Option<Time>,
    /// How many times the base length the next ejection lasts, less one.
    ejections: u32,
    failures_in_a_row: u32,
    requests: u32,
    failures: u32,
    slow_start: Option<(Time, u64)>,
}

impl Host {
    const fn new(available: bool) -> Self {
        Host {
            present: true,
            available,
            draining: false,
            ejected_until: None,
            ejections: 0,
            failures_in_a_row: 0,
            requests: 0,
            failures: 0,
            slow_start: None,
        }
    }

    const fn serves(&self) -> bool {
        self.present && self.available && !self.draining && self.ejected_until.is_none()
    }
}

/// Finds outliers and holds the set of eligible endpoints.
#[derive(Clone, Debug)]
pub struct OutlierEjection {
    config: Config,
    hosts: Vec<Host>,
    eligible: Eligible,
    panic: bool,
    next_sweep: Time,
    /// The earliest end of an ejection or step of a slow start.
    next_event: Option<Time>,
    transitions: Vec<Transition>,
    counts: Counts,
}

impl OutlierEjection {
    /// Watches `endpoints` endpoints, all of them available and warm.
    pub fn new(config: Config, endpoints: usize, now: Time) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(OutlierEjection {
            next_sweep: now + config.sweep_every,
            config,
            hosts: vec![Host::new(true); endpoints],
            eligible: Eligible::all(endpoints),
            panic: false,
            next_event: None,
            transitions: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// A request to endpoint `i` ended. What changed by it: usually nothing, at most an ejection and
    /// a panic.
    #[inline]
    pub fn record(&mut self, now: Time, i: usize, outcome: Outcome) -> &[Transition] {
        self.transitions.clear();
        let Some(host) = self.hosts.get_mut(i).filter(|h| h.present && h.ejected_until.is_none()) else {
            return &[];
        };
        match outcome {
            Outcome::Success => {
                host.requests += 1;
                host.failures_in_a_row = 0;
            }
            Outcome::Failure => {
                host.requests += 1;
                host.failures += 1;
                host.failures_in_a_row += 1;
                let limit = self.config.consecutive_failures;
                if limit > 0 && host.failures_in_a_row >= limit {
                    // Capped or not, the count starts again, or every further failure would try.
                    host.failures_in_a_row = 0;
                    self.try_eject(now, i, Cause::ConsecutiveFailures);
                    self.refresh();
                }
            }
            Outcome::Ignored | Outcome::Cancelled => {}
        }
        &self.transitions
    }

    /// The next time at which [`on_wake`](Self::on_wake) has something to do.
    #[inline]
    pub fn next_wake(&self) -> Option<Time> {
        Some(self.next_event.map_or(self.next_sweep, |at| at.min(self.next_sweep)))
    }

    /// Ends ejections, sweeps and raises slow starts that are due. Idempotent.
    pub fn on_wake(&mut self, now: Time) -> &[Transition] {
        self.transitions.clear();
        if self.next_wake().is_some_and(|at| at > now) {
            return &[];
        }
        for i in 0..self.hosts.len() {
            if self.hosts[i].ejected_until.is_some_and(|until| until <= now) {
                self.end_ejection(now, i);
            }
            self.raise(now, i);
        }
        if self.next_sweep <= now {
            self.sweep(now);
            self.next_sweep = now + self.config.sweep_every;
        }
        self.refresh();
        &self.transitions
    }

    /// The endpoints that may be used now.
    #[inline]
    pub fn eligible(&self) -> &Eligible {
        &self.eligible
    }

    /// Whether so few endpoints serve that all are eligible.
    pub fn in_panic(&self) -> bool {
        self.panic
    }

    /// Whether endpoint `i` is ejected (in [`Mode::Shadow`]: would be).
    pub fn is_ejected(&self, i: usize) -> bool {
        self.hosts.get(i).is_some_and(|h| h.ejected_until.is_some())
    }

    /// How many endpoints are ejected.
    pub fn ejected(&self) -> usize {
        self.hosts.iter().filter(|h| h.present && h.ejected_until.is_some()).count()
    }

    /// How many indices there are, holes of removed endpoints included.
    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn is_present(&self, i: usize) -> bool {
        self.hosts.get(i).is_some_and(|h| h.present)
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Ends the slow start of endpoint `i`, if it is in one.
    pub fn skip_slow_start(&mut self, i: usize) {
        if let Some(host) = self.hosts.get_mut(i) {
            host.slow_start = None;
        }
    }

    /// Adds an endpoint at index `i` (as given by the balancer), which starts slowly once available.
    pub fn add(&mut self, now: Time, i: usize, available: bool) -> &[Transition] {
        self.transitions.clear();
        while self.hosts.len() <= i {
            self.hosts.push(Host { present: false, ..Host::new(false) });
        }
        self.hosts[i] = Host::new(available);
        self.eligible.grow(i + 1);
        if available {
            self.start_slowly(now, i);
        }
        self.refresh();
        &self.transitions
    }

    /// Removes endpoint `i`. If the others' ejections then exceed the cap, those that would end
    /// soonest end now.
    pub fn remove(&mut self, now: Time, i: usize) -> &[Transition] {
        self.transitions.clear();
        if let Some(host) = self.hosts.get_mut(i) {
            *host = Host { present: false, ..Host::new(false) };
        }
        self.trim_to_cap(now);
        self.refresh();
        &self.transitions
    }

    /// Other lights say whether endpoint `i` can serve. Coming back starts slowly.
    pub fn set_available(&mut self, now: Time, i: usize, available: bool) -> &[Transition] {
        self.transitions.clear();
        let Some(host) = self.hosts.get_mut(i).filter(|h| h.present && h.available != available) else {
            return &[];
        };
        host.available = available;
        if available && host.ejected_until.is_none() {
            self.start_slowly(now, i);
        } else if !available && host.slow_start.take().is_some() {
            self.transitions.push(Transition::SlowStart { endpoint: i, factor: 1.0 });
        }
        self.refresh();
        &self.transitions
    }

    /// Endpoint `i` takes no new requests, not even in a panic, while it drains.
    pub fn set_draining(&mut self, i: usize, draining: bool) -> &[Transition] {
        self.transitions.clear();
        let Some(host) = self.hosts.get_mut(i).filter(|h| h.present && h.draining != draining) else {
            return &[];
        };
        host.draining = draining;
        self.refresh();
        &self.transitions
    }

    /// Changes the settings and keeps the state; a lower cap ends ejections beyond it.
    pub fn set_config(&mut self, config: Config, now: Time) -> Result<&[Transition], InvalidConfig> {
        config.check()?;
        self.transitions.clear();
        self.next_sweep = self.next_sweep.min(now + config.sweep_every);
        self.config = config;
        self.trim_to_cap(now);
        self.refresh();
        Ok(&self.transitions)
    }

    fn present(&self) -> usize {
        self.hosts.iter().filter(|h| h.present).count()
    }

    /// How many endpoints may be ejected at once.
    fn cap(&self) -> usize {
        // A little slack, so that 0.29 of 100 is 29 and not 28.99...
        (self.config.max_ejected * self.present() as f64 + 1e-9) as usize
    }

    fn try_eject(&mut self, now: Time, i: usize, cause: Cause) {
        let others = self.hosts.iter().enumerate().any(|(k, h)| k != i && h.serves());
        if !others || self.ejected() + 1 > self.cap() {
            self.counts.capped += 1;
            return;
        }
        let host = &mut self.hosts[i];
        host.ejections += 1;
        let base = nanos(self.config.base_ejection);
        let length = base.saturating_mul(u64::from(host.ejections)).min(nanos(self.config.max_ejection));
        let until = now.plus_nanos(length);
        host.ejected_until = Some(until);
        host.failures_in_a_row = 0;
        if self.config.mode == Mode::Enforce && host.slow_start.take().is_some() {
            self.transitions.push(Transition::SlowStart { endpoint: i, factor: 1.0 });
        }
        self.counts.ejections += 1;
        self.counts.shadowed += u64::from(self.config.mode == Mode::Shadow);
        self.transitions.push(Transition::Ejected { endpoint: i, cause, until });
    }

    fn end_ejection(&mut self, now: Time, i: usize) {
        let host = &mut self.hosts[i];
        host.ejected_until = None;
        (host.requests, host.failures, host.failures_in_a_row) = (0, 0, 0);
        self.transitions.push(Transition::Returned { endpoint: i });
        if self.config.mode == Mode::Enforce && self.hosts[i].available {
            self.start_slowly(now, i);
        }
    }

    fn trim_to_cap(&mut self, now: Time) {
        while self.ejected() > self.cap() {
            let soonest = self.hosts.iter().enumerate().filter(|(_, h)| h.present);
            let soonest = soonest.filter_map(|(i, h)| Some((h.ejected_until?, i))).min();
            let Some((_, i)) = soonest else { return };
            self.end_ejection(now, i);
        }
    }

    fn start_slowly(&mut self, now: Time, i: usize) {
        if nanos(self.config.slow_start) > 0 {
            self.hosts[i].slow_start = Some((now, 0));
            let factor = self.config.slow_start_min;
            self.transitions.push(Transition::SlowStart { endpoint: i, factor });
        }
    }

    /// Raises a slow start to the step that is due.
    fn raise(&mut self, now: Time, i: usize) {
        let Some((since, step)) = self.hosts[i].slow_start else {
            return;
        };
        let window = nanos(self.config.slow_start).max(1);
        let due = u128::from(now.nanos_since(since)) * u128::from(SLOW_START_STEPS) / u128::from(window);
        let due = due.min(u128::from(SLOW_START_STEPS)) as u64;
        if due > step {
            let done = due == SLOW_START_STEPS;
            self.hosts[i].slow_start = (!done).then_some((since, due));
            let factor = (due as f64 / SLOW_START_STEPS as f64).max(self.config.slow_start_min);
            self.transitions.push(Transition::SlowStart { endpoint: i, factor });
        }
    }

    /// Compares success rates, forgives one ejection of every endpoint that serves, and starts the
    /// next interval.
    fn sweep(&mut self, now: Time) {
        if self.config.success_rate_sigmas > 0.0 {
            self.eject_by_success_rate(now);
        }
        for host in &mut self.hosts {
            if host.ejected_until.is_none() {
                host.ejections = host.ejections.saturating_sub(1);
            }
            (host.requests, host.failures) = (0, 0);
        }
    }

    fn eject_by_success_rate(&mut self, now: Time) {
        let enough = self.config.success_rate_requests_min;
        let comparable = |h: &&Host| h.present && h.ejected_until.is_none() && h.requests >= enough;
        let rate = |h: &Host| 1.0 - f64::from(h.failures) / f64::from(h.requests);
        let count = self.hosts.iter().filter(comparable).count();
        if count < self.config.success_rate_hosts_min as usize {
            return;
        }
        let n = count as f64;
        let mean = self.hosts.iter().filter(comparable).map(rate).sum::<f64>() / n;
        let variance =
            self.hosts.iter().filter(comparable).map(|h| (rate(h) - mean) * (rate(h) - mean)).sum::<f64>() / n;
        let threshold = mean - self.config.success_rate_sigmas * variance.sqrt();
        for i in 0..self.hosts.len() {
            let host = &self.hosts[i];
            if !comparable(&host) || rate(host) >= threshold {
                continue;
            }
            let chance = (mean * (1.0 - mean) / f64::from(host.requests)).sqrt();
            if mean - rate(host) > CHANCE_SIGMAS * chance {
                self.try_eject(now, i, Cause::SuccessRate);
            }
        }
    }

    /// Recomputes the eligible set, panic and the next event after any change.
    fn refresh(&mut self) {
        let enforce = self.config.mode == Mode::Enforce;
        let (mut fleet, mut serving) = (0, 0);
        let mut next = None;
        for host in self.hosts.iter().filter(|h| h.present) {
            fleet += usize::from(!host.draining);
            serving += usize::from(host.available && !host.draining && !(enforce && host.ejected_until.is_some()));
            let step = host.slow_start.map(|(since, step)| {
                let window = u128::from(nanos(self.config.slow_start));
                // Rounded up: a wake-up just before the step would find nothing to do, forever.
                let at = (window * u128::from(step + 1)).div_ceil(u128::from(SLOW_START_STEPS));
                since.plus_nanos(at as u64)
            });
            for at in [host.ejected_until, step].into_iter().flatten() {
                next = Some(next.map_or(at, |n: Time| n.min(at)));
            }
        }
        self.next_event = next;
        let panic = (serving as f64) < self.config.panic_below * fleet as f64;
        if panic != self.panic {
            self.panic = panic;
            self.counts.panics += u64::from(panic);
            self.transitions.push(if panic { Transition::PanicEntered } else { Transition::PanicLeft });
        }
        for (i, host) in self.hosts.iter().enumerate() {
            let ejected = enforce && host.ejected_until.is_some();
            if host.present && !host.draining && (panic || (host.available && !ejected)) {
                self.eligible.insert(i);
            } else {
                self.eligible.remove(i);
            }
        }
    }
}
