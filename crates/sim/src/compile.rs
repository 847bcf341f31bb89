//! Programs as flat code: a step that can wait is one operation, and each operation knows where
//! to go on when it fails, so that a task is a program counter and unwinding is ordinary code.

use plimsoll_model::system::{
    Action, CacheWrite, Count, Dist, EndpointId, KeyspaceId, Program, ServiceKind, Step, Store, System,
};
use plimsoll_policy::cache;

use crate::engine::alias_table;

/// Where code starts.
pub(crate) type Pc = u32;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Take a core for a duration.
    Work(Dist),
    /// Wait without a core.
    Wait(Dist),
    /// As `Work`, for longer the more requests run on the instance: its service states
    /// `scalability`.
    ScaledWork(Dist),
    /// As `Wait`, in the same way.
    ScaledWait(Dist),
    /// Fail with this probability.
    Fail(f64),
    /// Call an endpoint of another service.
    Call { edge: u32, endpoint: u32 },
    /// Run an operation of a store.
    Query { edge: u32, store: u32, operation: u32, write: bool },
    /// Look a key up; on a hit, go to `end`.
    CacheLookup { site: u32, end: Pc },
    /// Store what was fetched.
    CacheFill { site: u32 },
    /// The fetch failed: let the next one try, then go on failing.
    CacheAbandon { then: Pc },
    /// After a write to the origin: store or drop the key.
    CacheWritten { site: u32, drop: bool },
    /// Store the key now and write the origin (the code at `write`) later.
    CacheBehind { site: u32, write: Pc },
    /// Take a connection and begin a transaction.
    Begin { edge: u32, store: u32, cross_shard: f64 },
    /// Commit and give the connection back.
    Commit,
    /// Roll back, give the connection back, and go on failing at `then`.
    Rollback { then: Pc },
    /// Publish a message.
    Publish { topic: u32, outbox: bool },
    /// Run branches as tasks of their own and wait for them.
    Fork(u32),
    /// Go to one of several places.
    Choice(u32),
    /// Go on there.
    Jump(Pc),
    /// Skip to `to` if the instance's degradation level switches `name` off.
    Optional { name: u32, to: Pc },
    /// A named step begins here: a place where a crash can be asked for.
    Named(u32),
    /// A failure is being made good: forget it, and count the answer as degraded.
    Recover,
    /// Wait for a lease's lock.
    Lock(u32),
    /// Give the lock back; go on failing at `then`, if that is not here.
    Unlock { lease: u32, failed: Option<Pc> },
    /// End well.
    Return,
    /// End with the failure at hand.
    Raise,
}

impl Op {
    /// Operations of their own, so that services without `scalability` pay nothing for it.
    fn scale(&mut self) {
        *self = match std::mem::replace(self, Op::Return) {
            Op::Work(time) => Op::ScaledWork(time),
            Op::Wait(time) => Op::ScaledWait(time),
            other => other,
        };
    }
}

/// Branches that run at once.
#[derive(Clone, Debug)]
pub(crate) struct Fork {
    /// Where each branch starts.
    pub(crate) branches: Vec<Pc>,
    /// How often the only branch is run; none: each branch once.
    pub(crate) rounds: Option<Count>,
    /// Branches in flight at once.
    pub(crate) limit: u32,
}

/// Alternatives: an alias table over places.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) table: std::sync::Arc<[(u32, u32)]>,
    pub(crate) places: Vec<Pc>,
}

/// A place where a cache is used.
#[derive(Clone, Debug)]
pub(crate) struct CacheSite {
    /// The edge to the store; none for a gateway's own cache.
    pub(crate) edge: Option<u32>,
    /// The store, or the gateway as a service.
    pub(crate) owner: CacheOwner,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) config: cache::Config,
    /// Whether it looks keys up: then it knows how long they are fresh.
    pub(crate) reads: bool,
    /// How long its writes may wait for the origin, if they are behind, ns.
    pub(crate) flush: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheOwner {
    Store(u32),
    /// A gateway service with room for so many answers an instance.
    Gateway {
        service: u32,
        capacity: u32,
    },
}

