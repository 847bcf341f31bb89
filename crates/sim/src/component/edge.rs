//! Edges: a caller's policies around its calls, the choice of a target, the way there and back.

mod answer;
mod attempt;
mod call;
mod news;
mod way;

use plimsoll_model::system::{Component, Dist, RetryWhen, ServiceKind, StoreKind};
use plimsoll_policy::balance::Balancer;
use plimsoll_policy::{Members, Pipeline, Time};

use crate::component::coalesce::Sharing;
use crate::component::instance::CHECKED;
use crate::component::pending::Connections;
use crate::engine::{Draw, LaneId, Ref};
use crate::measure::{Counter, Gauge, SegmentTimes};
use crate::world::World;

pub(crate) use attempt::Attempt;
pub(crate) use call::{Call, Parent, What};
pub(crate) use way::Link;

/// One caller's end of an edge: an instance's, or a client's. In this order in memory: what every call
/// comes by lies together.
#[repr(C)]
pub(crate) struct EdgeEnd {
    pub(crate) edge: u32,
    pub(crate) to: Target,
    /// The first instance or node of the target.
    pub(crate) first_target: u32,
    /// The calling instance; none for a client.
    pub(crate) instance: Option<u32>,
    /// Counts the caller's lives: connections of an earlier one are gone.
    pub(crate) life: u32,
    /// Whether every delay is zero.
    pub(crate) instant: bool,
    /// Whether it is a gateway's: its `timeout` runs from the arrival of the request that it forwards.
    forwards: bool,
    retry_when: RetryWhen,
    timeout: Option<(u64, u16)>,
    per_try: Option<(u64, u16)>,
    /// Its connections, where they are bounded.
    pub(crate) connections: Option<Box<Connections>>,
    /// Its flights, where calls are coalesced.
    pub(crate) sharing: Option<Box<Sharing>>,
    pub(crate) members: Option<Box<Members>>,
    /// Where its choices of a target come from.
    pick: Draw,
    picks: u64,
    pub(crate) pools: Vec<Pool>,
    pub(crate) in_flight: Gauge,
    pub(crate) counter: Counter,
    pub(crate) times: SegmentTimes,
    pub(crate) pipeline: Pipeline,
    pub(crate) balancer: Balancer,
    /// Health checks under way, by target: their number and the probe.
    pub(crate) probes: Vec<Option<(u32, plimsoll_policy::health::Probe)>>,
    pub(crate) probe_number: u32,
    /// When its members are next due, ns.
    pub(crate) members_at: u64,
    /// One-way delay to each target.
    pub(crate) delays: Vec<Dist>,
    /// What each exchange takes beside that.
    overhead: Option<Dist>,
    /// The lane of each constant delay.
    lanes: Vec<Option<LaneId>>,
    /// Calls that wait for the bulkhead.
    waiters: Vec<(plimsoll_policy::bulkhead::Ticket, Ref)>,
    pub(crate) pool_timeout: (u64, Option<LaneId>),
    draw: Draw,
    pub(crate) trips: Vec<u32>,
    pub(crate) ejections: Vec<u32>,
}

/// What an edge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Service(u32),
    Postgres(u32),
    Redis(u32),
    Quorum(u32),
    /// A topic: messages need no end.
    Topic,
}

/// Connections of one caller to one node of a store.
pub(crate) struct Pool {
    pub(crate) size: u32,
    pub(crate) open: u32,
    pub(crate) idle: u32,
    pub(crate) waiting: std::collections::VecDeque<Ref>,
    pub(crate) exhausted_noted: bool,
    pub(crate) used: Gauge,
    pub(crate) queue: Gauge,
}

// A purpose of draws.
const PICK: u64 = 2 << 48;

