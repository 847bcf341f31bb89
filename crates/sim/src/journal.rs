//! What one caller's end of an edge was asked and what it decided, one after the other: a trace that another
//! driver of the same policies can be held to.

mod visits;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use plimsoll_model::system::{Component, System};
use plimsoll_policy::pipeline::Next;
use plimsoll_policy::{Reason, Time};

use crate::engine::{Answer, Draw, Ref};
use crate::plan::{Plan, Prepared, Scenario};
use crate::world::World;
pub(crate) use visits::failure;
pub use visits::{Kept, Refusal, Stage, Visit, Visits};

/// All that has happened at one end of an edge.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Where the balancer's turns start.
    pub balancer_seed: u64,
    /// Where chance of checks and ejections starts.
    pub members_seed: u64,
    /// Instances.
    pub targets: usize,
    /// In their order.
    pub entries: Vec<Entry>,
    /// What the caller's own policies on what it gets have done.
    pub visits: Visits,
    /// The end that is written down.
    end: u32,
    calls: BTreeMap<Ref, u64>,
}

/// One step of a call, or of what concerns all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// The call; 0 for what concerns all.
    pub call: u64,
    /// What.
    pub step: Step,
}

/// Why an attempt goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// The call asked for it.
    Asked,
    /// Its permit has come.
    Granted,
    /// The first one is late.
    Hedged,
    /// An instance has room again.
    Freed,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There was no connection.
    ConnectError,
    /// The connection broke.
    Reset,
    /// There was no answer in time.
    Timeout,
    /// This status, and when to come back.
    Status(u16, Option<Duration>),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Asked: a call starts.
    Starts {
        /// Until when its caller waits.
        deadline: Option<Time>,
        /// Whether making it twice does no harm.
        repeatable: bool,
        /// What sticks it to an instance.
        key: u64,
    },
    /// Decided: no attempt.
    Refused(Reason),
    /// Decided: it waits for a permit.
    Queued(Time),
    /// Decided: it has waited long enough.
    GivesUp(Reason),
    /// Decided: an attempt.
    Goes {
        /// Why.
        why: Go,
        /// 0, or 1 for an extra one.
        slot: usize,
        /// Asked with these random bits.
        random: u64,
        /// The instance, if there is one to ask.
        target: Option<usize>,
        /// Whether it waits until one has room.
        pending: bool,
        /// When it must have ended.
        deadline: Time,
        /// How long after it an extra attempt is to be asked for.
        hedge_after: Option<Duration>,
    },
    /// Decided: no extra attempt.
    NoHedge,
    /// Asked: an attempt has ended.
    Ends {
        /// Which.
        slot: usize,
        /// How.
        end: End,
        /// With these random bits.
        random: u64,
    },
    /// Decided: what follows.
    Then(Next),
    /// Asked: an attempt is called off.
    CalledOff(usize),
    /// The call is over.
    Over,
    /// Asked: checks and ejections are due.
    Due,
    /// Decided: a check, asked for with these random bits; none is the end of those that are due.
    Checks(Option<usize>, u64),
    /// Asked: a check has ended.
    Checked(usize, bool),
    /// Decided: who may be asked from now on.
    Eligible(Vec<bool>),
}

/// Runs a scenario once and writes down what the first instance of a service has done with what it gets, and at its
/// end of its first edge.
pub fn journal(system: &System, scenario: &Scenario, seed: u64, service: &str) -> Option<Journal> {
    let plan = Plan::new(&Prepared::new(system), scenario, true);
    let edge = system.edges.iter().position(
        |edge| matches!(edge.from, Component::Service(id) if system.services[id.index()].name.as_str() == service),
    )?;
    let mut world = World::new(&plan, Draw::root(seed, 0));
    let end = world.edge_first[edge];
    let (balancer_seed, members_seed) = world.ends[end as usize].seeds();
    let targets = world.ends[end as usize].balancer.len();
    let visits = Visits { instance: world.ends[end as usize].instance?, ..Visits::default() };
    let journal = Journal { balancer_seed, members_seed, targets, end, visits, ..Journal::default() };
    world.journal = Some(Box::new(journal));
    world.run(&AtomicBool::new(false));
    let counts = world.visit_counts();
    world.journal.as_mut()?.visits.counts = counts;
    world.journal.map(|journal| *journal)
}

impl World<'_> {
    /// Writes a step of a call down, where anybody wants to know.
    #[inline(always)]
    pub(crate) fn note(&mut self, end: u32, call: Ref, step: Step) {
        if self.journal.is_some() {
            self.write_down(end, call, step);
        }
    }

    #[cold]
    fn write_down(&mut self, end: u32, call: Ref, step: Step) {
        let at = self.time();
        let Some(journal) = &mut self.journal else { return };
        if journal.end != end {
            return;
        }
        if matches!(step, Step::Starts { .. }) {
            journal.calls.insert(call, journal.calls.len() as u64 + 1);
        }
        let call = journal.calls.get(&call).copied().unwrap_or(0);
        journal.entries.push(Entry { at, call, step });
    }

    /// Writes down who may be asked.
    #[inline(always)]
    pub(crate) fn note_eligible(&mut self, end: u32) {
        if self.journal.is_some() {
            let e = &self.ends[end as usize];
            let Some(members) = &e.members else { return };
            let eligible = (0..e.balancer.len()).map(|i| members.eligible().contains(i)).collect();
            self.write_down(end, Ref::NONE, Step::Eligible(eligible));
        }
    }
}

/// What an answer is between two processes.
pub(crate) fn ended(answer: Answer) -> End {
    match answer {
        Answer::Ok | Answer::Degraded => End::Status(200, None),
        Answer::Error => End::Status(500, None),
        Answer::Unavailable => End::Status(503, None),
        Answer::Busy(_) => End::Status(503, answer.retry_after()),
        Answer::TooMany => End::Status(429, None),
        Answer::Refused => End::ConnectError,
        Answer::Reset => End::Reset,
        Answer::Timeout => End::Timeout,
        _ => End::Status(409, None),
    }
}