/// An endpoint's code and what its callers must know.
#[derive(Clone, Debug)]
pub(crate) struct EndpointCode {
    pub(crate) service: u32,
    pub(crate) index: u32,
    pub(crate) entry: Pc,
    pub(crate) idempotent: bool,
    /// Whether making it twice does no harm: by its nature, or by its service's memory.
    pub(crate) repeatable: bool,
    /// Whether it only reads: two who ask for the same may share an answer (RFC 9110, 9.2.1).
    pub(crate) safe: bool,
    pub(crate) class: Option<u8>,
    pub(crate) errors: f64,
    pub(crate) response_size: u64,
    /// A gateway's `timeout`, from the arrival of a request; `u64::MAX` for none, and everywhere else.
    pub(crate) patience: u64,
}

/// All code of a system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    pub(crate) ops: Vec<Op>,
    /// For each operation, where to go on when it fails.
    pub(crate) on_error: Vec<Pc>,
    pub(crate) forks: Vec<Fork>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) sites: Vec<CacheSite>,
    pub(crate) endpoints: Vec<EndpointCode>,
    /// For each service, the first of its endpoints.
    pub(crate) first_endpoint: Vec<u32>,
    /// Names of named and optional steps.
    pub(crate) names: Vec<String>,
    /// Which of each store's operations write.
    writes: Vec<Vec<bool>>,
    /// A program that does nothing: health checks.
    pub(crate) nothing: Pc,
}

/// Whether a request has no effect by its method (RFC 9110, section 9.2.1).
fn is_safe(endpoint: &str) -> bool {
    matches!(endpoint.split(' ').next(), Some("GET" | "HEAD"))
}

impl Code {
    pub(crate) fn new(system: &System) -> Self {
        let writes = |store: &Store| store.operations.iter().map(|operation| operation.write).collect();
        let mut code = Code { writes: system.stores.iter().map(writes).collect(), ..Code::default() };
        code.nothing = code.emit(Op::Return, 0);
        let mut first = 0;
        for service in &system.services {
            code.first_endpoint.push(first);
            first += service.endpoints.len() as u32;
        }
        for (s, service) in system.services.iter().enumerate() {
            let own = code.ops.len();
            for (e, endpoint) in service.endpoints.iter().enumerate() {
                let raise = code.emit(Op::Raise, 0);
                let mut patience = u64::MAX;
                let entry = match &service.kind {
                    ServiceKind::Service => {
                        let entry = code.here();
                        code.program(&endpoint.program, raise);
                        entry
                    }
                    ServiceKind::Gateway(routes) => {
                        let entry = code.here();
                        code.program(&endpoint.program, raise);
                        if let Some(route) = routes.iter().find(|route| route.endpoint as usize == e) {
                            code.route(s as u32, route, is_safe(&endpoint.name), raise);
                            let timeout = system.edges[route.edge.index()].policies.pipeline.timeout;
                            patience = timeout.map_or(u64::MAX, plimsoll_policy::nanos);
                        }
                        entry
                    }
                };
                code.emit(Op::Return, raise);
                code.endpoints.push(EndpointCode {
                    service: s as u32,
                    index: e as u32,
                    entry,
                    idempotent: endpoint.idempotent,
                    repeatable: endpoint.idempotent || service.idempotency.is_some(),
                    safe: is_safe(&endpoint.name),
                    class: endpoint.class,
                    errors: endpoint.errors,
                    response_size: endpoint.response_size,
                    patience,
                });
            }
            if service.scalability.is_some() {
                code.ops[own..].iter_mut().for_each(Op::scale);
            }
        }
        code
    }

    /// The position of an endpoint among all endpoints.
    pub(crate) fn endpoint(&self, id: EndpointId) -> u32 {
        self.first_endpoint[id.service.index()] + id.index
    }

    /// The number of a step's name, if a step has it.
    pub(crate) fn name(&self, name: &str) -> Option<u32> {
        self.names.iter().position(|known| known == name).map(|i| i as u32)
    }

    fn here(&self) -> Pc {
        self.ops.len() as Pc
    }

    fn emit(&mut self, op: Op, on_error: Pc) -> Pc {
        self.ops.push(op);
        self.on_error.push(on_error);
        self.here() - 1
    }

