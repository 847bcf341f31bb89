//! A gateway as a process: its threads, and how it starts, reloads and stops.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_policy::InvalidConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use crate::access_log::LogSender;
use crate::answers::{Records, Sharing, kept};
use crate::clock::Clock;
use crate::control::{self, Phase};
use crate::core::{Core, Live, Shared};
use crate::front::accept::{self, Open};
use crate::inbound::Inbound;
use crate::net::{listener, tls};
use crate::plan::Plan;
use crate::random;
use crate::upstream::{Slots, Upstream};

/// Why a gateway does not start, or does not take up a new plan.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not this machine's.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        why: std::io::Error,
    },
    /// The access log cannot be written.
    #[error("cannot write the access log {to}: {why}")]
    Log {
        /// Where it was to go.
        to: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("tls: {0}")]
    Tls(String),
    /// A policy refuses its settings.
    #[error("{about}: {why}")]
    Policy {
        /// The target.
        about: String,
        /// What is refused.
        why: InvalidConfig,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A reload would need another process.
    #[error("`{0}` cannot change while the gateway runs: start it anew")]
    Fixed(&'static str),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    threads: Vec<std::thread::JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    folder: PathBuf,
    control: Arc<control::Control>,
    reloads: Mutex<()>,
}

/// The longest that a gateway which is to stop goes on taking connections, so that those who send them
/// see that it is not ready: two of Kubernetes' readiness periods would be longer than most wait for.
const LEAVE: Duration = Duration::from_secs(5);

impl Gateway {
    /// Starts a gateway. `folder` is what names of files are relative to. Nothing listens before
    /// everything is known to be sound.
    pub fn start(plan: Plan, folder: &Path) -> Result<Gateway, StartError> {
        let clock = Clock::start();
        let secret = random::seed(clock);
        let slots = Slots::default();
        let cores = plan.cores;
        let (listen, admin) = (plan.serving.listen.clone(), plan.serving.admin);
        let live = build(plan, folder, None, &slots, clock, secret)?;

        let mut addresses = Vec::new();
        let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
        for address in listen {
            let bound = listener::bind(address, cores).map_err(|why| StartError::Listen { address, why })?;
            addresses.push(bound[0].local_addr().unwrap_or(address));
            sockets.iter_mut().zip(bound).for_each(|(core, socket)| core.push(socket));
        }
        let admin_socket = match admin {
            Some(address) => {
                let mut bound = listener::bind(address, 1).map_err(|why| StartError::Listen { address, why })?;
                bound.pop()
            }
            None => None,
        };
        let admin = admin_socket.as_ref().and_then(|socket| socket.local_addr().ok());

        let shared = Arc::new(Shared::new(clock, secret, slots, live));
        let (phase, phases) = watch::channel(Phase::Serving);
        let control = Arc::new(control::Control::new(shared.clone(), folder.to_owned()));
        let mut threads = Vec::new();
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (shared, phases, control) = (shared.clone(), phases.clone(), control.clone());
            let core = std::thread::Builder::new().name(format!("core-{index}"));
            let run = move || run_core(index, shared, sockets, phases, &control);
            threads.push(core.spawn(run).map_err(StartError::Thread)?);
        }
        let thread = std::thread::Builder::new().name("control".to_owned());
        let run = {
            let control = control.clone();
            move || control::run(&control, admin_socket, phases)
        };
        threads.push(thread.spawn(run).map_err(StartError::Thread)?);
        let folder = folder.to_owned();
        Ok(Gateway { shared, phase, threads, addresses, admin, folder, control, reloads: Mutex::new(()) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where operators ask.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Follows a new plan: connections stay, and so does what the policies know.
    pub fn reload(&self, plan: Plan) -> Result<(), StartError> {
        let _one_at_a_time = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.shared.live();
        let fixed = [
            ("listen", plan.serving.listen != old.plan.serving.listen),
            ("admin", plan.serving.admin != old.plan.serving.admin),
            ("cores", plan.cores != old.plan.cores),
        ];
        if let Some((key, _)) = fixed.into_iter().find(|(_, changed)| *changed) {
            return Err(StartError::Fixed(key));
        }
        let clock = self.shared.clock;
        let live = build(plan, &self.folder, Some(&old), &self.shared.slots, clock, self.shared.secret)?;
        self.shared.replace(live);
        self.control.targets_changed();
        Ok(())
    }

    /// What an operator should know of, since the last time.
    pub fn notices(&self) -> Vec<String> {
        self.control.notices()
    }

    /// Opens the log's file anew.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.shared.live().log {
            log.reopen();
        }
    }

    /// Stops gracefully. At first it is only not ready any more, for at most five seconds or a fifth of the
    /// drain time; then it takes no more connections, and what is under way has the rest of it. `at_once`
    /// leaves out the first part.
    pub fn stop(self, at_once: bool) {
        let drain = self.shared.live().plan.drain;
        let clock = self.shared.clock;
        let started = clock.now();
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Leaving);
        if !at_once {
            let leave = LEAVE.min(Duration::from_nanos(drain / 5));
            self.control.pause(leave);
        }
        self.phase.send_replace(Phase::Draining(started.plus_nanos(drain)));
        for thread in self.threads {
            // A core that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Makes a plan's runtime state, or takes over that of the plan before.
fn build(
    plan: Plan,
    folder: &Path,
    old: Option<&Live>,
    slots: &Slots,
    clock: Clock,
    secret: u64,
) -> Result<Live, StartError> {
    // What may fail comes first: a plan is taken up whole or not at all.
    let tls = match &plan.serving.tls {
        None => None,
        Some(setting) => Some(tls::load(setting, folder).map_err(StartError::Tls)?),
    };
    let log = match &plan.serving.access_log {
        None => None,
        Some(setting) => match old.and_then(|old| old.log.clone()).filter(|log| log.is(setting)) {
            Some(log) => Some(log),
            None => {
                let failed = |why| StartError::Log { to: setting.to.clone(), why };
                Some(LogSender::open(setting, folder).map_err(failed)?)
            }
        },
    };
    let now = clock.now();
    let mut upstreams = Vec::new();
    for (position, target) in plan.targets.iter().enumerate() {
        let about = |why| StartError::Policy { about: target.service.clone(), why };
        let known = old.and_then(|old| old.upstreams.iter().find(|upstream| upstream.key == target.key));
        let upstream = match known {
            Some(upstream) => {
                upstream.reconfigure(&target.policies, now).map_err(about)?;
                upstream.clone()
            }
            None => {
                let seed = random::mix(secret ^ position as u64);
                Arc::new(Upstream::new(target, now, seed).map_err(about)?)
            }
        };
        // Names are looked up here too, so that the first requests have somewhere to go; if that fails,
        // it is tried again.
        if let Ok(found) = control::resolve::find(&target.addresses, folder) {
            upstream.set_instances(&found, slots, now, known.is_none()).map_err(about)?;
        }
        upstreams.push(upstream);
    }
    let policy = |why| StartError::Policy { about: plan.name.clone(), why };
    let inbound = match old {
        Some(old) => {
            old.inbound.reconfigure(&plan, now).map_err(policy)?;
            old.inbound.clone()
        }
        None => Arc::new(Inbound::new(&plan, clock, now).map_err(policy)?),
    };
    let nothing = BTreeMap::new();
    let stores = kept::stores(&plan, old.map_or(&nothing, |old| &old.stores), clock).map_err(policy)?;
    let caches = plan.routes.iter().map(|route| stores.get(&route.cache.as_ref()?.0).cloned()).collect();
    let mut sharing = Vec::new();
    for target in &plan.targets {
        let flights = target.policies.coalesce.then(Sharing::new).transpose().map_err(policy)?;
        sharing.push(flights.map(Arc::new));
    }
    let records = match (&plan.idempotency, old.and_then(|old| old.records.clone())) {
        (None, _) => None,
        (Some((config, _)), Some(records)) => {
            records.reconfigure(*config).map_err(policy)?;
            Some(records)
        }
        (Some((config, _)), None) => Some(Arc::new(Records::new(*config).map_err(policy)?)),
    };
    Ok(Live { plan, upstreams, caches, stores, sharing, records, inbound, tls, log })
}

/// One core: accepts and serves until it is told to stop.
fn run_core(
    index: usize,
    shared: Arc<Shared>,
    sockets: Vec<std::net::TcpListener>,
    mut phases: watch::Receiver<Phase>,
    control: &control::Control,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return control.say(&format!("core {index} cannot run: {error}")),
    };
    control.add_core(runtime.handle().metrics());
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let core = Rc::new(Core::new(index, shared));
        let open = Rc::new(Open::default());
        let listeners: Vec<Rc<TcpListener>> =
            sockets.into_iter().filter_map(|socket| TcpListener::from_std(socket).ok()).map(Rc::new).collect();
        let accepting: Vec<_> = listeners
            .iter()
            .map(|listener| spawn_local(accept::accept(core.clone(), open.clone(), listener.clone())))
            .collect();
        let sweeping = spawn_local(sweep(core.clone()));
        let deadline = loop {
            if let Phase::Draining(deadline) = *phases.borrow_and_update() {
                break deadline;
            }
            if phases.changed().await.is_err() {
                break core.clock.now();
            }
        };
        accepting.iter().for_each(|task| task.abort());
        for listener in &listeners {
            accept::accept_waiting(&core, &open, listener).await;
        }
        drop(listeners);
        sweeping.abort();
        while open.count() > 0 && core.clock.now() < deadline {
            // Whoever has a request waiting takes it up first.
            tokio::task::yield_now().await;
            open.close_idle();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        open.close_all();
        tokio::task::yield_now().await;
    });
}

/// Closes connections to instances that nobody has used for long.
async fn sweep(core: Rc<Core>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let idle = core.current().live.plan.serving.limits.upstream_idle;
        core.pool.sweep(core.clock.now(), idle);
    }
}
