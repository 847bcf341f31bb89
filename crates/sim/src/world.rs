//! One replication: the state of every component, and the loop that moves it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_model::run::EventKind;
use plimsoll_model::system::Component;
use plimsoll_policy::Time;

use crate::component::cache::{Behind, CacheId};
use crate::component::client::ClientState;
use crate::component::consumer::{ConsumerState, Message};
use crate::component::deploy::DeployState;
use crate::component::edge::{Attempt, Call, EdgeEnd};
use crate::component::instance::Instance;
use crate::component::lease::LeaseState;
use crate::component::service::ServiceState;
use crate::component::store::{Node, StoreOp, StoreState, Transaction};
use crate::component::task::Task;
use crate::component::timer::Timeouts;
use crate::component::topic::TopicState;
use crate::engine::{Draw, Event, EventQueue, LaneId, Ref, Slab};
use crate::fault::FaultState;
use crate::journal::Journal;
use crate::measure::{Audience, Group, Times};
use crate::plan::Plan;

/// A replication in progress.
pub(crate) struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) now: u64,
    pub(crate) queue: EventQueue,
    /// What happens at this very instant, in order.
    pub(crate) ready: VecDeque<Event>,
    /// How many requests are being delivered from within another's event.
    pub(crate) depth: u32,
    pub(crate) wakes: Vec<Wake>,
    free_wakes: Vec<u32>,
    pub(crate) root: Draw,
    pub(crate) tasks: Slab<Task>,
    pub(crate) calls: Slab<Call>,
    pub(crate) attempts: Slab<Attempt>,
    pub(crate) timeouts: Vec<Timeouts>,
    pub(crate) ops: Slab<StoreOp>,
    pub(crate) transactions: Slab<Transaction>,
    pub(crate) messages: Slab<Message>,
    pub(crate) clients: Vec<ClientState<'a>>,
    pub(crate) services: Vec<ServiceState>,
    pub(crate) instances: Vec<Instance<'a>>,
    pub(crate) ends: Vec<EdgeEnd>,
    /// For each edge, the first of its ends.
    pub(crate) edge_first: Vec<u32>,
    pub(crate) stores: Vec<StoreState>,
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) topics: Vec<TopicState>,
    pub(crate) consumers: Vec<ConsumerState>,
    pub(crate) leases: Vec<LeaseState>,
    /// Tasks that wait for another's fetch.
    pub(crate) fetch_waiters: BTreeMap<(CacheId, u32), Vec<Ref>>,
    /// Writes that wait to be flushed, and when each cache is flushed next.
    pub(crate) behind: BTreeMap<(CacheId, u32), Behind>,
    pub(crate) flushes: BTreeMap<CacheId, u64>,
    pub(crate) deploys: Vec<DeployState>,
    pub(crate) faults: FaultState,
    /// Requests by client and endpoint.
    pub(crate) groups: Vec<Group>,
    /// Everybody, then each client, then each endpoint that clients call.
    pub(crate) audiences: Vec<Audience>,
    /// The segment that `now` lies in: 0 is the warm-up.
    pub(crate) segment: usize,
    /// What happened, for the timeline; only where detail is asked for.
    pub(crate) log: Vec<Happening>,
    /// What one edge's end decides, where anybody wants to know.
    pub(crate) journal: Option<Box<Journal>>,
    /// Requests of clients that have not ended.
    pub(crate) open_requests: u64,
    /// Requests that had not ended when the run was over.
    pub(crate) unfinished: u64,
    /// Requests that clients have made.
    pub(crate) requests: u64,
    /// Whether clients still ask.
    pub(crate) arriving: bool,
}

