//! Leases with fencing: at most one holder may change a resource, even if holders pause.
//!
//! ```text
//!   holder A   acquire: token 1 ── pause ──────────────── write with 1 ──► refused
//!   holder B                    (expiry) acquire: token 2 ── write with 2 ──► accepted
//! ```
//!
//! A lease alone does not exclude: its holder can be paused (garbage collection, a stopped VM)
//! between its last look at the clock and its write. So every grant carries a token that grows, the
//! token travels with the write, and the resource refuses a token older than one that it has seen
//! (Gray and Cheriton 1989; Kleppmann, "How to do distributed locking", 2016). No clocks
//! need to agree: each party compares its own times only. A new holder that must know that no write
//! of its predecessor can still arrive passes its token to [`Fence::raise`] before it reads.

use std::time::Duration;

use crate::{Counts, InvalidConfig, Mode, Reason, Rejected, Time, nanos};

/// A lease's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How long a grant holds without renewal. Default: 15 s (Kubernetes leader election,
    /// `LeaseDuration`).
    pub ttl: Duration,
    /// Shadow: grant and accept everything, and count what would have been refused.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Config { ttl: Duration::from_secs(15), mode: Mode::Enforce }
    }
}

/// Proof of a grant, compared by age: a later grant's is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// The token's number, to travel with a write.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The token that a write carries.
    pub const fn from_number(number: u64) -> Self {
        Token(number)
    }
}

/// A lease, as its holder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Grant {
    /// To be passed with every write.
    pub token: Token,
    /// When it ends, by the clock that granted it.
    pub until: Time,
    /// When to renew: after two thirds of the time (Kubernetes renews within 10 of 15 s), so that a
    /// failed renewal can be tried again.
    pub renew_at: Time,
}

/// Who holds one resource: the state of the lease service.
#[derive(Clone, Debug)]
pub struct Lease {
    config: Config,
    held: Option<Held>,
    last_token: u64,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    holder: u64,
    token: Token,
    until: Time,
}

impl Lease {
    /// A lease that nobody holds. `last_token` is the last that was ever granted for this resource,
    /// 0 if none was: a lease service that restarts from 1 would let old holders back in.
    pub fn new(config: Config, last_token: u64) -> Result<Self, InvalidConfig> {
        check(&config)?;
        Ok(Lease { config, held: None, last_token, counts: Counts::default() })
    }

    /// Asks for the lease. The present holder gets a new token too: it may be a new process under
    /// an old name.
    pub fn acquire(&mut self, now: Time, holder: u64) -> Result<Grant, Rejected> {
        let other = self.held.filter(|held| held.until > now && held.holder != holder);
        if let Some(held) = other
            && self.config.mode == Mode::Enforce
        {
            self.counts.rejected += 1;
            return Err(Rejected::until(Reason::Fenced, held.until));
        }
        self.last_token += 1;
        let token = Token(self.last_token);
        let grant = self.grant(now, token);
        if other.is_some() {
            self.counts.shadowed += 1;
        } else {
            self.counts.admitted += 1;
            self.held = Some(Held { holder, token, until: grant.until });
        }
        Ok(grant)
    }

    /// Prolongs a grant that has not ended. One that has ended must be acquired anew, since
    /// another may have held it in between.
    pub fn renew(&mut self, now: Time, token: Token) -> Result<Grant, Rejected> {
        let grant = self.grant(now, token);
        if let Some(held) = self.held.as_mut().filter(|held| held.token == token && held.until > now) {
            held.until = grant.until;
            self.counts.admitted += 1;
            return Ok(grant);
        }
        if self.config.mode == Mode::Shadow {
            self.counts.shadowed += 1;
            return Ok(grant);
        }
        self.counts.rejected += 1;
        Err(Rejected::new(Reason::Fenced))
    }

    /// Gives the lease back before its end. Whether this token held it.
    pub fn release(&mut self, token: Token) -> bool {
        let held = self.held.is_some_and(|held| held.token == token);
        if held {
            self.held = None;
        }
        held
    }

    /// Who holds it now.
    pub fn holder(&self, now: Time) -> Option<u64> {
        self.held.filter(|held| held.until > now).map(|held| held.holder)
    }

    /// When it becomes free unless renewed.
    pub fn next_wake(&self) -> Option<Time> {
        self.held.map(|held| held.until)
    }

    /// The last token granted, to be kept across restarts.
    pub fn last_token(&self) -> u64 {
        self.last_token
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the settings; a present grant keeps its end.
    pub fn set_config(&mut self, config: Config) -> Result<(), InvalidConfig> {
        check(&config)?;
        self.config = config;
        Ok(())
    }

    fn grant(&self, now: Time, token: Token) -> Grant {
        let ttl = nanos(self.config.ttl);
        Grant { token, until: now.plus_nanos(ttl), renew_at: now.plus_nanos(ttl / 3 * 2) }
    }
}

fn check(config: &Config) -> Result<(), InvalidConfig> {
    if nanos(config.ttl) == 0 {
        return Err(InvalidConfig { field: "ttl", expected: "above zero" });
    }
    Ok(())
}

/// The check at the resource. It needs no clock and knows no holders.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    newest: Option<Token>,
    mode: Mode,
    counts: Counts,
}

