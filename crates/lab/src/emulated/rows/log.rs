//! The log: what a primary has committed, and what its replicas have of it. A commit is sent to every replica at once,
//! with the time after which it arrives there; it is visible once the replica has applied it, one after the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use plimsoll_model::draw::duration;
use plimsoll_model::lag::Lag;
use plimsoll_model::system::{Dist, Store, StoreKind};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::caller::Tools;
use crate::context::FRESH_KEY;
use crate::emulated::Process;
use crate::layout::Place;
use crate::wire::client::{Links, request};

pub(super) struct Log {
    process: Process,
    peers: Vec<Place>,
    number: u32,
    apply: Dist,
    /// How long a replica needs until it has a commit on disk: as long as the primary does.
    flush: Dist,
    /// The last commit, so that a process that starts again goes on after it.
    kept: File,
    state: Arc<Mutex<State>>,
    /// Told of by whoever shows more than before.
    shown: Arc<Notify>,
    senders: Vec<watch::Sender<()>>,
}

#[derive(Debug)]
struct State {
    primary: bool,
    timeline: u32,
    /// Of a primary: the last commit. Of a replica: the last that has arrived.
    commits: u64,
    acknowledged: u64,
    /// Of a replica: the last that it shows.
    applied: u64,
    pending: VecDeque<Pending>,
    free_at: u64,
    extra_lag: u64,
    slow: (f64, u64),
    /// Of a primary: what each peer has not been sent yet, and up to where each is.
    outgoing: Vec<Outgoing>,
    /// How far each peer is behind a primary.
    lags: Vec<Lag>,
}

#[derive(Clone, Debug, Default)]
struct Outgoing {
    batch: Vec<Commit>,
    /// Whether it knows where the log begins that it is sent.
    introduced: bool,
    alive: bool,
}

#[derive(Clone, Debug)]
struct Pending {
    commit: u64,
    committed: u64,
    arrives: u64,
    visible: u64,
    keys: Vec<u32>,
}

/// A commit on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Commit {
    number: u64,
    /// From its commit until it arrives, ns.
    lag: u64,
    /// How long applying it takes, ns.
    apply: u64,
    keys: Vec<u32>,
}

/// What a primary sends.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    timeline: u32,
    /// Where the log is that a replica begins with, once.
    base: Option<u64>,
    commits: Vec<Commit>,
}

impl Log {
    pub(super) fn new(
        process: &Process,
        store: &Store,
        peers: Vec<Place>,
        number: u32,
        path: PathBuf,
        primary: bool,
        timeline: u32,
    ) -> std::io::Result<Log> {
        let (lag, apply, flush) = match &store.kind {
            StoreKind::Postgres(pg) => (pg.replication_lag.clone(), pg.apply.clone(), pg.commit.clone()),
            _ => (Dist::Constant(0), Dist::Constant(0), Dist::Constant(0)),
        };
        let mut kept = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; 8];
        let commits = if kept.read_exact(&mut bytes).is_ok() { u64::from_le_bytes(bytes) } else { 0 };
        let state = State {
            primary,
            timeline,
            commits,
            acknowledged: commits,
            applied: commits,
            pending: VecDeque::new(),
            free_at: 0,
            extra_lag: 0,
            slow: (1.0, 0),
            outgoing: vec![Outgoing::default(); peers.len()],
            lags: peers.iter().map(|_| Lag::new(&lag, process.draw())).collect(),
        };
        let senders = peers.iter().map(|_| watch::Sender::new(())).collect();
        let state = Arc::new(Mutex::new(state));
        Ok(Log { process: process.clone(), peers, number, apply, flush, kept, state, shown: Arc::default(), senders })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tools(&self) -> &Tools {
        &self.process.tools
    }

    fn now(&self) -> u64 {
        self.tools().clock.now().as_nanos()
    }

    pub(super) fn is_primary(&self) -> bool {
        self.lock().primary
    }

    /// The last commit that it has, and the last that was acknowledged here.
    pub(super) fn commits(&self) -> (u64, u64) {
        let now = self.now();
        let mut state = self.lock();
        state.show(now);
        let arrived = state.arrived(now);
        (if state.primary { state.commits } else { arrived }, state.acknowledged)
    }

    /// How far it is behind, ns: the age of the oldest commit that it does not show.
    pub(super) fn lag(&self) -> u64 {
        let now = self.now();
        let mut state = self.lock();
        state.show(now);
        state.behind(now)
    }

