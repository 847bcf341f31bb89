use std::collections::VecDeque;

use plimsoll_model::run::EventKind;
use plimsoll_policy::Time;
use plimsoll_policy::lease::Token;

use super::LOCK;
use crate::compile::Op;
use crate::component::task::Waiting;
use crate::engine::{Answer, Event, Ref};
use crate::world::{Wake, World};

/// A lease that requests take in turn.
#[derive(Default)]
pub(super) struct Lock {
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

impl World<'_> {
    /// A task wants a lock. False: it waits in line, or for the end of a partition.
    pub(crate) fn lock(&mut self, task: Ref, lease: u32) -> bool {
        if let Some((_, until)) = self.cut_off(self.tasks[task].instance) {
            self.tasks[task].waiting = Waiting::Lock(lease);
            self.wake_at(until.max(self.now + 1), Wake::LockAsked { lease, task });
            return false;
        }
        self.expire_lock(lease);
        let state = &mut self.leases[lease as usize];
        state.counter.now.offered += 1;
        let Some(lock) = &mut state.lock else { unreachable!("programs take it, so it is a lock") };
        if lock.holder.is_none() && lock.waiters.is_empty() && self.grant_lock(lease, task) {
            return true;
        }
        let state = &mut self.leases[lease as usize];
        state.waiting.add(self.now, 1);
        if let Some(lock) = &mut state.lock {
            lock.waiters.push_back(task);
        }
        self.tasks[task].waiting = Waiting::Lock(lease);
        self.watch_lock(lease);
        false
    }

    /// The partition that held a task's question back is over.
    pub(crate) fn lock_asked(&mut self, lease: u32, task: Ref) {
        let Some(t) = self.tasks.get(task) else { return };
        if t.waiting == Waiting::Lock(lease) && self.lock(task, lease) {
            self.soon(Event::Resume { task, answer: Answer::Ok });
        }
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
        let done = pc
            .checked_sub(1)
            .filter(|&before| matches!(code.ops[before as usize], Op::Unlock { lease: l, failed: None } if l == lease));
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
            state.waiting.add(self.now, -1);
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

    /// The time of a lock's holder may be over.
    pub(super) fn check_lock(&mut self, lease: u32) {
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
        let Some(holder) = self.leases[lease as usize].lock.as_ref().and_then(|lock| lock.holder.as_ref()) else {
            return;
        };
        let cut_off = self.cut_off(holder.instance).map(|(since, _)| since);
        let state = &mut self.leases[lease as usize];
        let Some(lock) = &mut state.lock else { return };
        let Some(holder) = &mut lock.holder else { return };
        if !self.tasks.contains(holder.task) {
            holder.died.get_or_insert(now);
        }
        // Renewals up to now, made up for in one go: nobody could have seen the difference.
        let last = holder.died.or(self.instances[holder.instance as usize].paused_at).or(cut_off).unwrap_or(now);
        while holder.renewed + of.renew.max(1) <= last {
            holder.renewed += of.renew.max(1);
            if state.lease.renew(Time::from_nanos(holder.renewed), holder.token).is_err() {
                break;
            }
        }
        if state.lease.holder(Time::from_nanos(now)).is_some() {
            return;
        }
        let (instance, lives) = (holder.instance, holder.died.is_none());
        if lives {
            lock.displaced.push((holder.task, holder.token));
        }
        lock.holder = None;
        let why = if lives { "has not renewed it" } else { "died while a request of it had it" };
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
            state.waiting.add(self.now, -1);
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
    use super::super::tests::system;
    use crate::component::topic::tests::{simulated, total};

    #[test]
    fn a_lock_lets_one_in_at_a_time() {
        simulated(&system(true, ""), |world| {
            let totals = total(&world.leases[1].counter);
            assert!(totals.ok > 1200 && totals.failed == 0, "{totals:?}");
            let mean: f64 = world.audiences[1].cells[1].all.mean();
            // M/D/1 at 40%: the wait adds a third of the 20 ms.
            assert!(mean > 24e6 && mean < 32e6, "{mean}");
        });
    }

    #[test]
    fn who_is_cut_off_asks_when_the_partition_is_over() {
        // Each asks half a second after it came.
        let text =
            system(true, "{ at: 10s, partition: api, for: 6s }").replace("[ { lease:", "[ { wait: 500ms }, { lease:");
        simulated(&text, |world| {
            let asked: Vec<u64> = world.leases[1].counter.seconds.iter().map(|second| second.offered).collect();
            assert!(asked[9] > 5, "{asked:?}");
            assert_eq!(asked[10..15].iter().sum::<u64>(), 0, "{asked:?}");
            assert!(asked[15] + asked[16] > 80, "six seconds of 20/s: {asked:?}");
        });
    }

    #[test]
    fn a_dead_holder_s_lock_runs_out() {
        // 20 ms at 20/s: with 40% certainty somebody has it. Six times over.
        let faults: Vec<String> = (0..6).map(|i| format!("{{ at: {}s, kill: api/1, for: 4s }}", 5 + 8 * i)).collect();
        simulated(&system(true, &faults.join(", ")), |world| {
            let totals = total(&world.leases[1].counter);
            assert!(totals.failed > 0, "some died with it");
            let worst = world.audiences[1].cells.iter().map(|cell| cell.all.percentile(100.0)).fold(0.0, f64::max);
            assert!(worst > 1.5e9, "and those behind waited until its time was over: {worst}");
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
            let failed: u64 = world.audiences[1].cells.iter().map(|cell| cell.totals.failed).sum();
            assert!(failed >= totals.rejected, "what is refused fails");
        });
        simulated(&system(false, &faults), |world| {
            let totals = total(&world.leases[1].counter);
            assert!(totals.rejected == 0 && totals.duplicates > 0, "{totals:?}");
        });
    }
}
