//! Read-your-writes over lagging replicas: a session never reads a state older than its own writes.
//!
//! ```text
//!   write ──► floor := LSN of the commit
//!   read  ──► replica at or past the floor? ── yes ──► replica
//!                     └── no ──► wait, for wait_max in all ──► still behind? ──► primary
//! ```
//!
//! The floor is per session; sessions that have not written read anywhere. Memory is bounded
//! without ever breaking the promise: a session that has to be forgotten raises the floor of all
//! forgotten and unknown sessions to its own, which costs some reads of replicas for as long as they
//! lag behind it.
//!
//! After a failover, log positions past the point where the new timeline branched off name other
//! writes than before (PostgreSQL's manual, "Timelines"). Floors below that point hold on; a floor
//! above it belongs to a write that was lost with the old primary. It is lowered to the branch
//! point, or it would send that session to the primary for good, and the session is told.

use std::time::Duration;

use crate::keyed::Keyed;
use crate::{InvalidConfig, Mode, Time, nanos};

/// A place in a database's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Grows with each failover.
    pub timeline: u32,
    /// The log sequence number on it.
    pub lsn: u64,
}

/// How long reads wait and how much is remembered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How long a read may wait for a replica in all. Default: 50 ms, several times the usual lag of
    /// streaming replication within a region, and less than a person notices.
    pub wait_max: Duration,
    /// Sessions remembered. Default: 100,000.
    pub sessions_max: u32,
    /// Shadow: send every read to its replica and count those that would have waited or moved.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config { wait_max: Duration::from_millis(50), sessions_max: 100_000, mode: Mode::Enforce }
    }
}

impl Config {
    fn check(&self) -> Result<(), InvalidConfig> {
        if self.sessions_max == 0 {
            return Err(InvalidConfig { field: "sessions_max", expected: "at least 1" });
        }
        Ok(())
    }
}

/// Where a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// To the replica: it has everything that the session wrote.
    Replica,
    /// Nowhere yet: look at the replica again, at the latest at `until`.
    Wait {
        /// When the wait is over.
        until: Time,
        /// To be handed in with the next look.
        waiting: Waiting,
    },
    /// To the primary: the replica is too far behind, or on a branch of the log that was given up.
    Primary,
}

/// A read that waits for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Since when.
    pub since: Time,
    /// What its session had written by then. Later writes it need not see: a busy session's read would wait for one
    /// after the other.
    pub floor: Position,
}

/// What was decided so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads sent to a replica.
    pub replica: u64,
    /// Answers to wait; one read may get several.
    pub waits: u64,
    /// Reads sent to the primary.
    pub primary: u64,
    /// Sessions forgotten for want of room.
    pub forgotten: u64,
    /// Sessions whose last write was lost in a failover.
    pub lost: u64,
    /// Reads that [`Mode::Shadow`] sent to a replica that was behind.
    pub shadowed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Floor {
    lsn: u64,
    lost: bool,
}

/// The floors of all sessions on one database.
#[derive(Clone, Debug)]
pub struct ReadYourWrites {
    config: Config,
    wait_max_ns: u64,
    floors: Keyed<Floor>,
    /// The highest floor of any forgotten session.
    forgotten: u64,
    /// Where eviction looks next.
    hand: usize,
    /// The branches of the log: each timeline and the position at which it began.
    timelines: Vec<Position>,
    counts: Counts,
}

