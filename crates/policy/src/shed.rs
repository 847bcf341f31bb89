//! Load shedding: a bounded request queue that drops what is not worth serving.
//!
//! A full queue of requests whose callers have given up is the commonest way in which a service
//! that is only a little overloaded serves nobody. [`ShedQueue`] sits in front of an instance's
//! workers and
//!
//! - drops requests past their deadline before anything else;
//! - serves class 0 first, so that under overload the less important classes wait and are shed;
//! - with CoDel, sheds what has waited long once a queue stands. Per class: after its oldest request
//!   has been older than `target` (5 ms) at every pop for `interval` (100 ms), the class is overloaded
//!   and requests older than two targets are shed, until the oldest is younger than `target` or the
//!   class is empty. Dropping by age, rather than at CoDel's rising rate, is folly's change (Maurer,
//!   "Fail at Scale", ACM Queue 2015): packets slow their sender down when dropped, requests do not;
//! - with adaptive LIFO (same source), serves the newest first while overloaded: the callers of
//!   the oldest have waited longest and are the likeliest to leave before their answer;
//! - never sheds the last request of a class: with nobody behind it, serving it costs nobody anything.
//!
//! ```text
//!              oldest >= target at every pop for an interval
//!      ┌──────┐ ──────────────────────────────────────────► ┌────────────┐
//!      │ calm │                                             │ overloaded │ sheds > 2 targets,
//!      └──────┘ ◄─────────────────────────────────────────── └────────────┘ newest first
//!              oldest < target, or class empty
//! ```

use std::time::Duration;

pub use crate::linked::Handle;

use crate::linked::{List, Slab};
use crate::{InvalidConfig, Mode, Reason, Time, nanos};

/// How many classes there are; a less important one counts as the last.
pub const CLASSES: usize = 8;

/// In which order a queue serves, and what it sheds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Discipline {
    /// Oldest first; drops only what is past its deadline.
    #[default]
    Fifo,
    /// Newest first; drops only what is past its deadline, and the oldest when full.
    Lifo,
    /// Oldest first; sheds by age while overloaded.
    CoDel,
    /// As [`CoDel`](Self::CoDel), and newest first while overloaded.
    AdaptiveLifo,
}

impl Discipline {
    const fn sheds(self) -> bool {
        matches!(self, Discipline::CoDel | Discipline::AdaptiveLifo)
    }
}

/// A queue's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Requests that may wait. Default: 128.
    pub capacity: u32,
    /// Order and shedding. Default: FIFO, as in nearly every server.
    pub discipline: Discipline,
    /// The wait that a standing queue may have. Default: 5 ms (RFC 8289, section 4.2; folly's `Codel`).
    pub target: Duration,
    /// How long a queue must stand before it counts as overload. Default: 100 ms (RFC 8289).
    pub interval: Duration,
    /// Shadow: serve oldest first and count what would have been shed. The capacity, priorities and
    /// deadlines hold all the same.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            capacity: 128,
            discipline: Discipline::Fifo,
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
            mode: Mode::Enforce,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), InvalidConfig> {
        if nanos(self.target) == 0 {
            return Err(InvalidConfig { field: "target", expected: "above zero" });
        }
        if self.interval < self.target {
            return Err(InvalidConfig { field: "interval", expected: "at least target" });
        }
        Ok(())
    }
}

/// What became of a pushed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request that is not queued has to be answered"]
pub enum Push<T> {
    /// It waits.
    Queued(Handle),
    /// It waits, and another had to leave for it.
    Displaced {
        /// The pushed request's place.
        handle: Handle,
        /// The request that left.
        item: T,
        /// Why it left: past its deadline, or shed.
        reason: Reason,
    },
    /// The queue is full of requests that matter as much.
    Rejected(T),
}

/// What a queue has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were queued, by class.
    pub queued: [u64; CLASSES],
    /// Requests turned away at a full queue, by class.
    pub rejected: [u64; CLASSES],
    /// Requests that left for a more important or a fresher one, by class.
    pub displaced: [u64; CLASSES],
    /// Requests shed because of their wait under overload, by class.
    pub shed: [u64; CLASSES],
    /// Requests dropped past their deadline, by class.
    pub expired: [u64; CLASSES],
    /// Requests served that [`Mode::Shadow`] kept from being shed, by class.
    pub shadowed: [u64; CLASSES],
    /// Times that a class became overloaded.
    pub overloads: u64,
}

#[derive(Clone, Debug)]
struct Waiting<T> {
    item: T,
    since: Time,
    deadline: Time,
    class: u8,
}

