//! What a run leaves behind, in either world: per-second series and histograms for every subject,
//! events on one timeline, a verdict for every expectation. `report` draws it, `compare` lays two
//! over each other.

mod float;
mod histogram;
mod line;
mod prediction;
mod unit;

use serde::{Deserialize, Serialize};

pub use histogram::Histogram;
pub use line::{
    Analytic, Cost, GivesWay, GrownLine, Limit, Line, LoadUnit, Mark, Probe, Quiet, Recovery, Waived, Weather,
    WeatherKind,
};
pub use prediction::{Miss, Prediction};
pub use unit::{Unit, bound_words};

/// The result of one experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Version of this format.
    pub format: u32,
    /// Version of the program that wrote it.
    pub plimsoll: String,
    /// The system's name.
    pub system: String,
    /// Hash of the system file's text, 16 hexadecimal digits.
    pub system_hash: String,
    /// The experiment's name.
    pub experiment: String,
    /// Where it ran.
    pub world: World,
    /// The seed it replays from.
    pub seed: u64,
    /// Independent repetitions behind each figure.
    pub replications: u32,
    /// Length of the part before the measured one, ns.
    pub warmup_ns: u64,
    /// Length of the measured part, ns.
    pub duration_ns: u64,
    /// Until everything was started and ready, ns, before the warm-up; none where nothing has to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ns: Option<u64>,
    /// Who stood for the gateways in a real run, if it was not Plimsoll's own: `nginx` or `haproxy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer: Option<String>,
    /// Whether it was interrupted: figures cover the replications that were done.
    pub partial: bool,
    /// Why a real run's measurement says nothing of the system, whatever its verdicts are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// Everything that was measured.
    pub subjects: Vec<SubjectRun>,
    /// What went wrong on purpose.
    pub faults: Vec<FaultSpan>,
    /// What happened, of the first replication, in order of time.
    pub events: Vec<Event>,
    /// What was expected, and what came.
    pub verdicts: Vec<Verdict>,
    /// What limited the system, most first.
    pub bottlenecks: Vec<GivesWay>,
    /// What the reader should know before trusting a figure.
    pub warnings: Vec<String>,
}

impl Run {
    /// The current [`format`](Run::format).
    pub const FORMAT: u32 = 1;

    /// Whether every expectation was met.
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passed)
    }

    /// The subject of this kind and name.
    pub fn subject(&self, kind: SubjectKind, name: &str) -> Option<&SubjectRun> {
        self.subjects.iter().find(|subject| subject.kind == kind && subject.name == name)
    }
}

/// Where a run took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// Simulated.
    Virtual,
    /// On real processes.
    Real,
}

/// What kind of thing was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// Every client together; its name is `all`.
    All,
    /// A client.
    Client,
    /// An endpoint as clients see it: `edge GET /notes`.
    Endpoint,
    /// A service or gateway.
    Service,
    /// One instance: `api/2`.
    Instance,
    /// A store.
    Store,
    /// One node of a store: `db/primary`, `db/replica-1`.
    Node,
    /// An edge: `api -> db`.
    Edge,
    /// A topic.
    Topic,
    /// A consumer.
    Consumer,
    /// A lease.
    Lease,
}

/// One subject's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubjectRun {
    /// What kind of thing it is.
    pub kind: SubjectKind,
    /// Its name as the file gives it.
    pub name: String,
    /// Counts over the measured part, summed over replications.
    pub totals: Totals,
    /// Figures with their confidence intervals, by name; see [`Figure`].
    pub figures: Vec<Figure>,
    /// Response times, failures included, over all replications.
    pub latency: Histogram,
    /// Response times of good answers only.
    pub latency_ok: Histogram,
    /// Second by second, means over replications; column names say the units.
    pub series: Series,
    /// Before, during and after the faults: of those who ask, in runs with faults, phases in which they asked at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseRun>,
}

/// What somebody who asks saw in one phase of a run. A request belongs to the phase in which it was due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseRun {
    /// Which.
    pub phase: FaultPhase,
    /// Counts, summed over replications.
    pub totals: Totals,
    /// Half of the requests took at most this long, failures included: the mean over replications.
    #[serde(deserialize_with = "float::one")]
    pub latency_ms_p50: f64,
    /// 95% of them did.
    #[serde(deserialize_with = "float::one")]
    pub latency_ms_p95: f64,
}

/// Phases of a run with faults, as expectations name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultPhase {
    /// Until the first fault starts.
    Before,
    /// From then to the last one's end.
    During,
    /// What is left.
    After,
}

impl SubjectRun {
    /// The figure of this name.
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}

