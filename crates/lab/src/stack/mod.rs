//! Everything that runs: processes by the part of the system that they are, started, told, ended.

mod begin;
pub(crate) mod hops;
mod known;
mod process;
mod ready;
mod stores;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use plimsoll_model::system::{Addresses, Balancer, Service, ServiceKind, StoreKind, System};

use crate::control::Asker;
use crate::emulated::Role;
use crate::layout::{Layout, Place, nodes};
use crate::names;
use crate::postgres::PostgresError;
use crate::process::{self as keeping, Port, ProcessError, Supervisor};
use crate::redis::RedisError;
use hops::Hops;
use process::Kept;
pub(crate) use stores::Stores;

/// A part of the system that is a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A store's node, from 0.
    Node(u32, u32),
    /// A topic's broker.
    Topic(u32),
    /// What keeps a lease.
    Lease(u32),
    /// An instance of a service or gateway, from 0.
    Instance(u32, u32),
}

/// How processes of a run are started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// This program.
    pub program: PathBuf,
    /// What comes before the system file, the run's directory and the role.
    pub arguments: Vec<String>,
    /// The arguments with which this program keeps the others.
    pub keeper: Vec<String>,
    /// The folder in which the run's directory is made.
    pub base: PathBuf,
    /// The system file.
    pub file: File,
}

/// A system file, for processes that read it themselves.
#[derive(Clone, Debug)]
pub enum File {
    /// It is there.
    Path(PathBuf),
    /// It says this, and is written into the run's directory.
    Text(Vec<u8>),
}

/// Why a stack does not stand.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A real database does not start.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A real store in memory does not start.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Processes cannot be kept, or one cannot be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A process ended before it was ready.
    #[error("{name} ended before it was ready ({how}){words}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        how: String,
        /// What it said last.
        words: String,
    },
    /// Processes are not ready in time.
    #[error("not ready after {seconds} s: {names}")]
    Late {
        /// How long it was waited.
        seconds: u64,
        /// Which.
        names: String,
    },
    /// The system's side of it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Everything that runs. However a run ends, its processes end with it: the supervisor sees to that.
#[derive(Debug)]
pub struct Stack {
    /// The system.
    pub system: Arc<System>,
    /// Where everything is.
    pub layout: Arc<Layout>,
    /// Asks processes.
    pub asker: Asker,
    launch: Launch,
    /// Where the system file is.
    file: PathBuf,
    supervisor: Arc<Supervisor>,
    hops: Hops,
    /// While a process is down nobody else is given its ports.
    _ports: Vec<Port>,
    /// Real stores, once they are started.
    stores: OnceLock<Arc<Stores>>,
    kept: Mutex<BTreeMap<Part, Kept>>,
    /// By service: the instances that callers know of.
    members: Mutex<Vec<Vec<u32>>>,
    /// Held by whoever tells processes of them.
    telling: tokio::sync::Mutex<()>,
    /// By store: the primaries' numbers by shard, and their timelines.
    primaries: Mutex<Vec<Vec<(u32, u32)>>>,
}

