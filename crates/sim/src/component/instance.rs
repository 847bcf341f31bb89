use std::collections::VecDeque;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::Service;
use plimsoll_policy::{AdaptiveLimit, Bulkhead, Cache, Degradation, RateLimit, ShedQueue, bulkhead};

use crate::engine::{Answer, Event, Ref, duration};
use crate::measure::{Counter, Gauge, SegmentTimes};
use crate::world::{Wake, World};

/// One process of a service. In this order in memory: what every request comes by lies together.
#[repr(C)]
pub(crate) struct Instance<'a> {
    /// What the file says of its service.
    pub(crate) spec: &'a Service,
    pub(crate) service: u32,
    /// Number within its service, from 0.
    pub(crate) number: u32,
    pub(crate) free_cores: u32,
    pub(crate) free_workers: u32,
    /// Requests that it holds: running and queued.
    pub(crate) held_requests: u32,
    /// The version that runs: 0 is the old one.
    pub(crate) version: u32,
    pub(crate) state: State,
    /// Whether callers know of it.
    pub(crate) registered: bool,
    /// Whether it has policies that look at a request first, and limits beside its workers.
    pub(crate) guarded: bool,
    pub(crate) limited: bool,
    /// Whether its full queue is on the timeline already.
    pub(crate) queue_full_noted: bool,
    /// Work and waits take this many times as long, and this much more.
    pub(crate) slow: Slowness,
    /// Work that waits for a core, with its length, ns.
    pub(crate) run_queue: VecDeque<(Ref, u64)>,
    pub(crate) in_flight: Gauge,
    pub(crate) workers: Gauge,
    pub(crate) cores: Gauge,
    pub(crate) counter: Counter,
    pub(crate) times: SegmentTimes,
    pub(crate) queue: ShedQueue<Ref>,
    pub(crate) waiting: Gauge,
    pub(crate) zone: Option<u32>,
    /// Counts its lives: what was scheduled for an earlier one is void.
    pub(crate) epoch: u32,
    /// Since when it is stopped, if it is (SIGSTOP).
    pub(crate) paused_at: Option<u64>,
    /// What falls due while it is stopped: work with the ns that it still needs, and the rest.
    pub(crate) held: Vec<(u64, Event)>,
    pub(crate) ready_at: u64,
    pub(crate) limit: Option<AdaptiveLimit>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) bulkheads: Vec<Bulkhead>,
    /// Requests that wait for a bulkhead's permit, by ticket.
    pub(crate) bulkhead_waiters: Vec<(bulkhead::Ticket, Ref)>,
    pub(crate) ladder: Option<Degradation>,
    /// A gateway's own cache, by cache site's keyspace.
    pub(crate) caches: Vec<Option<Cache<u32>>>,
    /// Clock error, ns.
    pub(crate) skew: i64,
}

impl Instance<'_> {
    /// Gives a request that it holds a worker, or if it is async a seat; false if all are taken.
    #[inline(always)]
    pub(crate) fn take_worker(&mut self, now: u64) -> bool {
        if self.spec.asynchronous {
            if self.seated() > self.spec.max_in_flight {
                return false;
            }
        } else {
            if self.free_workers == 0 {
                return false;
            }
            self.free_workers -= 1;
        }
        self.workers.add(now, 1);
        true
    }

    /// Requests that it holds and that do not wait in its queue.
    pub(crate) fn seated(&self) -> u32 {
        self.held_requests - self.queue.len() as u32
    }

    /// Whether it can be reached at all.
    #[inline(always)]
    pub(crate) fn accepts(&self) -> bool {
        matches!(self.state, State::Up | State::Draining)
    }
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There is none.
    Absent,
    /// It died, or has not begun to start.
    Down,
    Starting,
    Up,
    /// It ends what it has, and takes nothing new from callers that know.
    Draining,
}

/// How much slower something is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slowness {
    pub(crate) factor: f64,
    pub(crate) added: u64,
}

impl Slowness {
    pub(crate) const NONE: Slowness = Slowness { factor: 1.0, added: 0 };

    #[inline]
    pub(crate) fn apply(self, nanos: u64) -> u64 {
        if self == Self::NONE { nanos } else { (nanos as f64 * self.factor) as u64 + self.added }
    }
}

