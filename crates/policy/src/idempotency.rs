//! Idempotency keys: a request that is sent twice takes effect once.
//!
//! ```text
//!                begin: Proceed             complete(response)
//!      (absent) ───────────────► in progress ───────────────► done ── keep ──► (absent)
//!          ▲                      │   │
//!          └────── abandon ───────┘   └── lease over ──► begin: Unresolved
//! ```
//!
//! - A duplicate of a request in progress is told so, and when to ask again; it neither waits here nor
//!   runs beside the first.
//! - A duplicate of one that is done gets its response.
//! - The same key with another request (another fingerprint) is an error: answering it with the
//!   stored response would be wrong silently.
//! - If the first died in progress, nobody knows whether it took effect. The next duplicate after
//!   the lease is told that it is [`Begin::Unresolved`]: its driver looks at the effect (or makes it within the
//!   same transaction as the record, which never gets here) and then completes or abandons.
//!
//! Keys are hashes of 64 bits. Make the key part of the fingerprint: then two keys that collide give
//! an error and not another's response.

use std::collections::VecDeque;
use std::time::Duration;

use crate::keyed::Keyed;
use crate::{InvalidConfig, Mode, Reason, Rejected, Time, nanos};

/// How long and how much is remembered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How long a response is kept after it was recorded. Default: 24 h (Stripe's API).
    pub keep: Duration,
    /// How long a request may be in progress before it counts as dead. Default: 60 s: above any
    /// request timeout, or a slow request would run twice.
    pub lease: Duration,
    /// Keys remembered. Default: 100,000.
    pub keys_max: u32,
    /// Shadow: remember and count, and let every request proceed.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            keep: Duration::from_secs(24 * 60 * 60),
            lease: Duration::from_secs(60),
            keys_max: 100_000,
            mode: Mode::Enforce,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, expected| Err(InvalidConfig { field, expected });
        if nanos(self.keep) == 0 {
            return refuse("keep", "above zero");
        }
        if nanos(self.lease) == 0 {
            return refuse("lease", "above zero");
        }
        if self.keys_max == 0 {
            return refuse("keys_max", "at least 1");
        }
        Ok(())
    }
}

/// The right to run a request and to record its response.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "complete or abandon it, or its key stays in progress until the lease is over"]
pub struct Ticket {
    key: u64,
    /// 0 records nothing.
    number: u64,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Begin<'a, T> {
    /// It is new: run it.
    Proceed(Ticket),
    /// It is done: answer with this.
    Replay(&'a T),
    /// An earlier one died in progress; whether it took effect is unknown. Find out, then complete or
    /// abandon.
    Unresolved(Ticket),
    /// Refused: in progress ([`Reason::InProgress`]), the key of another request
    /// ([`Reason::KeyReused`]), or no room for another key ([`Reason::LimitReached`]).
    Refused(Rejected),
}

/// What was decided so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that ran.
    pub proceeded: u64,
    /// Requests answered from memory.
    pub replayed: u64,
    /// Requests refused because the same was in progress.
    pub in_progress: u64,
    /// Requests refused because their key belonged to another.
    pub reused: u64,
    /// Requests refused for want of room.
    pub full: u64,
    /// Requests that followed one that died in progress.
    pub unresolved: u64,
    /// Responses that came after their lease, when a successor had taken over.
    pub late: u64,
    /// Requests that ran only because of [`Mode::Shadow`].
    pub shadowed: u64,
}

#[derive(Clone, Debug)]
struct Record<T> {
    fingerprint: u64,
    number: u64,
    /// The end of the lease while in progress, of the keeping once done.
    until: Time,
    response: Option<T>,
}

/// Remembers requests by idempotency key, with responses `T`.
#[derive(Clone, Debug)]
pub struct Idempotency<T> {
    config: Config,
    records: Keyed<Record<T>>,
    /// Records done, in the order of their ends.
    ends: VecDeque<(Time, u64, u64)>,
    last_number: u64,
    counts: Counts,
}

