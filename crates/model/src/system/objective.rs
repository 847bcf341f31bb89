use super::{ClientId, EndpointId};

/// What is promised to users.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// The reader's name for it.
    pub name: String,
    /// What is measured.
    pub indicator: Indicator,
    /// Whose requests count.
    pub subject: Subject,
    /// Share of good requests, 0 to 1.
    pub target: f64,
    /// The window that the promise covers, ns.
    pub window: u64,
    /// Whether the file states it, or it is the default of a file that states none.
    pub stated: bool,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

/// What makes a request good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Indicator {
    /// It was answered without an error.
    Success,
    /// It was answered without an error within this time, ns.
    LatencyBelow(u64),
}

/// Whose requests an objective or expectation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Every client's.
    All,
    /// One client's.
    Client(ClientId),
    /// Those of any client to one endpoint.
    Endpoint(EndpointId),
}
