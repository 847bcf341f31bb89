//! A scenario made ready to be run many times: everything that no replication changes.

use std::sync::Arc;

use plimsoll_model::load::{self, RateSegment};
use plimsoll_model::system::{Arrivals, Component, Experiment, Fault, FaultKind, Indicator, Load, Lock, Phase, System};

use plimsoll_policy::nanos;

use crate::compile::Code;
use crate::engine::{KeySampler, alias_table};
use crate::world::SECOND;

/// What to run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, for reports.
    pub name: String,
    /// Time before the measured part, ns.
    pub warmup: u64,
    /// Length of the measured part, ns.
    pub duration: u64,
    /// Load of each client over the measured part, where it is not the client's own.
    pub load: Vec<(plimsoll_model::system::ClientId, Load)>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Times at which figures are split, ns from the start of the measured part; those of the
    /// phases (first fault's start, last fault's end, last quarter) are always there.
    pub cuts: Vec<u64>,
    /// All load is multiplied by this (users, for closed loops).
    pub scale: f64,
    /// From the first to the second time, ns from the start of the measured part, all load is
    /// multiplied by the third.
    pub steps: Vec<(u64, u64, f64)>,
}

impl Scenario {
    /// The scenario of an experiment of the file.
    pub fn from_experiment(experiment: &Experiment) -> Self {
        Scenario {
            name: experiment.name.clone(),
            warmup: experiment.warmup,
            duration: experiment.duration,
            load: experiment.load.clone(),
            faults: experiment.faults.clone(),
            cuts: Vec::new(),
            scale: 1.0,
            steps: Vec::new(),
        }
    }

    /// A scenario without faults under the file's own load.
    pub fn calm(warmup: u64, duration: u64) -> Self {
        Scenario {
            name: "calm".to_owned(),
            warmup,
            duration,
            load: Vec::new(),
            faults: Vec::new(),
            cuts: Vec::new(),
            scale: 1.0,
            steps: Vec::new(),
        }
    }
}

/// What all scenarios of one system share.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) system: Arc<System>,
    code: Arc<Code>,
    /// Keys of each client's calls.
    keys: Arc<Vec<Vec<Option<KeySampler>>>>,
}

impl Prepared {
    pub(crate) fn new(system: &System) -> Self {
        let samplers = |client: &plimsoll_model::system::Client| {
            client.calls.iter().map(|call| call.key.as_ref().map(KeySampler::new)).collect()
        };
        Prepared {
            system: Arc::new(system.clone()),
            code: Arc::new(Code::new(system)),
            keys: Arc::new(system.clients.iter().map(samplers).collect()),
        }
    }
}

pub(crate) struct Plan {
    pub(crate) system: Arc<System>,
    pub(crate) code: Arc<Code>,
    /// Keys of each client's calls.
    pub(crate) keys: Arc<Vec<Vec<Option<KeySampler>>>>,
    pub(crate) warmup: u64,
    pub(crate) duration: u64,
    /// How long requests that are under way at the end may still take, ns; then they count as
    /// failed.
    pub(crate) drain: u64,
    /// Whether seconds, instances' response times and events are recorded.
    pub(crate) detail: bool,
    pub(crate) faults: Vec<Fault>,
    /// Ends of segments, from time zero: the warm-up's end first, the run's end last.
    pub(crate) cuts: Vec<u64>,
    /// For each phase, which segments it has.
    phases: [Vec<usize>; 5],
    /// Response times that objectives and expectations ask about, ns, rising.
    pub(crate) thresholds: Vec<u64>,
    pub(crate) loads: Vec<ClientLoad>,
    /// For each endpoint that clients call, its audience.
    pub(crate) endpoint_audience: Vec<Option<u32>>,
    /// The groups of each audience: all, then each client, then each endpoint that clients call.
    pub(crate) audiences: Vec<Vec<u32>>,
    /// The groups: which client calls which endpoint.
    pub(crate) groups: Vec<(u32, u32)>,
    /// The audience of each group's endpoint.
    pub(crate) group_audience: Vec<u32>,
    /// Each client's calls.
    pub(crate) calls: Vec<Vec<ClientCall>>,
    /// Spare instance slots of each service, for what a rolling deploy adds.
    pub(crate) spare: Vec<u32>,
    /// For each store, whether anything takes a whole table for itself.
    pub(crate) table_locks: Vec<bool>,
    /// Whether anything can disturb an edge or stop a process: without, checks are skipped.
    pub(crate) disturbed: bool,
}