    /// Sends what there is to send to every peer, for ever.
    pub(super) fn start(&self) {
        for (at, place) in self.peers.iter().enumerate().filter(|(at, _)| *at != self.number as usize) {
            let (state, wake, address) = (self.state.clone(), self.senders[at].subscribe(), place.main);
            tokio::spawn(replicate(state, at, address, wake));
        }
    }

    /// Commits, and waits for the replica that is soonest where that is to be waited for. Where it is on the log.
    pub(super) async fn commit(&self, keys: &[u32], synchronous: bool) -> (u32, u64) {
        let now = self.now();
        let (at, nearest) = {
            let mut state = self.lock();
            let state = &mut *state;
            state.commits += 1;
            let number = state.commits;
            let _ = self.kept.write_all_at(&number.to_le_bytes(), 0);
            let mut nearest: Option<u64> = None;
            for (peer, outgoing) in state.outgoing.iter_mut().enumerate() {
                if peer == self.number as usize {
                    continue;
                }
                let lag = state.lags[peer].at(now);
                let apply = duration(&self.apply, self.process.bits());
                let keys = keys.iter().copied().filter(|key| key & FRESH_KEY == 0).collect();
                outgoing.batch.push(Commit { number, lag, apply, keys });
                if synchronous && outgoing.alive {
                    // Until it has it, which is long before it shows it.
                    let flush = duration(&self.flush, self.process.bits());
                    nearest = Some(nearest.map_or(flush, |known| known.min(flush)));
                }
            }
            ((state.timeline, number), nearest)
        };
        for sender in &self.senders {
            sender.send_replace(());
        }
        if let Some(flush) = nearest {
            self.tools().timer.until(now.saturating_add(flush)).await;
        }
        let mut state = self.lock();
        state.acknowledged = state.acknowledged.max(at.1);
        at
    }

    /// What the primary has committed has come.
    pub(super) fn replicated(&self, body: &[u8]) -> Result<(), ()> {
        let batch: Batch = serde_json::from_slice(body).map_err(drop)?;
        let now = self.now();
        let mut state = self.lock();
        if state.primary || batch.timeline < state.timeline {
            return Err(());
        }
        if let Some(base) = batch.base {
            state.timeline = batch.timeline;
            // A branch of the log that was given up goes with what was not on the other.
            state.pending.retain(|pending| pending.commit <= base);
            if state.pending.is_empty() {
                state.applied = base;
            }
            state.commits = base;
        }
        for commit in batch.commits {
            let slow = state.slow;
            let slowed = |nanos: u64| (nanos as f64 * slow.0) as u64 + slow.1;
            let arrives = now + slowed(commit.lag) + state.extra_lag;
            let visible = arrives.max(state.free_at) + slowed(commit.apply);
            state.free_at = visible;
            state.commits = commit.number;
            let pending = Pending { commit: commit.number, committed: now, arrives, visible, keys: commit.keys };
            state.pending.push_back(pending);
        }
        drop(state);
        self.shown.notify_waiters();
        Ok(())
    }

    /// Waits until a replica shows what a session wrote, for at most `wait` ns. 421 if it does not, or if it is
    /// further behind than `max_lag` ns.
    pub(super) async fn caught_up(
        &self,
        floor: Option<(u32, u64)>,
        wait: u64,
        max_lag: Option<u64>,
    ) -> Result<(), StatusCode> {
        let until = self.now().saturating_add(wait);
        loop {
            let now = self.now();
            let next = {
                let mut state = self.lock();
                state.show(now);
                if max_lag.is_some_and(|most| state.behind(now) > most) {
                    return Err(StatusCode::MISDIRECTED_REQUEST);
                }
                let Some((timeline, number)) = floor else { return Ok(()) };
                // A write on a timeline that has ended is there, or lost for good.
                if state.applied >= number || timeline < state.timeline {
                    return Ok(());
                }
                let visible = state.pending.iter().find(|pending| pending.commit >= number);
                visible.map_or(until, |pending| pending.visible)
            };
            if now >= until {
                return Err(StatusCode::MISDIRECTED_REQUEST);
            }
            // It knows when it will show it; who asks a real server learns only that it has waited in vain.
            let timer = self.tools().timer.until(next.min(until));
            let shown = self.shown.notified();
            let (mut timer, mut shown) = (std::pin::pin!(timer), std::pin::pin!(shown));
            std::future::poll_fn(|cx| {
                use std::future::Future;
                match timer.as_mut().poll(cx) {
                    std::task::Poll::Ready(()) => std::task::Poll::Ready(()),
                    std::task::Poll::Pending => shown.as_mut().poll(cx),
                }
            })
            .await;
        }
    }

