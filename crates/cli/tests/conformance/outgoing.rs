//! One target's policies: balancing, health, ejection, breaker, retries, hedges, connections.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use plimsoll_gateway::Plan;
use plimsoll_gateway::clock::Clock;
use plimsoll_gateway::upstream::call::{Begun, Ended};
use plimsoll_gateway::upstream::probe::Due;
use plimsoll_gateway::upstream::{Call, Found, Slots, Upstream};
use plimsoll_model::system::System;
use plimsoll_model::system::policy::circuit_breaker::State as Breaker;
use plimsoll_model::system::policy::members::Config;
use plimsoll_model::system::policy::{Balancer, Members, Time, outlier_ejection};
use plimsoll_sim::Scenario;
use plimsoll_sim::journal::{End, Entry, Go, Journal, Step, journal};

use super::{SEED, bad_weather, indented, instances, system};

/// A gateway with these keys before three instances that fail now and then; the second of them is stopped, and
/// later slow, for a while.
fn text(keys: &str) -> String {
    let (keys, api) = (indented(keys), instances(&["GET /items/:id", "POST /items"]));
    let weather = bad_weather("");
    format!(
        "system: conformance
clients:
  web:
    rate: 400/s
    users: 50
    calls: [ {{ endpoint: edge GET /items/:id, weight: 4 }}, edge POST /items ]
    timeout: none
services:
  edge:
    kind: gateway
    cores: 8
    listen: [\"127.0.0.1:0\"]
    upstream: api
    timeout: 400ms
{keys}{api}{weather}"
    )
}

/// The simulation's journal, replayed. How often each kind of decision was compared.
fn conforms(keys: &str) -> BTreeMap<&'static str, usize> {
    let system = system(&text(keys));
    let scenario = Scenario::from_experiment(&system.experiments[0]);
    let journal = journal(&system, &scenario, SEED, "edge").expect("the gateway has an edge");
    assert!(journal.entries.len() > 10_000, "only {} steps", journal.entries.len());
    let mut replay = Replay::new(&system, &journal);
    for (number, entry) in journal.entries.iter().enumerate() {
        let asked = replay.step(entry, &journal.entries[number + 1..]);
        assert!(asked.is_ok(), "{keys}\nseed {SEED}, step {number}: {entry:?}\n{}", asked.unwrap_err());
    }
    let state = replay.upstream.lock();
    let open = state.pipeline.breaker().is_some_and(|breaker| breaker.state() == Breaker::Open);
    *replay.compared.entry("open at the end").or_default() += usize::from(open);
    let events = state.events;
    replay.compared.insert("trips", events.trips as usize);
    replay.compared.insert("ejections", events.ejections as usize);
    replay.compared.insert("unhealthy", events.unhealthy as usize);
    drop(state);
    replay.compared
}

/// The gateway's driver, asked what the simulation's was.
struct Replay {
    upstream: Arc<Upstream>,
    clock: Clock,
    calls: BTreeMap<u64, Call>,
    /// Checks that are out, by instance.
    checks: BTreeMap<usize, Due>,
    targets: usize,
    compared: BTreeMap<&'static str, usize>,
    next: Option<plimsoll_model::system::policy::pipeline::Next>,
}

