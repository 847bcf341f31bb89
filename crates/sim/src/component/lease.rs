use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_model::run::EventKind;
use plimsoll_policy::lease::{Config, Fence, Grant, Lease, Token};
use plimsoll_policy::{Mode, Time};

use crate::compile::Op;
use crate::component::instance::{CHECKED, Instance, State};
use crate::component::task::Waiting;
use crate::engine::{Answer, Draw, Event, Ref, duration};
use crate::measure::{Counter, Gauge};
use crate::world::{Wake, World};

/// A lease's state: the lease service, the resource that it guards, and those who want it.
///
/// A lease that programs take (`lease:` around steps) is a lock of requests; any other is held by
/// one instance of its service at a time, a leader.
pub(crate) struct LeaseState {
    service: u32,
    draw: Draw,
    /// The lease service, on the true clock.
    lease: Lease,
    /// The resource. Without fencing it lets late writes pass.
    fence: Fence,
    /// By instance slot.
    parties: Vec<Party>,
    lock: Option<Lock>,
    /// Requests that wait for the lock.
    pub(crate) waiting: Gauge,
    /// Writes under the lease; for a lock, rounds of its steps.
    pub(crate) counter: Counter,
}

/// An instance that competes for a lease.
#[derive(Clone, Default)]
struct Party {
    /// What it believes to hold.
    grant: Option<Grant>,
    /// When it acts next, ns; earlier wakes have been overtaken.
    next: u64,
    writes: u64,
}

/// A lease that requests take in turn.
#[derive(Default)]
struct Lock {
    holder: Option<Holder>,
    waiters: VecDeque<Ref>,
    /// Those who lost it and do not know yet.
    displaced: Vec<(Ref, Token)>,
    /// How often it was granted: each grant is a holder of its own.
    grants: u64,
    /// Whether the holder will be looked at when its time is over.
    watched: bool,
}

struct Holder {
    task: Ref,
    instance: u32,
    token: Token,
    /// Its last renewal, ns.
    renewed: u64,
    /// When it died without giving the lock back, ns.
    died: Option<u64>,
}

/// In place of an instance: the lease service itself looks at its lock.
const LOCK: u32 = u32::MAX;

