//! A run: everything is started, loaded, broken, watched, and ended.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use plimsoll_model::draw::{Draw, duration};
use plimsoll_model::run::{EventKind, Run, Totals};
use plimsoll_model::system::{Component, Experiment, FaultKind, System};

use crate::clock::Clock;
use crate::control::Order;
use crate::emulated::Role;
use crate::fault::{self, Faults};
use crate::layout::Layout;
use crate::load::{Load, LoadError};
use crate::machine::{Machine, many_files};
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
use crate::wire::client::request;

/// How a run goes.
pub struct Settings<'s> {
    /// Where all chance comes from. Unlike in the simulation, the machine has a say too.
    pub seed: u64,
    /// How processes are started.
    pub launch: Launch,
    /// Set to end the run: what it has by then is its result.
    pub stop: &'s AtomicBool,
    /// Told how far it is, as a share, and what is being done.
    pub progress: &'s dyn Fn(f64, &str),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was measured.
    pub run: Run,
    /// Why the measurement says nothing, if it does not.
    pub invalid: Option<String>,
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
    /// What an instance had counted when its process began.
    before: RefCell<BTreeMap<Of, Totals>>,
    warnings: RefCell<Vec<String>>,
    over: Cell<bool>,
    draws: Cell<u64>,
    seed: u64,
}

/// Between two looks at what processes have counted, ns.
const LOOK: u64 = 250_000_000;

/// When to look: a few times a second, and at every cut.
#[derive(Debug)]
struct Looking {
    cuts: Arc<Cuts>,
    tick: u64,
    cut: usize,
}

impl Looking {
    fn new(cuts: Arc<Cuts>) -> Looking {
        Looking { cuts, tick: LOOK, cut: 0 }
    }

    fn next(&self) -> u64 {
        self.tick.min(self.cuts.ends.get(self.cut).copied().unwrap_or(u64::MAX))
    }

    fn looked(&mut self) {
        let at = self.next();
        self.tick += if at == self.tick { LOOK } else { 0 };
        self.cut += usize::from(self.cuts.ends.get(self.cut) == Some(&at));
    }
}

/// Runs an experiment, in a directory of its own.
pub fn run(system: &System, experiment: &Experiment, settings: &Settings<'_>) -> Result<Outcome, RunError> {
    let refused = refuse(system, experiment);
    if !refused.is_empty() {
        return Err(RunError::Refused(refused));
    }
    many_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, within(system, experiment, settings))
}

async fn within(system: &System, experiment: &Experiment, settings: &Settings<'_>) -> Result<Outcome, RunError> {
    let stopped = || settings.stop.load(Ordering::Relaxed);
    let system = Arc::new(system.clone());
    let spare: Vec<u32> = (0..system.services.len()).map(|service| spare(&system, experiment, service)).collect();
    let (layout, ports) = Layout::new(&system, settings.seed, &spare)?;
    let slots: Vec<u32> = layout.services.iter().map(|places| places.len() as u32).collect();
    (settings.progress)(0.0, "starting processes");
    let stack = Stack::start(system.clone(), (layout.clone(), ports), settings.launch.clone(), stopped).await?;
    let cuts = Arc::new(Cuts::new(experiment));
    let Some(stack) = stack else {
        let empty = result::empty(&system, experiment, &cuts, settings.seed);
        return Ok(Outcome { run: empty, invalid: None, timed: Timed::new(), busy: 0.0 });
    };
    let standing = Standing(stack.clone());
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
        before: RefCell::default(),
        warnings: RefCell::default(),
        over: Cell::new(false),
        draws: Cell::new(0),
        seed: settings.seed,
    });
    let broken = lab.watch(&cuts, settings).await;
    let partial = stopped();
    if !partial {
        (settings.progress)(1.0, "waiting for what is under way");
        lab.drain(drain(&system)).await;
    }
    lab.over.set(true);
    lab.collect_all().await;
    let ended = lab.now();
    let members: Vec<u32> =
        (0..system.services.len() as u32).map(|service| lab.stack.members(service).len() as u32).collect();
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
    };
    let run = result::assemble(&gathered);
    let invalid = broken.or_else(|| result::invalid(&gathered));
    let timed = timed(gathered.parts, &cuts);
    Ok(Outcome { run, invalid, timed, busy })
}

