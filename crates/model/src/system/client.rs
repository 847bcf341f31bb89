use std::sync::Arc;

use super::{Dist, EdgeId, EndpointId, KeyDist, ZoneId};

/// Those who ask: a population of users, or a program.
#[derive(Clone, Debug)]
pub struct Client {
    /// The reader's name for it.
    pub name: String,
    /// How requests come into being.
    pub arrivals: Arrivals,
    /// Distinct users behind an open-loop client: per-user limits, sessions, blast radius.
    pub users: u32,
    /// What is called, each with its weight.
    pub calls: Vec<ClientCall>,
    /// Where it runs, if it runs in a zone.
    pub zone: Option<ZoneId>,
    /// Line of its key in the file, from 1.
    pub line: u32,
}

/// How requests come into being.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// Requests come at a rate, whether or not earlier ones were answered.
    Open {
        /// Requests a second.
        rate: f64,
        /// The spacing between them.
        process: Process,
    },
    /// Each of a fixed number of users waits for the answer, thinks, and asks again.
    Closed {
        /// Users.
        users: u32,
        /// Time between an answer and the user's next request, ns.
        think: Dist,
    },
    /// Requests come at the recorded times, in ns from the start; past the end the trace repeats.
    Trace {
        /// Arrival times, rising.
        times: Arc<[u64]>,
        /// Length of one pass, ns.
        span: u64,
    },
}

/// Spacing of open-loop arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// Exponential gaps: independent users.
    Poisson,
    /// Equal gaps.
    Constant,
    /// A Markov-modulated Poisson process: bursts at a multiple of the base rate, with
    /// exponential lengths; the mean rate is the client's.
    Bursty {
        /// Rate within a burst, as a multiple of the client's mean rate.
        peak: f64,
        /// Mean length of a burst, ns.
        burst: f64,
        /// Mean length of the quiet between bursts, ns.
        quiet: f64,
    },
}

/// One thing that a client calls.
#[derive(Clone, Debug)]
pub struct ClientCall {
    /// The edge that carries the call, with its policies.
    pub edge: EdgeId,
    /// What is called.
    pub endpoint: EndpointId,
    /// Share of the client's requests, relative to the other calls' weights.
    pub weight: f64,
    /// Which key the request is about; none: every request has a key of its own.
    pub key: Option<KeyDist>,
    /// Priority class: 0 is the most important, and the last to be shed.
    pub class: u8,
}
