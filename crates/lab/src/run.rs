//! A run: everything is started, loaded, broken, watched, and ended.

mod life;
mod scale;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use plimsoll_model::draw::Draw;
use plimsoll_model::run::{EventKind, Run, Totals};
use plimsoll_model::system::{Component, Experiment, FaultKind, StoreKind, System};

use crate::clock::Clock;
use crate::fault::Faults;
use crate::layout::Layout;
use crate::load::{Load, LoadError};
use crate::machine::{Machine, Starved};
use crate::measure::Cuts;
use crate::measure::gateway::Looks;
use crate::measure::parts::Parts;
use crate::measure::requests::Requests;
use crate::measure::times::{Timed, timed};
use crate::process::ProcessError;
use crate::refuse::{Refused, refuse};
use crate::result;
use crate::stack::{Launch, Part, Stack, StackError};
use crate::tally::Of;
pub(crate) use life::Claim;
use life::Places;

/// How a run goes.
pub struct Settings<'s> {
    /// Where all chance comes from. Unlike in the simulation, the machine has a say too.
    pub seed: u64,
    /// How processes are started.
    pub launch: Launch,
    /// Set to end the run: what it has by then is its result.
    pub stop: &'s AtomicBool,
    /// Whether stores are processes of Plimsoll's that take the time that the file says, instead of real ones.
    pub emulate_stores: bool,
    /// Told how far it is, as a share, and what is being done.
    pub progress: &'s dyn Fn(f64, &str),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was measured.
    pub run: Run,
    /// How long things took, for a calibration.
    pub timed: Timed,
    /// The busy share of the machine's processors, from 0 to 1.
    pub busy: f64,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file asks for what a run cannot do.
    #[error("{} of the file cannot be run", .0.len())]
    Refused(Vec<Refused>),
    /// There are no ports.
    #[error(transparent)]
    Ports(#[from] ProcessError),
    /// Processes do not start.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// There is no load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system's side of it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// A run under way. It lives on one thread; what it starts lives elsewhere.
pub(crate) struct Lab {
    pub(crate) stack: Arc<Stack>,
    pub(crate) experiment: Experiment,
    pub(crate) faults: RefCell<Faults>,
    /// By store and shard: the timeline that a promotion began, and the last commit before it.
    pub(crate) kept: RefCell<BTreeMap<(u32, u32), (u32, u64)>>,
    load: RefCell<Load>,
    parts: RefCell<Parts>,
    looks: RefCell<BTreeMap<Part, Looks>>,
    looked_after: RefCell<BTreeSet<Part>>,
    places: Places,
    /// Requests that waited for a processor, once the warm-up is over.
    starved: RefCell<Option<Starved>>,
    /// What an instance had counted when its process began.
    before: RefCell<BTreeMap<Of, Totals>>,
    warnings: RefCell<Vec<String>>,
    over: Cell<bool>,
    draws: Cell<u64>,
    seed: u64,
}

/// Runs an experiment, in a directory of its own.
pub fn run(system: &System, experiment: &Experiment, settings: &Settings<'_>) -> Result<Outcome, RunError> {
    let real = real(system, settings.emulate_stores);
    let refused = refuse(system, experiment, &real);
    if !refused.is_empty() {
        return Err(RunError::Refused(refused));
    }
    // A stalled server can have thousands of connections waiting.
    let _ = plimsoll_gateway::net::files::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, within(system, experiment, settings, real))
}