impl Stack {
    /// Starts everything, and waits until all of it is ready; none if it was interrupted.
    pub async fn start(
        system: Arc<System>,
        (layout, ports): (Layout, Vec<Port>),
        launch: Launch,
        stop: impl Fn() -> bool,
    ) -> Result<Option<Arc<Stack>>, StackError> {
        let keeper = keeping::Launch { program: launch.program.clone(), arguments: launch.keeper.clone() };
        let base = launch.base.clone();
        let supervisor = blocking(move || Supervisor::start(&keeper, &base)).await?;
        let hops = Hops::start(&system, &layout)?;
        let own = supervisor.directory();
        std::fs::write(own.join("layout.json"), serde_json::to_string(&layout).map_err(std::io::Error::other)?)?;
        let file = match &launch.file {
            File::Path(path) => path.clone(),
            File::Text(text) => {
                let path = own.join("system.yaml");
                std::fs::write(&path, text)?;
                path
            }
        };
        let members = system.services.iter().map(|service| match &service.at {
            Some(Addresses::List(list)) if is_elsewhere(service) => (0..list.len() as u32).collect(),
            _ => (0..service.instances).collect(),
        });
        let members = members.collect();
        let primaries = system.stores.iter().map(|store| match &store.kind {
            StoreKind::Postgres(pg) => (0..pg.shards).map(|shard| (shard * (1 + pg.replicas), 1)).collect(),
            _ => Vec::new(),
        });
        let stack = Arc::new(Stack {
            primaries: Mutex::new(primaries.collect()),
            layout: Arc::new(layout),
            asker: Asker::default(),
            launch,
            file,
            supervisor: Arc::new(supervisor),
            hops,
            _ports: ports,
            stores: OnceLock::new(),
            kept: Mutex::default(),
            members: Mutex::new(members),
            telling: tokio::sync::Mutex::default(),
            system,
        });
        for service in 0..stack.system.services.len() as u32 {
            stack.write_addresses(service)?;
        }
        // Servers of stores start while the other processes do.
        let (system, layout, supervisor) = (stack.system.clone(), stack.layout.clone(), stack.supervisor.clone());
        let stores = tokio::task::spawn_blocking(move || Stores::start(&system, &layout, &supervisor));
        for part in stack.parts_at_start() {
            stack.begin(part, stack.role(part, 0, None)).await?;
        }
        while !stores.is_finished() {
            if stop() {
                // With their keeper gone, they give up too.
                stack.stop();
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let stores = stores.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let _ = stack.stores.set(Arc::new(stores));
        stack.ready(&stack.parts(), READY, stop).await.map(|ready| ready.then_some(stack))
    }

    /// What keeps the run's processes: whoever starts more of them here has them end with the others.
    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    /// The proxies on what the experiment's faults strike.
    pub(crate) fn hops(&self) -> &Hops {
        &self.hops
    }

    /// A part's process answers, or is gone: those who look for it through a proxy see the same as others.
    pub(crate) fn answers_at_proxies(&self, part: Part, there: bool) -> Result<(), String> {
        self.hops.lead_to(part, there).map_err(|refusal| format!("{}: {refusal}", self.name(part)))
    }

    /// The run's directory, which is gone when the run is.
    pub fn directory(&self) -> &Path {
        self.supervisor.directory()
    }

    fn parts_at_start(&self) -> Vec<Part> {
        let system = &self.system;
        let stores = system.stores.iter().enumerate();
        let emulated = stores.filter(|(at, _)| !self.layout.real[*at]);
        let nodes =
            emulated.flat_map(|(at, store)| (0..nodes(&store.kind)).map(move |node| Part::Node(at as u32, node)));
        let topics = (0..system.topics.len() as u32).map(Part::Topic);
        let leases = (0..system.leases.len() as u32).map(Part::Lease);
        // What runs elsewhere is not started.
        let services = system.services.iter().enumerate().filter(|(_, service)| !is_elsewhere(service));
        let instances =
            services.flat_map(|(at, service)| (0..service.instances).map(move |n| Part::Instance(at as u32, n)));
        nodes.chain(topics).chain(leases).chain(instances).collect()
    }

    /// What a part is when it starts. `startup` is how long it takes, ns.
    pub fn role(&self, part: Part, startup: u64, version: Option<(f64, f64)>) -> Role {
        match part {
            Part::Topic(topic) => Role::Topic { topic },
            Part::Lease(lease) => Role::Lease { lease },
            Part::Node(store, node) => {
                let (primary, timeline) = match &self.system.stores[store as usize].kind {
                    StoreKind::Postgres(pg) => {
                        let primaries = self.primaries.lock().unwrap_or_else(PoisonError::into_inner);
                        let (primary, timeline) = primaries[store as usize][(node / (1 + pg.replicas)) as usize];
                        (primary == node, timeline)
                    }
                    _ => (true, 1),
                };
                Role::Store { store, node, primary, timeline }
            }
            Part::Instance(service, instance) => match self.system.services[service as usize].kind {
                _ if self.is_own(part) => Role::Own { command: self.command(part).unwrap_or_default() },
                ServiceKind::Gateway(_) => {
                    let balancer = stands_for(&self.system.services[service as usize]);
                    Role::Gateway { service, instance, startup, balancer }
                }
                ServiceKind::Service => Role::Service { service, instance, startup, version },
            },
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Part, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part's name in files and reports.
    pub fn name(&self, part: Part) -> String {
        match part {
            Part::Instance(service, instance) => names::instance(&self.system, service, instance),
            Part::Node(store, node) => names::node(&self.system, store, node),
            Part::Topic(topic) => self.system.topics[topic as usize].name.clone(),
            Part::Lease(lease) => self.system.leases[lease as usize].name.clone(),
        }
    }

    /// Where a part is.
    pub fn place(&self, part: Part) -> Place {
        match part {
            Part::Instance(service, instance) => self.layout.services[service as usize][instance as usize],
            Part::Node(store, node) => self.layout.stores[store as usize][node as usize],
            Part::Topic(topic) => self.layout.topics[topic as usize],
            Part::Lease(lease) => self.layout.leases[lease as usize],
        }
    }

    /// All parts that have a process, or had one.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.kept().keys().copied().collect();
        parts.extend(self.stores.get().into_iter().flat_map(|stores| stores.parts()));
        parts
    }

    /// Whether a part is a gateway.
    pub fn is_gateway(&self, part: Part) -> bool {
        matches!(part, Part::Instance(service, _)
            if matches!(self.system.services[service as usize].kind, ServiceKind::Gateway(_)))
    }

    /// Whether a part is one of ours that calls others, and is up.
    pub fn takes_orders(&self, part: Part) -> bool {
        matches!(part, Part::Instance(..)) && !self.is_gateway(part) && !self.is_own(part) && self.is_up(part)
    }

    /// Whether a part is the reader's own: it says nothing of itself.
    pub fn is_own(&self, part: Part) -> bool {
        matches!(part, Part::Instance(service, _) if self.system.services[service as usize].run.is_some())
    }

    /// The real stores, if a part is of one.
    pub(crate) fn real(&self, part: Part) -> Option<Arc<Stores>> {
        self.stores.get().filter(|stores| stores.has(part)).cloned()
    }

    /// The real stores.
    pub(crate) fn stores(&self) -> Option<&Arc<Stores>> {
        self.stores.get()
    }

    /// Ends everything, and removes the run's directory.
    pub fn stop(&self) {
        if let Some(stores) = self.stores.get() {
            stores.stop();
        }
        self.supervisor.end(GRACE);
        self.kept().clear();
    }
}

/// Whether the file says where a service runs already.
pub fn is_elsewhere(service: &Service) -> bool {
    service.at.is_some() && !service.is_gateway()
}

/// Whether a service's processes say what they do: others' programs do not, and of those a run knows what callers saw.
pub fn tells(service: &Service) -> bool {
    service.run.is_none() && !is_elsewhere(service) && stands_for(service) == Balancer::Plimsoll
}

/// Who stands for a service, if it is a gateway.
pub(crate) fn stands_for(service: &Service) -> Balancer {
    service.serving.as_ref().map_or(Balancer::Plimsoll, |serving| serving.balancer)
}

/// How long everything may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// How long processes have to end by themselves at the run's end: what they hold is wanted by nobody.
const GRACE: Duration = Duration::from_secs(1);

/// Runs what stops its thread on another, so that this one goes on measuring.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(run).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
