//! Load: what clients ask for, sent when it is due. A thread of its own keeps the schedule, which nothing that happens
//! can move, and has the connections. A request that cannot be sent in time is sent late, and its latency says so.

mod alarm;
pub mod schedule;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_model::draw::mix;
use plimsoll_model::system::{Component, EdgeId, Experiment, ServiceId, System};
use plimsoll_policy::InvalidConfig;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::caller::{End, Tools};
use crate::clock::Clock;
use crate::context::add_wrote;
use crate::layout::Layout;
use crate::measure::requests::{Ended, Requests};
use crate::requests;
use crate::tally::Tally;
use crate::timer::Timer;
use alarm::Alarm;
use schedule::{Due, Schedule};
use workers::Workers;

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A client's policies are refused.
    #[error("{client}: {why}")]
    Policy {
        /// The client.
        client: String,
        /// What is refused.
        why: InvalidConfig,
    },
    /// There is no thread or no timer for it.
    #[error("cannot start the load: {0}")]
    Io(#[from] std::io::Error),
}

/// The load of a run.
#[derive(Debug)]
pub struct Load {
    /// When it started, ns on the clock.
    pub start: u64,
    /// The clock that it goes by.
    pub clock: Clock,
    /// What came of it.
    pub requests: Arc<Mutex<Requests>>,
    /// What clients count about their edges.
    pub tally: Arc<Tally>,
    stop: Arc<Notify>,
    ends: Arc<BTreeMap<EdgeId, Arc<End>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    system: Arc<System>,
    tools: Tools,
    start: u64,
    end: u64,
    ends: Arc<BTreeMap<EdgeId, Arc<End>>>,
    requests: Arc<Mutex<Requests>>,
    /// What each user's session has written.
    wrote: Mutex<BTreeMap<u64, String>>,
    workers: Workers,
}

/// How far ahead of its start a load is set up, ns.
const AHEAD: u64 = 50_000_000;
/// Later than this, ns, a request counts as sent late.
const LATE: u64 = 10_000_000;
/// Where requests are due closer than this to each other, ns, on average, a wake-up for each would cost as much as the
/// request itself ...
const DENSE: u64 = 125_000;
/// ... and those that come due within so long, ns, go out together.
const GROUP: u64 = 250_000;
/// Over how many requests that average forgets.
const MEMORY: u64 = 16;

impl Load {
    /// Starts an experiment's load.
    pub fn start(
        system: &Arc<System>,
        experiment: &Experiment,
        layout: &Layout,
        requests: Requests,
        seed: u64,
    ) -> Result<Load, LoadError> {
        let clock = Clock::start();
        let tools = Tools {
            clock,
            timer: Timer::start(clock)?,
            tally: Arc::new(Tally::new(clock)),
            links: Arc::default(),
            slots: Arc::default(),
        };
        let mut ends = BTreeMap::new();
        for (at, edge) in system.edges.iter().enumerate() {
            let (Component::Client(id), Component::Service(_)) = (edge.from, edge.to) else { continue };
            let client = &system.clients[id.index()];
            let at = EdgeId::from(at);
            let places = layout.callees(system, at, 0);
            let end = End::new(system, at, &places, client.zone, true, tools.clone(), mix(seed ^ u64::from(at.0)))
                .map_err(|why| LoadError::Policy { client: client.name.clone(), why })?;
            ends.insert(at, Arc::new(end));
        }
        let start = clock.now().as_nanos() + AHEAD;
        let schedules: Vec<Schedule> =
            (0..system.clients.len()).map(|client| Schedule::new(system, experiment, client, seed)).collect();
        let (stop, requests, ends) = (Arc::new(Notify::new()), Arc::new(Mutex::new(requests)), Arc::new(ends));
        let shared = Arc::new(Shared {
            system: system.clone(),
            tools: tools.clone(),
            start,
            end: start + experiment.warmup + experiment.duration,
            ends: ends.clone(),
            requests: requests.clone(),
            wrote: Mutex::default(),
            workers: Workers::default(),
        });
        let (open, closed): (Vec<_>, Vec<_>) = schedules.into_iter().partition(|schedule| !schedule.is_closed());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let alarm = {
            let _within = runtime.enter();
            Alarm::new(clock)?
        };
        let keep = keep(shared.clone(), open, alarm);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            send(&runtime, &shared, keep, closed, &stopped);
            shared.tools.timer.stop();
        })?;
        let (thread, tally) = (Some(thread), tools.tally);
        Ok(Load { start, clock, requests, tally, stop, ends, thread })
    }

    /// Now, ns from the start of the load.
    pub fn now(&self) -> u64 {
        self.clock.now().as_nanos().saturating_sub(self.start)
    }

    /// Clients know of these instances of a service from now on.
    pub fn set_members(&self, system: &System, layout: &Layout, service: u32, instances: &[u32]) {
        for (edge, end) in self.ends.iter() {
            if system.edges[edge.index()].to == Component::Service(ServiceId(service)) {
                let places = layout.callees(system, *edge, 0);
                let asked: Vec<_> = instances.iter().filter_map(|at| places.get(*at as usize).copied()).collect();
                // The policies are the same as before, and were accepted.
                let _ = end.set_instances(&asked);
            }
        }
    }

    /// Requests under way.
    pub fn open(&self) -> u64 {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).open
    }

    /// Ends it: what is under way is given up.
    pub fn stop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends requests when they are due.
