//! What all cores share, and what each has for itself.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::ServerConfig;

use crate::access_log::LogSender;
use crate::answers::{Records, Sharing, Store};
use crate::clock::{Clock, Date};
use crate::figures::{CoreFigures, Figures, InstanceFigures, RouteFigures};
use crate::inbound::Inbound;
use crate::net::{Buffers, Pool};
use crate::plan::Plan;
use crate::random::Random;
use crate::redis::{Link, SharedQuota};
use crate::upstream::{Slots, Upstream};

/// A plan with the state that runs it. A reload makes a new one; requests under way keep theirs.
#[derive(Debug)]
pub struct Live {
    /// What is to be done.
    pub plan: Plan,
    /// By target.
    pub upstreams: Vec<Arc<Upstream>>,
    /// By route: where its answers are kept.
    pub caches: Vec<Option<Arc<Store>>>,
    /// The same by name.
    pub stores: BTreeMap<String, Arc<Store>>,
    /// By target: calls that several requests share.
    pub sharing: Vec<Option<Arc<Sharing>>>,
    /// Answers by idempotency key.
    pub records: Option<Arc<Records>>,
    /// Policies on what comes in.
    pub inbound: Arc<Inbound>,
    /// Certificate and key, where clients speak TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// Where lines for requests go.
    pub log: Option<LogSender>,
}

/// What all cores share.
#[derive(Debug)]
pub struct Shared {
    /// The time.
    pub clock: Clock,
    /// What nobody outside knows.
    pub secret: u64,
    /// Numbers of addresses.
    pub slots: Slots,
    /// Files that the process may have open; none is without a limit.
    pub may_open: Option<u64>,
    /// Everybody's figures.
    pub figures: Figures,
    /// Set once the gateway is to stop.
    pub stopping: AtomicBool,
    /// Connections of clients.
    pub open: AtomicU32,
    live: Mutex<Arc<Live>>,
    version: AtomicU64,
    per_client: Mutex<BTreeMap<IpAddr, u32>>,
    notices: Mutex<Vec<String>>,
}

/// Notices that are kept until somebody takes them.
const NOTICES: usize = 100;

impl Shared {
    /// A process that runs this.
    pub fn new(clock: Clock, secret: u64, slots: Slots, may_open: Option<u64>, live: Live) -> Shared {
        Shared {
            clock,
            secret,
            slots,
            may_open,
            figures: Figures::default(),
            stopping: AtomicBool::new(false),
            open: AtomicU32::new(0),
            live: Mutex::new(Arc::new(live)),
            version: AtomicU64::new(1),
            per_client: Mutex::default(),
            notices: Mutex::default(),
        }
    }

    /// What runs now.
    pub fn live(&self) -> Arc<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs this from now on: each core takes it up with its next request.
    pub fn replace(&self, live: Live) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether the gateway is to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Something that an operator should know of. The last hundred are kept until somebody takes them.
    pub fn say(&self, notice: &str) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < NOTICES {
            notices.push(notice.to_owned());
        }
    }

    /// What was said.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for a connection from this address, unless there are too many.
    pub fn admit(self: &Arc<Self>, address: IpAddr, live: &Live) -> Option<Place> {
        let limits = &live.plan.serving.limits;
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let counted = !live.plan.serving.trusted.iter().any(|network| network.contains(address));
        if counted {
            let mut clients = self.per_client.lock().unwrap_or_else(PoisonError::into_inner);
            let count = clients.entry(address).or_default();
            if *count >= limits.connections_per_client {
                self.open.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            *count += 1;
        }
        Some(Place { shared: self.clone(), address: counted.then_some(address) })
    }
}

/// A connection's place among those that are allowed.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    /// Counted by client.
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut clients = self.shared.per_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&address);
            }
        }
    }
}

/// What runs now, with a core's own figures.
pub struct Current {
    /// What runs now.
    pub live: Arc<Live>,
    /// By route.
    pub routes: Vec<Arc<RouteFigures>>,
    /// Requests that match no route.
    pub unrouted: Arc<RouteFigures>,
}

/// What a core has for itself.
pub struct Core {
    /// Its number.
    pub index: usize,
    /// The time.
    pub clock: Clock,
    /// The same as fields have it.
    pub date: Date,
    /// Its random bits.
    pub random: Random,
    /// Its connections to instances.
    pub pool: Pool,
    /// Its buffers.
    pub buffers: Buffers,
    /// Held by each connection that keeps a buffer while nothing comes: the count tells how many there are.
    pub warm: Rc<()>,
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Its figures.
    pub figures: Arc<CoreFigures>,
    heads: RefCell<Vec<Vec<u8>>>,
    current: RefCell<Rc<Current>>,
    version: Cell<u64>,
    instances: RefCell<Vec<Option<Arc<InstanceFigures>>>>,
    link: RefCell<Option<Rc<Link>>>,
}

/// Heads that a core keeps for later, and the largest of them.
const SPARE_HEADS: usize = 256;
const HEAD_MAX: usize = 16 << 10;
/// The name of the figures of requests that match no route.
pub const UNROUTED: &str = "(none)";

impl Core {
    /// A core's own things.
    pub fn new(index: usize, shared: Arc<Shared>) -> Core {
        let version = shared.version.load(Ordering::Acquire);
        let current = Rc::new(adopt(&shared, index));
        Core {
            index,
            clock: shared.clock,
            date: Date::default(),
            random: Random::new(crate::random::mix(shared.secret ^ (index as u64 + 1))),
            pool: Pool::default(),
            buffers: Buffers::default(),
            warm: Rc::default(),
            figures: shared.figures.core(index),
            heads: RefCell::default(),
            current: RefCell::new(current),
            version: Cell::new(version),
            instances: RefCell::default(),
            link: RefCell::default(),
            shared,
        }
    }

    /// What runs now.
    pub fn current(&self) -> Rc<Current> {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version.get() {
            self.version.set(version);
            *self.current.borrow_mut() = Rc::new(adopt(&self.shared, self.index));
        }
        self.current.borrow().clone()
    }

    /// This core's figures of an address.
    pub fn instance(&self, slot: usize) -> Arc<InstanceFigures> {
        let slot = slot.min(Slots::MOST);
        let mut instances = self.instances.borrow_mut();
        if instances.len() <= slot {
            instances.resize_with(slot + 1, || None);
        }
        instances[slot].get_or_insert_with(|| self.shared.figures.instance(slot, self.index)).clone()
    }

    /// This core's connection to the Redis of a shared quota.
    pub fn link(&self, quota: &Arc<SharedQuota>) -> Rc<Link> {
        let mut link = self.link.borrow_mut();
        match &*link {
            Some(link) if link.is_for(quota) => link.clone(),
            _ => {
                // What one core has to say of it, all have.
                let (shared, first) = (self.shared.clone(), self.index == 0);
                let say = move |notice: &str| {
                    if first {
                        shared.say(notice)
                    }
                };
                link.insert(Link::new(quota.clone(), say)).clone()
            }
        }
    }

    /// An empty vector for a head.
    pub fn take_head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// A head that is needed no more.
    pub fn put_head(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_HEADS && (1..=HEAD_MAX).contains(&head.capacity()) {
            head.clear();
            heads.push(head);
        }
    }
}

fn adopt(shared: &Shared, index: usize) -> Current {
    let live = shared.live();
    let routes = live.plan.routes.iter().map(|route| shared.figures.route(&route.name, index)).collect();
    Current { live, routes, unrouted: shared.figures.route(UNROUTED, index) }
}
