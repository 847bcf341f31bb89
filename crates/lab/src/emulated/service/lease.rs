//! Leases: instances that compete for one, and requests that take one in turn.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_model::draw::duration;
use plimsoll_model::system::{Lease, Program};

use super::Instance;
use super::task::Task;
use crate::answer::Answer;
use crate::emulated::lease::is_lock;
use crate::wire::client::{Answer as Wire, request};

/// Between two attempts where none is on the way.
const AGAIN: Duration = Duration::from_millis(100);

/// The instance competes for the leases of its service.
pub(super) fn start(instance: &Arc<Instance>) {
    let system = instance.process.system.clone();
    for (at, lease) in (0..).zip(&system.leases) {
        let lock = is_lock(&system, at);
        // Whoever takes a lock is missed when it is gone, of whichever service it is.
        if lock || lease.service == instance.id {
            tokio::spawn(is_present(instance.clone(), at));
        }
        if !lock && lease.service == instance.id {
            let party = Arc::new(Party {
                instance: instance.clone(),
                lease: at,
                grant: Mutex::default(),
                again: tokio::sync::Notify::new(),
            });
            tokio::spawn(party.lead());
        }
    }
}

/// What an instance believes to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    token: u64,
    /// Its end, ns since 1970.
    until: i128,
}

impl Grant {
    fn of(answer: &Wire) -> Option<Grant> {
        Some(Grant { token: answer.field("token")?.parse().ok()?, until: answer.field("until")?.parse().ok()? })
    }
}

/// An instance that competes for a lease.
struct Party {
    instance: Arc<Instance>,
    lease: u32,
    grant: Mutex<Option<Grant>>,
    /// It has lost it, and is to ask for it at once.
    again: tokio::sync::Notify,
}

impl Party {
    fn spec(&self) -> &Lease {
        &self.instance.process.system.leases[self.lease as usize]
    }

    fn grant(&self) -> MutexGuard<'_, Option<Grant>> {
        self.grant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the lease while it holds it, and asks for it while it does not.
    async fn lead(self: Arc<Self>) {
        let renew = Duration::from_nanos(self.spec().renew.max(1));
        let ttl = Duration::from_nanos(self.spec().ttl);
        loop {
            let held = *self.grant();
            let leaves = self.instance.draining.load(Ordering::Relaxed);
            let Some(Grant { token, .. }) = held else {
                if leaves {
                    return;
                }
                // An answer may take until the holder's time is over.
                match tokio::time::timeout(ttl + renew, self.instance.ask_lease(self.lease, "/acquire", "")).await {
                    Ok(Some(answer)) => {
                        if let Some(grant) = Grant::of(&answer).filter(|_| answer.status == 200) {
                            *self.grant() = Some(grant);
                            tokio::spawn(self.clone().write(grant.token));
                            self.wait(renew).await;
                        }
                    }
                    Ok(None) => tokio::time::sleep(AGAIN).await,
                    Err(_) => {}
                }
                continue;
            };
            let mine = format!("&token={token}");
            if leaves {
                self.instance.ask_lease(self.lease, "/release", &mine).await;
                *self.grant() = None;
                return;
            }
            let started = self.instance.process.tools.clock.now();
            let asked = tokio::time::timeout(renew, self.instance.ask_lease(self.lease, "/renew", &mine)).await;
            match asked.ok().flatten() {
                Some(answer) if answer.status == 200 => {
                    if let (Some(renewed), Some(held)) = (Grant::of(&answer), &mut *self.grant())
                        && held.token == token
                    {
                        *held = renewed;
                    }
                    self.wait(renew).await;
                }
                // Too late: it has ended.
                Some(_) => {
                    self.loses(token);
                }
                None => {
                    if held.is_some_and(|held| self.is_over(held)) && self.loses(token) {
                        self.says_lost(token, "cut_off");
                    }
                    let since = Duration::from_nanos(self.instance.process.tools.clock.now().nanos_since(started));
                    self.wait(renew.saturating_sub(since)).await;
                }
            }
        }
    }