impl ReadYourWrites {
    /// No session has written; the primary is on `timeline`.
    pub fn new(config: Config, timeline: u32) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(ReadYourWrites {
            wait_max_ns: nanos(config.wait_max),
            config,
            floors: Keyed::new(),
            forgotten: 0,
            hand: 0,
            timelines: vec![Position { timeline, lsn: 0 }],
            counts: Counts::default(),
        })
    }

    /// A session's write was committed at a position. One that reports a timeline which has ended
    /// counts up to the end of that timeline.
    pub fn wrote(&mut self, session: u64, at: Position) {
        let (lsn, lost) = match self.end_of(at.timeline) {
            Some(end) => (at.lsn.min(end), at.lsn > end),
            None => (at.lsn, false),
        };
        self.counts.lost += u64::from(lost);
        if let Some(floor) = self.floors.get_mut(session) {
            floor.lsn = floor.lsn.max(lsn);
            floor.lost |= lost;
            return;
        }
        if self.floors.len() >= self.config.sessions_max as usize {
            self.evict();
        }
        // Whatever this session wrote before it was forgotten counts too.
        let lsn = lsn.max(self.forgotten);
        self.floors.insert_new(session, Floor { lsn, lost });
    }

    /// Where a session's read goes, given how far a replica has replayed. `waiting` is what this read's first
    /// [`Read::Wait`] said.
    #[inline]
    pub fn read(&mut self, now: Time, session: u64, replica: Position, waiting: Option<Waiting>) -> Read {
        let floor = match waiting {
            Some(Waiting { floor, .. }) => self.end_of(floor.timeline).map_or(floor.lsn, |end| floor.lsn.min(end)),
            None => self.floor(session),
        };
        if replica.lsn >= floor && !self.has_diverged(replica) {
            self.counts.replica += 1;
            return Read::Replica;
        }
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Read::Replica;
        }
        let floor = Position { timeline: self.timeline(), lsn: floor };
        let waiting = waiting.unwrap_or(Waiting { since: now, floor });
        let until = waiting.since.plus_nanos(self.wait_max_ns);
        // A replica that has left the log's surviving branch will not come back by waiting.
        if now < until && !self.has_diverged(replica) {
            self.counts.waits += 1;
            return Read::Wait { until, waiting };
        }
        self.counts.primary += 1;
        Read::Primary
    }

    /// Whether a replica has everything that a session wrote.
    #[inline]
    pub fn satisfies(&self, session: u64, replica: Position) -> bool {
        replica.lsn >= self.floor(session) && !self.has_diverged(replica)
    }

    /// The position below which a session must not read, on the present timeline.
    #[inline]
    pub fn floor(&self, session: u64) -> u64 {
        self.floors.get(session).map_or(self.forgotten, |floor| floor.lsn)
    }

    /// A replica was promoted: `timeline` began at `branch`, the last position of the old one that
    /// survived. Returns how many sessions lost their last write. A timeline that is not newer changes
    /// nothing.
    pub fn failover(&mut self, branch: u64, timeline: u32) -> usize {
        if timeline <= self.timeline() {
            return 0;
        }
        self.timelines.push(Position { timeline, lsn: branch });
        self.forgotten = self.forgotten.min(branch);
        let mut lost = 0;
        for at in 0..self.floors.len() {
            let floor = self.floors.at_mut(at);
            if floor.lsn > branch {
                *floor = Floor { lsn: branch, lost: true };
                lost += 1;
            }
        }
        self.counts.lost += lost as u64;
        lost
    }

    /// Whether a session's last write was lost in a failover since the last call: its user should
    /// hear of it.
    pub fn take_lost(&mut self, session: u64) -> bool {
        self.floors.get_mut(session).is_some_and(|floor| std::mem::take(&mut floor.lost))
    }

    /// The primary's timeline.
    pub fn timeline(&self) -> u32 {
        self.timelines.last().map_or(0, |t| t.timeline)
    }

    /// Sessions remembered.
    pub fn sessions(&self) -> usize {
        self.floors.len()
    }

    /// Forgets sessions whose floor every replica has passed: `slowest` is the position of the one
    /// furthest behind. They can read anywhere already.
    pub fn prune(&mut self, slowest: u64) {
        let mut at = 0;
        while at < self.floors.len() {
            let (_, floor) = self.floors.at(at);
            if floor.lsn <= slowest && !floor.lost {
                let (_, floor) = self.floors.remove_at(at);
                self.forgotten = self.forgotten.max(floor.lsn);
            } else {
                at += 1;
            }
        }
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the settings and keeps the floors.
    pub fn set_config(&mut self, config: Config) -> Result<(), InvalidConfig> {
        config.check()?;
        self.config = config;
        self.wait_max_ns = nanos(config.wait_max);
        while self.floors.len() > config.sessions_max as usize {
            self.evict();
        }
        Ok(())
    }

    /// The position at which a timeline ended, if it has.
    fn end_of(&self, timeline: u32) -> Option<u64> {
        // Later branches may have begun below earlier ones: the lowest counts.
        self.timelines.iter().filter(|t| t.timeline > timeline).map(|t| t.lsn).min()
    }

    /// Whether a replica holds log that did not survive.
    #[inline]
    fn has_diverged(&self, replica: Position) -> bool {
        replica.timeline < self.timeline() && self.end_of(replica.timeline).is_some_and(|end| replica.lsn > end)
    }

    /// Forgets the lowest floor of the next few sessions: the one that costs the others least.
    fn evict(&mut self) {
        let len = self.floors.len();
        let lowest = (0..len.min(8)).map(|k| (self.hand + k) % len).min_by_key(|&at| self.floors.at(at).1.lsn);
        self.hand = (self.hand + 8) % len.max(1);
        if let Some(at) = lowest {
            let (_, floor) = self.floors.remove_at(at);
            self.forgotten = self.forgotten.max(floor.lsn);
            self.counts.forgotten += 1;
        }
    }
}
