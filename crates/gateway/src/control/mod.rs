//! Everything that is no request: what the policies do as time passes, health checks, addresses,
//! operators.

pub mod admin;
pub mod checks;
pub mod metrics;
pub mod resolve;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_policy::Time;
use tokio::runtime::RuntimeMetrics;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::{LocalSet, spawn_local};

use crate::core::Shared;
use crate::random::Random;

/// What the control thread and the rest of the process share.
#[derive(Debug)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) folder: PathBuf,
    cores: Mutex<Vec<RuntimeMetrics>>,
    changed: Notify,
    waiting: Mutex<()>,
    wait: std::sync::Condvar,
    admins: UnboundedSender<Option<std::net::TcpListener>>,
}

/// How far a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It is to stop: not ready any more, but it still takes connections.
    Leaving,
    /// It takes no more.
    Draining {
        /// Until then it ends what it has.
        until: Time,
        /// Whether connections that are just beginning may be cut off.
        at_once: bool,
    },
}

/// Between two looks at what time alone does.
const TICK: Duration = Duration::from_millis(50);
/// Between two looks of the degradation ladder, as in the simulation.
const LADDER: Duration = Duration::from_millis(100);

impl Control {
    /// Nothing to control yet, and what [`run`] needs to learn where operators ask.
    pub(crate) fn new(shared: Arc<Shared>, folder: PathBuf) -> (Control, Admins) {
        let (admins, receiver) = unbounded_channel();
        let control = Control {
            shared,
            folder,
            cores: Mutex::default(),
            changed: Notify::new(),
            waiting: Mutex::default(),
            wait: std::sync::Condvar::new(),
            admins,
        };
        (control, receiver)
    }

    /// Operators ask here from now on, or nowhere.
    pub fn administer(&self, listener: Option<std::net::TcpListener>) {
        // A control thread that is gone has said so.
        let _ = self.admins.send(listener);
    }

    /// A core has started.
    pub fn add_core(&self, metrics: RuntimeMetrics) {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner).push(metrics);
    }

    /// There are other targets now.
    pub fn targets_changed(&self) {
        self.changed.notify_waiters();
    }

    /// Something that an operator should know of.
    pub fn say(&self, notice: &str) {
        self.shared.say(notice);
    }

    /// What was said.
    pub fn notices(&self) -> Vec<String> {
        self.shared.notices()
    }

    /// Waits.
    pub(crate) fn pause(&self, time: Duration) {
        let guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.wait.wait_timeout_while(guard, time, |_| true);
    }

    /// How long all cores have been busy, in all.
    fn busy(&self) -> (Duration, usize) {
        let cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        (cores.iter().map(|core| core.worker_total_busy_duration(0)).sum(), cores.len())
    }
}

/// Sockets for operators, as they change.
pub(crate) type Admins = UnboundedReceiver<Option<std::net::TcpListener>>;

/// The control thread.
pub(crate) fn run(control: &Arc<Control>, admins: Admins, mut phases: watch::Receiver<Phase>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return control.say(&format!("the control thread cannot run: {error}")),
    };
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let random = Rc::new(Random::new(crate::random::mix(control.shared.secret)));
        spawn_local(admin::serve(control.clone(), admins));
        spawn_local(tick(control.clone(), random));
        spawn_local(ladder(control.clone()));
        spawn_local(resolve::keep(control.clone()));
        // Operators look on while the gateway drains.
        let deadline = loop {
            if let Phase::Draining { until, .. } = *phases.borrow_and_update() {
                break until;
            }
            if phases.changed().await.is_err() {
                return;
            }
        };
        while control.shared.open.load(Ordering::Relaxed) > 0 && control.shared.clock.now() < deadline {
            tokio::time::sleep(TICK).await;
        }
    });
}

/// Does for each target what time alone does, and sends its health checks.
async fn tick(control: Arc<Control>, random: Rc<Random>) {
    loop {
        let now = control.shared.clock.now();
        for upstream in &control.shared.live().upstreams {
            checks::tick(&control, upstream, &random, now);
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Tells the degradation ladder how busy the cores are.
async fn ladder(control: Arc<Control>) {
    let (mut before, _) = control.busy();
    let mut at = control.shared.clock.now();
    loop {
        tokio::time::sleep(LADDER).await;
        let (busy, cores) = control.busy();
        let now = control.shared.clock.now();
        let share = (busy - before).as_secs_f64() / (now.since(at).as_secs_f64() * cores.max(1) as f64);
        if let Some(level) = control.shared.live().inbound.observe(now, share.min(1.0)) {
            control.say(&format!("degradation: level {level}, at {:.0}% utilization", share * 100.0));
        }
        (before, at) = (busy, now);
    }
}
