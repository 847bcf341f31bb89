mod lock;

use std::time::Duration;

use plimsoll_model::run::EventKind;
use plimsoll_policy::lease::{Config, Fence, Grant, Lease, Token};
use plimsoll_policy::{Mode, Time};

use crate::compile::Op;
use crate::component::instance::{CHECKED, Instance, State};
use crate::engine::{Draw, Event, duration};
use crate::measure::{Counter, Gauge};
use crate::world::{Wake, World};
use lock::Lock;

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
        let of = &self.plan.system.leases[lease as usize];
        if let Some((_, until)) = self.cut_off(instance) {
            if party.grant.is_some_and(|grant| self.is_over(instance, &grant)) {
                self.no_longer_holds(lease, instance, "it cannot renew it, and its time is over by its own clock");
            }
            return self.contend_at(lease, instance, until.min(self.now + of.renew.max(1)));
        }
        if let Some(grant) = party.grant {
            if draining {
                return self.give_back(lease, instance);
            }
            let state = &mut self.leases[lease as usize];
            if let Ok(renewed) = state.lease.renew(time, grant.token) {
                state.parties[number].grant = Some(renewed);
                return self.contend_at(lease, instance, self.now + of.renew.max(1));
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
        if let Some((_, until)) = self.cut_off(instance) {
            // It is sent again and again, and arrives when something gets through.
            return self.wake_at(until, wake);
        }
        let number = self.instances[instance as usize].number as usize;
        let passed = self.write_with(lease, Token::from_number(token), instance);
        let Some(grant) = self.leases[lease as usize].parties[number].grant.filter(|g| g.token.get() == token) else {
            return;
        };
        if !passed {
            self.no_longer_holds(lease, instance, "the resource refused its write");
            self.contend(lease, instance);
        } else if self.is_over(instance, &grant) {
            self.no_longer_holds(lease, instance, "its time is over by its own clock");
        } else {
            self.prepare_write(lease, instance, token);
        }
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

    /// Whether a grant is over by an instance's own clock.
    fn is_over(&self, instance: u32, grant: &Grant) -> bool {
        let local = self.now.saturating_add_signed(self.instances[instance as usize].skew);
        local >= grant.until.as_nanos()
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
        self.contend_at(lease, instance, self.now + of.renew.max(1));
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
}

#[cfg(test)]
mod tests {
    use plimsoll_model::run::{EventKind, Totals};

    use crate::component::topic::tests::{happened, simulated, total};
    use crate::world::World;

    /// A leader of three instances, and a lock around 20 ms of work.
    pub(super) fn system(fencing: bool, faults: &str) -> String {
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
    fn a_leader_that_is_cut_off_stops_by_its_own_clock_but_a_write_is_under_way() {
        let partition = "{ at: 10s, partition: api/1, for: 10s }";
        simulated(&system(true, partition), |world| {
            let totals = leader(world);
            assert_eq!((totals.rejected, totals.duplicates), (1, 0));
            assert_eq!(world.leases[0].lease.last_token(), 2);
        });
        simulated(&system(false, partition), |world| assert_eq!(leader(world).duplicates, 1));
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
        // It wakes up sure of a lease that is over, and goes on until its renewal is refused.
        let skewed = format!("{PAUSE_FIRST}, {{ at: 5s, skew: api/1, by: -1min, for: 50s }}");
        simulated(&system(false, &skewed), |world| assert!(leader(world).duplicates >= 1));
    }

    #[test]
    fn a_clock_ahead_leads_without_work() {
        // It takes the lease, does a write, sees that its time is over, and takes it again.
        simulated(&system(true, "{ at: 10s, skew: api/1, by: 1min, for: 30s }"), |world| {
            let totals = leader(world);
            assert!(totals.ok < 640 - 220, "30 of some 290 writes: {}", totals.ok);
            assert_eq!(world.leases[0].lease.holder(world.time()), Some(0));
        });
    }

    #[test]
    fn when_all_stop_nobody_takes_over() {
        simulated(&system(true, PAUSE), |world| {
            let totals = leader(world);
            assert!(totals.duplicates == 0 && totals.rejected <= 1);
            assert!((505..=526).contains(&totals.ok), "10 of 65 s without a write: {}", totals.ok);
        });
    }
}