impl Fence {
    /// A fence that has seen no token.
    pub fn new(mode: Mode) -> Self {
        Fence { newest: None, mode, counts: Counts::default() }
    }

    /// Whether a write with this token may happen. Equal tokens may: one holder writes many times.
    #[inline]
    pub fn check(&mut self, token: Token) -> Result<(), Rejected> {
        if self.newest.is_some_and(|newest| token < newest) {
            if self.mode == Mode::Enforce {
                self.counts.rejected += 1;
                return Err(Rejected::new(Reason::Fenced));
            }
            self.counts.shadowed += 1;
            return Ok(());
        }
        self.newest = Some(token);
        self.counts.admitted += 1;
        Ok(())
    }

    /// Shuts out every older token without a write. A new holder does this before it reads what its
    /// predecessor may still be writing.
    pub fn raise(&mut self, token: Token) {
        self.newest = self.newest.max(Some(token));
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the mode and keeps the state.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 1;
    const B: u64 = 2;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn lease(mode: Mode) -> Lease {
        Lease::new(Config { mode, ..Config::default() }, 0).unwrap()
    }

    #[test]
    fn a_pause_past_the_expiry_refuses_the_late_write() {
        let (mut lease, mut fence) = (lease(Mode::Enforce), Fence::new(Mode::Enforce));
        let a = lease.acquire(at(0), A).unwrap();
        assert_eq!((a.until, a.renew_at), (at(15), at(10)));
        assert_eq!(fence.check(a.token), Ok(()));
        assert_eq!(lease.acquire(at(14), B), Err(Rejected::until(Reason::Fenced, at(15))));
        // A pauses. Its lease ends, B takes over and writes, A wakes up and writes.
        let b = lease.acquire(at(15), B).unwrap();
        assert!(b.token > a.token);
        assert_eq!(fence.check(b.token), Ok(()));
        assert_eq!(fence.check(a.token), Err(Rejected::new(Reason::Fenced)));
        assert_eq!(lease.renew(at(16), a.token), Err(Rejected::new(Reason::Fenced)));
        assert!(!lease.release(a.token));
        assert_eq!(lease.holder(at(16)), Some(B));
    }

    #[test]
    fn raising_the_fence_closes_the_gap_before_the_first_write() {
        let (mut lease, mut fence) = (lease(Mode::Enforce), Fence::new(Mode::Enforce));
        let a = lease.acquire(at(0), A).unwrap();
        let b = lease.acquire(at(20), B).unwrap();
        fence.raise(b.token);
        assert!(fence.check(a.token).is_err());
        fence.raise(a.token);
        assert!(fence.check(a.token).is_err(), "a fence never sinks");
    }

    #[test]
    fn renewal_keeps_the_token_and_ends_with_the_lease() {
        let mut lease = lease(Mode::Enforce);
        let grant = lease.acquire(at(0), A).unwrap();
        let renewed = lease.renew(at(10), grant.token).unwrap();
        assert_eq!((renewed.token, renewed.until), (grant.token, at(25)));
        assert!(lease.renew(at(25), grant.token).is_err(), "over, though nobody else has it");
        assert_eq!(lease.holder(at(25)), None);
    }

    #[test]
    fn released_and_restarted_leases_grow_their_tokens() {
        let mut lease = lease(Mode::Enforce);
        let first = lease.acquire(at(0), A).unwrap();
        let again = lease.acquire(at(1), A).unwrap();
        assert!(again.token > first.token, "a new process under the old name");
        assert!(lease.renew(at(2), first.token).is_err());
        assert!(lease.release(again.token));
        let mut restarted = Lease::new(Config::default(), lease.last_token()).unwrap();
        assert!(restarted.acquire(at(3), B).unwrap().token > again.token);
    }

    #[test]
    fn shadow_refuses_nothing_and_counts() {
        let (mut lease, mut fence) = (lease(Mode::Shadow), Fence::new(Mode::Shadow));
        let a = lease.acquire(at(0), A).unwrap();
        let b = lease.acquire(at(1), B).unwrap();
        assert!(b.token > a.token);
        assert_eq!(lease.holder(at(1)), Some(A), "the state is what enforcing would make it");
        assert!(lease.renew(at(2), b.token).is_ok());
        assert_eq!(lease.counts(), Counts { admitted: 1, rejected: 0, shadowed: 2 });
        assert_eq!((fence.check(b.token), fence.check(a.token)), (Ok(()), Ok(())));
        assert_eq!(fence.counts().shadowed, 1);
    }
}
