use super::{ClientId, Component, Dist, EdgeId, ServiceId, StoreId, Subject, TopicId, ZoneId};

/// A question put to a system: a load, faults, and what should hold.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The reader's name for it.
    pub name: String,
    /// Length of the measured part, ns.
    pub duration: u64,
    /// Time before the measured part, not counted, ns. Fault times count from its end.
    pub warmup: u64,
    /// Load that replaces a client's own.
    pub load: Vec<(ClientId, Load)>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What should hold.
    pub expect: Vec<Expectation>,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

/// A client's load over the measured part of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// `300/s`
    Rate(f64),
    /// `100/s..600/s`, rising linearly over the whole experiment.
    Ramp(f64, f64),
    /// `[100/s, 200/s, 400/s]`, each for an equal part.
    Steps(Vec<f64>),
    /// `users: 500`, for a closed loop.
    Users(u32),
}

/// Something that goes wrong, and is undone.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Start, ns from the start of the measured part.
    pub at: u64,
    /// End, ns; never past the experiment's end.
    pub until: u64,
    /// What goes wrong.
    pub kind: FaultKind,
    /// The fault as the file puts it, for reports: `kill api/2`.
    pub text: String,
    /// Line in the file, from 1.
    pub line: u32,
}

impl Fault {
    /// What it does to a client's load, if it is a surge of that: start and end, ns after a warm-up of so many, and by
    /// what factor.
    pub fn surge(&self, client: usize, warmup: u64) -> Option<(u64, u64, f64)> {
        match self.kind {
            FaultKind::Surge { client: whose, factor } if whose.is_none_or(|id| id.index() == client) => {
                Some((self.at + warmup, self.until + warmup, factor))
            }
            _ => None,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum FaultKind {
    /// Processes die at once, and start again at the end.
    Kill(Target),
    /// Processes stop (SIGSTOP): connections are accepted, nothing answers.
    Pause(Target),
    /// Work or an edge gets slower.
    Slow {
        /// What.
        target: Target,
        /// Times as long.
        factor: f64,
        /// And this much more, ns.
        added: Dist,
    },
    /// Nothing gets through, and nobody is told.
    Partition(Target),
    /// This share of messages is lost and sent again after a retransmission timeout.
    Drop {
        /// What.
        target: Target,
        /// Share, 0 to 1.
        share: f64,
    },
    /// This share of calls has its connection reset.
    Reset {
        /// What.
        target: Target,
        /// Share, 0 to 1.
        share: f64,
    },
    /// Answers share this many bytes a second.
    Bandwidth {
        /// What.
        target: Target,
        /// Bytes a second.
        rate: f64,
    },
    /// A cache loses all its keys.
    Flush(StoreId),
    /// A replica becomes the primary.
    Promote(StoreId),
    /// Replicas fall this far behind, ns.
    Lag {
        /// The store.
        store: StoreId,
        /// How far, ns.
        by: u64,
    },
    /// A migration holds a table lock.
    LockTable {
        /// The store.
        store: StoreId,
        /// The table.
        table: u32,
    },
    /// Others take every connection that nodes of a database have left.
    Exhaust(Target),
    /// A new version rolls out.
    Deploy {
        /// The service.
        service: ServiceId,
        /// How it differs from the old one.
        version: Version,
    },
    /// An instance dies between two named steps of a request, once.
    CrashBetween {
        /// The service.
        service: ServiceId,
        /// The step that was done.
        done: String,
        /// The step that was not.
        next: String,
    },
    /// Clocks are ahead by this much, ns (behind, if negative).
    Skew {
        /// Whose.
        target: Target,
        /// How much, ns.
        by: i64,
    },
    /// A client's load is multiplied.
    Surge {
        /// Whose; none: every client's.
        client: Option<ClientId>,
        /// By how much.
        factor: f64,
    },
    /// A topic takes nothing and gives nothing.
    BrokerDown(TopicId),
}

/// A new version of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Work takes this many times as long.
    pub slow: f64,
    /// Share of requests that fail with 500, 0 to 1.
    pub errors: f64,
    /// Its startup, where that differs, ns.
    pub startup: Option<Dist>,
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// `api`, `db`: everything of it.
    All(Component),
    /// `api/2`: one instance, or one node of a store, counted from 0 here and from 1 in files.
    Instance(Component, u32),
    /// `30% of api`, rounded up to whole instances.
    Share(Component, f64),
    /// `primary of db`
    Primary(StoreId),
    /// `replicas of db`
    Replicas(StoreId),
    /// `zone a`
    Zone(ZoneId),
    /// `api -> db`
    Edge(EdgeId),
}

/// What should hold in an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// What is measured.
    pub metric: Metric,
    /// When.
    pub phase: Phase,
    /// What the value must be.
    pub bound: Bound,
    /// As the file puts it.
    pub text: String,
    /// Line in the file, from 1.
    pub line: u32,
}

/// A measured quantity. Shares are from 0 to 1, durations in ns, rates a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// Share of requests that failed: `errors`, `errors(edge GET /notes)`.
    Errors(Subject),
    /// Share of requests that were answered well: `success(...)`.
    Success(Subject),
    /// Requests answered well, a second: `goodput`.
    Goodput(Subject),
    /// Percentile of the response time, failures included: `p(95)`, `p(99, edge GET /notes)`.
    Percentile(f64, Subject),
    /// Mean response time: `mean`.
    Mean(Subject),
    /// Attempts over calls, at the client or on an edge: `amplification(api -> db)`.
    Amplification(MetricTarget),
    /// Share of its service's requests that an instance answered: `share(api/1)`.
    Share(Component, u32),
    /// Busy share of what limits a component: `utilization(db)`.
    Utilization(MetricTarget),
    /// Mean number waiting: `queue(api)`.
    Queue(MetricTarget),
    /// Requests that a component or edge turned away, as a share of those it was offered.
    Rejected(MetricTarget),
    /// Share of reads that were older than the session's own writes or the last commit.
    StaleReads(StoreId),
    /// Acknowledged writes that were lost.
    LostWrites(MetricTarget),
    /// Effects that happened twice.
    Duplicates(MetricTarget),
    /// Messages waiting: `backlog(topic)`.
    Backlog(TopicId),
    /// Messages set aside.
    DeadLetters(TopicId),
    /// Times that breakers on an edge opened: `trips(api -> db)`.
    Trips(EdgeId),
    /// Ejections of a service's instances by an edge.
    Ejections(EdgeId),
    /// Share of lookups that a cache answered: `hits(sessions)`.
    Hits(StoreId),
    /// Instances in service at the phase's end: `instances(api)`.
    Instances(ServiceId),
    /// Answers that a fallback gave, as a share: `degraded`.
    Degraded(Subject),
    /// Longest time without a successful answer, ns: `gap`.
    Gap(Subject),
}

/// What a component metric is about.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum MetricTarget {
    Component(Component),
    Instance(Component, u32),
    Edge(EdgeId),
}

/// A part of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All of it.
    Whole,
    /// Until the first fault starts.
    Before,
    /// From the first fault's start to the last one's end.
    During,
    /// From the last fault's end.
    After,
    /// The last quarter: the state it settles in.
    End,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Bound {
    Below(f64),
    AtMost(f64),
    Above(f64),
    AtLeast(f64),
    Equal(f64),
    /// Both ends included.
    Between(f64, f64),
}

impl Bound {
    /// Whether `value` is as it must be; never for a value that is not a number.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Bound::Below(limit) => value < limit,
            Bound::AtMost(limit) => value <= limit,
            Bound::Above(limit) => value > limit,
            Bound::AtLeast(limit) => value >= limit,
            Bound::Equal(limit) => value == limit,
            Bound::Between(low, high) => (low..=high).contains(&value),
        }
    }
}