/// Counts of requests. At a client and at an endpoint a request is one logical call; elsewhere it
/// is one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Asked for.
    pub offered: u64,
    /// Answered well.
    pub ok: u64,
    /// Answered with an error, refused, reset or timed out.
    pub failed: u64,
    /// Those of the failed that were turned away by a policy or a full queue.
    pub rejected: u64,
    /// Those of the failed that timed out.
    pub timed_out: u64,
    /// Those of the good that a fallback or a stale cache answered.
    pub degraded: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Calls answered well of which an attempt had failed; at an edge those of callers whose attempts it counts.
    #[serde(default)]
    pub rescued: u64,
    /// Those of the good that were reads, at a node of a PostgreSQL.
    #[serde(default)]
    pub reads: u64,
    /// Those of the reads that a replica answered.
    #[serde(default)]
    pub replica_reads: u64,
    /// Reads older than the session's own writes or the last commit.
    pub stale: u64,
    /// Acknowledged and lost.
    pub lost: u64,
    /// Effects that happened twice.
    pub duplicates: u64,
}

impl Totals {
    /// Adds `other` to these.
    pub fn add(&mut self, other: &Totals) {
        self.offered += other.offered;
        self.ok += other.ok;
        self.failed += other.failed;
        self.rejected += other.rejected;
        self.timed_out += other.timed_out;
        self.degraded += other.degraded;
        self.retries += other.retries;
        self.rescued += other.rescued;
        self.reads += other.reads;
        self.replica_reads += other.replica_reads;
        self.stale += other.stale;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
    }
}

/// A mean over replications with its 95% confidence interval (Student's t).
///
/// Names: `goodput_per_s`, `offered_per_s`, `errors` (share), `rejected` (share), `latency_ms_mean`,
/// `latency_ms_p50`, `latency_ms_p95`, `latency_ms_p99`, `latency_ms_p999`, `latency_ms_max`,
/// `utilization` (share, of the resource named in `detail`), `queue_mean`, `queue_max`,
/// `in_flight_mean`, `amplification`, `hits` (share), `trips`, `ejections`, `backlog_max`.
/// A subject has those that mean something for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// What it is of, where the name leaves that open: `workers`, `cores`, `connections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Mean over replications.
    #[serde(deserialize_with = "float::one")]
    pub mean: f64,
    /// Lower end of the interval.
    #[serde(deserialize_with = "float::one")]
    pub low: f64,
    /// Upper end of the interval.
    #[serde(deserialize_with = "float::one")]
    pub high: f64,
    /// The value of each replication, in their order; empty where they are not kept. Two runs of
    /// one seed saw the same arrivals, so that their difference can be taken pair by pair.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "float::many")]
    pub samples: Vec<f64>,
}

/// Second by second. Every column has one value a second, or is empty where it means nothing for
/// the subject. Warm-up is not part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Series {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub offered: Vec<f32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub ok: Vec<f32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub failed: Vec<f32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub rejected: Vec<f32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub p50_ms: Vec<f32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub p95_ms: Vec<f32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub p99_ms: Vec<f32>,
    /// Mean number in the system.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub in_flight: Vec<f32>,
    /// Mean number waiting.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub queue: Vec<f32>,
    /// Busy share of what limits it, 0 to 1.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "float::write_column",
        deserialize_with = "float::column"
    )]
    pub utilization: Vec<f32>,
}

/// A fault as it was carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// As the file puts it.
    pub text: String,
    /// Start, ns from the start of the measured part.
    pub at_ns: u64,
    /// End, ns.
    pub until_ns: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, ns from the start of the measured part.
    pub at_ns: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// To what: a component, an instance or an edge, as the file names it.
    pub subject: String,
    /// In words.
    pub text: String,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum EventKind {
    FaultStart,
    FaultEnd,
    BreakerOpen,
    BreakerHalfOpen,
    BreakerClosed,
    Ejected,
    Returned,
    PanicStart,
    PanicEnd,
    Unhealthy,
    Healthy,
    InstanceDown,
    InstanceUp,
    OutOfMemory,
    ScaleUp,
    ScaleDown,
    Promoted,
    DeployStep,
    RolledBack,
    LeaseTaken,
    LeaseLost,
    Fenced,
    SplitBrain,
    Degraded,
    Restored,
    QueueFull,
    PoolExhausted,
}

/// What was expected, and what came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// As the file puts it.
    pub text: String,
    /// Line in the system file, from 1; 0 for an objective that the file does not state.
    pub line: u32,
    /// Whether it held.
    pub passed: bool,
    /// The measured mean over replications, in the expectation's unit as text: `0.04%`.
    pub measured: String,
    /// The measured mean: shares from 0 to 1, durations in ms, rates a second.
    #[serde(deserialize_with = "float::one")]
    pub value: f64,
    /// Ends of its 95% confidence interval.
    #[serde(deserialize_with = "float::one")]
    pub low: f64,
    /// Upper end.
    #[serde(deserialize_with = "float::one")]
    pub high: f64,
    /// Why it failed, where that is known.
    pub why: Option<String>,
}