/// Something for the timeline.
#[derive(Clone, Debug)]
pub(crate) struct Happening {
    pub(crate) at: u64,
    pub(crate) kind: EventKind,
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// Rarer things that are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wake {
    /// A second ends.
    Tick,
    /// A segment ends.
    Cut,
    FaultStart(u32),
    FaultEnd(u32),
    /// A new process is ready, if it is still the process that was started.
    Ready {
        instance: u32,
        epoch: u32,
    },
    /// A process that was to start, starts.
    Boot {
        instance: u32,
        epoch: u32,
    },
    /// A draining instance has waited long enough.
    DrainOver {
        instance: u32,
        epoch: u32,
    },
    /// An edge end's health checks or ejections are due.
    Members {
        end: u32,
    },
    /// An autoscaler decides.
    Scale {
        service: u32,
    },
    /// A rolling deploy goes on.
    Deploy {
        fault: u32,
    },
    /// A store's replica takes over.
    Promoted {
        store: u32,
        shard: u32,
        epoch: u32,
    },
    /// A failed primary has been noticed.
    FailoverDecision {
        store: u32,
        shard: u32,
        epoch: u32,
    },
    /// A message that the outbox relay has carried.
    Relayed {
        message: Ref,
    },
    /// A message is handled again.
    Redeliver {
        message: Ref,
    },
    /// A publish is acknowledged to a task.
    Published {
        task: Ref,
    },
    /// A cache's buffered writes go to their origin.
    Flush {
        cache: CacheId,
    },
    /// A lease's holder or contender acts.
    Lease {
        lease: u32,
        instance: u32,
        epoch: u32,
    },
    /// The partition that held back a task's question for a lock is over.
    LockAsked {
        lease: u32,
        task: Ref,
    },
    /// A lease's holder's write reaches the resource.
    LeaseWrite {
        lease: u32,
        instance: u32,
        epoch: u32,
        token: u64,
    },
    /// A quorum node catches up.
    Propagate {
        node: u32,
        key: u32,
        version: u32,
    },
    /// A degradation ladder looks at its instance.
    Degradation {
        instance: u32,
    },
}

impl<'a> World<'a> {
    pub(crate) fn new(plan: &'a Plan, root: Draw) -> Self {
        let mut world = World {
            plan,
            now: 0,
            queue: EventQueue::new(),
            ready: VecDeque::new(),
            depth: 0,
            wakes: Vec::new(),
            free_wakes: Vec::new(),
            root,
            tasks: Slab::new(),
            calls: Slab::new(),
            attempts: Slab::new(),
            timeouts: Vec::new(),
            ops: Slab::new(),
            transactions: Slab::new(),
            messages: Slab::new(),
            clients: Vec::new(),
            services: Vec::new(),
            instances: Vec::new(),
            ends: Vec::new(),
            edge_first: Vec::new(),
            stores: Vec::new(),
            nodes: Vec::new(),
            topics: Vec::new(),
            consumers: Vec::new(),
            leases: Vec::new(),
            fetch_waiters: BTreeMap::new(),
            behind: BTreeMap::new(),
            flushes: BTreeMap::new(),
            deploys: plan.faults.iter().map(|_| DeployState::default()).collect(),
            faults: FaultState::default(),
            groups: Vec::new(),
            audiences: Vec::new(),
            segment: 0,
            log: Vec::new(),
            journal: None,
            open_requests: 0,
            unfinished: 0,
            requests: 0,
            arriving: true,
        };
        world.build_services();
        world.build_stores();
        world.build_messaging();
        world.build_leases();
        world.build_ends();
        world.build_clients();
        world.schedule_scenario();
        world
    }