impl Replay {
    /// Everything that chance decides at the start is as it was in the simulation.
    fn new(system: &System, journal: &Journal) -> Replay {
        let plan = Plan::new(system, None).unwrap();
        let target = &plan.targets[0];
        let upstream = Arc::new(Upstream::new(target, Time::ZERO, 0).unwrap());
        let address = |i: usize| -> SocketAddr { format!("127.0.0.1:{}", 4001 + i).parse().unwrap() };
        let found: Vec<Found> = (0..journal.targets).map(|i| Found { address: address(i), weight: 1.0 }).collect();
        upstream.set_instances(&found, &Slots::default(), Time::ZERO, true).unwrap();
        let policies = &target.policies;
        {
            let mut state = upstream.lock();
            let mut balancer = Balancer::new(policies.balance.clone(), journal.targets, journal.balancer_seed).unwrap();
            for (i, weight) in policies.weights.iter().cycle().take(journal.targets).enumerate() {
                balancer.set_weight(i, *weight).unwrap();
            }
            state.balancer = balancer;
            if policies.health.is_some() || policies.outliers.is_some() {
                let ejection = policies.outliers.clone().unwrap_or_else(outlier_ejection::Config::without_ejection);
                let config = Config { health: policies.health.as_ref().map(|health| health.config), ejection };
                state.members = Members::new(config, journal.targets, Time::ZERO, journal.members_seed).unwrap();
            }
        }
        Replay {
            upstream,
            clock: Clock::start(),
            calls: BTreeMap::new(),
            checks: BTreeMap::new(),
            targets: journal.targets,
            compared: BTreeMap::new(),
            next: None,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.compared.entry(what).or_default() += 1;
    }

    /// Takes one step, or says how the gateway differs.
    fn step(&mut self, entry: &Entry, later: &[Entry]) -> Result<(), String> {
        let Entry { at, call: number, ref step } = *entry;
        let differs = |got: String| Err(format!("the gateway: {got}"));
        match *step {
            Step::Starts { deadline, repeatable, key } => {
                let call = Call::start(&self.upstream, self.clock, at, deadline, repeatable, key);
                self.calls.insert(number, call);
                return Ok(());
            }
            Step::Due => {
                // The bits for each look for a check are those that follow.
                let bits: Vec<u64> = later
                    .iter()
                    .take_while(|entry| matches!(entry.step, Step::Checks(..)) || entry.call != 0)
                    .filter_map(|entry| if let Step::Checks(_, bits) = entry.step { Some(bits) } else { None })
                    .collect();
                let mut bits = bits.into_iter();
                for due in self.upstream.due(at, || bits.next().unwrap_or(0)) {
                    self.checks.insert(due.index, due);
                }
                return Ok(());
            }
            Step::Checks(Some(target), _) => {
                self.count("check");
                return match self.checks.contains_key(&target) {
                    true => Ok(()),
                    false => differs(format!("checks {:?}", self.checks.keys())),
                };
            }
            Step::Checks(None, _) => return Ok(()),
            Step::Checked(target, passed) => {
                let Some(due) = self.checks.remove(&target) else { return differs("no such check".to_owned()) };
                self.upstream.checked(at, due.index, &due.instance, due.probe, passed);
                return Ok(());
            }
            Step::Eligible(ref expected) => {
                self.count("eligible");
                let state = self.upstream.lock();
                let got: Vec<bool> = (0..self.targets).map(|i| state.members.eligible().contains(i)).collect();
                return if got == *expected { Ok(()) } else { differs(format!("{got:?}")) };
            }
            Step::Over => {
                self.calls.remove(&number);
                return Ok(());
            }
            _ => {}
        }
        // Calls that had begun before it was written down are not followed.
        let Some(call) = self.calls.get_mut(&number) else { return Ok(()) };
        let (what, got) = match *step {
            Step::Refused(reason) => {
                let begun = call.attempt(at, 0);
                ("refusal", matches!(&begun, Begun::Refused(r) if r.reason == reason).then_some(()).ok_or(begun))
            }
            Step::Queued(until) => {
                let begun = call.attempt(at, 0);
                ("queue", matches!(begun, Begun::Wait(got) if got == until).then_some(()).ok_or(begun))
            }
            Step::GivesUp(reason) => {
                let begun = call.give_up(at, 0);
                ("patience", matches!(&begun, Begun::Refused(r) if r.reason == reason).then_some(()).ok_or(begun))
            }
            Step::Goes { why, slot, random, target, pending, deadline, hedge_after } => {
                let begun = match why {
                    Go::Asked => call.attempt(at, random),
                    Go::Granted => {
                        let granted = match pin!(call.granted()).poll(&mut Context::from_waker(Waker::noop())) {
                            Poll::Ready(Some(granted)) => granted,
                            _ => return differs("has granted no permit".to_owned()),
                        };
                        call.resume(at, granted, random)
                    }
                    Go::Freed => {
                        let waits = pin!(call.freed()).poll(&mut Context::from_waker(Waker::noop())).is_pending();
                        if waits {
                            return differs("sees no room".to_owned());
                        }
                        call.look_again(plimsoll_model::system::policy::Deadline::at(deadline), at, random)
                    }
                    Go::Hedged => match call.hedge(at, random) {
                        Some((instance, deadline)) => Begun::Ask(instance, deadline),
                        None => Begun::Nobody,
                    },
                };
                let same = match (&begun, target) {
                    (Begun::Ask(instance, until), Some(target)) => {
                        usize::from(instance.address.port()) == 4001 + target && until.time() == deadline
                    }
                    (Begun::Pending(until), None) => pending && until.time() == deadline,
                    (Begun::Nobody, None) => !pending,
                    _ => false,
                };
                let hedge = call.hedge_after();
                if same && slot == 0 && target.is_some() && hedge != hedge_after {
                    return differs(format!("would hedge after {hedge:?}"));
                }
                (if slot == 0 { "attempt" } else { "hedge" }, same.then_some(()).ok_or(begun))
            }
            Step::NoHedge => ("no hedge", if call.hedge(at, 0).is_none() { Ok(()) } else { Err(Begun::Nobody) }),
            Step::Ends { slot, end, random } => {
                let ended = match end {
                    End::ConnectError => Ended::ConnectError,
                    End::Reset => Ended::Reset,
                    End::Timeout => Ended::Timeout,
                    End::Status(status, retry_after) => Ended::Answered(status, retry_after),
                };
                self.next = Some(call.settle(slot, at, at, ended, random));
                return Ok(());
            }
            Step::Then(next) => {
                let got = self.next.take();
                self.count("what follows");
                return if got == Some(next) { Ok(()) } else { differs(format!("{got:?}")) };
            }
            Step::CalledOff(slot) => {
                call.cancel(slot, at);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.count(what);
        got.or_else(|begun| differs(format!("{begun:?}")))
    }
}

/// The comparison sees what differs: one instance instead of another is enough.
#[test]
fn another_decision_is_seen() {
    let system = system(&text(""));
    let scenario = Scenario::from_experiment(&system.experiments[0]);
    let mut journal = journal(&system, &scenario, SEED, "edge").unwrap();
    let mut chosen = journal.entries.iter_mut().filter_map(|entry| match &mut entry.step {
        Step::Goes { target: Some(target), .. } => Some(target),
        _ => None,
    });
    let target = chosen.nth(1_000).unwrap();
    *target = (*target + 1) % 3;
    let mut replay = Replay::new(&system, &journal);
    let differs = journal.entries.iter().enumerate().any(|(i, e)| replay.step(e, &journal.entries[i + 1..]).is_err());
    assert!(differs);
}

/// What must have been compared, so that the weather was bad enough to matter.
fn conforms_with(keys: &str, must: &[&str]) {
    let compared = conforms(keys);
    for what in must {
        assert!(compared.get(what).is_some_and(|count| *count > 0), "{keys}\nno {what}: {compared:?}");
    }
}

#[test]
fn balancing() {
    for algorithm in ["round_robin", "weighted", "least_connections", "ip_hash", "ring", "maglev", "p2c"] {
        conforms_with(&format!("balance: {algorithm}"), &["attempt", "what follows"]);
        conforms_with(
            &format!(
                "balance: {algorithm}\nretry: {{ attempts: 3, backoff: 1ms..20ms, when: [connect_error, reset, timeout, 500, 503] }}"
            ),
            &["attempt"],
        );
    }
    conforms_with("balance: { algorithm: weighted, weights: [5, 1, 2] }", &["attempt"]);
}

#[test]
fn health_checks() {
    conforms_with("health: { every: 200ms, timeout: 100ms }", &["check", "eligible", "unhealthy"]);
}

#[test]
fn ejection() {
    let outliers =
        "outliers: { consecutive_failures: 3, eject_for: 1s, max_ejected: 50%, panic_below: 10%, slow_start: 2s }";
    conforms_with(outliers, &["eligible", "ejections"]);
    conforms_with(
        &format!("{outliers}\nbalance: weighted\nhealth: {{ every: 200ms, timeout: 100ms }}"),
        &["ejections", "unhealthy"],
    );
}

#[test]
fn breaker() {
    conforms_with(
        "breaker: { failure_rate: 10%, window: 2s, min_calls: 10, open_for: 300ms, ramp: 1s }",
        &["refusal", "trips"],
    );
}

#[test]
fn permits_for_calls() {
    conforms_with("bulkhead: 3", &["refusal", "attempt"]);
    conforms_with("bulkhead: { permits: 3, queue: 10, max_wait: 20ms }", &["queue", "patience", "refusal", "attempt"]);
    // What waits longest has its permit just before its deadline.
    conforms_with("bulkhead: { permits: 1, queue: 200, max_wait: 10s }", &["queue", "attempt"]);
}

#[test]
fn shadows_decide_and_let_pass() {
    let breaker = "breaker: { failure_rate: 10%, window: 2s, min_calls: 10, open_for: 300ms, shadow: true }";
    conforms_with(breaker, &["attempt", "trips"]);
    let outliers = "outliers: { consecutive_failures: 3, eject_for: 1s, max_ejected: 50%, shadow: true }";
    conforms_with(outliers, &["attempt", "eligible"]);
    for keys in [
        "bulkhead: { permits: 2, queue: 5, shadow: true }",
        "hedge: { percentile: 90%, min_samples: 50, min_delay: 2ms, shadow: true }",
        "retry: { attempts: 3, backoff: 1ms..20ms, shadow: true }",
        "balance: { algorithm: round_robin, shadow: p2c }",
    ] {
        let compared = conforms(keys);
        assert!(compared["attempt"] > 5_000, "{keys}: {compared:?}");
        assert!(!compared.contains_key("refusal") && !compared.contains_key("hedge"), "{keys}: {compared:?}");
    }
}

#[test]
fn retries_within_a_budget() {
    let retry = |budget: &str| {
        format!(
            "retry: {{ attempts: 4, backoff: 1ms..50ms, when: [connect_error, reset, timeout, 500, 503], budget: {budget} }}"
        )
    };
    conforms_with(&retry("none"), &["attempt"]);
    conforms_with(&retry("{ share: 5%, min_per_second: 1/s }"), &["attempt"]);
    conforms_with(&format!("per_try_timeout: 50ms\n{}", retry("20%")), &["attempt"]);
}

#[test]
fn hedging() {
    conforms_with("hedge: { percentile: 90%, min_samples: 50, min_delay: 2ms }", &["hedge"]);
    conforms_with(
        "hedge: { percentile: 50%, min_samples: 20, min_delay: 1ms, budget: { share: 5%, min_per_second: 1/s } }",
        &["hedge", "no hedge"],
    );
}

#[test]
fn connections() {
    conforms_with("max_connections: 2\nmax_pending: 5\nbalance: least_connections", &["attempt"]);
}

#[test]
fn everything_at_once() {
    conforms_with(
        "balance: p2c\nmax_connections: 8\nmax_pending: 20\nper_try_timeout: 100ms\n\
         health: { every: 300ms, timeout: 100ms }\n\
         outliers: { consecutive_failures: 3, eject_for: 1s, max_ejected: 50%, panic_below: 30% }\n\
         retry: { attempts: 3, backoff: 1ms..20ms, budget: 20% }\n\
         hedge: { percentile: 95%, min_samples: 50, min_delay: 2ms }\n\
         breaker: { failure_rate: 60%, window: 2s, min_calls: 20, open_for: 200ms }",
        &["attempt", "hedge", "check", "eligible"],
    );
}
