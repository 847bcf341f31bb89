//! A gateway's policies on what it gets: degradation, idempotency keys, quotas, limits, bulkheads, seats and the queue
//! for them, cache, coalescing, fallbacks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use plimsoll_gateway::Plan;
use plimsoll_gateway::answers::kept::{Fetch, Found, Kept};
use plimsoll_gateway::answers::records::{Begun, Record};
use plimsoll_gateway::answers::sharing::{Joined, Landing, Shared, Waiter};
use plimsoll_gateway::answers::{OwnAnswer, Records, Sharing, Store};
use plimsoll_gateway::clock::Clock;
use plimsoll_gateway::exchange::conclusion::conclude;
use plimsoll_gateway::figures::Own;
use plimsoll_gateway::inbound::{Asked, Held, Inbound, Next, Woken};
use plimsoll_gateway::redis::SharedQuota;
use plimsoll_gateway::upstream::call::Ended;
use plimsoll_model::system::System;
use plimsoll_model::system::policy::rate_limit::StoreAnswer;
use plimsoll_model::system::policy::{Outcome, Time};
use plimsoll_sim::Scenario;
use plimsoll_sim::journal::{self, End, Refusal, Stage, Visit, Visits, journal};

use super::{SEED, bad_weather, indented, instances, system};

/// A gateway with these keys, whose route to the service has those, before three instances that fail now and then.
/// Users are impatient, requests of two classes come in waves, and some of them are repeated.
fn text(keys: &str, route: &str) -> String {
    let (keys, api) = (indented(keys), instances(&["GET /items/:id", "POST /items", "POST /orders"]));
    let weather = bad_weather("    load: { web: [400/s, 1200/s, 400/s, 1200/s] }\n");
    let text = format!(
        "system: conformance
clients:
  web:
    rate: 400/s
    users: 50
    calls:
      - {{ endpoint: edge GET /items/:id, weight: 6, key: {{ zipf: 0.99, of: 200 }} }}
      - {{ endpoint: edge POST /items, weight: 2 }}
      - {{ endpoint: edge POST /orders, weight: 2 }}
    timeout: 300ms
    per_try_timeout: 60ms
    retry: {{ attempts: 3, backoff: 100ms..400ms, when: [connect_error, reset, timeout, 500, 503] }}
  robot:
    rate: 100/s
    users: 5
    calls: [ {{ endpoint: edge GET /items/:id, class: 5, key: {{ zipf: 0.99, of: 200 }} }} ]
    timeout: 200ms
services:
  edge:
    kind: gateway
    cores: 8
    listen: [\"127.0.0.1:0\"]
    routes: [ {{ to: api{route} }} ]
    timeout: 400ms
{keys}{api}stores:
  counts: {{ kind: redis, at: 127.0.0.1:6379, time: 0.3ms }}
{weather}      - {{ at: 16s, partition: edge -> counts, for: 1s }}
"
    );
    // Faults on what nobody uses are refused, and so is a store without a user.
    if text.contains("store: counts") {
        return text;
    }
    let keep = |line: &&str| !line.contains("counts") && !line.starts_with("stores:");
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// The simulation's visits, replayed. How often each kind of decision was compared; what differs is an error.
fn replay(keys: &str, route: &str, system: &System, visits: &Visits) -> Result<BTreeMap<&'static str, usize>, String> {
    let mut replay = Replay::new(system);
    for (number, visit) in visits.entries.iter().enumerate() {
        let differs = |why| format!("{keys}\n{route}\nseed {SEED}, step {number}: {visit:?}\nthe gateway: {why}");
        replay.step(visit).map_err(differs)?;
    }
    let counted: BTreeMap<String, _> = replay.inbound.counts().into_iter().collect();
    for (policy, counts) in &visits.counts {
        let got = counted.get(policy);
        if got != Some(counts) {
            return Err(format!("{keys}\nseed {SEED}: {policy} has counted {got:?}, the simulation {counts:?}"));
        }
        replay.compared.insert("shadowed", counts.shadowed as usize);
    }
    Ok(replay.compared)
}

/// Replays a run, which must have compared these.
fn conforms(keys: &str, route: &str, must: &[&str]) {
    conforms_as(&text(keys, route), keys, route, must);
}

fn conforms_as(text: &str, keys: &str, route: &str, must: &[&str]) {
    let system = system(text);
    let scenario = Scenario::from_experiment(&system.experiments[0]);
    let visits = journal(&system, &scenario, SEED, "edge").expect("the gateway has an edge").visits;
    let arrivals = visits.entries.iter().filter(|visit| matches!(visit.step, Stage::Arrives { .. })).count();
    assert!(arrivals > 5_000, "only {arrivals} requests");
    let compared = replay(keys, route, &system, &visits).unwrap_or_else(|differs| panic!("{differs}"));
    for what in must {
        assert!(compared.get(what).is_some_and(|count| *count > 0), "{keys}\nno {what}: {compared:?}");
    }
}

/// The gateway's code, asked what the simulation's was.
struct Replay {
    plan: Plan,
    inbound: Arc<Inbound>,
    records: Option<Arc<Records>>,
    store: Option<Arc<Store>>,
    sharing: Option<Arc<Sharing>>,
    requests: BTreeMap<u64, Request>,
    /// Fetches for the store with their keys, by request; one that refreshes what is kept has a number of its own.
    fetches: BTreeMap<u64, (u64, Fetch)>,
    /// The right to refresh what was just found.
    refresh: Option<(u64, Fetch)>,
    /// Who waits for the call for which key.
    shares: BTreeMap<u64, (u64, Waiter)>,
    /// Calls that are shared, by key.
    flights: BTreeMap<u64, Landing>,
    compared: BTreeMap<&'static str, usize>,
}

/// A request under way.
struct Request {
    asked: Asked,
    held: Held,
    /// What was decided last and is still to be compared.
    next: Option<Decided>,
    /// What has come for it while it waits for its turn.
    woken: Option<Woken>,
    record: Option<Record>,
    seated: bool,
    fell_back: bool,
}

#[derive(Debug)]
enum Decided {
    Next(Next),
    Replay,
}

impl Replay {
    fn new(system: &System) -> Replay {
        let plan = Plan::new(system, None).unwrap();
        let clock = Clock::start();
        let load = |stored| SharedQuota::load(stored, std::path::Path::new(".")).unwrap();
        let quota = plan.shared_quota.as_ref().map(load);
        let store = plan.routes.iter().find_map(|route| route.cache.as_ref());
        Replay {
            inbound: Arc::new(Inbound::new(&plan, quota, clock, Time::ZERO).unwrap()),
            records: plan.idempotency.as_ref().map(|(config, _)| Arc::new(Records::new(*config).unwrap())),
            store: store.map(|(_, config)| Arc::new(Store::new(*config, clock).unwrap())),
            sharing: plan.targets[0].policies.coalesce.then(|| Arc::new(Sharing::new().unwrap())),
            requests: BTreeMap::new(),
            fetches: BTreeMap::new(),
            refresh: None,
            shares: BTreeMap::new(),
            flights: BTreeMap::new(),
            compared: BTreeMap::new(),
            plan,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.compared.entry(what).or_default() += 1;
    }

    /// Takes one step, or says how the gateway differs.
    fn step(&mut self, visit: &Visit) -> Result<(), String> {
        let Visit { at, request: number, ref step } = *visit;
        match *step {
            Stage::Arrives { endpoint, quota, class, caller, deadline, key } => {
                self.arrives(at, number, (endpoint, quota, class, caller), key);
                let got = self.requests[&number].asked.deadline;
                return same(got == deadline, &got);
            }
            Stage::Calls(until) => {
                self.count("calls");
                // What refreshes a kept answer came from nobody.
                let got = match self.requests.get(&number) {
                    Some(request) => request.asked.deadline,
                    None => self.plan.deadline(0, at, None),
                };
                return same(got == until, &got);
            }
            Stage::Pressure(pressure, level) => {
                self.count("pressure");
                if level.is_some() {
                    self.count("level");
                }
                let got = self.inbound.observe(at, pressure);
                return same(got == level, &got);
            }
            Stage::Refreshes(_) => {
                let Some(fetch) = self.refresh.take() else { return Err("refreshes nothing".to_owned()) };
                self.fetches.insert(number, fetch);
                return Ok(());
            }
            Stage::Fetched(stored, random) => {
                let Some((key, fetch)) = self.fetches.remove(&number) else {
                    return Err("fetches nothing".to_owned());
                };
                if stored {
                    fetch.fill(at, Some(Arc::new(kept(id(key), at))), random);
                }
                self.count("fetched");
                return Ok(());
            }
            Stage::Joins(key, leads) => return self.joins(at, number, key, leads),
            Stage::Leaves(last) => {
                let Some((key, waiter)) = self.shares.remove(&number) else { return Err("shares nothing".to_owned()) };
                drop(waiter);
                self.count(if last { "leaves last" } else { "leaves" });
                if last {
                    // The call is called off: the next who wants it begins another.
                    self.flights.remove(&key);
                }
                return Ok(());
            }
            Stage::Landed(key, count) => return self.landed(key, count),
            _ => {}
        }
        let store = self.store.clone();
        let Some(request) = self.requests.get_mut(&number) else { return Err("knows of no such request".to_owned()) };
        let what = match *step {
            Stage::Counted(answer) => {
                let Some(Decided::Next(Next::Count(_))) = request.next.take() else {
                    return Err("asked no store".to_owned());
                };
                let answer = match answer {
                    Some(true) => StoreAnswer::Allowed,
                    Some(false) => StoreAnswer::Denied { retry_at: None },
                    None => StoreAnswer::Down,
                };
                request.next = Some(Decided::Next(request.held.counted(at, &request.asked, answer)));
                if answer == StoreAnswer::Down { "store down" } else { "store" }
            }
            Stage::Replayed => {
                let next = request.next.take();
                same(matches!(next, Some(Decided::Replay)), &next)?;
                "replayed"
            }
            Stage::Refused(why) => {
                let late = matches!(why, Refusal::BulkheadTimeout | Refusal::Deadline);
                let next = request.decision(at, late);
                let (own, what) = match why {
                    Refusal::Degraded => (Own::Degraded, "degraded"),
                    Refusal::Quota => (Own::RateLimited, "quota"),
                    Refusal::Limit => (Own::Limit, "limit"),
                    Refusal::Bulkhead => (Own::Bulkhead, "bulkhead full"),
                    Refusal::BulkheadTimeout => (Own::Bulkhead, "bulkhead timeout"),
                    Refusal::Deadline => (Own::Deadline, "deadline"),
                    Refusal::Full => (Own::InFlight, "no seat"),
                    Refusal::Shed => (Own::Shed, "shed"),
                    Refusal::InProgress => (Own::InProgress, "in progress"),
                    Refusal::KeysFull => (Own::KeysFull, "keys full"),
                };
                same(matches!(&next, Some(Decided::Next(Next::Refused(got))) if got.why == own), &next)?;
                what
            }
            Stage::WaitsForPermit(until) => {
                let next = request.decision(at, false);
                same(matches!(next, Some(Decided::Next(Next::Wait(got))) if got == until), &next)?;
                "waits for a permit"
            }
            Stage::Granted => {
                request.woken = request.poll();
                same(matches!(request.woken, Some(Woken::Permit(_))), &request.woken)?;
                "granted"
            }
            Stage::WaitsForSeat => {
                let next = request.decision(at, false);
                same(matches!(next, Some(Decided::Next(Next::Wait(_)))), &next)?;
                "waits for a seat"
            }
            Stage::Seated => {
                let next = request.decision(at, false);
                same(matches!(next, Some(Decided::Next(Next::In))), &next)?;
                request.seated = true;
                "seated"
            }
            Stage::LooksUp(key, random, expected) => {
                let Some(store) = store else { return Err("keeps nothing".to_owned()) };
                let found = store.look_up(at, key, &id(key), random);
                match (found, expected) {
                    (Found::Hit(_, refresh), journal::Kept::Hit { refresh: expected }) => {
                        same(refresh.is_some() == expected, &refresh.is_some())?;
                        self.refresh = refresh.map(|refresh| (key, refresh));
                        if expected { "refresh" } else { "hit" }
                    }
                    (Found::Miss(fetch), journal::Kept::Miss) => {
                        self.fetches.insert(number, (key, fetch));
                        "miss"
                    }
                    (Found::Wait(_, until), journal::Kept::Wait(expected)) => {
                        same(until == expected, &until)?;
                        "waits for another's fetch"
                    }
                    (Found::Hit(..), _) => return Err("has it".to_owned()),
                    (Found::Miss(_), _) => return Err("has it not".to_owned()),
                    (Found::Wait(..) | Found::Absent | Found::Pass, _) => {
                        return Err("waits, or lets it pass".to_owned());
                    }
                }
            }
            Stage::FallsBack(failed) => {
                let route = &self.plan.routes[request.asked.route as usize];
                let (fallback, outcome) = conclude(route, brought(failed));
                same(fallback.is_some() && outcome == Outcome::Success, &outcome)?;
                request.fell_back = true;
                "fallback"
            }
            Stage::Ends(outcome, failed) => {
                self.ends(at, number, outcome, failed)?;
                "end"
            }
            _ => return Ok(()),
        };
        self.count(what);
        Ok(())
    }

    fn arrives(
        &mut self,
        at: Time,
        number: u64,
        (route, quota, class, caller): (u32, u64, u8, Option<Time>),
        key: Option<u64>,
    ) {
        let asked = Asked {
            route,
            quota_key: quota,
            remembered: key.is_some(),
            shared_quota: self.plan.shared_quota.is_some(),
            bulkhead: self.plan.routes[route as usize].bulkhead,
            guarded: Inbound::guards(&self.plan),
            class,
            deadline: self.plan.deadline(route, at, caller),
        };
        let (mut held, next) = self.inbound.arrive(at, &asked);
        let mut record = None;
        let next = match (next, key, &self.records) {
            (Next::Recall, Some(key), Some(records)) => match records.begin(at, key, key) {
                Begun::Run(run) => {
                    record = Some(run);
                    Decided::Next(held.recalled(at, &asked))
                }
                Begun::Replay(_) => Decided::Replay,
                Begun::Refused(own) => Decided::Next(Next::Refused(own)),
            },
            (next, ..) => Decided::Next(next),
        };
        let next = Some(next);
        let request = Request { asked, held, next, woken: None, record, seated: false, fell_back: false };
        self.requests.insert(number, request);
    }

    fn joins(&mut self, at: Time, number: u64, key: u64, leads: bool) -> Result<(), String> {
        let Some(sharing) = &self.sharing else { return Err("shares nothing".to_owned()) };
        let waiter = match (sharing.join(at, key), leads) {
            (Joined::Leads(waiter, flight), true) => {
                self.flights.insert(key, sharing.landing(flight));
                waiter
            }
            (Joined::Waits(waiter), false) => waiter,
            (Joined::Leads(..), false) => return Err("makes the call".to_owned()),
            (Joined::Waits(_) | Joined::Alone, _) => return Err("waits for another's call, or is alone".to_owned()),
        };
        self.shares.insert(number, (key, waiter));
        self.count(if leads { "leads" } else { "joins" });
        Ok(())
    }

    /// All who wait for a call have its answer.
    fn landed(&mut self, key: u64, count: usize) -> Result<(), String> {
        let Some(mut landing) = self.flights.remove(&key) else { return Err("makes no such call".to_owned()) };
        landing.shared = Shared::Own(OwnAnswer::busy(Own::NoTarget));
        drop(landing);
        let mut told = 0;
        self.shares.retain(|_, (shared, waiter)| {
            let lands = *shared == key && waiter.receiver.try_recv().is_ok();
            told += usize::from(lands);
            !lands
        });
        self.count("landed");
        same(told == count, &told)
    }

    fn ends(&mut self, at: Time, number: u64, outcome: Outcome, failed: Option<End>) -> Result<(), String> {
        let Some(mut request) = self.requests.remove(&number) else { return Ok(()) };
        if request.seated && !request.fell_back && matches!(outcome, Outcome::Failure | Outcome::Ignored) {
            let route = &self.plan.routes[request.asked.route as usize];
            let got = conclude(route, brought(failed)).1;
            same(got == outcome, &got)?;
            self.count(if outcome == Outcome::Failure { "failure" } else { "turned away" });
        }
        match request.record.take() {
            Some(record) if outcome == Outcome::Success => record.complete(at, Some(kept(String::new(), at))),
            Some(record) => record.abandon(),
            None => {}
        }
        request.held.finish(at, at, outcome);
        Ok(())
    }
}

impl Request {
    fn poll(&mut self) -> Option<Woken> {
        match self.held.poll_woken(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(woken) => Some(woken),
            Poll::Pending => None,
        }
    }

    /// What is decided: at once, or once what the request waited for has come, or because it is `late`.
    fn decision(&mut self, at: Time, late: bool) -> Option<Decided> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        if let Some(woken) = self.woken.take().or_else(|| self.poll()) {
            return Some(Decided::Next(self.held.woken(at, &self.asked, woken)));
        }
        late.then(|| Decided::Next(self.held.late(at, &self.asked)))
    }
}

fn same(same: bool, got: &impl std::fmt::Debug) -> Result<(), String> {
    if same { Ok(()) } else { Err(format!("{got:?}")) }
}

fn id(key: u64) -> String {
    format!("key {key}")
}

fn kept(id: String, at: Time) -> Kept {
    Kept { id: id.into(), head: Vec::new(), body: Vec::new(), status: 200, at }
}

/// What a call has brought: an answer, a failure, or the refusal of a policy towards the upstream.
fn brought(failed: Option<End>) -> Result<Ended, OwnAnswer> {
    match failed {
        Some(End::Status(status, retry_after)) => Ok(Ended::Answered(status, retry_after)),
        Some(End::ConnectError) => Err(OwnAnswer::new(502, Own::ConnectError)),
        Some(End::Reset) => Err(OwnAnswer::new(502, Own::Reset)),
        Some(End::Timeout) => Err(OwnAnswer::new(504, Own::Timeout)),
        None => Err(OwnAnswer::busy(Own::Breaker)),
    }
}

#[test]
fn quotas() {
    for algorithm in ["gcra", "sliding_window", "fixed_window"] {
        for (quota, per) in [("300/s", "all"), ("10/s", "user"), ("200/s", "client"), ("150/s", "endpoint")] {
            let keys = format!("rate_limit: {{ quota: {quota}, per: {per}, algorithm: {algorithm} }}");
            conforms(&keys, "", &["quota", "seated"]);
        }
    }
    conforms("rate_limit: { quota: 300/s, burst: 5 }", "", &["quota"]);
}

#[test]
fn quotas_in_a_store() {
    conforms(
        "rate_limit: { quota: 300/s, store: counts }\ncalls: { counts: { timeout: 50ms } }",
        "",
        &["quota", "store", "store down"],
    );
    let closed = "rate_limit: { quota: 10/s, per: user, store: counts, store_down: closed }\ncalls: { counts: { timeout: 50ms } }";
    conforms(closed, "", &["quota", "store", "store down"]);
}

#[test]
fn limits() {
    for limit in
        ["{ algorithm: gradient, initial: 8, min: 4 }", "{ algorithm: aimd, initial: 8, min: 4, timeout: 50ms }"]
    {
        conforms(&format!("limit: {limit}"), "", &["limit", "seated"]);
    }
}

#[test]
fn bulkheads() {
    let group = |rest: &str| format!("bulkheads: {{ writes: {{ endpoints: [POST /items, POST /orders], {rest} }} }}");
    conforms(&group("permits: 3"), "", &["bulkhead full"]);
    conforms(&group("permits: 3, queue: 10, max_wait: 20ms"), "", &["granted", "bulkhead timeout", "bulkhead full"]);
    conforms(
        "bulkheads:\n  reads: { endpoints: [GET /items/:id], permits: 6, queue: 20 }\n  writes: { endpoints: [POST /items], permits: 2 }",
        "",
        &["granted", "bulkhead full"],
    );
}

#[test]
fn seats_and_the_queue_for_them() {
    conforms("max_in_flight: 12\nqueue: 0", "", &["no seat"]);
    for discipline in ["fifo", "lifo", "codel", "adaptive_lifo"] {
        let keys = format!("max_in_flight: 8\nqueue: {{ size: 40, discipline: {discipline} }}");
        conforms(&keys, "", &["waits for a seat", "seated", "shed"]);
    }
    // Whoever is in the bulkhead's queue is held meanwhile.
    let both =
        "max_in_flight: 10\nqueue: 30\nbulkheads: { writes: { endpoints: [POST /items], permits: 2, queue: 10 } }";
    conforms(both, "", &["granted", "waits for a seat"]);
}

/// `timeout` runs from a request's arrival: a wait for a permit or a seat is a part of it, and what has waited that long
/// gets a 504 at that moment, from nobody's answer.
#[test]
fn timeouts_run_from_the_arrival() {
    let patient = |text: &str| text.replace("timeout: 300ms", "timeout: 5s").replace("timeout: 200ms", "timeout: 5s");
    for keys in [
        "max_in_flight: 4\nqueue: { size: 400, discipline: fifo }",
        "max_in_flight: 4\nqueue: { size: 400, discipline: lifo }",
        "bulkheads: { each: { endpoints: [GET /items/:id, POST /items, POST /orders], permits: 4, queue: 400, max_wait: 10s } }",
        "max_in_flight: 12\nqueue: 200\nbulkheads: { writes: { endpoints: [POST /items], permits: 1, queue: 100, max_wait: 10s } }",
        "max_connections: 1\nmax_pending: 100\nmax_in_flight: 8\nqueue: 200",
    ] {
        conforms_as(&patient(&text(keys, "")), keys, "", &["deadline", "calls", "seated"]);
    }
}

/// A simulated gateway does no work of its own that would keep its cores busy. So the levels are those of a service,
/// and the gateway has to go through the same ones.
#[test]
fn degradation() {
    for shadow in ["", "      shadow: true\n"] {
        let levels = format!(
            "    degradation:
      min_dwell: 2s
{shadow}      levels:
        - {{ name: lite, enter: 60%, leave: 40%, reject: [POST /orders] }}
        - {{ name: bare, enter: 80%, leave: 50%, reject: [POST /items] }}
"
        );
        let text = format!(
            "system: conformance
clients:
  web:
    rate: 400/s
    calls: [ {{ endpoint: edge GET /items, weight: 6 }}, edge POST /items, edge POST /orders ]
services:
  edge:
    kind: gateway
    listen: [\"127.0.0.1:0\"]
    upstream: api
{levels}  api:
    at: [127.0.0.1:4001]
    cores: 1
    endpoints:
      GET /items: [ {{ work: exp(1ms) }}, {{ call: deep GET / }} ]
      POST /items: [ {{ work: exp(2ms) }} ]
      POST /orders: [ {{ work: exp(2ms) }} ]
{levels}  deep:
    endpoints:
      GET /: [ {{ work: 100us }} ]
experiments:
  waves: {{ for: 30s, load: {{ web: [400/s, 1200/s, 200/s, 700/s, 200/s] }} }}
"
        );
        let system = system(&text);
        let scenario = Scenario::from_experiment(&system.experiments[0]);
        let visits = journal(&system, &scenario, SEED, "api").expect("it calls another").visits;
        let mut replay = Replay::new(&system);
        let (mut levels, mut refused, mut passed) = (0, 0, 0);
        for (number, visit) in visits.entries.iter().enumerate() {
            match visit.step {
                Stage::Pressure(_, level) => {
                    replay.step(visit).unwrap_or_else(|why| panic!("seed {SEED}, step {number}: {visit:?}\n{why}"));
                    levels += usize::from(level.is_some());
                }
                Stage::Arrives { endpoint, quota, class, caller, key, .. } => {
                    replay.arrives(visit.at, visit.request, (endpoint, quota, class, caller), key);
                    let degraded = |decided: &Decided| matches!(decided, Decided::Next(Next::Refused(own)) if own.why == Own::Degraded);
                    let got = replay.requests.remove(&visit.request).and_then(|request| request.next);
                    let got = got.as_ref().is_some_and(degraded);
                    // What is refused by its level is refused at once.
                    let expected = visits.entries[number + 1].step == Stage::Refused(Refusal::Degraded);
                    assert_eq!(got, expected, "seed {SEED}, step {number}: {visit:?}");
                    *(if got { &mut refused } else { &mut passed }) += 1;
                }
                _ => {}
            }
        }
        assert!(levels >= 4 && passed > 5_000, "{levels} {passed}");
        assert_eq!(refused > 100, shadow.is_empty(), "{refused} refused");
    }
}

#[test]
fn caches() {
    let cache = |rest: &str| format!(", cache: {{ key: item{rest} }}");
    conforms("", &cache(", ttl: 1s"), &["hit", "miss", "refresh", "waits for another's fetch"]);
    conforms("", &cache(", ttl: 500ms, stale: 0"), &["hit", "miss", "waits for another's fetch"]);
    conforms("", &cache(", ttl: 1s, lock: none, early_expiration: 1, capacity: 100"), &["hit", "miss", "refresh"]);
    conforms("", &cache(", ttl: 1s, shadow: true"), &["miss"]);
}

#[test]
fn coalescing() {
    conforms("", ", coalesce: true", &["leads", "joins", "landed", "leaves"]);
}

/// What the upstream has failed at counts against the adaptive limit, what a policy towards it has turned away does not.
#[test]
fn outcomes() {
    let breaker = "breaker: { failure_rate: 20%, window: 2s, min_calls: 10, open_for: 300ms }";
    let keys = format!("limit: {{ algorithm: aimd, initial: 30 }}\n{breaker}");
    conforms(&keys, "", &["failure", "turned away"]);
}

#[test]
fn fallbacks() {
    conforms(
        "breaker: { failure_rate: 20%, window: 2s, min_calls: 10, open_for: 300ms }",
        ", fallback: true",
        &["fallback"],
    );
}

#[test]
fn idempotency_keys() {
    // What goes on after its client has given up is there, or still under way, when the client asks again.
    conforms("idempotency: { lease: 1s }\nstops_when_cancelled: false", "", &["replayed", "in progress"]);
    let few = "idempotency: { keep: 500ms, max_keys: 50 }\nstops_when_cancelled: false";
    conforms(few, "", &["replayed", "keys full"]);
}

#[test]
fn shadows_decide_and_let_pass() {
    for keys in [
        "rate_limit: { quota: 10/s, per: user, shadow: true }",
        "limit: { algorithm: aimd, initial: 8, min: 4, shadow: true }",
        "bulkheads: { writes: { endpoints: [POST /items], permits: 2, shadow: true } }",
    ] {
        conforms(keys, "", &["shadowed", "seated"]);
    }
    conforms("max_in_flight: 8\nqueue: { size: 40, discipline: codel, shadow: true }", "", &["waits for a seat"]);
    conforms("idempotency: { shadow: true }", "", &["seated"]);
}

#[test]
fn everything_at_once() {
    conforms(
        "rate_limit: { quota: 30/s, per: user }\nlimit: { algorithm: gradient, initial: 40 }\nmax_in_flight: 14\n\
         queue: { size: 30, discipline: adaptive_lifo }\nidempotency: {}\n\
         bulkheads: { writes: { endpoints: [POST /items, POST /orders], permits: 6, queue: 10 } }\n\
         breaker: { failure_rate: 60%, window: 2s, min_calls: 20, open_for: 200ms }",
        ", cache: { key: item, ttl: 1s }, coalesce: true, fallback: true",
        &["quota", "waits for a seat", "granted", "hit", "fallback"],
    );
}

/// The comparison sees what differs: one decision instead of another is enough.
#[test]
fn another_decision_is_seen() {
    let keys = "rate_limit: { quota: 300/s }\nmax_in_flight: 12\nqueue: 10";
    let system = system(&text(keys, ""));
    let scenario = Scenario::from_experiment(&system.experiments[0]);
    let mut visits = journal(&system, &scenario, SEED, "edge").unwrap().visits;
    assert_eq!(replay(keys, "", &system, &visits).err(), None);
    let mut refused = visits.entries.iter_mut().filter(|visit| matches!(visit.step, Stage::Refused(Refusal::Quota)));
    refused.nth(500).expect("many are refused").step = Stage::Seated;
    assert!(replay(keys, "", &system, &visits).is_err());
}