async fn keep(shared: Arc<Shared>, mut schedules: Vec<Schedule>, alarm: Alarm) {
    let mut next: Vec<Option<Due>> = schedules.iter_mut().map(Schedule::next_due).collect();
    let (mut last, mut gap) = (0, DENSE);
    loop {
        let now = shared.tools.clock.now().as_nanos();
        let later = loop {
            let soonest = next.iter().enumerate().filter_map(|(at, due)| Some((due.as_ref()?.at, at))).min();
            // All are out: what is under way goes on until the run ends.
            let Some((at, which)) = soonest else { return };
            if shared.start + at > now {
                break shared.start + at;
            }
            gap = (gap * (MEMORY - 1) + (at - last)) / MEMORY;
            last = at;
            if let Some(due) = std::mem::replace(&mut next[which], schedules[which].next_due()) {
                workers::carry(&shared, due);
            }
        };
        let at = if gap < DENSE { later.max(now + GROUP) } else { later };
        if alarm.until(at).await.is_err() {
            shared.tools.timer.until(at).await;
        }
    }
}

/// Has the connections, until it is told to stop.
fn send(
    runtime: &Runtime,
    shared: &Arc<Shared>,
    keep: impl Future<Output = ()> + Send + 'static,
    closed: Vec<Schedule>,
    stop: &Notify,
) {
    runtime.block_on(async {
        for end in shared.ends.values() {
            tokio::spawn(end.clone().keep());
        }
        for schedule in closed {
            let users = schedule.users;
            let schedule = Arc::new(Mutex::new(schedule));
            for user in 0..users {
                tokio::spawn(one_user(shared.clone(), schedule.clone(), user));
            }
        }
        tokio::spawn(keep);
        stop.notified().await;
    });
}

/// A user of a closed loop.
async fn one_user(shared: Arc<Shared>, schedule: Arc<Mutex<Schedule>>, user: u32) {
    let lock = || schedule.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = shared.start + lock().joins(user);
    while at < shared.end {
        shared.tools.timer.until(at).await;
        let (due, number) = lock().asks(at - shared.start, user);
        one(&shared, due).await;
        let now = shared.tools.clock.now().as_nanos();
        at = now + lock().thinks(number, now.saturating_sub(shared.start));
    }
}

/// One request, from when it is due to its end.
async fn one(shared: &Shared, due: Due) {
    let Due { at, call, mut context } = due;
    let client = context.client;
    let of = &shared.system.clients[client as usize].calls[call as usize];
    let Some(end) = shared.ends.get(&of.edge) else { return };
    {
        let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.arrives(client, call, at);
        let late = shared.tools.clock.now().as_nanos() > shared.start + at + LATE;
        if late {
            requests.behind += 1;
            requests.late += u64::from(shared.tools.links.idle() > 0);
        }
    }
    let session = context.session();
    if let Some(wrote) = shared.wrote.lock().unwrap_or_else(PoisonError::into_inner).get(&session) {
        context.wrote.clone_from(wrote);
    }
    let ask = requests::ask(&shared.system, of.edge, of.endpoint, &context, None);
    let done = end.call(&ask).await;
    if let Some(wrote) = done.wire.as_ref().and_then(|wire| wire.field("wrote")) {
        let mut all = shared.wrote.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = all.entry(session).or_default();
        for entry in wrote.split(',') {
            let mut parts = entry.split(':').map(str::parse::<u64>);
            if let (Some(Ok(store)), Some(Ok(timeline)), Some(Ok(number))) = (parts.next(), parts.next(), parts.next())
            {
                add_wrote(mine, store as u32, timeline as u32, number);
            }
        }
    }
    let now = shared.tools.clock.now().as_nanos().saturating_sub(shared.start);
    let sent = done.sent.map(|sent| sent.saturating_sub(shared.start));
    let (answer, retries) = (done.answer, done.attempts.saturating_sub(1));
    let ended = Ended { due: at, sent, now, answer, retries, rescued: done.rescued };
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).ends(client, call, &ended);
}