impl World<'_> {
    pub(crate) fn build_leases(&mut self) {
        let plan = self.plan;
        for (l, lease) in plan.system.leases.iter().enumerate() {
            let config = Config { ttl: Duration::from_nanos(lease.ttl), mode: Mode::Enforce };
            let slots = self.slots(lease.service.0);
            let locks = plan.code.ops.iter().any(|op| matches!(op, Op::Lock(taken) if *taken as usize == l));
            self.leases.push(LeaseState {
                service: lease.service.0,
                draw: self.root.named(&lease.name),
                lease: Lease::new(config, 0).expect(CHECKED),
                fence: Fence::new(if lease.fencing { Mode::Enforce } else { Mode::Shadow }),
                parties: vec![Party::default(); slots.len()],
                lock: locks.then(Lock::default),
                waiting: Gauge::new(),
                counter: Counter::default(),
            });
            for instance in slots {
                if self.instances[instance].state == State::Up {
                    self.contend(l as u32, instance as u32);
                }
            }
        }
    }

    /// An instance that holds a lease renews it, one that does not asks for it.
    pub(crate) fn lease_wake(&mut self, lease: u32, instance: u32, epoch: u32) {
        if instance == LOCK {
            return self.check_lock(lease);
        }
        if !self.lives(instance, epoch) || self.hold_wake(instance, Wake::Lease { lease, instance, epoch }) {
            return;
        }
        let number = self.instances[instance as usize].number as usize;
        let party = &self.leases[lease as usize].parties[number];
        if self.now < party.next {
            return;
        }
        let draining = self.instances[instance as usize].state == State::Draining;
        let time = self.time();
        if let Some(grant) = party.grant {
            if draining {
                return self.give_back(lease, instance);
            }
            let state = &mut self.leases[lease as usize];
            if let Ok(renewed) = state.lease.renew(time, grant.token) {
                state.parties[number].grant = Some(renewed);
                let wait = self.plan.system.leases[lease as usize].renew;
                return self.contend_at(lease, instance, self.now + wait);
            }
            self.no_longer_holds(lease, instance, "its renewal came too late");
        }
        if draining {
            return;
        }
        match self.leases[lease as usize].lease.acquire(time, number as u64) {
            Ok(grant) => self.takes(lease, instance, grant),
            Err(held) => {
                let free = held.retry_at.map_or(self.now + 1, Time::as_nanos).max(self.now + 1);
                self.contend_at(lease, instance, free);
            }
        }
    }

    /// A write that the holder prepared since its last look at the lease reaches the resource.
    pub(crate) fn lease_write(&mut self, lease: u32, instance: u32, epoch: u32, token: u64) {
        let wake = Wake::LeaseWrite { lease, instance, epoch, token };
        if !self.lives(instance, epoch) || self.hold_wake(instance, wake) {
            return;
        }
        let number = self.instances[instance as usize].number as usize;
        let passed = self.write_with(lease, Token::from_number(token), instance);
        let local = self.now.saturating_add_signed(self.instances[instance as usize].skew);
        let Some(grant) = self.leases[lease as usize].parties[number].grant.filter(|g| g.token.get() == token) else {
            return;
        };
        if !passed {
            self.no_longer_holds(lease, instance, "the resource refused its write");
            self.contend(lease, instance);
        } else if local >= grant.until.as_nanos() {
            self.no_longer_holds(lease, instance, "its time is over by its own clock");
        } else {
            self.prepare_write(lease, instance, token);
        }
    }

    /// A task wants a lock. False: it waits in line.
    pub(crate) fn lock(&mut self, task: Ref, lease: u32) -> bool {
        self.expire_lock(lease);
        let state = &mut self.leases[lease as usize];
        state.counter.now.offered += 1;
        let Some(lock) = &mut state.lock else { unreachable!("programs take it, so it is a lock") };
        if lock.holder.is_none() && lock.waiters.is_empty() && self.grant_lock(lease, task) {
            return true;
        }
        let state = &mut self.leases[lease as usize];
        state.waiting.add(self.now, 1.0);
        if let Some(lock) = &mut state.lock {
            lock.waiters.push_back(task);
        }
        self.tasks[task].waiting = Waiting::Lock(lease);
        self.watch_lock(lease);
        false
    }

    /// A task is done with a lock, whether it still holds it or not.
    pub(crate) fn unlock(&mut self, lease: u32, task: Ref) {
        let state = &mut self.leases[lease as usize];
        let Some(lock) = &mut state.lock else { return };
        if let Some(holder) = lock.holder.take_if(|holder| holder.task == task) {
            state.lease.release(holder.token);
            state.counter.now.ok += 1;
            return self.pass_lock_on(lease);
        }
        let Some(at) = lock.displaced.iter().position(|&(displaced, _)| displaced == task) else { return };
        let (_, token) = lock.displaced.remove(at);
        // It has done its steps since, in the belief that it held the lock.
        let pc = self.tasks[task].pc;
        let code = &self.plan.code;
        let done = pc.checked_sub(1).filter(
            |&before| matches!(code.ops[before as usize], Op::Unlock { lease: l, failed: None } if l == lease),
        );
        let Some(unlock) = done else { return };
        if !self.write_with(lease, token, self.tasks[task].instance) {
            // What it did is refused: it fails, past the code that would unlock once more.
            let failed = code.on_error[unlock as usize];
            if let Op::Unlock { failed: Some(then), .. } = code.ops[failed as usize] {
                let t = &mut self.tasks[task];
                t.failure = Answer::Conflict;
                t.pc = then;
            }
        }
    }

    /// A task that waits in line for a lock is gone.
    pub(crate) fn leave_lock(&mut self, lease: u32, task: Ref) {
        let state = &mut self.leases[lease as usize];
        let Some(lock) = &mut state.lock else { return };
        if let Some(at) = lock.waiters.iter().position(|&waiter| waiter == task) {
            lock.waiters.remove(at);
            state.waiting.add(self.now, -1.0);
            state.counter.now.failed += 1;
        }
    }

    /// A task dies with its process. Its locks stay taken until their time is over, for nobody gives
    /// them back; what it had yet to publish is never published; and the message that it handled may
    /// have had its effect.
    pub(crate) fn unlock_all(&mut self, task: Ref) {
        for lease in 0..self.leases.len() as u32 {
            let Some(lock) = &mut self.leases[lease as usize].lock else { continue };
            lock.displaced.retain(|&(displaced, _)| displaced != task);
            if let Some(holder) = lock.holder.as_mut().filter(|holder| holder.task == task) {
                holder.died = Some(self.now);
                self.leases[lease as usize].counter.now.failed += 1;
            }
        }
        self.publish_dies(task);
        self.handler_dies(task);
    }

    /// An instance is gone: it renews no more, and its leases run out.
    pub(crate) fn lease_holder_lost(&mut self, instance: u32) {
        let service = self.instances[instance as usize].service;
        for lease in 0..self.leases.len() as u32 {
            if self.leases[lease as usize].service == service {
                self.no_longer_holds(lease, instance, "its process is gone");
            }
        }
    }

    /// An instance is ready, and competes.
    pub(crate) fn lease_contender_up(&mut self, instance: u32) {
        let service = self.instances[instance as usize].service;
        for lease in 0..self.leases.len() as u32 {
            if self.leases[lease as usize].service == service {
                self.contend(lease, instance);
            }
        }
    }

    fn contend(&mut self, lease: u32, instance: u32) {
        if self.leases[lease as usize].lock.is_none() {
            self.contend_at(lease, instance, self.now);
        }
    }

    fn contend_at(&mut self, lease: u32, instance: u32, time: u64) {
        let Instance { number, epoch, .. } = self.instances[instance as usize];
        self.leases[lease as usize].parties[number as usize].next = time;
        self.wake_at(time, Wake::Lease { lease, instance, epoch });
    }

    fn lives(&self, instance: u32, epoch: u32) -> bool {
        let state = &self.instances[instance as usize];
        state.epoch == epoch && matches!(state.state, State::Up | State::Draining)
    }

    /// Holds a wake of a stopped process back; true if it was held. The process does not notice: it
    /// goes on with what it was about to do.
    fn hold_wake(&mut self, instance: u32, wake: Wake) -> bool {
        if self.instances[instance as usize].paused_at.is_none() {
            return false;
        }
        self.wakes.push(wake);
        let what = self.wakes.len() as u32 - 1;
        self.hold(instance, Event::Wake { what })
    }

    fn takes(&mut self, lease: u32, instance: u32, grant: Grant) {
        let token = grant.token;
        let state = &mut self.leases[lease as usize];
        state.parties[self.instances[instance as usize].number as usize].grant = Some(grant);
        // Before it reads what its predecessor may still be writing.
        state.fence.raise(token);
        let of = &self.plan.system.leases[lease as usize];
        let text = format!("{} holds it, with token {}", self.instance_name(instance), token.get());
        self.happened(EventKind::LeaseTaken, &*of.name, text);
        self.prepare_write(lease, instance, token.get());
        self.contend_at(lease, instance, self.now + of.renew);
    }

    /// A holder has seen that it holds the lease, and prepares its next write until it is due.
    fn prepare_write(&mut self, lease: u32, instance: u32, token: u64) {
        let of = &self.plan.system.leases[lease as usize];
        let Instance { number, epoch, .. } = self.instances[instance as usize];
        let state = &mut self.leases[lease as usize];
        let party = &mut state.parties[number as usize];
        party.writes += 1;
        let takes = duration(&of.write, state.draw.part(number as u64).bits(party.writes));
        // Never at the same instant: a holder with nothing between its writes still takes time.
        let due = self.now + (of.write_every + takes).max(1);
        self.wake_at(due, Wake::LeaseWrite { lease, instance, epoch, token });
    }

    fn no_longer_holds(&mut self, lease: u32, instance: u32, why: &str) {
        let number = self.instances[instance as usize].number as usize;
        if self.leases[lease as usize].parties[number].grant.take().is_some() {
            let text = format!("{} no longer holds it: {why}", self.instance_name(instance));
            self.happened(EventKind::LeaseLost, &*self.plan.system.leases[lease as usize].name, text);
        }
    }

    /// A holder that is being stopped gives the lease back, and the others need not wait.
    fn give_back(&mut self, lease: u32, instance: u32) {
        let number = self.instances[instance as usize].number as usize;
        let state = &mut self.leases[lease as usize];
        if let Some(grant) = state.parties[number].grant {
            state.lease.release(grant.token);
        }
        self.no_longer_holds(lease, instance, "it is being stopped");
        for other in self.slots(self.leases[lease as usize].service) {
            if self.instances[other].state == State::Up {
                self.contend(lease, other as u32);
            }
        }
    }

    /// A write reaches the resource; false if it is refused there.
    fn write_with(&mut self, lease: u32, token: Token, instance: u32) -> bool {
        let of = &self.plan.system.leases[lease as usize];
        let state = &mut self.leases[lease as usize];
        let newest = state.lease.last_token();
        let late = token.get() < newest;
        let passed = state.fence.check(token).is_ok();
        let totals = &mut state.counter.now;
        totals.offered += state.lock.is_none() as u64;
        totals.ok += passed as u64;
        totals.failed += !passed as u64;
        totals.rejected += !passed as u64;
        totals.duplicates += (passed && late) as u64;
        if late {
            let (who, token) = (self.instance_name(instance), token.get());
            let (kind, text) = if passed {
                (EventKind::SplitBrain, format!("{who} writes with token {token} after {newest}: two holders at once"))
            } else {
                (EventKind::Fenced, format!("a late write of {who} is refused: token {token} after {newest}"))
            };
            self.happened(kind, &*of.name, text);
        }
        passed
    }

    /// The time of a lock's holder may be over.
    fn check_lock(&mut self, lease: u32) {
        if let Some(lock) = &mut self.leases[lease as usize].lock {
            lock.watched = false;
        }
        self.expire_lock(lease);
        self.pass_lock_on(lease);
    }

    /// While requests wait for a lock, its holder is looked at when its time is over.
    fn watch_lock(&mut self, lease: u32) {
        let state = &mut self.leases[lease as usize];
        let (Some(lock), Some(over)) = (&mut state.lock, state.lease.next_wake()) else { return };
        if lock.holder.is_some() && !lock.waiters.is_empty() && !lock.watched {
            lock.watched = true;
            let at = over.as_nanos().max(self.now + 1);
            self.wake_at(at, Wake::Lease { lease, instance: LOCK, epoch: 0 });
        }
    }

    /// Takes a lock from a holder that has not renewed it in time.
    fn expire_lock(&mut self, lease: u32) {
        let of = &self.plan.system.leases[lease as usize];
        let now = self.now;
        let state = &mut self.leases[lease as usize];
        let Some(lock) = &mut state.lock else { return };
        let Some(holder) = &mut lock.holder else { return };
        if !self.tasks.contains(holder.task) {
            holder.died.get_or_insert(now);
        }
        // Renewals up to now, made up for in one go: nobody could have seen the difference.
        let last = holder.died.or(self.instances[holder.instance as usize].paused_at).unwrap_or(now);
        while holder.renewed + of.renew.max(1) <= last {
            holder.renewed += of.renew.max(1);
            if state.lease.renew(Time::from_nanos(holder.renewed), holder.token).is_err() {
                break;
            }
        }
        if state.lease.holder(Time::from_nanos(now)).is_some() {
            return;
        }
        let (instance, paused) = (holder.instance, holder.died.is_none());
        if paused {
            lock.displaced.push((holder.task, holder.token));
        }
        lock.holder = None;
        let why = if paused { "is stopped and does not renew it" } else { "died while a request of it had it" };
        let text = format!("the lock has run out: {} {why}", self.instance_name(instance));
        self.happened(EventKind::LeaseLost, &*of.name, text);
    }

    /// The next in line gets a lock that is free.
    fn pass_lock_on(&mut self, lease: u32) {
        loop {
            let state = &mut self.leases[lease as usize];
            let Some(lock) = &mut state.lock else { return };
            if lock.holder.is_some() {
                break;
            }
            let Some(task) = lock.waiters.pop_front() else { break };
            state.waiting.add(self.now, -1.0);
            match self.tasks.get(task) {
                Some(t) if !t.cancelled => {
                    self.grant_lock(lease, task);
                    self.soon(Event::Resume { task, answer: Answer::Ok });
                }
                Some(_) => {
                    state.counter.now.failed += 1;
                    self.soon(Event::Resume { task, answer: Answer::Cancelled });
                }
                None => state.counter.now.failed += 1,
            }
        }
        self.watch_lock(lease);
    }

    fn grant_lock(&mut self, lease: u32, task: Ref) -> bool {
        let time = self.time();
        let state = &mut self.leases[lease as usize];
        let Some(lock) = &mut state.lock else { return false };
        lock.grants += 1;
        let Ok(grant) = state.lease.acquire(time, lock.grants) else { return false };
        state.fence.raise(grant.token);
        let instance = self.tasks[task].instance;
        lock.holder = Some(Holder { task, instance, token: grant.token, renewed: self.now, died: None });
        true
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_model::run::{EventKind, Totals};

    use crate::component::topic::tests::{happened, simulated, total};
    use crate::world::World;

    /// A leader of three instances, and a lock around 20 ms of work.
    fn system(fencing: bool, faults: &str) -> String {
        format!(
            "
system: led
clients:
  web: {{ rate: 20/s, calls: [ {{ endpoint: api POST /jobs }} ], timeout: 30s }}
services:
  api:
    instances: 3
    workers: 128
    endpoints:
      POST /jobs: [ {{ lease: exclusive, do: [ {{ wait: 20ms }} ] }} ]
leases:
  leader: {{ service: api, ttl: 3s, renew: 1s, write_every: 100ms, write: 5ms, fencing: {fencing} }}
  exclusive: {{ service: api, ttl: 3s, renew: 1s, fencing: {fencing} }}
experiments:
  test: {{ for: 60s, warmup: 5s, faults: [{faults}], expect: [errors < 100%] }}
"
        )
    }

    fn leader(world: &World<'_>) -> Totals {
        total(&world.leases[0].counter)
    }

    const PAUSE: &str = "{ at: 10s, pause: api, for: 10s }";
    const PAUSE_FIRST: &str = "{ at: 10s, pause: api/1, for: 10s }";

    #[test]
    fn one_instance_leads_as_long_as_it_renews() {
        simulated(&system(true, ""), |world| {
            let totals = leader(world);
            assert!((600..640).contains(&totals.ok), "a write each 105 ms: {}", totals.ok);
            assert_eq!((totals.rejected, totals.duplicates), (0, 0));
            let holders = world.leases[0].parties.iter().filter(|party| party.grant.is_some()).count();
            assert_eq!(holders, 1);
            assert_eq!(happened(world, EventKind::LeaseTaken), 0, "it was taken once, in the warm-up");
        });
    }

    #[test]
    fn a_paused_leader_s_late_write_is_fenced_off() {
        simulated(&system(true, PAUSE_FIRST), |world| {
            let totals = leader(world);
            assert_eq!((totals.rejected, totals.duplicates), (1, 0));
            assert!(happened(world, EventKind::LeaseTaken) == 1 && happened(world, EventKind::Fenced) >= 1);
            assert!(world.leases[0].lease.last_token() == 2, "the old leader does not take it back");
        });
    }

    #[test]
    fn without_fencing_two_lead() {
        simulated(&system(false, PAUSE_FIRST), |world| {
            let totals = leader(world);
            assert_eq!(totals.rejected, 0);
            assert!(totals.duplicates >= 1);
            assert!(happened(world, EventKind::SplitBrain) >= 1);
        });
    }

    #[test]
    fn a_pause_shorter_than_the_lease_costs_nothing() {
        simulated(&system(true, "{ at: 10s, pause: api/1, for: 1500ms }"), |world| {
            let totals = leader(world);
            assert_eq!((totals.rejected, totals.duplicates), (0, 0));
            assert_eq!(world.leases[0].lease.last_token(), 1);
        });
    }

    #[test]
    fn a_dead_leader_is_followed_when_its_time_is_over() {
        simulated(&system(true, "{ at: 10s, kill: api/1, for: 30s }"), |world| {
            let at = |kind| world.log.iter().find(|event| event.kind == kind).map(|event| event.at).unwrap();
            let gap = at(EventKind::LeaseTaken) - at(EventKind::LeaseLost);
            assert!((2_000_000_000..=3_000_000_000).contains(&gap), "{gap}");
        });
    }

    #[test]
    fn a_clock_behind_believes_for_too_long() {
        // All stop but for the skewed leader's clock: it wakes up sure of a lease that is over, and
        // goes on until its renewal is refused.
        let skewed = format!("{PAUSE_FIRST}, {{ at: 5s, skew: api/1, by: -1min, for: 50s }}");
        simulated(&system(false, &skewed), |world| assert!(leader(world).duplicates >= 1));
        // One ahead of its lease takes it, and stops at once, for by its clock it is over.
        simulated(&system(true, "{ at: 10s, skew: api/1, by: 1min, for: 30s }"), |world| {
            let idle = 300 - 10;
            assert!(leader(world).ok < 640 - idle, "{}", leader(world).ok);
        });
    }

    #[test]
    fn a_lock_lets_one_in_at_a_time() {
        simulated(&system(true, ""), |world| {
            let totals = total(&world.leases[1].counter);
            assert!(totals.ok > 1200 && totals.failed == 0, "{totals:?}");
            let mean: f64 = world.audiences[0].cells[1].all.mean();
            // M/D/1 at 40%: the wait adds a third of the 20 ms.
            assert!(mean > 24e6 && mean < 32e6, "{mean}");
        });
    }

    #[test]
    fn a_dead_holder_s_lock_runs_out() {
        // 20 ms at 20/s: with 40% certainty somebody has it. Six times over.
        let faults: Vec<String> = (0..6).map(|i| format!("{{ at: {}s, kill: api/1, for: 4s }}", 5 + 8 * i)).collect();
        simulated(&system(true, &faults.join(", ")), |world| {
            let totals = total(&world.leases[1].counter);
            assert!(totals.failed > 0, "some died with it");
            let worst = world.audiences[0].cells.iter().map(|cell| cell.all.max()).max().unwrap();
            assert!(worst > 1_500_000_000, "and those behind waited until its time was over: {worst}");
            assert!(totals.ok > 1000, "then it went on");
        });
    }

    #[test]
    fn a_paused_holder_s_round_is_refused_or_done_twice() {
        // Every instance stops in turn, so that one of them stops with the lock.
        let faults: Vec<String> =
            (0..9).map(|i| format!("{{ at: {}s, pause: api/{}, for: 5s }}", 3 + 6 * i, i % 3 + 1)).collect();
        let faults = faults.join(", ");
        simulated(&system(true, &faults), |world| {
            let totals = total(&world.leases[1].counter);
            assert!(totals.rejected > 0 && totals.duplicates == 0, "{totals:?}");
            let failed: u64 = world.audiences[0].cells.iter().map(|cell| cell.totals.failed).sum();
            assert!(failed >= totals.rejected, "what is refused fails");
        });
        simulated(&system(false, &faults), |world| {
            let totals = total(&world.leases[1].counter);
            assert!(totals.rejected == 0 && totals.duplicates > 0, "{totals:?}");
        });
    }

    #[test]
    fn when_all_stop_nobody_takes_over() {
        simulated(&system(true, PAUSE), |world| {
            assert_eq!(leader(world).duplicates, 0);
            assert!(leader(world).rejected <= 1);
        });
    }
}
