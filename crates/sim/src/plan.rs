//! A scenario made ready to be run many times: everything that no replication changes.

use std::sync::Arc;

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

/// A part of a load: the rate rises linearly within it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RateSegment {
    pub(crate) end: u64,
    /// Events a ns at its start and end.
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) start: u64,
}

impl Plan {
    pub(crate) fn new(prepared: &Prepared, scenario: &Scenario, detail: bool) -> Self {
        let system = &*prepared.system;
        let code = prepared.code.clone();
        let end = scenario.warmup + scenario.duration;
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
        let loads = system.clients.iter().enumerate().map(|(i, _)| load(system, scenario, i, end)).collect();
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

fn load(system: &System, scenario: &Scenario, client: usize, end: u64) -> ClientLoad {
    let of = &system.clients[client];
    let own = scenario.load.iter().find(|(id, _)| id.index() == client).map(|(_, load)| load);
    let unit = match &of.arrivals {
        Arrivals::Open { rate, .. } => rate / 1e9 * scenario.scale,
        Arrivals::Trace { .. } => scenario.scale,
        Arrivals::Closed { .. } => 1.0,
    };
    let mut users = match &of.arrivals {
        Arrivals::Closed { users, .. } => *users,
        _ => of.users,
    };
    let w = scenario.warmup;
    let per_ns = scenario.scale / 1e9;
    let parts: Vec<RateSegment> = match own {
        None => vec![RateSegment { start: 0, end, from: unit, to: unit }],
        Some(Load::Users(n)) => {
            users = *n;
            vec![RateSegment { start: 0, end, from: 1.0, to: 1.0 }]
        }
        Some(Load::Rate(rate)) => vec![RateSegment { start: 0, end, from: rate * per_ns, to: rate * per_ns }],
        Some(Load::Ramp(from, to)) => vec![
            RateSegment { start: 0, end: w, from: from * per_ns, to: from * per_ns },
            RateSegment { start: w, end, from: from * per_ns, to: to * per_ns },
        ],
        Some(Load::Steps(rates)) => {
            let mut parts = vec![RateSegment { start: 0, end: w, from: rates[0] * per_ns, to: rates[0] * per_ns }];
            for (i, rate) in rates.iter().enumerate() {
                let at = |i: usize| w + scenario.duration * i as u64 / rates.len() as u64;
                parts.push(RateSegment { start: at(i), end: at(i + 1), from: rate * per_ns, to: rate * per_ns });
            }
            parts
        }
    };
    if matches!(of.arrivals, Arrivals::Closed { .. }) {
        users = ((users as f64 * scenario.scale).round() as u32).max(1);
    }
    let mut surges: Vec<(u64, u64, f64)> = scenario
        .faults
        .iter()
        .filter_map(|fault| match fault.kind {
            FaultKind::Surge { client: whose, factor } if whose.is_none_or(|id| id.index() == client) => {
                Some((fault.at + w, fault.until + w, factor))
            }
            _ => None,
        })
        .collect();
    surges.extend(scenario.steps.iter().map(|&(from, to, factor)| (from + w, to + w, factor)));
    let weights: Vec<f64> = of.calls.iter().map(|call| call.weight).collect();
    ClientLoad { segments: surged(&parts, &surges), calls: alias_table(&weights), users }
}

/// Splits segments at the surges' ends and multiplies the rate within them.
fn surged(parts: &[RateSegment], surges: &[(u64, u64, f64)]) -> Vec<RateSegment> {
    let mut times: Vec<u64> = surges.iter().flat_map(|&(from, to, _)| [from, to]).collect();
    times.extend(parts.iter().flat_map(|part| [part.start, part.end]));
    times.sort_unstable();
    times.dedup();
    let mut out = Vec::new();
    for part in parts {
        let rate_at = |time: u64| {
            let share = (time - part.start) as f64 / (part.end - part.start).max(1) as f64;
            part.from + share * (part.to - part.from)
        };
        for pair in times.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            if start < part.start || end > part.end {
                continue;
            }
            let factor: f64 = surges
                .iter()
                .filter(|&&(from, to, _)| from <= start && end <= to)
                .map(|&(_, _, factor)| factor)
                .product();
            out.push(RateSegment { start, end, from: rate_at(start) * factor, to: rate_at(end) * factor });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surge_multiplies_its_part_of_a_ramp() {
        let parts = [RateSegment { start: 0, end: 100, from: 1.0, to: 2.0 }];
        let got = surged(&parts, &[(40, 60, 3.0)]);
        let expect = [
            RateSegment { start: 0, end: 40, from: 1.0, to: 1.4 },
            RateSegment { start: 40, end: 60, from: 1.4 * 3.0, to: 1.6 * 3.0 },
            RateSegment { start: 60, end: 100, from: 1.6, to: 2.0 },
        ];
        assert_eq!(got.len(), 3);
        for (got, expect) in got.iter().zip(&expect) {
            assert_eq!((got.start, got.end), (expect.start, expect.end));
            assert!((got.from - expect.from).abs() < 1e-12 && (got.to - expect.to).abs() < 1e-12);
        }
    }
}