impl World<'_> {
    /// The instances of a service, present or not.
    pub(crate) fn slots(&self, service: u32) -> std::ops::Range<usize> {
        let state = &self.services[service as usize];
        state.first as usize..(state.first + state.slots) as usize
    }

    /// Instances of a service that run or are about to.
    pub(crate) fn wanted(&self, service: u32) -> u32 {
        self.slots(service)
            .filter(|&i| matches!(self.instances[i].state, State::Up | State::Starting | State::Down))
            .count() as u32
    }

    /// Holds an event of a stopped process back; true if it was held.
    #[inline(always)]
    pub(crate) fn hold(&mut self, instance: u32, event: Event) -> bool {
        let instance = &mut self.instances[instance as usize];
        let Some(since) = instance.paused_at else { return false };
        let left = match event {
            Event::WorkDone { .. } => self.now - since,
            _ => 0,
        };
        instance.held.push((left, event));
        true
    }

    pub(crate) fn pause_instance(&mut self, instance: u32) {
        let state = &mut self.instances[instance as usize];
        if state.paused_at.is_none() && state.state != State::Absent {
            state.paused_at = Some(self.now);
        }
    }

    pub(crate) fn unpause_instance(&mut self, instance: u32) {
        let state = &mut self.instances[instance as usize];
        if state.paused_at.take().is_some() {
            for (left, event) in std::mem::take(&mut state.held) {
                self.queue.at(self.now + left, event);
            }
        }
    }

    /// A process dies at once: its requests are lost, its connections break.
    pub(crate) fn kill_instance(&mut self, instance: u32) {
        let state = &mut self.instances[instance as usize];
        if matches!(state.state, State::Absent) {
            return;
        }
        let was_up = matches!(state.state, State::Up | State::Draining);
        state.state = State::Down;
        state.epoch += 1;
        state.paused_at = None;
        state.held.clear();
        if was_up {
            let name = self.instance_name(instance);
            self.happened(EventKind::InstanceDown, name, "the process died");
        }
        self.drop_work(instance);
        self.drop_ends_of(instance);
        self.lease_holder_lost(instance);
        self.consumer_instance_lost(instance);
        self.reset_instance(instance);
    }

    /// A process starts, if none runs.
    pub(crate) fn boot(&mut self, instance: u32) {
        let plan = self.plan;
        let state = &mut self.instances[instance as usize];
        if matches!(state.state, State::Up | State::Starting | State::Draining) {
            return;
        }
        state.state = State::Starting;
        state.epoch += 1;
        let epoch = state.epoch;
        let service = state.service as usize;
        let startup =
            self.services[service].version_startup(state.version).unwrap_or(&plan.system.services[service].startup);
        let draw = self.services[service].draw.part(BOOT).part(instance as u64);
        let takes = duration(startup, draw.bits(epoch as u64));
        self.wake_at(self.now + takes, Wake::Ready { instance, epoch });
    }

    pub(crate) fn instance_boot(&mut self, instance: u32, epoch: u32) {
        if self.instances[instance as usize].epoch == epoch {
            self.boot(instance);
        }
    }

    pub(crate) fn instance_ready(&mut self, instance: u32, epoch: u32) {
        let now = self.now;
        let state = &mut self.instances[instance as usize];
        if state.epoch != epoch || state.state != State::Starting {
            return;
        }
        state.state = State::Up;
        state.ready_at = now;
        let name = self.instance_name(instance);
        self.happened(EventKind::InstanceUp, name, "ready");
        self.register(instance, true);
        self.consumer_instance_up(instance);
        self.lease_contender_up(instance);
        self.deploy_instance_ready(instance);
    }

    /// Tells callers that an instance is there, or is not.
    pub(crate) fn register(&mut self, instance: u32, registered: bool) {
        let state = &mut self.instances[instance as usize];
        if state.registered == registered {
            return;
        }
        state.registered = registered;
        let service = state.service as usize;
        let at = instance - self.services[service].first;
        let known = &mut self.services[service].registered;
        if registered {
            known.insert(at as usize);
        } else {
            known.remove(at as usize);
        }
        self.registration_changed(service as u32, at, registered);
    }

    /// Stops an instance the graceful way: callers stop calling, what it has ends.
    pub(crate) fn drain_instance(&mut self, instance: u32) {
        self.register(instance, false);
        let drain = self.instances[instance as usize].spec.drain;
        let state = &mut self.instances[instance as usize];
        if state.state != State::Up {
            self.retire_instance(instance);
            return;
        }
        state.state = State::Draining;
        let epoch = state.epoch;
        // What is on its way here still finds it.
        let linger = if state.held_requests == 0 { LINGER.min(drain) } else { drain };
        self.wake_at(self.now + linger, Wake::DrainOver { instance, epoch });
    }

    pub(crate) fn drain_over(&mut self, instance: u32, epoch: u32) {
        let state = &self.instances[instance as usize];
        if state.epoch == epoch && state.state == State::Draining {
            self.retire_instance(instance);
        }
    }

    /// Ends a drained instance: nothing is left of it.
    pub(crate) fn retire_instance(&mut self, instance: u32) {
        self.kill_instance(instance);
        self.instances[instance as usize].state = State::Absent;
        self.register(instance, false);
        self.deploy_instance_gone(instance);
    }

    /// Work that this instance needs for so much of it now, ns.
    #[inline]
    pub(crate) fn work_takes(&self, instance: u32, nanos: u64) -> u64 {
        let state = &self.instances[instance as usize];
        let service = state.spec;
        let mut takes = state.slow.apply(nanos);
        if let Some(warmup) = &service.warmup {
            let warm = (self.now - state.ready_at.min(self.now)) as f64 / warmup.duration.max(1) as f64;
            if warm < 1.0 && (state.ready_at > 0) {
                takes = (takes as f64 * (warmup.factor + (1.0 - warmup.factor) * warm)) as u64;
            }
        }
        if state.version > 0 {
            takes = (takes as f64 * self.services[state.service as usize].version_slow(state.version)) as u64;
        }
        takes
    }

    /// How long an instance waits where a program waits for so much, ns. What a process waits for is
    /// part of how fast it is; only caches and compilers warm up.
    #[inline]
    pub(crate) fn wait_takes(&self, instance: u32, nanos: u64) -> u64 {
        let state = &self.instances[instance as usize];
        let takes = state.slow.apply(nanos);
        match state.version {
            0 => takes,
            version => (takes as f64 * self.services[state.service as usize].version_slow(version)) as u64,
        }
    }

    /// Ends every request that a dead process held, as its callers see it.
    fn drop_work(&mut self, instance: u32) {
        let lost: Vec<Ref> = self.tasks.refs().filter(|&task| self.tasks[task].instance == instance).collect();
        for task in lost {
            if self.tasks.contains(task) {
                self.drop_task(task, Answer::Reset);
            }
        }
    }

    /// A process has ended: what the next one starts with.
    fn reset_instance(&mut self, instance: u32) {
        let plan = self.plan;
        let now = self.now;
        let time = self.time();
        let state = &mut self.instances[instance as usize];
        let service = state.spec;
        state.queue = ShedQueue::new(service.queue).expect("the file's reader has checked it");
        state.run_queue.clear();
        state.free_cores = service.cores;
        state.free_workers = service.workers;
        state.held_requests = 0;
        state.bulkhead_waiters.clear();
        for gauge in [&mut state.workers, &mut state.cores, &mut state.waiting, &mut state.in_flight] {
            gauge.set(now, 0);
        }
        let policies = InstancePolicies::new(plan, state.service, time);
        state.limit = policies.limit;
        state.rate_limit = policies.rate_limit;
        state.bulkheads = policies.bulkheads;
        state.caches = policies.caches;
    }
}