    fn intern(&mut self, name: &str) -> u32 {
        self.name(name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() as u32 - 1
        })
    }

    fn program(&mut self, program: &Program, on_error: Pc) {
        for step in program {
            self.step(step, on_error);
        }
    }

    /// Code that is entered by itself: ends with a return, fails with a raise.
    fn routine(&mut self, program: &Program) -> Pc {
        let over = self.emit(Op::Jump(0), 0);
        let raise = self.emit(Op::Raise, 0);
        let entry = self.here();
        self.program(program, raise);
        self.emit(Op::Return, raise);
        self.ops[over as usize] = Op::Jump(self.here());
        entry
    }

    fn step(&mut self, step: &Step, on_error: Pc) {
        let skip = step.optional.as_ref().map(|name| {
            let name = self.intern(name);
            (name, self.emit(Op::Optional { name, to: 0 }, on_error))
        });
        if let Some(name) = &step.name {
            let name = self.intern(name);
            self.emit(Op::Named(name), on_error);
        }
        self.action(&step.action, on_error);
        if let Some((name, at)) = skip {
            self.ops[at as usize] = Op::Optional { name, to: self.here() };
        }
    }

    fn action(&mut self, action: &Action, on_error: Pc) {
        match action {
            Action::Work(time) => {
                self.emit(Op::Work(time.clone()), on_error);
            }
            Action::Wait(time) => {
                self.emit(Op::Wait(time.clone()), on_error);
            }
            Action::Fail(probability) => {
                self.emit(Op::Fail(*probability), on_error);
            }
            Action::Call { edge, endpoint } => {
                let endpoint = self.endpoint(*endpoint);
                self.emit(Op::Call { edge: edge.0, endpoint }, on_error);
            }
            Action::Query { edge, store, operation } => {
                let write = self.writes[store.index()][*operation as usize];
                self.emit(Op::Query { edge: edge.0, store: store.0, operation: *operation, write }, on_error);
            }
            Action::Cache { edge, store, keyspace, config, on_miss } => {
                let site = self.site(Some(edge.0), CacheOwner::Store(store.0), *keyspace, *config);
                self.cached(site, on_error, |code, failed| code.program(on_miss, failed));
            }
            Action::CacheWrite { edge, store, keyspace, kind, write } => {
                let site = self.site(Some(edge.0), CacheOwner::Store(store.0), *keyspace, cache::Config::default());
                self.sites[site as usize].reads = false;
                match kind {
                    CacheWrite::Behind { flush } => {
                        self.sites[site as usize].flush = Some(*flush);
                        let write = self.routine(write);
                        self.emit(Op::CacheBehind { site, write }, on_error);
                    }
                    CacheWrite::Through | CacheWrite::Invalidate => {
                        self.program(write, on_error);
                        let drop = *kind == CacheWrite::Invalidate;
                        self.emit(Op::CacheWritten { site, drop }, on_error);
                    }
                }
            }
            Action::Transaction { edge, store, steps, cross_shard } => {
                let begin = Op::Begin { edge: edge.0, store: store.0, cross_shard: *cross_shard };
                self.guarded(
                    begin,
                    on_error,
                    Op::Commit,
                    |then| Op::Rollback { then },
                    |code, failed| {
                        code.program(steps, failed);
                    },
                );
            }
            Action::Publish { topic, outbox } => {
                self.emit(Op::Publish { topic: topic.0, outbox: *outbox }, on_error);
            }
            Action::Parallel { branches, limit } => {
                let branches = branches.iter().map(|branch| self.routine(branch)).collect();
                self.fork(Fork { branches, rounds: None, limit: *limit }, on_error);
            }
            Action::ForEach { count, limit, steps } => {
                let branches = vec![self.routine(steps)];
                self.fork(Fork { branches, rounds: Some(*count), limit: *limit }, on_error);
            }
            Action::Choice(alternatives) => {
                let weights: Vec<f64> = alternatives.iter().map(|(weight, _)| *weight).collect();
                let choice = self.choices.len() as u32;
                self.choices.push(Choice { table: alias_table(&weights), places: Vec::new() });
                self.emit(Op::Choice(choice), on_error);
                let mut ends = Vec::new();
                for (_, program) in alternatives {
                    let place = self.here();
                    self.choices[choice as usize].places.push(place);
                    self.program(program, on_error);
                    ends.push(self.emit(Op::Jump(0), on_error));
                }
                for end in ends {
                    self.ops[end as usize] = Op::Jump(self.here());
                }
            }
            Action::Fallback { attempt, otherwise } => {
                self.fallback(
                    on_error,
                    |code, failed| code.program(attempt, failed),
                    |code| {
                        code.program(otherwise, on_error);
                    },
                );
            }
            Action::Lease { lease, steps } => {
                let lease = lease.0;
                self.guarded(
                    Op::Lock(lease),
                    on_error,
                    Op::Unlock { lease, failed: None },
                    |then| Op::Unlock { lease, failed: Some(then) },
                    |code, failed| code.program(steps, failed),
                );
            }
        }
    }

    /// A gateway's route: forward, through its cache and with its fallback.
    fn route(&mut self, service: u32, route: &plimsoll_model::system::Route, safe: bool, on_error: Pc) {
        let endpoint = self.endpoint(route.to);
        let forward = Op::Call { edge: route.edge.0, endpoint };
        let body = |code: &mut Code, failed: Pc| match &route.cache {
            // What has an effect is made each time.
            Some(cache) if safe => {
                let owner = CacheOwner::Gateway { service, capacity: cache.capacity };
                let site = code.site(None, owner, cache.keyspace, cache.freshness);
                code.cached(site, failed, |code, failed| {
                    code.emit(forward.clone(), failed);
                });
            }
            _ => {
                code.emit(forward.clone(), failed);
            }
        };
        if route.fallback {
            self.fallback(on_error, body, |_| ());
        } else {
            body(self, on_error);
        }
    }

    fn site(&mut self, edge: Option<u32>, owner: CacheOwner, keyspace: KeyspaceId, config: cache::Config) -> u32 {
        self.sites.push(CacheSite { edge, owner, keyspace, config, reads: true, flush: None });
        self.sites.len() as u32 - 1
    }

    fn fork(&mut self, fork: Fork, on_error: Pc) {
        self.forks.push(fork);
        self.emit(Op::Fork(self.forks.len() as u32 - 1), on_error);
    }

    /// Lookup, fetch on a miss, fill.
    fn cached(&mut self, site: u32, on_error: Pc, fetch: impl FnOnce(&mut Code, Pc)) {
        let over = self.emit(Op::Jump(0), on_error);
        let abandon = self.emit(Op::CacheAbandon { then: on_error }, on_error);
        self.ops[over as usize] = Op::Jump(self.here());
        let lookup = self.emit(Op::CacheLookup { site, end: 0 }, on_error);
        fetch(self, abandon);
        self.emit(Op::CacheFill { site }, on_error);
        self.ops[lookup as usize] = Op::CacheLookup { site, end: self.here() };
    }

    /// `enter`, a body, `leave`; where the body fails, `fail` cleans up and goes on failing.
    fn guarded(
        &mut self,
        enter: Op,
        on_error: Pc,
        leave: Op,
        fail: impl FnOnce(Pc) -> Op,
        body: impl FnOnce(&mut Code, Pc),
    ) {
        let over = self.emit(Op::Jump(0), on_error);
        let failed = self.emit(fail(on_error), on_error);
        self.ops[over as usize] = Op::Jump(self.here());
        self.emit(enter, on_error);
        body(self, failed);
        self.emit(leave, failed);
    }

    fn fallback(&mut self, on_error: Pc, attempt: impl FnOnce(&mut Code, Pc), otherwise: impl FnOnce(&mut Code)) {
        let over = self.emit(Op::Jump(0), on_error);
        let failed = self.emit(Op::Recover, on_error);
        otherwise(self);
        let end = self.emit(Op::Jump(0), on_error);
        self.ops[over as usize] = Op::Jump(self.here());
        attempt(self, failed);
        self.ops[end as usize] = Op::Jump(self.here());
    }
}
