use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_model::run::EventKind;
use plimsoll_model::system::Lease as Spec;
use plimsoll_policy::lease::{Config, Fence, Grant, Lease, Token};
use plimsoll_policy::{InvalidConfig, Mode, Rejected, Time};
use tokio::sync::oneshot;

use crate::tally::{Of, Tally};

/// A lease, and the resource that it guards. It takes the time and waits for nothing.
pub(super) struct Kept {
    of: Of,
    name: String,
    tally: Arc<Tally>,
    lease: Lease,
    /// Without fencing it lets late writes pass.
    fence: Fence,
    /// The tokens that instances believe to hold it with, by instance.
    believed: BTreeMap<u32, Token>,
    /// Requests that take it in turn, where they do; it is then held by one of them.
    lock: Option<Lock>,
}

#[derive(Default)]
struct Lock {
    holder: Option<Holder>,
    line: VecDeque<Waiter>,
    /// Those who lost it and do not know yet.
    displaced: Vec<(String, Token)>,
    /// How often it was granted: each grant is a holder of its own.
    grants: u64,
}

/// One who waits.
struct Waiter {
    ticket: u64,
    who: String,
    turn: oneshot::Sender<Token>,
}

struct Holder {
    who: String,
    token: Token,
    died: bool,
}

/// One's turn at a lock.
pub(super) enum Turn {
    /// It has it.
    Now(Token),
    /// It has it when this says so.
    Later(oneshot::Receiver<Token>),
}

impl Kept {
    /// One that nobody holds. `last` is the last token that was granted, perhaps.
    pub(super) fn new(spec: &Spec, lock: bool, last: u64, of: Of, tally: Arc<Tally>) -> Result<Kept, InvalidConfig> {
        let config = Config { ttl: Duration::from_nanos(spec.ttl), mode: Mode::Enforce };
        tally.set_level(of, "queue", 0);
        Ok(Kept {
            of,
            name: spec.name.clone(),
            tally,
            lease: Lease::new(config, last)?,
            fence: Fence::new(if spec.fencing { Mode::Enforce } else { Mode::Shadow }),
            believed: BTreeMap::new(),
            lock: lock.then(Lock::default),
        })
    }

    /// The last token granted.
    pub(super) fn last_token(&self) -> u64 {
        self.lease.last_token()
    }

    /// An instance asks for it.
    pub(super) fn acquire(&mut self, now: Time, instance: u32, who: &str) -> Result<Grant, Rejected> {
        let grant = self.lease.acquire(now, u64::from(instance))?;
        // Before it reads what its predecessor may still be writing.
        self.fence.raise(grant.token);
        self.believed.insert(instance, grant.token);
        self.happened(EventKind::LeaseTaken, format!("{who} holds it, with token {}", grant.token.get()));
        Ok(grant)
    }

    /// Its holder, or that of the lock, renews it.
    pub(super) fn renew(&mut self, now: Time, token: Token, instance: u32, who: &str) -> Result<Grant, Rejected> {
        let renewed = self.lease.renew(now, token);
        if renewed.is_err() {
            self.lost(instance, token, who, "its renewal came too late");
        }
        renewed
    }

    /// A holder that is being stopped gives it back, and the others need not wait.
    pub(super) fn give_back(&mut self, token: Token, instance: u32, who: &str) {
        self.lease.release(token);
        self.lost(instance, token, who, "it is being stopped");
    }

    /// An instance no longer believes that it holds it.
    pub(super) fn lost(&mut self, instance: u32, token: Token, who: &str, why: &str) {
        if self.believed.get(&instance) == Some(&token) {
            self.believed.remove(&instance);
            self.happened(EventKind::LeaseLost, format!("{who} no longer holds it: {why}"));
        }
    }

    /// A write reaches the resource; false if it is refused there.
    pub(super) fn write(&mut self, token: Token, instance: u32, who: &str) -> bool {
        self.tally.count(self.of, |totals| totals.offered += 1);
        let passed = self.check(token, who);
        if !passed {
            self.lost(instance, token, who, "the resource refused its write");
        }
        passed
    }

    fn check(&mut self, token: Token, who: &str) -> bool {
        let newest = self.lease.last_token();
        let late = token.get() < newest;
        let passed = self.fence.check(token).is_ok();
        self.tally.count(self.of, |totals| {
            totals.ok += u64::from(passed);
            totals.failed += u64::from(!passed);
            totals.rejected += u64::from(!passed);
            totals.duplicates += u64::from(passed && late);
        });
        let token = token.get();
        if late && passed {
            let text = format!("{who} writes with token {token} after {newest}: two holders at once");
            self.happened(EventKind::SplitBrain, text);
        } else if late {
            let text = format!("a late write of {who} is refused: token {token} after {newest}");
            self.happened(EventKind::Fenced, text);
        }
        passed
    }