impl World<'_> {
    pub(crate) fn build_ends(&mut self) {
        let plan = self.plan;
        let segments = plan.cuts.len() + 1;
        let mut first = Vec::new();
        for (e, edge) in plan.system.edges.iter().enumerate() {
            first.push(self.ends.len() as u32);
            let callers: Vec<Option<u32>> = match edge.from {
                Component::Service(id) => self.slots(id.0).map(|i| Some(i as u32)).collect(),
                Component::Consumer(id) => {
                    let service = plan.system.consumers[id.index()].service;
                    self.slots(service.0).map(|i| Some(i as u32)).collect()
                }
                _ => vec![None],
            };
            for caller in callers {
                let end = self.end(e, caller, segments);
                self.ends.push(end);
            }
        }
        self.edge_first = first;
        for end in 0..self.ends.len() as u32 {
            self.start_members(end);
        }
    }

    fn end(&mut self, e: usize, instance: Option<u32>, segments: usize) -> EdgeEnd {
        let plan = self.plan;
        let edge = &plan.system.edges[e];
        let policies = &edge.policies;
        let number = instance.map_or(0, |i| self.instances[i as usize].number);
        let draw =
            self.root.named(&plan.system.edge_name(plimsoll_model::system::EdgeId(e as u32))).part(number as u64);
        let (to, first_target, targets, pool) = match edge.to {
            Component::Service(id) => {
                let slots = self.slots(id.0);
                (Target::Service(id.0), slots.start as u32, slots.len(), None)
            }
            Component::Store(id) => {
                let state = &self.stores[id.index()];
                let (to, pool) = match &plan.system.stores[id.index()].kind {
                    StoreKind::Postgres(pg) => (Target::Postgres(id.0), Some((pg.pool, pg.pool_timeout))),
                    StoreKind::Redis(redis) => (Target::Redis(id.0), Some((redis.pool, redis.pool_timeout))),
                    StoreKind::Quorum(_) => (Target::Quorum(id.0), None),
                };
                (to, state.first, state.nodes as usize, pool)
            }
            _ => (Target::Topic, 0, 0, None),
        };
        let caller_zone = match edge.from {
            Component::Client(id) => plan.system.clients[id.index()].zone.map(|zone| zone.0),
            _ => instance.and_then(|i| self.instances[i as usize].zone),
        };
        let delays: Vec<Dist> = (0..targets)
            .map(|t| {
                let zone = match edge.to {
                    Component::Service(_) => self.instances[first_target as usize + t].zone,
                    _ => self.nodes[first_target as usize + t].zone,
                };
                match &policies.latency {
                    Some(latency) => latency.clone(),
                    None if zone.is_some() && caller_zone.is_some() && zone != caller_zone => {
                        plan.system.network.cross_zone.clone()
                    }
                    None => plan.system.network.same_zone.clone(),
                }
            })
            .collect();
        let lanes = delays
            .iter()
            .map(|delay| match delay {
                Dist::Constant(nanos) if policies.overhead.is_none() => self.queue.lane(*nanos),
                _ => None,
            })
            .collect();
        let ns = |d: std::time::Duration| plimsoll_policy::nanos(d);
        let mut queue = |length: std::time::Duration| {
            let length = ns(length);
            Some((length, self.timeouts(length)?))
        };
        let timeout = policies.pipeline.timeout.and_then(&mut queue);
        let per_try = policies.pipeline.per_try_timeout.and_then(&mut queue);
        let mut lane = |delay: Option<u64>| delay.map(|delay| (delay, self.queue.lane(delay)));
        let pool_timeout = lane(pool.map(|(_, timeout)| timeout)).unwrap_or((u64::MAX, None));
        let members = (policies.health.is_some() || policies.outliers.is_some()).then(|| {
            let ejection =
                policies.outliers.clone().unwrap_or_else(plimsoll_policy::outlier_ejection::Config::without_ejection);
            let health = policies.health.as_ref().map(|health| health.config);
            let config = plimsoll_policy::members::Config { health, ejection };
            Box::new(Members::new(config, targets, Time::ZERO, draw.bits(3)).expect(CHECKED))
        });
        let mut balancer = Balancer::new(policies.balance.clone(), targets, draw.bits(4)).expect(CHECKED);
        for (i, &weight) in policies.weights.iter().cycle().take(targets).enumerate() {
            balancer.set_weight(i, weight).expect(CHECKED);
        }
        EdgeEnd {
            edge: e as u32,
            to,
            retry_when: policies.retry_when,
            instance,
            life: 0,
            pipeline: Pipeline::new(policies.pipeline, Time::ZERO).expect(CHECKED),
            balancer,
            members,
            probes: (0..targets).map(|_| None).collect(),
            probe_number: 0,
            members_at: u64::MAX,
            first_target,
            lanes,
            forwards: instance
                .is_some_and(|instance| matches!(self.instances[instance as usize].spec.kind, ServiceKind::Gateway(_))),
            instant: policies.overhead.is_none() && delays.iter().all(|delay| *delay == Dist::Constant(0)),
            overhead: policies.overhead.clone(),
            delays,
            pools: (0..if pool.is_some() { targets } else { 0 })
                .map(|_| Pool {
                    size: pool.map_or(0, |(size, _)| size),
                    open: 0,
                    idle: 0,
                    waiting: Default::default(),
                    exhausted_noted: false,
                    used: Gauge::new(),
                    queue: Gauge::new(),
                })
                .collect(),
            connections: policies.max_connections.map(|most| Box::new(Connections::new(most, policies.max_pending))),
            sharing: policies.coalesce.then(|| Box::new(Sharing::new(segments))),
            waiters: Vec::new(),
            timeout,
            per_try,
            pool_timeout,
            draw,
            pick: draw.part(PICK),
            picks: 0,
            counter: Counter::default(),
            times: SegmentTimes::new(),
            in_flight: Gauge::new(),
            trips: vec![0; segments],
            ejections: vec![0; segments],
        }
    }

    /// An instance's end of an edge.
    #[inline(always)]
    pub(crate) fn instance_end(&self, edge: u32, instance: u32) -> u32 {
        self.edge_first[edge as usize] + self.instances[instance as usize].number
    }

    /// A client's end of an edge.
    #[inline(always)]
    pub(crate) fn client_end(&self, edge: u32) -> u32 {
        self.edge_first[edge as usize]
    }

    /// A calling process is gone: its calls are, its connections break, its policies start anew.
    pub(crate) fn drop_ends_of(&mut self, instance: u32) {
        let ends: Vec<u32> =
            (0..self.ends.len() as u32).filter(|&e| self.ends[e as usize].instance == Some(instance)).collect();
        if ends.is_empty() {
            return;
        }
        for &end in &ends {
            if let Some(connections) = &mut self.ends[end as usize].connections {
                connections.clear(self.now);
            }
        }
        let calls: Vec<Ref> = self.calls.refs().filter(|&call| ends.contains(&self.calls[call].end)).collect();
        for call in calls {
            self.cancel_call(call);
        }
        let time = self.time();
        let now = self.now;
        for end in ends {
            for p in 0..self.ends[end as usize].pools.len() {
                let pool = &mut self.ends[end as usize].pools[p];
                let open = pool.open;
                pool.open = 0;
                pool.idle = 0;
                pool.waiting.clear();
                pool.used.set(now, 0);
                pool.queue.set(now, 0);
                let node = self.ends[end as usize].first_target + p as u32;
                self.disconnect(node, open);
            }
            let e = &mut self.ends[end as usize];
            let policies = &self.plan.system.edges[e.edge as usize].policies;
            e.pipeline = Pipeline::new(policies.pipeline, time).expect(CHECKED);
            e.waiters.clear();
            e.life += 1;
        }
    }
}

impl EdgeEnd {
    /// Where its balancer's and its members' chance starts.
    pub(crate) fn seeds(&self) -> (u64, u64) {
        (self.draw.bits(4), self.draw.bits(3))
    }
}