async fn within(
    system: &System,
    experiment: &Experiment,
    settings: &Settings<'_>,
    real: Vec<bool>,
) -> Result<Outcome, RunError> {
    let clock = Clock::start();
    let stopped = || settings.stop.load(Ordering::Relaxed);
    let system = Arc::new(system.clone());
    let spare: Vec<u32> = (0..system.services.len()).map(|service| spare(&system, experiment, service)).collect();
    let (layout, ports) = Layout::new(&system, experiment, settings.seed, &spare, real)?;
    let slots: Vec<u32> = layout.services.iter().map(|places| places.len() as u32).collect();
    (settings.progress)(0.0, "starting processes");
    let stack = Stack::start(system.clone(), (layout.clone(), ports), settings.launch.clone(), stopped).await?;
    let cuts = Arc::new(Cuts::new(experiment));
    let Some(stack) = stack else {
        let empty = result::empty(&system, experiment, &cuts, settings.seed);
        return Ok(Outcome { run: empty, timed: Timed::new(), busy: 0.0 });
    };
    let standing = Standing(stack.clone());
    let ready = clock.now().as_nanos();
    let machine = Machine::look();
    let load = Load::start(&system, experiment, &layout, Requests::new(&system, cuts.clone()), settings.seed)?;
    let lab = Rc::new(Lab {
        stack,
        experiment: experiment.clone(),
        faults: RefCell::default(),
        kept: RefCell::default(),
        load: RefCell::new(load),
        parts: RefCell::new(Parts::new(cuts.clone())),
        looks: RefCell::default(),
        looked_after: RefCell::default(),
        places: Places::default(),
        starved: RefCell::default(),
        before: RefCell::default(),
        warnings: RefCell::default(),
        over: Cell::new(false),
        draws: Cell::new(0),
        seed: settings.seed,
    });
    lab.start_autoscalers();
    let broken = lab.watch(&cuts, settings).await;
    let partial = stopped();
    if !partial {
        (settings.progress)(1.0, "waiting for what is under way");
        lab.drain(drain(&system)).await;
    }
    lab.over.set(true);
    lab.until_counted().await;
    lab.collect_all().await;
    let ended = lab.now();
    let members: Vec<u32> = (0..system.services.len() as u32).map(|service| lab.instances_of(service)).collect();
    lab.load.borrow_mut().stop();
    drop(standing);
    let busy = machine.busy_since();
    let requests = {
        let load = lab.load.borrow();
        let mut requests = load.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.close(ended);
        requests.clone()
    };
    let mut warnings = lab.warnings.borrow().clone();
    warnings.extend(Machine::warning(busy));
    let gathered = result::Gathered {
        system: &system,
        experiment,
        cuts: &cuts,
        requests: &requests,
        parts: &lab.parts.borrow(),
        slots: &slots,
        members: &members,
        seed: settings.seed,
        partial,
        ended,
        warnings,
        starved: lab.starved.borrow().as_ref().and_then(Starved::too_many),
    };
    let mut run = result::assemble(&gathered);
    run.ready_ns = Some(ready);
    run.invalid = broken.or_else(|| result::invalid(&gathered)).or_else(|| Machine::unsure(busy, run.passed()));
    let timed = timed(gathered.parts, &cuts);
    Ok(Outcome { run, timed, busy })
}

/// Whatever becomes of a run, its processes end with it.
struct Standing(Arc<Stack>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Which stores are real ones. Nobody packages a quorum store.
fn real(system: &System, emulate: bool) -> Vec<bool> {
    system.stores.iter().map(|store| !emulate && !matches!(store.kind, StoreKind::Quorum(_))).collect()
}

/// How many more instances of a service there may be than at the start: those of an autoscaler, and those that a deploy
/// puts beside the old ones.
fn spare(system: &System, experiment: &Experiment, service: usize) -> u32 {
    let deploys = experiment
        .faults
        .iter()
        .any(|fault| matches!(fault.kind, FaultKind::Deploy { service: of, .. } if of.index() == service));
    let of = &system.services[service];
    let scaled = of.autoscale.map_or(0, |scale| scale.max.saturating_sub(of.instances));
    scaled + if deploys && of.deploy.surge { of.deploy.batch } else { 0 }
}

/// How long requests that are under way at the end may still take, ns: as long as the most patient client waits.
fn drain(system: &System) -> u64 {
    let clients = system.edges.iter().filter(|edge| matches!(edge.from, Component::Client(_)));
    let patience = clients.map(|edge| {
        let pipeline = &edge.policies.pipeline;
        pipeline.timeout.map_or(PATIENT, plimsoll_policy::nanos)
    });
    patience.max().unwrap_or(0).saturating_add(1_000_000_000)
}

/// A client that never gives up is waited for so long, ns: half of what nginx waits for an answer by default.
const PATIENT: u64 = 30_000_000_000;

impl Lab {
    /// Now, ns from the start of the load.
    pub(crate) fn now(&self) -> u64 {
        self.load.borrow().now()
    }

    /// Whether the run is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Writes something down.
    pub(crate) fn happened(&self, kind: EventKind, subject: impl Into<String>, text: impl Into<String>) {
        let now = self.now();
        self.parts.borrow_mut().happened(now, kind, subject, text);
    }

    /// Something that the reader should know.
    pub(crate) fn warn(&self, text: String) {
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Fresh chance for a purpose.
    pub(crate) fn draw(&self, purpose: u64) -> u64 {
        let number = self.draws.replace(self.draws.get() + 1);
        Draw(self.seed).part(purpose).bits(number)
    }
}