    /// Runs to the end of the scenario, then lets what is under way end; false if it was stopped.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> bool {
        let end = self.plan.end();
        let mut until = 0;
        while until < end {
            until = (until + STRIDE).min(end);
            self.run_until(until, false);
            self.now = until;
            if stop.load(Ordering::Relaxed) {
                return false;
            }
        }
        self.arriving = false;
        let limit = end + self.plan.drain;
        self.run_until(limit, true);
        self.now = self.now.max(end);
        self.give_up_open_requests();
        self.sum_up();
        true
    }

    /// Does what is due by `until`; where asked to, only for as long as requests are under way.
    fn run_until(&mut self, until: u64, while_open: bool) {
        loop {
            let event = match self.ready.pop_front() {
                Some(event) => event,
                None if while_open && self.open_requests == 0 => return,
                None => {
                    let (attempts, calls) = (&self.attempts, &self.calls);
                    let next = self.queue.pop(until, |event| match *event {
                        Event::PoolTimeout { attempt } => attempts.contains(attempt),
                        Event::Hedge { call } => calls.contains(call),
                        _ => true,
                    });
                    let Some((time, event)) = next else { return };
                    debug_assert!(time >= self.now, "time runs forward");
                    self.now = time;
                    event
                }
            };
            self.dispatch(event);
        }
    }

    #[inline(always)]
    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Arrive { client } => self.arrive(client),
            Event::Thought { client, user } => self.thought(client, user),
            Event::WorkDone { task } => self.work_done(task),
            Event::Resume { task, answer } => self.resume(task, answer),
            Event::Waited { task } => self.waited(task),
            Event::Start { task } => self.start_task(task),
            Event::Seat { task } => {
                if self.tasks.contains(task) {
                    self.seat(task);
                }
            }
            Event::Go { task } => self.go(task),
            Event::Deliver { attempt } => self.deliver(attempt),
            Event::Admit { task } => self.arrived(task),
            Event::Answered { attempt, answer } => self.answered(attempt, answer),
            Event::AttemptTimeout { attempt } => self.attempt_timeout(attempt),
            Event::Timeouts { queue } => self.timeouts_due(queue),
            Event::Retry { call } => self.retry(call),
            Event::Hedge { call } => self.hedge(call),
            Event::BulkheadTimeout { call } => self.bulkhead_timeout(call),
            Event::ServerBulkheadTimeout { task } => self.server_bulkhead_timeout(task),
            Event::SeatTimeout { task } => self.seat_timeout(task),
            Event::PoolTimeout { attempt } => self.pool_timeout(attempt),
            Event::OpArrive { op } => self.op_arrive(op),
            Event::OpDone { op } => self.op_done(op),
            Event::OpComplete { op } => self.complete_op(op, crate::engine::Answer::Ok),
            Event::LockCheck { op } => self.lock_check(op),
            Event::LookAgain { task } => self.look_again(task),
            Event::Wake { what } => {
                let wake = self.wakes[what as usize];
                self.free_wakes.push(what);
                self.wake(wake);
            }
        }
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Tick => self.tick(),
            Wake::Cut => self.cut(),
            Wake::FaultStart(fault) => self.fault_start(fault),
            Wake::FaultEnd(fault) => self.fault_end(fault),
            Wake::Ready { instance, epoch } => self.instance_ready(instance, epoch),
            Wake::Boot { instance, epoch } => self.instance_boot(instance, epoch),
            Wake::DrainOver { instance, epoch } => self.drain_over(instance, epoch),
            Wake::Members { end } => self.members_wake(end),
            Wake::Scale { service } => self.autoscale(service),
            Wake::Deploy { fault } => self.deploy_step(fault),
            Wake::Promoted { store, shard, epoch } => self.promoted(store, shard, epoch),
            Wake::FailoverDecision { store, shard, epoch } => self.failover_decision(store, shard, epoch),
            Wake::Relayed { message } => self.relayed(message),
            Wake::Redeliver { message } => self.redeliver(message),
            Wake::Published { task } => self.soon(Event::Resume { task, answer: crate::engine::Answer::Ok }),
            Wake::Flush { cache } => self.flush_behind(cache),
            Wake::Lease { lease, instance, epoch } => self.lease_wake(lease, instance, epoch),
            Wake::LockAsked { lease, task } => self.lock_asked(lease, task),
            Wake::LeaseWrite { lease, instance, epoch, token } => self.lease_write(lease, instance, epoch, token),
            Wake::Propagate { node, key, version } => self.propagate(node, key, version),
            Wake::Degradation { instance } => self.degradation_wake(instance),
        }
    }

    /// `now` as policies read it.
    #[inline(always)]
    pub(crate) fn time(&self) -> Time {
        Time::from_nanos(self.now)
    }

    /// Schedules an event at this instant, after what is already due.
    #[inline(always)]
    pub(crate) fn soon(&mut self, event: Event) {
        self.ready.push_back(event);
    }

    /// Schedules a rarer thing.
    pub(crate) fn wake_at(&mut self, time: u64, wake: Wake) {
        let what = match self.free_wakes.pop() {
            Some(what) => {
                self.wakes[what as usize] = wake;
                what
            }
            None => {
                self.wakes.push(wake);
                self.wakes.len() as u32 - 1
            }
        };
        self.queue.at(time, Event::Wake { what });
    }

    /// Schedules an event after a constant delay, in its lane where there is one.
    #[inline]
    pub(crate) fn after(&mut self, delay: u64, lane: Option<LaneId>, event: Event) {
        match lane {
            Some(lane) => self.queue.after(self.now, lane, event),
            None => self.queue.at(self.now.saturating_add(delay), event),
        }
    }

    /// Puts something on the timeline.
    pub(crate) fn happened(&mut self, kind: EventKind, subject: impl Into<String>, text: impl Into<String>) {
        if self.plan.detail && self.segment > 0 && self.log.len() < MAX_HAPPENINGS {
            let at = self.now - self.plan.warmup;
            self.log.push(Happening { at, kind, subject: subject.into(), text: text.into() });
        }
    }

    /// The name of one instance, as reports give it: `api/2`.
    pub(crate) fn instance_name(&self, instance: u32) -> String {
        let instance = &self.instances[instance as usize];
        format!("{}/{}", self.plan.system.services[instance.service as usize].name, instance.number + 1)
    }

    /// The name of a component.
    pub(crate) fn name_of(&self, component: Component) -> &'a str {
        self.plan.system.component_name(component)
    }

    fn schedule_scenario(&mut self) {
        let plan = self.plan;
        // The warm-up ends with the first cut, the run with the last.
        for &cut in &plan.cuts {
            self.wake_at(cut, Wake::Cut);
        }
        if plan.detail {
            self.wake_at(plan.warmup + SECOND, Wake::Tick);
        }
        for (i, fault) in plan.faults.iter().enumerate() {
            self.wake_at(plan.warmup + fault.at, Wake::FaultStart(i as u32));
            self.wake_at(plan.warmup + fault.until, Wake::FaultEnd(i as u32));
        }
    }

    fn tick(&mut self) {
        self.each_measure(|gauge, now| gauge.tick(now), |counter| counter.tick());
        let mut scratch = Times::new();
        for audience in &mut self.audiences {
            audience.tick(&self.groups, &mut scratch);
        }
        for group in &mut self.groups {
            group.tick(self.now);
        }
        if self.now + SECOND <= self.plan.end() {
            self.wake_at(self.now + SECOND, Wake::Tick);
        }
    }

    fn cut(&mut self) {
        self.each_measure(|gauge, now| gauge.cut(now), |counter| counter.cut());
        self.ends.iter_mut().for_each(|end| end.times.cut());
        self.instances.iter_mut().for_each(|instance| instance.times.cut());
        let segment = self.segment;
        for audience in &mut self.audiences {
            audience.cut(self.now, segment);
        }
        for group in &mut self.groups {
            group.cut(self.now);
        }
        self.segment += 1;
    }
}

/// Simulated time between two looks at whether somebody wants the run to stop, ns.
const STRIDE: u64 = 250_000_000;

/// A second, ns.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// A timeline longer than this helps nobody.
const MAX_HAPPENINGS: usize = 5000;

/// What moves through memory with every request stays within a few cache lines.
const _: () = {
    assert!(size_of::<Task>() <= 192);
    assert!(size_of::<Call>() <= 192);
    assert!(size_of::<Attempt>() <= 144);
    assert!(size_of::<StoreOp>() <= 192);
};