    /// Whether a key was written and this replica does not show it yet.
    pub(super) fn is_stale(&self, key: u32) -> bool {
        if key & FRESH_KEY != 0 {
            return false;
        }
        let now = self.now();
        let mut state = self.lock();
        state.show(now);
        !state.primary && state.pending.iter().any(|pending| pending.keys.contains(&key))
    }

    /// It takes over: what has arrived it keeps, the rest is lost.
    pub(super) fn promote(&self, timeline: u32) {
        let now = self.now();
        {
            let mut state = self.lock();
            state.show(now);
            let kept = state.arrived(now);
            state.pending.clear();
            (state.commits, state.applied, state.acknowledged) = (kept, kept, kept);
            (state.primary, state.timeline) = (true, timeline);
            let _ = self.kept.write_all_at(&kept.to_le_bytes(), 0);
            for outgoing in &mut state.outgoing {
                *outgoing = Outgoing::default();
            }
        }
        for sender in &self.senders {
            sender.send_replace(());
        }
    }

    /// It is a replica from now on; whom it follows says so itself.
    pub(super) fn follow(&self, _number: u32) {
        self.lock().primary = false;
    }

    pub(super) fn set_slow(&self, factor: f64, added: u64) {
        self.lock().slow = (factor, added);
    }

    /// It falls so much further behind, ns, or what was held back is there.
    pub(super) fn set_lag(&self, by: u64) {
        let now = self.now();
        let mut state = self.lock();
        state.extra_lag = by;
        for pending in &mut state.pending {
            let due = if by == 0 { now } else { pending.committed.saturating_add(by).max(now) };
            pending.visible = pending.visible.min(due);
            pending.arrives = pending.arrives.min(pending.visible);
        }
        state.free_at = state.pending.back().map_or(now, |pending| pending.visible);
        drop(state);
        self.shown.notify_waiters();
    }
}

impl State {
    fn show(&mut self, now: u64) {
        while let Some(first) = self.pending.front()
            && first.visible <= now
        {
            self.applied = first.commit;
            self.pending.pop_front();
        }
    }

    fn behind(&self, now: u64) -> u64 {
        self.pending.front().map_or(0, |first| now - first.committed)
    }

    fn arrived(&self, now: u64) -> u64 {
        let arrived = self.pending.iter().take_while(|pending| pending.arrives <= now).last();
        arrived.map_or(self.applied, |pending| pending.commit)
    }
}

/// Sends a peer what the primary has committed, as long as this is the primary.
async fn replicate(state: Arc<Mutex<State>>, at: usize, address: std::net::SocketAddr, mut wake: watch::Receiver<()>) {
    let links = Links::default();
    loop {
        wake.borrow_and_update();
        let batch = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (primary, timeline, commits) = (state.primary, state.timeline, state.commits);
            let outgoing = &mut state.outgoing[at];
            if !primary || outgoing.introduced && outgoing.batch.is_empty() {
                None
            } else {
                let sent = std::mem::take(&mut outgoing.batch);
                let base = (!outgoing.introduced).then(|| sent.first().map_or(commits, |first| first.number - 1));
                Some(Batch { timeline, base, commits: sent })
            }
        };
        let Some(batch) = batch else {
            if wake.changed().await.is_err() {
                return;
            }
            continue;
        };
        let body = serde_json::to_vec(&batch).unwrap_or_default();
        let request = request("POST", "/replicate", &[], &body);
        let asked = links.ask(address, &request, "POST", true);
        let sent = tokio::time::timeout(Duration::from_secs(1), asked).await;
        let there = matches!(sent, Ok(Ok(answer)) if answer.status == 200);
        {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let outgoing = &mut state.outgoing[at];
            (outgoing.introduced, outgoing.alive) = (there, there);
            if !there {
                // One that comes back copies the primary as it is then.
                outgoing.batch.clear();
            }
        }
        if !there {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
