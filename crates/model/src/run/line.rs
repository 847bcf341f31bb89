use serde::{Deserialize, Serialize};

use super::{Run, World, float};

/// The load line: how much a system carries in each weather.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Version of this format; see [`Run::FORMAT`].
    pub format: u32,
    /// Version of the program that wrote it.
    pub plimsoll: String,
    /// The system's name.
    pub system: String,
    /// Hash of the system file's text, 16 hexadecimal digits.
    pub system_hash: String,
    /// Where loads were tried.
    #[serde(default = "simulated")]
    pub world: World,
    /// The seed it replays from.
    pub seed: u64,
    /// What the loads of this line are counted in.
    pub load_unit: LoadUnit,
    /// The load that the file states for today, in that unit.
    #[serde(deserialize_with = "float::one")]
    pub today: f64,
    /// What the open-loop clients make of it, requests a second. Where loads are counted in users,
    /// it grows with them.
    #[serde(deserialize_with = "float::one")]
    pub today_open_per_s: f64,
    /// Requests a second that all clients make under today's load: those of closed-loop clients as
    /// measured in calm weather.
    #[serde(deserialize_with = "float::one")]
    pub today_per_s: f64,
    /// The objectives that a load must meet, as text.
    pub objectives: Vec<String>,
    /// Whether the file states those objectives; otherwise they are the documented default.
    pub objectives_stated: bool,
    /// One mark for each weather, in the order in which they were asked.
    pub marks: Vec<Mark>,
    /// The same for the system scaled as its file says (`--grow`), each factor once.
    pub growth: Vec<GrownLine>,
    /// What the system costs as it stands.
    pub cost: Cost,
    /// Whether the search was interrupted: later marks are missing.
    pub partial: bool,
    /// What the reader should know before trusting a mark.
    pub warnings: Vec<String>,
}

/// Lines of before there were measured ones.
fn simulated() -> World {
    World::Virtual
}

/// What the loads of a line are counted in. The mix of a load is always the file's: one number
/// tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadUnit {
    /// Requests a second over all clients, where all of them are open loops.
    RequestsPerS,
    /// Users of the closed-loop clients, where there are any: how often they ask depends on how
    /// fast they are answered, and is no load but a result.
    Users,
}

/// A line for a system that was scaled by a factor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GrownLine {
    /// How many times today's load it was scaled for.
    #[serde(deserialize_with = "float::one")]
    pub factor: f64,
    /// What was changed: `api.instances 3 -> 30`.
    pub changes: Vec<String>,
    /// Its marks.
    pub marks: Vec<Mark>,
    /// What it costs.
    pub cost: Cost,
}

/// The largest load at which every objective holds in one weather.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The weather.
    pub weather: Weather,
    /// The load, in the line's unit.
    #[serde(deserialize_with = "float::one")]
    pub load: f64,
    /// A load at which the objectives held in every replication that counts.
    #[serde(deserialize_with = "float::one")]
    pub low: f64,
    /// A load at which they did not.
    #[serde(deserialize_with = "float::one")]
    pub high: f64,
    /// Requests a second that all clients made at the mark while the fault lasted, as measured.
    #[serde(deserialize_with = "float::one")]
    pub requests_per_s: f64,
    /// How the search ended.
    pub limit: Limit,
    /// What gives way first when the load goes past the mark.
    pub first: Option<GivesWay>,
    /// The objective or condition that fails first past the mark, in words.
    pub fails: Option<String>,
    /// Whether the system comes back when the weather clears.
    pub recovery: Recovery,
    /// Objectives that fail while the fault lasts at any load, and so do not set the mark.
    pub waived: Vec<Waived>,
    /// What the closed forms expect.
    pub analytic: Option<Analytic>,
    /// How the mark was confirmed over a long quiet run.
    pub quiet: Option<Quiet>,
    /// What the simulation says of the same weather, in the line's unit: of a measured mark.
    #[serde(default)]
    pub predicted: Option<f64>,
    /// The loads that were tried, rising.
    pub probes: Vec<Probe>,
    /// A run at the mark.
    pub at_mark: Option<Box<Run>>,
    /// A run just past it.
    pub past_mark: Option<Box<Run>>,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The mark lies between a load that holds and one that does not.
    Found,
    /// Even the smallest load that was tried fails.
    BelowSearch,
    /// Even the largest load that was tried holds.
    AboveSearch,
    /// The search was interrupted; the ends are as far as it came.
    Interrupted,
}

/// A weather: a fault, or none, that a load is carried through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weather {
    /// Its kind.
    pub kind: WeatherKind,
    /// Its name: `calm`, `instance lost`, or the experiment's name.
    pub name: String,
    /// What happens in it: `kill api/1 for 20s`.
    pub text: String,
}

