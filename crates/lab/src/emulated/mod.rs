//! Processes that stand for what is not there yet: services that do their described steps, stores and brokers that
//! take the time that the file says.

pub mod balancer;
pub mod cores;
pub mod gateway;
pub mod keys;
pub(crate) mod lease;
pub mod rows;
pub mod service;
pub mod topic;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_gateway::random::{self, Random};
use plimsoll_model::draw::{Draw, mix};
use plimsoll_model::system::{Balancer, System};
use serde::{Deserialize, Serialize};

use crate::caller::Tools;
use crate::clock::Clock;
use crate::layout::Layout;
use crate::tally::Tally;
use crate::timer::Timer;

/// What a process is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Role {
    /// An instance of a service that has no process of its own.
    Service {
        /// The service.
        service: u32,
        /// Its instance, from 0.
        instance: u32,
        /// How long it takes until it is ready, ns.
        startup: u64,
        /// Its version: work takes this many times as long, and this share of requests fails.
        version: Option<(f64, f64)>,
    },
    /// An instance of a gateway.
    Gateway {
        /// The gateway.
        service: u32,
        /// Its instance, from 0.
        instance: u32,
        /// How long it takes until it is ready, ns.
        startup: u64,
        /// Who stands for it: the command line's word, if there is one, which the file does not know.
        balancer: Balancer,
    },
    /// A node of a store.
    Store {
        /// The store.
        store: u32,
        /// The node, from 0.
        node: u32,
        /// Whether it begins as its shard's primary, and on which timeline.
        primary: bool,
        /// The timeline of its shard.
        timeline: u32,
    },
    /// A topic's broker.
    Topic {
        /// The topic.
        topic: u32,
    },
    /// What keeps a lease.
    Lease {
        /// The lease.
        lease: u32,
    },
    /// A command of the reader's own, for `/bin/sh`.
    Own {
        /// The command.
        command: String,
    },
}

/// Why a process ends before it has begun.
#[derive(Debug, thiserror::Error)]
pub enum CannotRun {
    /// The system file is not the one that the run began with.
    #[error("the system file has changed since the run began")]
    Changed,
    /// A policy refuses its settings.
    #[error("{about}: {why}")]
    Policy {
        /// What it is about.
        about: String,
        /// What is refused.
        why: plimsoll_policy::InvalidConfig,
    },
    /// A gateway cannot be served.
    #[error(transparent)]
    Gateway(#[from] plimsoll_gateway::CannotServe),
    /// A gateway does not start.
    #[error(transparent)]
    Start(#[from] plimsoll_gateway::StartError),
    /// What a gateway is to be is not on this machine.
    #[error("no {0} on this machine: install the package {0}, or have another `balancer`")]
    Missing(&'static str),
    /// What a gateway was has ended.
    #[error("{0} ended by itself ({1})")]
    Ended(&'static str, std::process::ExitStatus),
    /// The system's side of it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The role is none of this system's.
    #[error("no such part of the system: {0:?}")]
    Nobody(Role),
}

/// What every process has.
#[derive(Clone, Debug)]
pub struct Process {
    /// The system.
    pub system: Arc<System>,
    /// Where everything is.
    pub layout: Arc<Layout>,
    /// Clock, timer, counts, connections.
    pub tools: Tools,
    /// Where the run keeps its files.
    pub own: Arc<Path>,
    random: Arc<Mutex<Random>>,
}

impl Process {
    fn new(system: System, layout: Layout, own: &Path) -> std::io::Result<Process> {
        let clock = Clock::start();
        // A process that starts again is not to draw what it drew before.
        let seed = layout.seed ^ mix(u64::from(std::process::id())) ^ random::seed(clock);
        let tools = Tools {
            clock,
            timer: Timer::start(clock)?,
            tally: Arc::new(Tally::new(clock)),
            links: Arc::default(),
            slots: Arc::default(),
        };
        let random = Arc::new(Mutex::new(Random::new(seed)));
        Ok(Process { system: Arc::new(system), layout: Arc::new(layout), tools, own: own.into(), random })
    }

    /// 64 fresh random bits.
    pub fn bits(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).bits()
    }

    /// Fresh chance.
    pub fn draw(&self) -> Draw {
        Draw(self.bits())
    }
}

/// Is a process of a run until it is told to go.
///
/// `folder` is where the system file is, `own` where the run keeps its files.
pub fn run(system: System, layout: Layout, role: Role, folder: &Path, own: &Path) -> Result<(), CannotRun> {
    let _ = plimsoll_gateway::net::files::raise_limit();
    if system.hash != layout.hash {
        return Err(CannotRun::Changed);
    }
    if let Role::Own { command } = &role {
        use std::os::unix::process::CommandExt;
        // It takes this process's place, and so ends with the run too.
        return Err(std::process::Command::new("/bin/sh").args(["-c", command]).exec().into());
    }
    let process = Process::new(system, layout, own)?;
    let there = match role {
        Role::Service { service, instance, .. } | Role::Gateway { service, instance, .. } => {
            process.layout.services.get(service as usize).and_then(|places| places.get(instance as usize))
        }
        Role::Store { store, node, .. } => {
            process.layout.stores.get(store as usize).and_then(|places| places.get(node as usize))
        }
        Role::Topic { topic } => process.layout.topics.get(topic as usize),
        Role::Lease { lease } => process.layout.leases.get(lease as usize),
        Role::Own { .. } => None,
    };
    let Some(place) = there.copied() else { return Err(CannotRun::Nobody(role)) };
    // Nothing that waits for sockets needs more than one thread; work has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match role {
            Role::Service { service, instance, startup, version } => {
                service::run(process, place, service, instance, startup, version).await
            }
            Role::Gateway { service, instance, startup, balancer } => {
                let of = (service, instance);
                match balancer {
                    Balancer::Nginx | Balancer::Haproxy => {
                        balancer::run(process, place, of, startup, folder, own, balancer).await
                    }
                    Balancer::Plimsoll => gateway::run(process, place, of, startup, folder, own).await,
                }
            }
            Role::Store { store, node, primary, timeline } => match &process.system.stores[store as usize].kind {
                plimsoll_model::system::StoreKind::Redis(_) => keys::run(process, place, store).await,
                _ => rows::run(process, place, store, node, primary, timeline, own).await,
            },
            Role::Topic { topic } => topic::run(process, place, topic).await,
            Role::Lease { lease } => lease::run(process, place, lease).await,
            Role::Own { .. } => Err(CannotRun::Nobody(role)),
        }
    })
}