    /// Waits until the lease is to be looked at again.
    async fn wait(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.again.notified()).await;
    }

    /// The holder's writes, one after another, for as long as it believes that it holds the lease. Between its last
    /// look at the lease and the write it may have been stopped.
    async fn write(self: Arc<Self>, token: u64) {
        let mine = format!("&token={token}");
        loop {
            let spec = self.spec();
            let takes = duration(&spec.write, self.instance.process.bits());
            // A holder with nothing between its writes still takes time.
            self.instance.process.tools.timer.wait((spec.write_every + takes).max(1)).await;
            let answer = loop {
                match self.instance.ask_lease(self.lease, "/write", &mine).await {
                    Some(answer) => break answer,
                    None => tokio::time::sleep(AGAIN).await,
                }
            };
            if answer.status != 200 {
                if self.loses(token) {
                    self.again.notify_one();
                }
                return;
            }
            let Some(held) = (*self.grant()).filter(|held| held.token == token) else { return };
            if self.is_over(held) {
                if self.loses(token) {
                    self.says_lost(token, "over");
                }
                return;
            }
        }
    }

    /// Whether a grant is over by the instance's own clock.
    fn is_over(&self, grant: Grant) -> bool {
        let clock = self.instance.process.tools.clock;
        let local = clock.wall(clock.now()).as_nanos() as i128 + i128::from(self.instance.skew.load(Ordering::Relaxed));
        local >= grant.until
    }

    /// It no longer holds the lease with this token; false if it did not any more.
    fn loses(&self, token: u64) -> bool {
        self.grant().take_if(|held| held.token == token).is_some()
    }

    /// Says so where the lease is kept, past all that may be cut off: it is for the report.
    fn says_lost(&self, token: u64, why: &'static str) {
        let (instance, lease) = (self.instance.clone(), self.lease);
        tokio::spawn(async move { instance.tell_lease(lease, "/lost", &format!("&token={token}&why={why}")).await });
    }
}

/// Is seen where a lease is kept: when this connection breaks, the process is gone. It goes past all that may be cut
/// off, since it is for the report.
async fn is_present(instance: Arc<Instance>, lease: u32) {
    loop {
        instance.tell_lease(lease, "/present", "").await;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Does steps while the request holds a lease; others wait.
pub(super) async fn hold(task: &mut Task, lease: u32, steps: &Program) -> Result<(), Answer> {
    let instance = task.instance.clone();
    let Some(answer) = instance.ask_lease(lease, "/lock", "").await else { return Err(Answer::Reset) };
    let token = answer.field("token").and_then(|token| token.parse::<u64>().ok());
    let Some(token) = token.filter(|_| answer.status == 200) else { return Err(Answer::Unavailable) };
    let renewing = tokio::spawn(renew(instance.clone(), lease, token)).abort_handle();
    let mut turn = Turn { instance, lease, token, renewing, over: false };
    let ended = task.run(steps).await;
    let passed = turn.unlock(ended.is_ok()).await;
    ended?;
    // What it did after its time is refused.
    if passed { Ok(()) } else { Err(Answer::Conflict) }
}

async fn renew(instance: Arc<Instance>, lease: u32, token: u64) {
    let every = instance.process.system.leases[lease as usize].renew.max(1);
    let mine = format!("&token={token}");
    loop {
        instance.process.tools.timer.wait(every).await;
        let asked = instance.ask_lease(lease, "/renew", &mine);
        let answer = tokio::time::timeout(Duration::from_nanos(every), asked).await;
        // It goes on without it, and hears of it at its end.
        if answer.is_ok_and(|answer| answer.is_some_and(|answer| answer.status != 200)) {
            return;
        }
    }
}

/// A request's turn at a lock. One that is given up half-way gives it back.
struct Turn {
    instance: Arc<Instance>,
    lease: u32,
    token: u64,
    renewing: tokio::task::AbortHandle,
    over: bool,
}

impl Turn {
    /// Gives the lock back; false if what was done is refused.
    async fn unlock(&mut self, done: bool) -> bool {
        self.renewing.abort();
        let more = format!("&token={}&done={}", self.token, u8::from(done));
        loop {
            if let Some(answer) = self.instance.ask_lease(self.lease, "/unlock", &more).await {
                self.over = true;
                return answer.status == 200;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.renewing.abort();
        if !self.over {
            let (instance, lease, token) = (self.instance.clone(), self.lease, self.token);
            tokio::spawn(async move { instance.ask_lease(lease, "/unlock", &format!("&token={token}&done=0")).await });
        }
    }
}

impl Instance {
    /// Asks where a lease is kept; none if there is no answer.
    async fn ask_lease(&self, lease: u32, path: &str, more: &str) -> Option<Wire> {
        self.ask_at(self.process.layout.lease(self.id, self.number, lease), path, more).await
    }

    /// The same past all proxies.
    async fn tell_lease(&self, lease: u32, path: &str, more: &str) {
        let _ = self.ask_at(self.process.layout.leases[lease as usize].main, path, more).await;
    }

    async fn ask_at(&self, address: std::net::SocketAddr, path: &str, more: &str) -> Option<Wire> {
        let target = format!("{path}?who={}.{}{more}", self.id.0, self.number);
        let request = request("POST", &target, &[], &[]);
        self.process.tools.links.ask(address, &request, "POST", true).await.ok()
    }
}