/// Kinds of weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum WeatherKind {
    Calm,
    InstanceLost,
    ZoneLost,
    DatabaseSlow,
    PrimaryLost,
    ReplicaLag,
    CacheCold,
    BrokerDown,
    ClientsRetrying,
    RollingDeploy,
    /// An experiment of the file.
    Experiment,
}

/// What gives way: a resource that saturates, a queue that grows, or a policy that rejects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivesWay {
    /// The component, instance or edge, as the file names it.
    pub component: String,
    /// Of it: `workers`, `cores`, `connections`, `concurrency`, `rate limit`.
    pub resource: String,
    /// Busy share of it, 0 to 1, or share rejected, over the part that failed.
    #[serde(deserialize_with = "float::one")]
    pub value: f64,
    /// In one sentence, with numbers.
    pub why: String,
    /// Who answers for the component.
    pub owner: Option<String>,
}

/// Whether a system comes back when the weather clears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Recovery {
    /// There is nothing to come back from: calm weather, no collapse.
    Steady,
    /// It comes back by itself past the mark too, once the weather clears; in at most this long.
    ByItself {
        /// From the fault's end until the objectives hold again, at the highest load that was
        /// tried, ns; none if they held throughout.
        after_ns: Option<u64>,
    },
    /// Metastable: past the mark it stays down after the fault has ended, until the load falls.
    AtLoad {
        /// The load at which it comes back, in the line's unit.
        #[serde(deserialize_with = "float::one")]
        load: f64,
        /// A load at which it does.
        #[serde(deserialize_with = "float::one")]
        low: f64,
        /// A load at which it does not.
        #[serde(deserialize_with = "float::one")]
        high: f64,
        /// The load that it was carrying when it went down.
        #[serde(deserialize_with = "float::one")]
        from: f64,
        /// From the fall of the load until the objectives hold again, ns.
        drain_ns: Option<u64>,
    },
    /// It had not come back when the run was over; whether it would have later, or at a smaller load, was not tried.
    NotSeen {
        /// The load that it was carrying, in the line's unit.
        #[serde(deserialize_with = "float::one")]
        from: f64,
        /// How long it had had since the fault's end when it was looked at, ns.
        watched_ns: u64,
    },
    /// It stays down at the smallest load that was tried, until somebody restarts it.
    Never {
        /// The load that it was carrying when it went down, in the line's unit.
        #[serde(deserialize_with = "float::one")]
        from: f64,
    },
}

/// An objective that fails while a fault lasts, whatever the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waived {
    /// The objective's name.
    pub objective: String,
    /// Its value at the smallest load while the fault lasted, 0 to 1.
    #[serde(deserialize_with = "float::one")]
    pub value: f64,
    /// Why, in words.
    pub why: String,
}

/// What the closed forms expect, before any simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analytic {
    /// The load at which the first resource is used up, requests a second.
    #[serde(deserialize_with = "float::one")]
    pub bound_per_s: f64,
    /// That resource's component.
    pub component: String,
    /// The resource.
    pub resource: String,
    /// Whether the simulation names the same component.
    pub agrees: bool,
    /// If it does not: why.
    pub explanation: Option<String>,
}

/// How a mark was confirmed: long runs without a fault, so that rare collapses show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quiet {
    /// The horizon that the mark is stated for, ns.
    pub horizon_ns: u64,
    /// Time simulated at the mark, ns.
    pub simulated_ns: u64,
    /// Collapses seen in it.
    pub collapses: u32,
}

/// One load that the search tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// In the line's unit.
    #[serde(deserialize_with = "float::one")]
    pub load: f64,
    /// Requests a second that all clients made while the fault lasted.
    #[serde(deserialize_with = "float::one")]
    pub requests_per_s: f64,
    /// Whether the objectives held.
    pub held: bool,
    /// Replications that it took to say so.
    pub replications: u32,
    /// Good answers a second while the fault lasted.
    #[serde(deserialize_with = "float::one")]
    pub goodput_per_s: f64,
    /// Share of failed requests while the fault lasted.
    #[serde(deserialize_with = "float::one")]
    pub errors: f64,
    /// 99th percentile of the response time while the fault lasted, ms.
    #[serde(deserialize_with = "float::one")]
    pub p99_ms: f64,
    /// Whether it was well again at the end.
    pub recovered: bool,
}

/// What a system costs, from the file's prices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// US$ a month of 730 hours.
    #[serde(deserialize_with = "float::one")]
    pub month_usd: f64,
    /// Its parts: component and US$ a month.
    #[serde(deserialize_with = "float::parts")]
    pub parts: Vec<(String, f64)>,
    /// US$ for a million requests at the calm mark.
    pub per_million_usd: Option<f64>,
}