/// One of a client's calls, with all that a request needs of it.
#[derive(Clone, Copy)]
pub(crate) struct ClientCall {
    pub(crate) edge: u32,
    pub(crate) endpoint: u32,
    pub(crate) class: u8,
    /// Where its requests are recorded.
    pub(crate) group: u32,
}

/// A client's load, ready to draw from.
pub(crate) struct ClientLoad {
    /// Rate over time.
    pub(crate) segments: Vec<RateSegment>,
    /// What is called.
    pub(crate) calls: Arc<[(u32, u32)]>,
    /// Users, of closed loops or for the draw of a user.
    pub(crate) users: u32,
}

impl Plan {
    pub(crate) fn new(prepared: &Prepared, scenario: &Scenario, detail: bool) -> Self {
        let system = &*prepared.system;
        let code = prepared.code.clone();
        let mut relative: Vec<u64> = scenario.cuts.clone();
        let first = scenario.faults.iter().map(|fault| fault.at).min();
        let last = scenario.faults.iter().map(|fault| fault.until).max();
        let settled = scenario.duration / 4 * 3;
        relative.extend([0, settled, scenario.duration]);
        relative.extend(first);
        relative.extend(last);
        relative.retain(|&cut| cut <= scenario.duration);
        relative.sort_unstable();
        relative.dedup();
        let segments = |from: u64, to: u64| -> Vec<usize> {
            (1..relative.len()).filter(|&i| relative[i - 1] >= from && relative[i] <= to).collect()
        };
        let first = first.unwrap_or(scenario.duration);
        let last = last.unwrap_or(scenario.duration).min(scenario.duration);
        let phases = [
            segments(0, scenario.duration),
            segments(0, first),
            segments(first, last),
            segments(last, scenario.duration),
            segments(settled, scenario.duration),
        ];
        let cuts = relative.iter().map(|cut| cut + scenario.warmup).collect();

        let mut endpoint_audience = vec![None; code.endpoints.len()];
        let mut audiences = vec![Vec::new(); 1 + system.clients.len()];
        let mut groups: Vec<(u32, u32)> = Vec::new();
        let mut group_audience = Vec::new();
        let mut calls = Vec::new();
        for (c, client) in system.clients.iter().enumerate() {
            let mut group_of = |group: (u32, u32)| {
                if let Some(known) = groups.iter().position(|&known| known == group) {
                    return known as u32;
                }
                let number = groups.len() as u32;
                groups.push(group);
                let audience = *endpoint_audience[group.1 as usize].get_or_insert(audiences.len() as u32);
                audiences.resize(audiences.len().max(audience as usize + 1), Vec::new());
                for at in [0, 1 + c, audience as usize] {
                    audiences[at].push(number);
                }
                group_audience.push(audience);
                number
            };
            let of_call = client.calls.iter().map(|call| {
                let endpoint = code.endpoint(call.endpoint);
                ClientCall { edge: call.edge.0, endpoint, class: call.class, group: group_of((c as u32, endpoint)) }
            });
            calls.push(of_call.collect());
        }
        let mut thresholds: Vec<u64> = system
            .objectives
            .iter()
            .filter_map(|objective| match objective.indicator {
                Indicator::LatencyBelow(limit) => Some(limit),
                Indicator::Success => None,
            })
            .collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        let spare = (0..system.services.len())
            .map(|s| {
                let deploys = scenario
                    .faults
                    .iter()
                    .any(|fault| matches!(fault.kind, FaultKind::Deploy { service, .. } if service.index() == s));
                let deploy = &system.services[s].deploy;
                if deploys && deploy.surge { deploy.batch } else { 0 }
            })
            .collect();
        let table_locks = (0..system.stores.len())
            .map(|s| {
                let migrates =
                    |fault: &Fault| matches!(fault.kind, FaultKind::LockTable { store, .. } if store.index() == s);
                system.stores[s].operations.iter().any(|op| op.lock == Lock::Table)
                    || scenario.faults.iter().any(migrates)
            })
            .collect();
        let loads = system.clients.iter().enumerate().map(|(i, _)| load(system, scenario, i)).collect();
        Plan {
            code,
            warmup: scenario.warmup,
            duration: scenario.duration,
            drain: drain(system),
            detail,
            faults: scenario.faults.clone(),
            cuts,
            phases,
            thresholds,
            loads,
            endpoint_audience,
            audiences,
            groups,
            group_audience,
            calls,
            spare,
            table_locks,
            disturbed: !scenario.faults.is_empty(),
            system: prepared.system.clone(),
            keys: prepared.keys.clone(),
        }
    }