    /// A request wants the lock. `ticket` is its number in line.
    pub(super) fn take(&mut self, now: Time, who: &str, ticket: u64) -> Turn {
        self.expire(now);
        self.pass_on(now);
        self.tally.count(self.of, |totals| totals.offered += 1);
        let free = self.lock.as_ref().is_none_or(|lock| lock.holder.is_none());
        if free && let Some(token) = self.grant(now, who) {
            return Turn::Now(token);
        }
        let (turn, comes) = oneshot::channel();
        if let Some(lock) = &mut self.lock {
            lock.line.push_back(Waiter { ticket, who: who.to_owned(), turn });
            self.tally.level(self.of, "queue", 1);
        }
        Turn::Later(comes)
    }

    /// A request that waits in line is gone.
    pub(super) fn leave(&mut self, ticket: u64) {
        let Some(lock) = &mut self.lock else { return };
        if let Some(at) = lock.line.iter().position(|waiter| waiter.ticket == ticket) {
            lock.line.remove(at);
            self.tally.level(self.of, "queue", -1);
            self.tally.count(self.of, |totals| totals.failed += 1);
        }
    }

    /// A request is done with the lock, whether it still holds it or not; false if what it did is refused.
    pub(super) fn unlock(&mut self, now: Time, token: Token, done: bool, who: &str) -> bool {
        let Some(lock) = &mut self.lock else { return true };
        if lock.holder.take_if(|holder| holder.token == token).is_some() {
            self.lease.release(token);
            self.tally.count(self.of, |totals| totals.ok += 1);
            self.pass_on(now);
            return true;
        }
        let Some(at) = lock.displaced.iter().position(|(_, displaced)| *displaced == token) else { return true };
        lock.displaced.remove(at);
        // It has done its steps since, in the belief that it held the lock.
        !done || self.check(token, who)
    }

    /// An instance's process is gone: it renews nothing any more, and what it holds runs out.
    pub(super) fn gone(&mut self, instance: u32, who: &str) {
        if let Some(token) = self.believed.get(&instance).copied() {
            self.lost(instance, token, who, "its process is gone");
        }
        let Some(lock) = &mut self.lock else { return };
        lock.displaced.retain(|(displaced, _)| displaced != who);
        if let Some(holder) = lock.holder.as_mut().filter(|holder| holder.who == who && !holder.died) {
            holder.died = true;
            self.tally.count(self.of, |totals| totals.failed += 1);
        }
    }

    /// When somebody who waits for the lock may have it because its holder has not renewed it.
    pub(super) fn due(&self) -> Option<Time> {
        self.lock.as_ref().filter(|lock| lock.holder.is_some() && !lock.line.is_empty())?;
        self.lease.next_wake()
    }

    /// Takes the lock from a holder whose time is over, and gives it to the next in line.
    pub(super) fn look(&mut self, now: Time) {
        self.expire(now);
        self.pass_on(now);
    }

    fn expire(&mut self, now: Time) {
        if self.lease.holder(now).is_some() {
            return;
        }
        let Some(lock) = &mut self.lock else { return };
        let Some(Holder { who, token, died }) = lock.holder.take() else { return };
        let why = if died { "died while a request of it had it" } else { "has not renewed it" };
        let text = format!("the lock has run out: {who} {why}");
        if !died {
            lock.displaced.push((who, token));
        }
        self.happened(EventKind::LeaseLost, text);
    }

    fn pass_on(&mut self, now: Time) {
        while let Some(lock) = &mut self.lock
            && lock.holder.is_none()
            && let Some(Waiter { who, turn, .. }) = lock.line.pop_front()
        {
            self.tally.level(self.of, "queue", -1);
            let Some(token) = self.grant(now, &who) else { return };
            if turn.send(token).is_err() {
                // Nobody waits any more.
                self.lease.release(token);
                self.tally.count(self.of, |totals| totals.failed += 1);
                if let Some(lock) = &mut self.lock {
                    lock.holder = None;
                }
            }
        }
    }

    fn grant(&mut self, now: Time, who: &str) -> Option<Token> {
        let lock = self.lock.as_mut()?;
        lock.grants += 1;
        let token = self.lease.acquire(now, lock.grants).ok()?.token;
        self.fence.raise(token);
        lock.holder = Some(Holder { who: who.to_owned(), token, died: false });
        Some(token)
    }

    fn happened(&self, kind: EventKind, text: String) {
        self.tally.happened(kind, &*self.name, text);
    }
}
