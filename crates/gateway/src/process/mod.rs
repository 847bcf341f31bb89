//! A gateway as a process: its threads, and how it starts, reloads and stops.

mod build;
mod serve;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_policy::InvalidConfig;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use self::build::build;
use self::serve::Command;
use crate::clock::Clock;
use crate::control::{self, Phase};
use crate::core::Shared;
use crate::net::{files, listener};
use crate::plan::Plan;
use crate::random;
use crate::upstream::Slots;

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
    /// What the Redis of a shared quota is to see cannot be read.
    #[error("redis: {0}")]
    Redis(String),
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
    #[error("`{0}` cannot change while the gateway runs: start another in its place")]
    Fixed(&'static str),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// By core.
    commands: Vec<UnboundedSender<Command>>,
    sockets: Mutex<Sockets>,
    folder: PathBuf,
    control: Arc<control::Control>,
}

/// Where a gateway listens: as the plan has it, where the port may be 0, and as it is.
#[derive(Debug, Default)]
struct Sockets {
    listen: Vec<(SocketAddr, SocketAddr)>,
    admin: Option<(SocketAddr, SocketAddr)>,
}

/// Sockets for an address, one for each core, and the address as it is.
type Bound = (SocketAddr, SocketAddr, Vec<std::net::TcpListener>);

/// The longest that a gateway which is to stop goes on taking connections, so that those who send them
/// see that it is not ready: two of Kubernetes' readiness periods would be longer than most wait for.
const LEAVE: Duration = Duration::from_secs(5);

impl Gateway {
    /// Starts a gateway. `folder` is what names of files are relative to. Nothing listens before
    /// everything is known to be sound.
    pub fn start(plan: Plan, folder: &Path) -> Result<Gateway, StartError> {
        Gateway::begin(plan, folder, false)
    }

    /// Starts a gateway in the place of another one of the same user, which may still listen at the same addresses:
    /// until that is told to stop, each of the two gets a part of the new connections.
    pub fn take_over(plan: Plan, folder: &Path) -> Result<Gateway, StartError> {
        Gateway::begin(plan, folder, true)
    }

    fn begin(plan: Plan, folder: &Path, beside: bool) -> Result<Gateway, StartError> {
        let clock = Clock::start();
        let secret = random::seed(clock);
        let slots = Slots::default();
        let cores = plan.cores;
        let (listen, admin) = (plan.serving.listen.clone(), plan.serving.admin);
        let live = build(plan, folder, None, &slots, clock, secret)?;
        let bound: Vec<Bound> = listen.iter().map(|at| bind(*at, cores, beside)).collect::<Result<_, _>>()?;
        let admin = admin.map(|at| bind(at, 1, beside)).transpose()?;

        let may_open = files::raise_limit();
        let warning = files::warning(may_open, live.plan.serving.limits.connections);
        let shared = Arc::new(Shared::new(clock, secret, slots, may_open, live));
        shared.say(&files::describe(may_open));
        warning.iter().for_each(|warning| shared.say(warning));
        let (phase, phases) = watch::channel(Phase::Serving);
        let (control, admins) = control::Control::new(shared.clone(), folder.to_owned());
        let control = Arc::new(control);
        let (mut threads, mut commands) = (Vec::new(), Vec::new());
        for index in 0..cores {
            let (sender, receiver) = unbounded_channel();
            commands.push(sender);
            let (shared, phases, control) = (shared.clone(), phases.clone(), control.clone());
            let core = std::thread::Builder::new().name(format!("core-{index}"));
            let run = move || serve::serve(index, shared, receiver, phases, &control);
            threads.push(core.spawn(run).map_err(StartError::Thread)?);
        }
        let thread = std::thread::Builder::new().name("control".to_owned());
        let run = {
            let control = control.clone();
            move || control::run(&control, admins, phases)
        };
        threads.push(thread.spawn(run).map_err(StartError::Thread)?);
        let (folder, sockets) = (folder.to_owned(), Mutex::default());
        let gateway = Gateway { shared, phase, threads, commands, sockets, folder, control };
        let mut sockets = gateway.sockets();
        gateway.open(&mut sockets, bound);
        sockets.admin = admin.map(|bound| gateway.administer(bound));
        drop(sockets);
        Ok(gateway)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets().listen.iter().map(|(_, actual)| *actual).collect()
    }

    /// Where operators ask.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.sockets().admin.map(|(_, actual)| actual)
    }

    /// Follows a new plan: connections stay, and so does what the policies know. Those to an address that is listened
    /// on no more end with the request that they are at.
    pub fn reload(&self, plan: Plan) -> Result<(), StartError> {
        // Held to the end: one reload at a time.
        let mut sockets = self.sockets();
        let old = self.shared.live();
        if plan.cores != old.plan.cores {
            return Err(StartError::Fixed("cores"));
        }
        let mut kept = Vec::new();
        let mut gone = sockets.listen.clone();
        let mut wanted = Vec::new();
        for &at in &plan.serving.listen {
            match gone.iter().position(|(configured, _)| *configured == at) {
                Some(position) => kept.push(gone.remove(position)),
                None => wanted.push(at),
            }
        }
        // All addresses and one of them cannot be told from a port that another program has, but by us.
        let ours = |at: SocketAddr| {
            let mut known = sockets.listen.iter().chain(&sockets.admin);
            known.any(|(_, actual)| actual.port() == at.port())
        };
        let bound: Vec<Bound> =
            wanted.into_iter().map(|at| bind(at, plan.cores, ours(at))).collect::<Result<_, _>>()?;
        let same_admin = plan.serving.admin == sockets.admin.map(|(configured, _)| configured);
        let admin = match plan.serving.admin.filter(|_| !same_admin) {
            Some(at) => Some(bind(at, 1, ours(at))?),
            None => None,
        };
        let clock = self.shared.clock;
        let live = build(plan, &self.folder, Some(&old), &self.shared.slots, clock, self.shared.secret)?;
        let warned = |plan: &Plan| files::warning(self.shared.may_open, plan.serving.limits.connections);
        let warning = warned(&live.plan);
        if warning != warned(&old.plan) {
            warning.iter().for_each(|warning| self.shared.say(warning));
        }
        self.shared.replace(live);
        self.control.targets_changed();

        sockets.listen = kept;
        self.open(&mut sockets, bound);
        for (_, actual) in gone {
            self.commands.iter().for_each(|core| drop(core.send(Command::Close(actual))));
        }
        if !same_admin {
            sockets.admin = match admin {
                Some(bound) => Some(self.administer(bound)),
                None => {
                    self.control.administer(None);
                    None
                }
            };
        }
        Ok(())
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives each core its sockets. A core that is gone has said so.
    fn open(&self, sockets: &mut Sockets, bound: Vec<Bound>) {
        for (configured, actual, listeners) in bound {
            sockets.listen.push((configured, actual));
            for (core, listener) in self.commands.iter().zip(listeners) {
                let _ = core.send(Command::Open(actual, listener));
            }
        }
    }

    fn administer(&self, (configured, actual, mut listeners): Bound) -> (SocketAddr, SocketAddr) {
        self.control.administer(listeners.pop());
        (configured, actual)
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
        self.phase.send_replace(Phase::Draining { until: started.plus_nanos(drain), at_once });
        for thread in self.threads {
            // A core that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr, cores: usize, beside: bool) -> Result<Bound, StartError> {
    let failed = |why| StartError::Listen { address, why };
    let listeners = listener::bind(address, cores, beside).map_err(failed)?;
    let actual = listeners[0].local_addr().map_err(failed)?;
    Ok((address, actual, listeners))
}
