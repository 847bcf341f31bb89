//! Everything that runs: processes by the part of the system that they are, started, told, ended.

pub mod child;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_model::system::{Addresses, Component, Service, ServiceId, ServiceKind, StoreKind, System};

use crate::control::{Asker, Order, State};
use crate::emulated::Role;
use crate::emulated::gateway::addresses_file;
use crate::layout::{Layout, Place, nodes};
use crate::names;
use crate::wire::client::request;
use child::Child;

/// A part of the system that is a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A store's node, from 0.
    Node(u32, u32),
    /// A topic's broker.
    Topic(u32),
    /// An instance of a service or gateway, from 0.
    Instance(u32, u32),
}

/// How processes of a run are started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// This program.
    pub program: PathBuf,
    /// What comes before the system file, the layout, the role and the run's folder.
    pub arguments: Vec<String>,
    /// The system file.
    pub file: PathBuf,
}

/// Why a stack does not stand.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A process cannot be started.
    #[error("cannot start {name}: {why}")]
    Start {
        /// Which.
        name: String,
        /// What the system says.
        why: std::io::Error,
    },
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

/// What one process is.
#[derive(Debug)]
struct Kept {
    child: Child,
    role: Role,
    /// Faults that keep it down, and those that keep it stopped.
    killed: u32,
    paused: u32,
    /// Whether it is to be gone: nobody starts it again.
    leaving: bool,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Stack {
    /// The system.
    pub system: Arc<System>,
    /// Where everything is.
    pub layout: Arc<Layout>,
    /// Asks processes.
    pub asker: Asker,
    launch: Launch,
    own: PathBuf,
    kept: Mutex<BTreeMap<Part, Kept>>,
    /// By service: the instances that callers know of.
    members: Mutex<Vec<Vec<u32>>>,
    /// By store: the primaries' numbers by shard, and their timelines.
    primaries: Mutex<Vec<Vec<(u32, u32)>>>,
}

impl Stack {
    /// Starts everything, and waits until all of it is ready. `own` is the run's folder.
    pub async fn start(
        system: Arc<System>,
        layout: Layout,
        launch: Launch,
        own: &Path,
        stop: impl Fn() -> bool,
    ) -> Result<Option<Arc<Stack>>, StackError> {
        let text = serde_json::to_string(&layout).map_err(std::io::Error::other)?;
        std::fs::write(own.join("layout.json"), text)?;
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
            own: own.to_owned(),
            kept: Mutex::default(),
            members: Mutex::new(members),
            system,
        });
        for service in 0..stack.system.services.len() as u32 {
            stack.write_addresses(service)?;
        }
        for part in stack.parts_at_start() {
            stack.begin(part, stack.role(part, 0, None))?;
        }
        stack.ready(&stack.parts(), READY, stop).await.map(|ready| ready.then_some(stack))
    }

    fn parts_at_start(&self) -> Vec<Part> {
        let system = &self.system;
        let stores = system.stores.iter().enumerate();
        let nodes = stores.flat_map(|(at, store)| (0..nodes(&store.kind)).map(move |node| Part::Node(at as u32, node)));
        let topics = (0..system.topics.len() as u32).map(Part::Topic);
        // What runs elsewhere is not started.
        let services = system.services.iter().enumerate().filter(|(_, service)| !is_elsewhere(service));
        let instances =
            services.flat_map(|(at, service)| (0..service.instances).map(move |n| Part::Instance(at as u32, n)));
        nodes.chain(topics).chain(instances).collect()
    }

    /// What a part is when it starts. `startup` is how long it takes, ns.
    pub fn role(&self, part: Part, startup: u64, version: Option<(f64, f64)>) -> Role {
        match part {
            Part::Topic(topic) => Role::Topic { topic },
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
                ServiceKind::Gateway(_) => Role::Gateway { service, instance, startup },
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
        }
    }

    /// Where a part is.
    pub fn place(&self, part: Part) -> Place {
        match part {
            Part::Instance(service, instance) => self.layout.services[service as usize][instance as usize],
            Part::Node(store, node) => self.layout.stores[store as usize][node as usize],
            Part::Topic(topic) => self.layout.topics[topic as usize],
        }
    }

    /// All parts that have a process, or had one.
    pub fn parts(&self) -> Vec<Part> {
        self.kept().keys().copied().collect()
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

    /// Starts a part's process.
    pub fn begin(&self, part: Part, role: Role) -> Result<(), StackError> {
        let name = self.name(part);
        let log = self.own.join(format!("{}.txt", name.replace('/', "-")));
        let mut arguments = self.launch.arguments.clone();
        arguments.push(self.launch.file.display().to_string());
        arguments.push(self.own.display().to_string());
        arguments.push(serde_json::to_string(&role).map_err(std::io::Error::other)?);
        let environment = if self.is_own(part) { self.environment() } else { Vec::new() };
        let started = Child::start(&self.launch.program, &arguments, &environment, log);
        let child = started.map_err(|why| StackError::Start { name: name.clone(), why })?;
        let mut kept = self.kept();
        match kept.get_mut(&part) {
            Some(known) => (known.child, known.role, known.leaving) = (child, role, false),
            None => {
                kept.insert(part, Kept { child, role, killed: 0, paused: 0, leaving: false });
            }
        }
        Ok(())
    }

    /// The reader's own command for an instance.
    fn command(&self, part: Part) -> Option<String> {
        let Part::Instance(service, instance) = part else { return None };
        let command = self.system.services[service as usize].run.as_ref()?;
        let port = self.place(part).main.port();
        Some(command.replace("{port}", &port.to_string()).replace("{instance}", &(instance + 1).to_string()))
    }

    /// Where everything else is, for the reader's own commands: `PLIMSOLL_DB=127.0.0.1:1,127.0.0.1:2`.
    fn environment(&self) -> Vec<(String, String)> {
        let name = |name: &str| {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            format!("PLIMSOLL_{}", name.chars().map(plain).collect::<String>())
        };
        let list = |places: &[Place]| places.iter().map(|place| place.main.to_string()).collect::<Vec<_>>().join(",");
        let services = self.system.services.iter().zip(&self.layout.services);
        let stores = self.system.stores.iter().zip(&self.layout.stores);
        services
            .map(|(service, places)| {
                (name(&service.name), list(&places[..places.len().min(service.instances as usize)]))
            })
            .chain(stores.map(|(store, places)| (name(&store.name), list(places))))
            .collect()
    }

    /// Whether a part is the reader's own: it says nothing of itself.
    pub fn is_own(&self, part: Part) -> bool {
        matches!(part, Part::Instance(service, _) if self.system.services[service as usize].run.is_some())
    }

    /// Waits until processes are ready; false if it was interrupted.
    pub async fn ready(&self, parts: &[Part], patience: Duration, stop: impl Fn() -> bool) -> Result<bool, StackError> {
        let deadline = tokio::time::sleep(patience);
        let mut deadline = std::pin::pin!(deadline);
        let mut waiting = parts.to_vec();
        loop {
            let mut still = Vec::new();
            for part in waiting {
                if !self.state(part).await.is_some_and(|state| state.ready) {
                    still.push(part);
                }
            }
            waiting = still;
            if waiting.is_empty() {
                return Ok(true);
            }
            if stop() {
                return Ok(false);
            }
            for part in &waiting {
                if let Some(kept) = self.kept().get_mut(part)
                    && let Some(how) = kept.child.exit()
                {
                    let words = kept.child.last_words(5);
                    let words = if words.is_empty() { words } else { format!(":\n{words}") };
                    return Err(StackError::Ended { name: self.name(*part), how, words });
                }
            }
            let pause = tokio::time::sleep(Duration::from_millis(10));
            let mut pause = std::pin::pin!(pause);
            let late = std::future::poll_fn(|cx| {
                use std::future::Future;
                use std::task::Poll;
                if deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                pause.as_mut().poll(cx).map(|()| false)
            })
            .await;
            if late {
                let names: Vec<String> = waiting.iter().map(|part| self.name(*part)).collect();
                return Err(StackError::Late { seconds: patience.as_secs(), names: names.join(", ") });
            }
        }
    }

    /// What a part says of itself; none if it does not answer. Of one of the reader's own it is known that it listens,
    /// and answers health checks where it has any.
    pub async fn state(&self, part: Part) -> Option<State> {
        if self.is_own(part) {
            return self.answers(part).await.then(|| State { ready: true, slow: (1.0, 0), ..State::default() });
        }
        self.asker.state(self.place(part).control).await
    }

    async fn answers(&self, part: Part) -> bool {
        let Part::Instance(service, _) = part else { return false };
        let address = self.place(part).main;
        let to_here = |edge: &&plimsoll_model::system::Edge| edge.to == Component::Service(ServiceId(service));
        let checks = self.system.edges.iter().filter(to_here).find_map(|edge| edge.policies.health.as_ref());
        let asked = async {
            let Some(health) = checks else { return tokio::net::TcpStream::connect(address).await.is_ok() };
            let request = request("GET", &health.path, &[("connection", "close")], &[]);
            let answer = self.asker.links().ask(address, &request, "GET", true).await;
            answer.is_ok_and(|answer| (200..400).contains(&answer.status))
        };
        tokio::time::timeout(Duration::from_secs(1), asked).await.unwrap_or(false)
    }

    /// Tells a part what to do.
    pub async fn order(&self, part: Part, order: &Order) -> Result<(), String> {
        let told = self.asker.order(self.place(part).control, order).await;
        told.map_err(|why| format!("{}: {why}", self.name(part)))
    }

    /// Ends a part's process at once; faults that do so are counted.
    pub fn kill(&self, part: Part) -> Result<(), String> {
        let mut kept = self.kept();
        let Some(of) = kept.get_mut(&part) else { return Err(format!("{} does not run", self.name(part))) };
        of.killed += 1;
        of.paused = 0;
        of.child.kill();
        match of.child.exit() {
            Some(_) => Ok(()),
            None => Err(format!("{} did not die", self.name(part))),
        }
    }

    /// One fault less keeps a part down: whether it may start again.
    pub fn revive(&self, part: Part) -> bool {
        let mut kept = self.kept();
        let Some(of) = kept.get_mut(&part) else { return false };
        of.killed = of.killed.saturating_sub(1);
        of.killed == 0 && !of.leaving && of.child.exit().is_some()
    }

    /// Stops a part where it is, and sees to it that it stands still.
    pub fn pause(&self, part: Part) -> Result<(), String> {
        let mut kept = self.kept();
        let Some(of) = kept.get_mut(&part) else { return Err(format!("{} does not run", self.name(part))) };
        of.paused += 1;
        of.child.pause();
        for _ in 0..200 {
            if of.child.state().is_none_or(|state| state == 'T' || state == 'Z') {
                return Ok(());
            }
            crate::clock::block(Duration::from_millis(1));
        }
        Err(format!("{} does not stand still", self.name(part)))
    }

    /// One fault less stops a part.
    pub fn resume(&self, part: Part) {
        let mut kept = self.kept();
        let Some(of) = kept.get_mut(&part) else { return };
        of.paused = of.paused.saturating_sub(1);
        if of.paused == 0 {
            of.child.resume();
        }
    }

    /// A part is to end by itself, and not to come back.
    pub fn leaves(&self, part: Part) {
        if let Some(of) = self.kept().get_mut(&part) {
            of.leaving = true;
        }
    }

    /// Whether a part is gone for good, or about to be.
    pub fn has_left(&self, part: Part) -> bool {
        self.kept().get(&part).is_none_or(|of| of.leaving)
    }

    /// Whether a part's process is gone.
    pub fn is_gone(&self, part: Part) -> bool {
        self.kept().get_mut(&part).is_none_or(|of| of.child.exit().is_some())
    }

    /// Whether a part's process runs, and is not stopped.
    pub fn is_up(&self, part: Part) -> bool {
        self.kept().get_mut(&part).is_some_and(|of| of.child.exit().is_none() && of.paused == 0)
    }

    /// The version that an instance runs.
    pub fn version(&self, part: Part) -> Option<(f64, f64)> {
        match self.kept().get(&part)?.role {
            Role::Service { version, .. } => version,
            _ => None,
        }
    }

    /// Ends a part's process without counting it as a fault.
    pub fn end(&self, part: Part) {
        if let Some(of) = self.kept().get_mut(&part) {
            of.leaving = true;
            of.child.kill();
        }
    }

    /// Parts whose process ended by itself: with what they were, and how they ended.
    pub fn lost(&self) -> Vec<(Part, Role, String)> {
        let mut lost = Vec::new();
        for (part, of) in self.kept().iter_mut().filter(|(_, of)| of.killed == 0 && !of.leaving) {
            if let Some(how) = of.child.exit() {
                let words = of.child.last_words(2);
                lost.push((*part, of.role.clone(), if words.is_empty() { how } else { format!("{how}: {words}") }));
            }
        }
        lost
    }

    // --- who is known to callers

    /// The instances of a service that callers know of.
    pub fn members(&self, service: u32) -> Vec<u32> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)[service as usize].clone()
    }

    /// Where they are.
    pub fn addresses(&self, service: u32) -> Vec<SocketAddr> {
        let places = &self.layout.services[service as usize];
        self.members(service).into_iter().map(|at| places[at as usize].main).collect()
    }

    /// Callers know of these instances from now on.
    pub async fn set_members(&self, service: u32, members: Vec<u32>) -> Result<(), StackError> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)[service as usize] = members.clone();
        self.write_addresses(service)?;
        let order = Order::Members { service, instances: members };
        for part in self.parts() {
            if self.takes_orders(part) {
                let _ = self.order(part, &order).await;
            }
        }
        Ok(())
    }

    /// Writes the file that gateways look into: whole or not at all.
    fn write_addresses(&self, service: u32) -> std::io::Result<()> {
        let text: String = self.addresses(service).iter().map(|address| format!("{address}\n")).collect();
        let path = self.own.join(addresses_file(service));
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, path)
    }

    // --- who is the primary

    /// A store's primaries by shard, with their timelines.
    pub fn primaries(&self, store: u32) -> Vec<(u32, u32)> {
        self.primaries.lock().unwrap_or_else(PoisonError::into_inner)[store as usize].clone()
    }

    /// Another node is a shard's primary from now on.
    pub fn set_primary(&self, store: u32, shard: u32, node: u32, timeline: u32) {
        let mut primaries = self.primaries.lock().unwrap_or_else(PoisonError::into_inner);
        primaries[store as usize][shard as usize] = (node, timeline);
    }

    /// Ends everything. Those that are stopped go on first, or they could not end.
    pub fn stop(&self) {
        let mut kept = self.kept();
        for of in kept.values_mut() {
            of.leaving = true;
            of.child.kill();
        }
        kept.clear();
    }
}

/// Whether the file says where a service runs already.
pub fn is_elsewhere(service: &Service) -> bool {
    service.at.is_some() && !service.is_gateway()
}

/// How long everything may take to be ready.
const READY: Duration = Duration::from_secs(30);