#[derive(Clone, Copy, Debug)]
struct Class {
    list: List,
    /// Since when the oldest has been too old at every pop.
    standing_since: Option<Time>,
    overloaded: bool,
}

/// A request queue with load shedding.
#[derive(Clone, Debug)]
pub struct ShedQueue<T> {
    config: Config,
    target_ns: u64,
    /// The wait past which an overloaded class sheds: two targets, as in folly's `getSloughTimeout`.
    slough_ns: u64,
    interval_ns: u64,
    slab: Slab<Waiting<T>>,
    classes: [Class; CLASSES],
    /// One bit a class: whether it holds a request.
    occupied: u8,
    len: u32,
    counts: Counts,
}

impl<T> ShedQueue<T> {
    /// An empty queue.
    pub fn new(config: Config) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(ShedQueue {
            target_ns: nanos(config.target),
            slough_ns: nanos(config.target).saturating_mul(2),
            interval_ns: nanos(config.interval),
            config,
            slab: Slab::new(),
            classes: [Class { list: List::EMPTY, standing_since: None, overloaded: false }; CLASSES],
            occupied: 0,
            len: 0,
            counts: Counts::default(),
        })
    }

    /// Queues a request of a class (0 is the most important, 7 and above the least) with its deadline,
    /// [`Time::MAX`] if it has none.
    ///
    /// A full queue first drops a request past its deadline; then the least important
    /// class below the newcomer's gives up its newest; and where the newest are served first, an
    /// equally important newcomer takes the place of the oldest.
    pub fn push(&mut self, now: Time, item: T, class: u8, deadline: Time) -> Push<T> {
        let class = class.min(CLASSES as u8 - 1);
        let mut left = None;
        if self.len >= self.config.capacity {
            match self.make_room(now, class) {
                None => {
                    self.counts.rejected[class as usize] += 1;
                    return Push::Rejected(item);
                }
                room => left = room,
            }
        }
        let waiting = Waiting { item, since: now, deadline, class };
        let handle = self.slab.push_back(&mut self.classes[class as usize].list, waiting);
        self.occupied |= 1 << class;
        self.len += 1;
        self.counts.queued[class as usize] += 1;
        match left {
            None => Push::Queued(handle),
            Some((item, reason)) => Push::Displaced { handle, item, reason },
        }
    }

    /// The request to serve next. What it drops on the way goes to `dropped`, with
    /// [`Reason::DeadlineExceeded`] or [`Reason::Shed`].
    pub fn pop(&mut self, now: Time, mut dropped: impl FnMut(T, Reason)) -> Option<T> {
        // The less important classes first: they are the ones that wait under overload, and nobody
        // would look at them before they are served.
        let mut rest = self.occupied;
        while rest != 0 {
            let class = (7 - rest.leading_zeros()) as usize;
            rest &= !(1 << class);
            self.drop_from(now, class, &mut dropped);
        }
        loop {
            if self.occupied == 0 {
                return None;
            }
            let class = self.occupied.trailing_zeros() as usize;
            let newest = self.newest_first(class);
            let list = &mut self.classes[class].list;
            let waiting = if newest { self.slab.pop_back(list) } else { self.slab.pop_front(list) }?;
            self.left(class);
            if waiting.deadline <= now {
                self.counts.expired[class] += 1;
                dropped(waiting.item, Reason::DeadlineExceeded);
                continue;
            }
            if self.config.mode == Mode::Shadow && self.is_shed(now, class, &waiting) {
                self.counts.shadowed[class] += 1;
            }
            return Some(waiting.item);
        }
    }

    /// Takes a waiting request out: its caller has gone. `None` if it has left already.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        let class = self.slab.get(handle)?.class as usize;
        let waiting = self.slab.remove(&mut self.classes[class].list, handle)?;
        self.left(class);
        Some(waiting.item)
    }

    /// Requests waiting.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Requests of a class waiting.
    pub fn len_of(&self, class: u8) -> usize {
        self.classes.get(class as usize).map_or(0, |c| c.list.len())
    }

    /// Whether any class is overloaded.
    pub fn is_overloaded(&self) -> bool {
        self.classes.iter().any(|c| c.overloaded)
    }

    /// What was done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the settings. Everything that waits stays, even above a lower capacity.
    pub fn set_config(&mut self, config: Config) -> Result<(), InvalidConfig> {
        config.check()?;
        self.config = config;
        self.target_ns = nanos(config.target);
        self.slough_ns = self.target_ns.saturating_mul(2);
        self.interval_ns = nanos(config.interval);
        if !config.discipline.sheds() {
            for class in &mut self.classes {
                class.standing_since = None;
                class.overloaded = false;
            }
        }
        Ok(())
    }

    fn newest_first(&self, class: usize) -> bool {
        match self.config.discipline {
            Discipline::Fifo | Discipline::CoDel => false,
            _ if self.config.mode == Mode::Shadow => false,
            Discipline::Lifo => true,
            Discipline::AdaptiveLifo => self.classes[class].overloaded,
        }
    }

    /// Accounts for a request that has left its class's list.
    fn left(&mut self, class: usize) {
        self.len -= 1;
        if self.classes[class].list.is_empty() {
            self.occupied &= !(1 << class);
            // No queue stands here any more, however long the last one waited.
            self.classes[class].standing_since = None;
            self.classes[class].overloaded = false;
        }
    }

    fn is_shed(&self, now: Time, class: usize, waiting: &Waiting<T>) -> bool {
        self.classes[class].overloaded
            && now.nanos_since(waiting.since) > self.slough_ns
            && !self.classes[class].list.is_empty()
    }

    /// Drops from a class's old end: expired ones, then, under overload, those that waited too long.
    fn drop_from(&mut self, now: Time, class: usize, dropped: &mut impl FnMut(T, Reason)) {
        self.drop_expired(now, class, dropped);
        if !self.config.discipline.sheds() {
            return;
        }
        self.observe(now, class);
        if !self.classes[class].overloaded || self.config.mode == Mode::Shadow {
            return;
        }
        // The last one always stays.
        while self.classes[class].list.len() > 1 {
            let Some(oldest) = self.slab.front(&self.classes[class].list) else {
                return;
            };
            let expired = oldest.deadline <= now;
            if !expired && now.nanos_since(oldest.since) <= self.slough_ns {
                return;
            }
            let Some(waiting) = self.slab.pop_front(&mut self.classes[class].list) else {
                return;
            };
            self.left(class);
            let (counts, reason) = if expired {
                (&mut self.counts.expired, Reason::DeadlineExceeded)
            } else {
                (&mut self.counts.shed, Reason::Shed)
            };
            counts[class] += 1;
            dropped(waiting.item, reason);
        }
    }

    fn drop_expired(&mut self, now: Time, class: usize, dropped: &mut impl FnMut(T, Reason)) {
        while let Some(oldest) = self.slab.front(&self.classes[class].list) {
            if oldest.deadline > now {
                return;
            }
            let Some(waiting) = self.slab.pop_front(&mut self.classes[class].list) else {
                return;
            };
            self.left(class);
            self.counts.expired[class] += 1;
            dropped(waiting.item, Reason::DeadlineExceeded);
        }
    }

    /// Looks at the oldest request's wait and moves between calm and overloaded.
    fn observe(&mut self, now: Time, class: usize) {
        let wait = self.slab.front(&self.classes[class].list).map_or(0, |w| now.nanos_since(w.since));
        let class = &mut self.classes[class];
        if wait < self.target_ns {
            class.standing_since = None;
            class.overloaded = false;
            return;
        }
        let since = *class.standing_since.get_or_insert(now);
        if !class.overloaded && now.nanos_since(since) >= self.interval_ns {
            class.overloaded = true;
            self.counts.overloads += 1;
        }
    }

    /// Makes room for a request of a class in a full queue, if anything has to yield to it.
    fn make_room(&mut self, now: Time, class: u8) -> Option<(T, Reason)> {
        let mut rest = self.occupied;
        while rest != 0 {
            let candidate = (7 - rest.leading_zeros()) as usize;
            rest &= !(1 << candidate);
            let list = &mut self.classes[candidate].list;
            if self.slab.front(list).is_some_and(|w| w.deadline <= now) {
                let waiting = self.slab.pop_front(list)?;
                self.left(candidate);
                self.counts.expired[candidate] += 1;
                return Some((waiting.item, Reason::DeadlineExceeded));
            }
        }
        if self.occupied == 0 {
            return None;
        }
        let lowest = (7 - self.occupied.leading_zeros()) as usize;
        let newest_first = self.newest_first(lowest);
        if lowest < class as usize || (lowest == class as usize && !newest_first) {
            return None;
        }
        let list = &mut self.classes[lowest].list;
        // What would be served last yields.
        let waiting = if newest_first { self.slab.pop_front(list) } else { self.slab.pop_back(list) }?;
        self.left(lowest);
        self.counts.displaced[lowest] += 1;
        Some((waiting.item, Reason::Shed))
    }
}