impl<T> Idempotency<T> {
    /// Remembers nothing yet.
    pub fn new(config: Config) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(Idempotency {
            config,
            records: Keyed::new(),
            ends: VecDeque::new(),
            last_number: 0,
            counts: Counts::default(),
        })
    }

    /// A request comes with a key and the fingerprint of all that makes it the same request
    /// (key, user, method, path, body).
    pub fn begin(&mut self, now: Time, key: u64, fingerprint: u64) -> Begin<'_, T> {
        self.forget(now);
        let Some(at) = self.records.find(key) else {
            return self.begin_new(now, key, fingerprint);
        };
        let number = self.last_number + 1;
        let lease_end = now + self.config.lease;
        let record = self.records.at_mut(at);
        let refused = if record.fingerprint != fingerprint {
            self.counts.reused += 1;
            Some(Rejected::new(Reason::KeyReused))
        } else if record.response.is_some() {
            self.counts.replayed += 1;
            None
        } else if record.until > now {
            self.counts.in_progress += 1;
            Some(Rejected::until(Reason::InProgress, record.until))
        } else {
            self.counts.unresolved += 1;
            self.last_number = number;
            record.number = number;
            record.until = lease_end;
            return match self.config.mode {
                Mode::Enforce => Begin::Unresolved(Ticket { key, number }),
                Mode::Shadow => Begin::Proceed(Ticket { key, number }),
            };
        };
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Begin::Proceed(Ticket { key, number: 0 });
        }
        match (refused, &self.records.at(at).1.response) {
            (None, Some(response)) => Begin::Replay(response),
            (refused, _) => Begin::Refused(refused.unwrap_or(Rejected::new(Reason::InProgress))),
        }
    }

    /// The request has run, and this is its response from now on. Whether it was recorded: not if its
    /// lease was over and a successor has taken the key.
    pub fn complete(&mut self, now: Time, ticket: Ticket, response: T) -> bool {
        let until = now + self.config.keep;
        let Some(record) = self.held(&ticket) else {
            return false;
        };
        record.response = Some(response);
        record.until = until;
        // At the back, unless `keep` has been lowered since.
        let at = self.ends.partition_point(|(end, ..)| *end <= until);
        self.ends.insert(at, (until, ticket.key, ticket.number));
        true
    }

    /// The request had no effect: the next one with its key runs. Whether the ticket was still good.
    pub fn abandon(&mut self, ticket: Ticket) -> bool {
        let held = self.held(&ticket).is_some();
        if held {
            self.records.remove(ticket.key);
        }
        held
    }

    /// Keys remembered.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the settings; what is remembered stays for as long as it was promised.
    pub fn set_config(&mut self, config: Config) -> Result<(), InvalidConfig> {
        config.check()?;
        self.config = config;
        Ok(())
    }

    fn begin_new(&mut self, now: Time, key: u64, fingerprint: u64) -> Begin<'_, T> {
        if self.records.len() >= self.config.keys_max as usize {
            self.counts.full += 1;
            if self.config.mode == Mode::Enforce {
                let retry_at = self.ends.front().map(|(until, ..)| *until);
                return Begin::Refused(Rejected { reason: Reason::LimitReached, retry_at });
            }
            self.counts.shadowed += 1;
            return Begin::Proceed(Ticket { key, number: 0 });
        }
        self.counts.proceeded += 1;
        self.last_number += 1;
        let number = self.last_number;
        let until = now + self.config.lease;
        self.records.insert_new(key, Record { fingerprint, number, until, response: None });
        Begin::Proceed(Ticket { key, number })
    }

    /// The record that a ticket still holds.
    fn held(&mut self, ticket: &Ticket) -> Option<&mut Record<T>> {
        let held = self.records.get(ticket.key).is_some_and(|r| r.number == ticket.number);
        if !held {
            self.counts.late += u64::from(ticket.number != 0);
            return None;
        }
        self.records.get_mut(ticket.key)
    }

    /// Drops responses that were kept for long enough.
    fn forget(&mut self, now: Time) {
        while let Some(&(until, key, number)) = self.ends.front() {
            if until > now {
                return;
            }
            self.ends.pop_front();
            if self.records.get(key).is_some_and(|r| r.number == number) {
                self.records.remove(key);
            }
        }
    }
}