    /// The end of the measured part.
    pub(crate) fn end(&self) -> u64 {
        self.warmup + self.duration
    }

    /// The segments of a phase.
    pub(crate) fn segments(&self, phase: Phase) -> &[usize] {
        &self.phases[phase as usize]
    }

    /// Segments that lie between two times, ns from the start of the measured part.
    pub(crate) fn segments_between(&self, from: u64, to: u64) -> Vec<usize> {
        let (from, to) = (from + self.warmup, to + self.warmup);
        (1..self.cuts.len()).filter(|&i| self.cuts[i - 1] >= from && self.cuts[i] <= to).collect()
    }

    /// The length of segments, ns.
    pub(crate) fn length(&self, segments: &[usize]) -> u64 {
        segments.iter().map(|&i| self.cuts[i] - if i == 0 { 0 } else { self.cuts[i - 1] }).sum()
    }

    /// The segment that a time lies in; it is not later than `last`.
    #[inline]
    pub(crate) fn segment_at(&self, time: u64, last: usize) -> usize {
        let mut segment = last;
        while segment > 0 && time < self.cuts[segment - 1] {
            segment -= 1;
        }
        segment
    }
}

/// How long requests that are under way at the end may still take, ns: as long as the most patient
/// client waits for one that is due at the very end.
fn drain(system: &System) -> u64 {
    let clients = system.edges.iter().filter(|edge| matches!(edge.from, Component::Client(_)));
    let patience = clients.map(|edge| patience(&edge.policies.pipeline).unwrap_or(PATIENT));
    patience.max().unwrap_or(0).saturating_add(SECOND).min(LONGEST)
}

/// The longest time from when a call is due to its end; none where nothing bounds it.
fn patience(config: &plimsoll_policy::pipeline::Config) -> Option<u64> {
    if let Some(timeout) = config.timeout {
        return Some(nanos(timeout));
    }
    let attempts = u64::from(config.retry.map_or(1, |retry| retry.attempts));
    let backoff =
        config.retry.map_or(0, |retry| nanos(retry.backoff.cap).saturating_add(nanos(retry.backoff.retry_after_slack)));
    let queued = config.bulkhead.map_or(0, |bulkhead| if bulkhead.queue > 0 { nanos(bulkhead.max_wait) } else { 0 });
    let each = nanos(config.per_try_timeout?).saturating_add(queued);
    Some(each.saturating_mul(attempts).saturating_add(backoff.saturating_mul(attempts - 1)))
}

/// A client that never gives up is watched for so long, ns: twice the longest default of proxies
/// and load balancers (60 s, of nginx and AWS).
const PATIENT: u64 = 120 * SECOND;

/// Nobody is waited for longer than this, ns.
const LONGEST: u64 = 600 * SECOND;

fn load(system: &System, scenario: &Scenario, client: usize) -> ClientLoad {
    let of = &system.clients[client];
    let own = scenario.load.iter().find(|(id, _)| id.index() == client).map(|(_, load)| load);
    let mut users = match (own, &of.arrivals) {
        (Some(Load::Users(users)), _) | (_, Arrivals::Closed { users, .. }) => *users,
        _ => of.users,
    };
    if matches!(of.arrivals, Arrivals::Closed { .. }) {
        users = ((users as f64 * scenario.scale).round() as u32).max(1);
    }
    let w = scenario.warmup;
    let mut surges = scenario.faults.iter().filter_map(|fault| fault.surge(client, w)).collect::<Vec<_>>();
    surges.extend(scenario.steps.iter().map(|&(from, to, factor)| (from + w, to + w, factor)));
    let segments = load::segments(of, own, scenario.scale, (w, scenario.duration), &surges);
    let weights: Vec<f64> = of.calls.iter().map(|call| call.weight).collect();
    ClientLoad { segments, calls: alias_table(&weights), users }
}