/// The policies that live and die with a process.
pub(crate) struct InstancePolicies {
    pub(crate) limit: Option<AdaptiveLimit>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) bulkheads: Vec<Bulkhead>,
    pub(crate) ladder: Option<Degradation>,
    pub(crate) caches: Vec<Option<Cache<u32>>>,
}

impl InstancePolicies {
    pub(crate) fn new(plan: &crate::plan::Plan, service: u32, now: plimsoll_policy::Time) -> Self {
        let of = &plan.system.services[service as usize];
        let caches = plan
            .code
            .sites
            .iter()
            .map(|site| match site.owner {
                crate::compile::CacheOwner::Gateway { service: s, capacity } if s == service => {
                    let config = plimsoll_policy::cache::Config { capacity, ..site.config };
                    Some(Cache::new(config).expect(CHECKED))
                }
                _ => None,
            })
            .collect();
        InstancePolicies {
            limit: of.limit.as_ref().map(|config| AdaptiveLimit::new(*config, now).expect(CHECKED)),
            rate_limit: of
                .rate_limit
                .as_ref()
                .filter(|limit| limit.store.is_none())
                .map(|limit| RateLimit::new(limit.config, now).expect(CHECKED)),
            bulkheads: of.bulkheads.iter().map(|b| Bulkhead::new(b.config, now).expect(CHECKED)).collect(),
            ladder: of.degradation.as_ref().map(|d| Degradation::new(d.ladder.clone()).expect(CHECKED)),
            caches,
        }
    }
}

/// Why a policy's configuration cannot be invalid here.
pub(crate) const CHECKED: &str = "the reader of the file refuses invalid policies";

const BOOT: u64 = 0xb007;

/// A drained instance stays for requests that were sent before its callers knew (a `preStop` wait),
/// ns.
const LINGER: u64 = 100_000_000;
