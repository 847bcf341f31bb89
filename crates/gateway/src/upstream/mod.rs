//! An upstream service: its instances, and the policies around calls to it.
//!
//! Connections, buffers and figures are a core's own. The policies' state is not: it is one a target, and
//! every core locks it twice a request, to begin an attempt and to end it. Divided among the cores, a
//! bulkhead of 25 permits would be 12 and 13, and refuse while the other half is free; a breaker would
//! need as many failures again on each core; connections spread unevenly, and one HTTP/2 connection is
//! all on one core. Shared, the gateway decides exactly what the simulation of one instance decides. The
//! lock is held for some 100 ns of the 10 us and more that a request costs, and nothing waits under it.

pub mod call;
pub mod instances;
pub mod probe;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_model::system::{EdgePolicies, RetryWhen};
use plimsoll_policy::bulkhead::{Granted, Ticket};
use plimsoll_policy::members::{self, Members};
use plimsoll_policy::outlier_ejection::{self, Transition};
use plimsoll_policy::{Balancer, InvalidConfig, Pipeline, Time};
use tokio::sync::oneshot;

use crate::plan::Target;
pub use call::Call;
pub use instances::{Found, Instance, Member, Slots};

/// An upstream service with one set of policies.
#[derive(Debug)]
pub struct Upstream {
    /// The service's name.
    pub service: String,
    /// Tells it from other targets, also after a reload.
    pub key: String,
    state: Mutex<State>,
}

/// What is guarded.
#[derive(Debug)]
pub struct State {
    /// Deadline, retries, budget, breaker, bulkhead, hedge.
    pub pipeline: Pipeline,
    /// Which instance is next.
    pub balancer: Balancer,
    /// Who of them may be asked.
    pub members: Members,
    /// By the balancer's index; a hole where one was removed.
    pub instances: Vec<Option<Member>>,
    /// Attempts that wait for the bulkhead.
    waiters: Vec<(Ticket, oneshot::Sender<Granted>)>,
    /// What is worth another attempt.
    pub retry_when: RetryWhen,
    /// Requests in flight to one instance.
    pub max_connections: Option<u32>,
    /// Attempts that wait for a connection, in their order, and their numbers.
    pending: VecDeque<(u64, oneshot::Sender<()>)>,
    next_pending: u64,
    max_pending: u32,
    /// Weights of instances in their order, again and again; empty: all alike.
    weights: Vec<f64>,
    /// The path of health checks.
    pub health_path: Option<String>,
    /// Times that each thing has happened.
    pub events: Events,
    policies: EdgePolicies,
}

/// Times that something has happened to a target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// The breaker has opened.
    pub trips: u64,
    /// An instance was ejected.
    pub ejections: u64,
    /// Health checks gave an instance up.
    pub unhealthy: u64,
    /// Too few instances served.
    pub panics: u64,
}

impl Upstream {
    /// A target with no instances yet.
    pub fn new(target: &Target, now: Time, seed: u64) -> Result<Upstream, InvalidConfig> {
        let policies = &target.policies;
        Ok(Upstream {
            service: target.service.clone(),
            key: target.key.clone(),
            state: Mutex::new(State {
                pipeline: Pipeline::new(policies.pipeline, now)?,
                balancer: Balancer::with_ids(policies.balance.clone(), &[], seed)?,
                members: Members::new(members_config(policies), 0, now, seed)?,
                instances: Vec::new(),
                waiters: Vec::new(),
                retry_when: policies.retry_when,
                max_connections: policies.max_connections,
                pending: VecDeque::new(),
                next_pending: 0,
                max_pending: policies.max_pending,
                weights: policies.weights.clone(),
                health_path: policies.health.as_ref().map(|health| health.path.clone()),
                events: Events::default(),
                policies: policies.clone(),
            }),
        })
    }

    /// The state, for as long as the guard lives. A core that panicked under the lock has left a state
    /// that is at worst out of date.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New policies; the state of all that stays configured is kept.
    pub fn reconfigure(&self, policies: &EdgePolicies, now: Time) -> Result<(), InvalidConfig> {
        let mut state = self.lock();
        if state.policies == *policies {
            return Ok(());
        }
        state.pipeline.set_config(policies.pipeline, now)?;
        state.balancer.set_config(policies.balance.clone(), now)?;
        let transitions = state.members.set_config(members_config(policies), now)?.to_vec();
        state.apply(&transitions);
        state.retry_when = policies.retry_when;
        state.max_connections = policies.max_connections;
        state.max_pending = policies.max_pending;
        state.weights = policies.weights.clone();
        state.health_path = policies.health.as_ref().map(|health| health.path.clone());
        state.policies = policies.clone();
        while let Some(granted) = state.pipeline.grant(now) {
            state.grant(granted);
        }
        state.all_look_again();
        Ok(())
    }
}

impl State {
    /// Follows what has changed about the members.
    pub(crate) fn apply(&mut self, transitions: &[Transition]) {
        for transition in transitions {
            match *transition {
                Transition::SlowStart { endpoint, factor } => self.balancer.set_slow_start(endpoint, factor),
                Transition::Ejected { .. } => self.events.ejections += 1,
                Transition::Unhealthy { .. } => self.events.unhealthy += 1,
                Transition::PanicEntered => self.events.panics += 1,
                Transition::Returned { .. } | Transition::PanicLeft | Transition::Healthy { .. } => {}
            }
        }
    }

    /// There may be room elsewhere: all who wait for a connection look again, and those who are still too many
    /// wait on.
    pub(crate) fn all_look_again(&mut self) {
        let waiting = self.pending.len();
        (0..waiting).for_each(|_| self.connection_freed());
    }

    /// Room at an instance: whoever waits first looks again.
    fn connection_freed(&mut self) {
        while let Some((_, sender)) = self.pending.pop_front() {
            if sender.send(()).is_ok() {
                return;
            }
        }
    }

    /// A permit for whoever waits. A waiter that leaves takes itself off the list under the lock, so that
    /// nobody who is on it has gone.
    fn grant(&mut self, granted: Granted) {
        if let Some(at) = self.waiters.iter().position(|(ticket, _)| *ticket == granted.ticket) {
            let (_, waiter) = self.waiters.remove(at);
            let _ = waiter.send(granted);
        }
    }
}

fn members_config(policies: &EdgePolicies) -> members::Config {
    members::Config {
        health: policies.health.as_ref().map(|health| health.config),
        ejection: policies.outliers.clone().unwrap_or_else(|| outlier_ejection::Config {
            // Without `outliers` the simulation asks every instance that its checks leave.
            slow_start: if policies.health.is_some() {
                outlier_ejection::Config::default().slow_start
            } else {
                std::time::Duration::ZERO
            },
            ..outlier_ejection::Config::without_ejection()
        }),
    }
}