/// Whatever becomes of a run, its processes end with it.
struct Standing(Arc<Stack>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// How many more instances of a service there may be than at the start: those that a deploy puts beside the old ones.
fn spare(system: &System, experiment: &Experiment, service: usize) -> u32 {
    let deploys = experiment
        .faults
        .iter()
        .any(|fault| matches!(fault.kind, FaultKind::Deploy { service: of, .. } if of.index() == service));
    let deploy = &system.services[service].deploy;
    if deploys && deploy.surge { deploy.batch } else { 0 }
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

    /// Breaks and watches, until the load is over. Says which fault had no effect, if one had none.
    async fn watch(self: &Rc<Self>, cuts: &Arc<Cuts>, settings: &Settings<'_>) -> Option<String> {
        let end = cuts.ends.last().copied().unwrap_or(0);
        let mut timeline = fault::timeline(&self.experiment).into_iter().peekable();
        let mut broken = None;
        self.stack.parts().into_iter().for_each(|part| self.look_after(part));
        let mut looks = Looking::new(cuts.clone());
        loop {
            let at_fault = timeline.peek().map_or(u64::MAX, |(at, ..)| *at);
            let next = looks.next().min(at_fault);
            self.until(next).await;
            if settings.stop.load(Ordering::Relaxed) {
                return broken;
            }
            (settings.progress)(self.now() as f64 / end.max(1) as f64, &self.experiment.name);
            if next == looks.next() {
                looks.looked();
                let report = self.load.borrow().tally.report();
                self.parts.borrow_mut().take(next, self.now(), report);
                self.restart_lost().await;
            }
            if next >= end {
                // What ends with the run is undone with it.
                for (_, number, _) in timeline.filter(|(_, _, begins)| !begins) {
                    let _ = fault::end(self, number).await;
                }
                return broken;
            }
            if next == at_fault
                && let Some((_, number, begins)) = timeline.next()
            {
                let what = if begins { fault::start(self, number).await } else { fault::end(self, number).await };
                if let Err(why) = what {
                    let text = &self.experiment.faults[number].text;
                    let what = if begins { "had no effect" } else { "was not undone" };
                    broken.get_or_insert(format!("the fault `{text}` {what}: {why}"));
                }
            }
        }
    }

    /// Takes in what a part has counted, until the run is over. Each has a task of its own: one that does not answer
    /// holds up nobody.
    fn look_after(self: &Rc<Self>, part: Part) {
        if !self.looked_after.borrow_mut().insert(part) {
            return;
        }
        let lab = self.clone();
        tokio::task::spawn_local(async move {
            let mut looks = Looking::new(lab.parts.borrow().cuts.clone());
            while !lab.is_over() {
                let next = looks.next();
                lab.until(next).await;
                looks.looked();
                if lab.stack.is_up(part) && !lab.is_over() {
                    lab.collect_at(part, Some(next)).await;
                }
                // What was missed while it did not answer is not made up for.
                while looks.next() < lab.now() {
                    looks.looked();
                }
            }
        });
    }

    async fn until(&self, at: u64) {
        let (clock, start): (Clock, u64) = {
            let load = self.load.borrow();
            (load.clock, load.start)
        };
        tokio::time::sleep_until(clock.instant(plimsoll_policy::Time::from_nanos(start + at))).await;
    }

    async fn drain(&self, patience: u64) {
        let until = self.now().saturating_add(patience);
        while self.load.borrow().open() > 0 && self.now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes in the last of what everything has counted.
    async fn collect_all(&self) {
        let now = self.now();
        let report = self.load.borrow().tally.report();
        self.parts.borrow_mut().take(now, now, report);
        for part in self.stack.parts() {
            if self.stack.is_up(part) {
                self.collect(part).await;
            }
        }
    }

    /// Takes in what a part has counted by now.
    pub(crate) async fn collect(&self, part: Part) {
        self.collect_at(part, None).await;
    }

    /// The same for a look that was due at a time: what came since then counts before it, if it was not long.
    async fn collect_at(&self, part: Part, due: Option<u64>) {
        if self.stack.is_own(part) {
            return;
        }
        let place = self.stack.place(part);
        let report = if let (Part::Instance(service, instance), true) = (part, self.stack.is_gateway(part)) {
            let request = request("GET", "/metrics", &[("connection", "close")], &[]);
            let asked = self.stack.asker.links().ask(place.admin, &request, "GET", true);
            let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(1), asked).await else { return };
            let page = String::from_utf8_lossy(&answer.body);
            let now = self.now();
            let mut looks = self.looks.borrow_mut();
            let (system, layout) = (&self.stack.system, &self.stack.layout);
            looks.entry(part).or_default().new_in(&page, now, system, layout, (service, instance))
        } else {
            let Some(report) = self.stack.asker.report(place.control).await else { return };
            report
        };
        let now = self.now();
        let counted = due.filter(|due| now.saturating_sub(*due) < LOOK).unwrap_or(now);
        self.parts.borrow_mut().take(counted, now, report);
    }

    /// What an instance has counted since its process began.
    pub(crate) fn since_start(&self, of: Of) -> Totals {
        let now = self.parts.borrow().so_far(of);
        let before = self.before.borrow().get(&of).copied().unwrap_or_default();
        Totals {
            ok: now.ok - before.ok,
            failed: now.failed - before.failed,
            rejected: now.rejected - before.rejected,
            offered: now.offered - before.offered,
            ..now
        }
    }

    /// Starts an instance's process.
    pub(crate) async fn start_instance(
        self: &Rc<Self>,
        service: u32,
        instance: u32,
        startup: u64,
        version: Option<(f64, f64)>,
    ) -> Result<(), String> {
        let of = Of::Instance(service, instance);
        let so_far = self.parts.borrow().so_far(of);
        self.before.borrow_mut().insert(of, so_far);
        let part = Part::Instance(service, instance);
        self.stack.begin(part, self.stack.role(part, startup, version)).await.map_err(|error| error.to_string())?;
        self.look_after(part);
        self.follow(part);
        Ok(())
    }

    /// A part's process starts anew.
    pub(crate) async fn boot(self: &Rc<Self>, part: Part, version: Option<(f64, f64)>) -> Result<(), String> {
        match part {
            Part::Instance(service, instance) => {
                let of = &self.stack.system.services[service as usize];
                let startup = duration(&of.startup, self.draw(u64::from(service) << 32 | u64::from(instance)));
                self.start_instance(service, instance, startup, version).await
            }
            _ => {
                self.stack.begin(part, self.stack.role(part, 0, None)).await.map_err(|error| error.to_string())?;
                self.follow(part);
                Ok(())
            }
        }
    }

    /// Tells a new process, once it is there, what others know already.
    fn follow(self: &Rc<Self>, part: Part) {
        let lab = self.clone();
        tokio::task::spawn_local(async move {
            let mut told = false;
            while !lab.is_over() && !lab.stack.is_gone(part) {
                let Some(state) = lab.stack.state(part).await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                if !told {
                    lab.tell(part).await;
                    told = true;
                }
                if state.ready {
                    return lab.happened(EventKind::InstanceUp, lab.stack.name(part), "ready");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    async fn tell(&self, part: Part) {
        let slow = self.slowness(part);
        if self.stack.is_own(part) {
            return;
        }
        if slow != (1.0, 0) && !self.stack.is_gateway(part) {
            let _ = self.stack.order(part, &Order::Slow(slow.0, slow.1)).await;
        }
        match part {
            Part::Instance(..) if !self.stack.is_gateway(part) => {
                let promoted: Vec<u32> = self.kept.borrow().keys().map(|(store, _)| *store).collect();
                for store in promoted {
                    let _ = self.stack.order(part, &self.primaries_order(store)).await;
                }
                for service in 0..self.stack.system.services.len() as u32 {
                    let order = Order::Members { service, instances: self.stack.members(service) };
                    let _ = self.stack.order(part, &order).await;
                }
            }
            Part::Node(store, _) if self.lag(store) > 0 => {
                let _ = self.stack.order(part, &Order::Lag(self.lag(store))).await;
            }
            _ => {}
        }
    }

    /// Tells callers that an instance is there, or is not.
    pub(crate) async fn register(&self, service: u32, instance: u32, there: bool) -> Result<(), String> {
        let mut members = self.stack.members(service);
        members.retain(|other| *other != instance);
        if there {
            members.push(instance);
        }
        self.stack.set_members(service, members).await.map_err(|error| error.to_string())?;
        let addresses = self.stack.addresses(service);
        self.load.borrow().set_members(&self.stack.system, service, &addresses);
        Ok(())
    }

    /// Processes that ended by themselves start again.
    async fn restart_lost(self: &Rc<Self>) {
        for (part, role, how) in self.stack.lost() {
            let name = self.stack.name(part);
            self.happened(EventKind::InstanceDown, &*name, format!("the process ended by itself: {how}"));
            self.warn(format!("{name} ended by itself: {how}"));
            let version = match role {
                Role::Service { version, .. } => version,
                _ => None,
            };
            if let Err(why) = self.boot(part, version).await {
                self.warn(format!("{name} does not start again: {why}"));
                self.stack.leaves(part);
            }
        }
    }
}
