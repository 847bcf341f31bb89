use super::Config;
use crate::{InvalidConfig, Mode, Time, nanos, unit};

/// The right to fetch a key and to fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u32);

impl Ticket {
    /// Fills nothing: what [`Mode::Shadow`] gives to callers who would not have fetched.
    pub const VOID: Ticket = Ticket(0);
}

/// What to do about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Serve the entry. With a ticket, refresh it too, ahead of its expiry.
    Fresh {
        /// The right to refresh.
        refresh: Option<Ticket>,
    },
    /// Serve the entry, which is past its TTL. With a ticket, refresh it too.
    Stale {
        /// The right to refresh.
        refresh: Option<Ticket>,
    },
    /// Fetch from the origin, then fill or give up.
    Miss {
        /// The right to fill.
        fetch: Ticket,
    },
    /// Another caller is fetching: wait for its fill, or look again at `until`.
    Wait {
        /// When the other caller's right ends.
        until: Time,
    },
}

/// One key's state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    fresh_until: Time,
    stale_until: Time,
    locked_until: Time,
    /// The ticket that is out, 0 for none.
    ticket: u32,
    /// How long the last fetch took, for early expiration.
    fetch_us: u32,
}

impl Entry {
    /// Until when the entry may be served at all.
    pub fn stale_until(&self) -> Time {
        self.stale_until
    }

    /// Until when it is fresh.
    pub fn fresh_until(&self) -> Time {
        self.fresh_until
    }

    /// Whether this ticket may still fill the entry.
    #[inline]
    pub fn accepts(&self, ticket: Ticket) -> bool {
        ticket != Ticket::VOID && self.ticket == ticket.0
    }

    /// The ticket's holder has failed: the next caller may fetch.
    pub fn release(&mut self, ticket: Ticket) -> bool {
        let released = self.accepts(ticket);
        if released {
            self.ticket = 0;
            self.locked_until = Time::ZERO;
        }
        released
    }
}

/// The rules, with their times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Freshness {
    ttl_ns: f64,
    jitter: f64,
    stale_ns: u64,
    negative_min_ns: u64,
    negative_max_ns: u64,
    lock_ns: Option<u64>,
    beta_ns_per_us: f64,
    mode: Mode,
    last_ticket: u32,
}

impl Freshness {
    /// The rules of a configuration.
    pub fn new(config: &Config) -> Result<Self, InvalidConfig> {
        config.check()?;
        let mut freshness = Freshness {
            ttl_ns: 0.0,
            jitter: 0.0,
            stale_ns: 0,
            negative_min_ns: 0,
            negative_max_ns: 0,
            lock_ns: None,
            beta_ns_per_us: 0.0,
            mode: config.mode,
            last_ticket: 0,
        };
        freshness.set(config);
        Ok(freshness)
    }

    pub(super) fn set(&mut self, config: &Config) {
        self.ttl_ns = nanos(config.ttl) as f64;
        self.jitter = config.ttl_jitter;
        self.stale_ns = nanos(config.stale_while_revalidate.unwrap_or(config.ttl));
        self.negative_min_ns = nanos(config.negative_ttl_min);
        self.negative_max_ns = nanos(config.negative_ttl_max);
        self.lock_ns = config.lock.map(nanos);
        self.beta_ns_per_us = config.early_expiration * 1_000.0;
        self.mode = config.mode;
    }

    /// Decides about a key; one that is not stored is an [`Entry::default`], to be stored.
    #[inline]
    pub fn lookup(&mut self, now: Time, entry: &mut Entry, random: u64) -> Lookup {
        let decided = self.decide(now, entry, random);
        self.answer(decided)
    }

    /// What a decision becomes under the mode.
    #[inline]
    pub(super) fn answer(&self, decided: Lookup) -> Lookup {
        match (self.mode, decided) {
            (Mode::Enforce, decided) | (_, decided @ Lookup::Miss { .. }) => decided,
            (_, Lookup::Fresh { refresh } | Lookup::Stale { refresh }) => {
                Lookup::Miss { fetch: refresh.unwrap_or(Ticket::VOID) }
            }
            (_, Lookup::Wait { .. }) => Lookup::Miss { fetch: Ticket::VOID },
        }
    }

    /// What [`lookup`](Self::lookup) answers when it enforces.
    #[inline]
    pub(super) fn decide(&mut self, now: Time, entry: &mut Entry, random: u64) -> Lookup {
        if now < entry.fresh_until {
            let refresh = if self.expires_early(now, entry, random) { self.grant(now, entry) } else { None };
            return Lookup::Fresh { refresh };
        }
        if now < entry.stale_until {
            return Lookup::Stale { refresh: self.grant(now, entry) };
        }
        match self.grant(now, entry) {
            Some(fetch) => Lookup::Miss { fetch },
            None => Lookup::Wait { until: entry.locked_until },
        }
    }

    /// Starts an entry's life: the fetch took `fetch_ns`, `negative` means that the key is absent.
    /// Voids every ticket that is out.
    pub fn fill(&self, now: Time, entry: &mut Entry, fetch_ns: u64, negative: bool, random: u64) {
        let chance = unit(random);
        if negative {
            let range = (self.negative_max_ns - self.negative_min_ns) as f64;
            entry.fresh_until = now.plus_nanos(self.negative_min_ns + (range * chance) as u64);
            // Absence is cheap to ask again and bad to be wrong about.
            entry.stale_until = entry.fresh_until;
        } else {
            let ttl_ns = self.ttl_ns * (1.0 + self.jitter * (2.0 * chance - 1.0));
            entry.fresh_until = now.plus_nanos(ttl_ns as u64);
            entry.stale_until = entry.fresh_until.plus_nanos(self.stale_ns);
        }
        entry.locked_until = Time::ZERO;
        entry.ticket = 0;
        entry.fetch_us = (fetch_ns / 1_000).min(u64::from(u32::MAX)) as u32;
    }

    /// Whether nobody may serve an entry and nobody is expected to fill it.
    pub(super) fn is_dead(&self, now: Time, entry: &Entry) -> bool {
        let awaited = now < entry.locked_until || (self.lock_ns.is_none() && entry.ticket != 0);
        now >= entry.stale_until && !awaited
    }

    /// Gives out the right to fetch, unless it is out.
    fn grant(&mut self, now: Time, entry: &mut Entry) -> Option<Ticket> {
        match self.lock_ns {
            Some(_) if now < entry.locked_until => return None,
            // Without a lock all fetchers share a ticket; a write still voids it.
            None if entry.ticket != 0 => return Some(Ticket(entry.ticket)),
            _ => {}
        }
        self.last_ticket = self.last_ticket.wrapping_add(1).max(1);
        entry.ticket = self.last_ticket;
        entry.locked_until = self.lock_ns.map_or(Time::ZERO, |lock| now.plus_nanos(lock));
        Some(Ticket(entry.ticket))
    }

    /// XFetch: refresh when now - fetch time x beta x ln(chance) passes the expiry.
    #[inline]
    fn expires_early(&self, now: Time, entry: &Entry, random: u64) -> bool {
        if self.beta_ns_per_us == 0.0 {
            return false;
        }
        let scale = f64::from(entry.fetch_us) * self.beta_ns_per_us;
        let left = entry.fresh_until.nanos_since(now) as f64;
        // The logarithm of 53 random bits never passes 37: most lookups end here.
        left < 37.0 * scale && -libm::log(1.0 - unit(random)) * scale >= left
    }
}
