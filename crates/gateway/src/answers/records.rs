//! Answers that a repeated request gets again, by idempotency key (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! The policy decides who runs. A request that ran without anybody knowing what came of it (its client left, the
//! instance fell silent, the connection broke) leaves its key in progress until the lease is over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_policy::idempotency::{Begin, Config, Counts, Idempotency, Ticket};
use plimsoll_policy::{InvalidConfig, Reason, Time};

use super::{Kept, OwnAnswer};
use crate::figures::Own;

/// Bytes of all bodies that are kept; what comes on top is not. The middleware's layer takes as much.
const BYTES_MAX: usize = 64 << 20;
/// The longest key (Stripe's API).
const KEY_MAX: usize = 255;

/// The requests that a gateway remembers.
#[derive(Debug)]
pub struct Records {
    policy: Mutex<Idempotency<Recorded>>,
    bytes: Arc<AtomicUsize>,
}

/// How a request ended; none if its answer was too large.
#[derive(Debug)]
struct Recorded {
    kept: Option<Arc<Kept>>,
    bytes: Arc<AtomicUsize>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.kept.as_ref().map_or(0, |kept| kept.body.len()), Ordering::Relaxed);
    }
}

/// What to do with a request that has a key.
#[derive(Debug)]
pub enum Begun {
    /// It is made, and this takes in what comes of it.
    Run(Record),
    /// It was made, and this was the answer.
    Replay(Arc<Kept>),
    /// It is answered with this.
    Refused(OwnAnswer),
}

/// The right to make a request and to say how it ended. Dropped, it leaves the key in progress.
#[derive(Debug)]
pub struct Record {
    records: Arc<Records>,
    ticket: Ticket,
}

impl Records {
    /// Nothing is remembered yet.
    pub fn new(config: Config) -> Result<Records, InvalidConfig> {
        Ok(Records { policy: Mutex::new(Idempotency::new(config)?), bytes: Arc::default() })
    }

    /// New settings; what is remembered stays for as long as it was promised.
    pub fn reconfigure(&self, config: Config) -> Result<(), InvalidConfig> {
        self.lock().set_config(config)
    }

    /// A request with this key. `fingerprint` tells it from others that may have the same.
    pub fn begin(self: &Arc<Self>, now: Time, key: u64, fingerprint: u64) -> Begun {
        match self.lock().begin(now, key, fingerprint) {
            // Nobody can look here whether one that died had taken effect: the next one is made, as without a key.
            Begin::Proceed(ticket) | Begin::Unresolved(ticket) => Begun::Run(Record { records: self.clone(), ticket }),
            Begin::Replay(Recorded { kept: Some(kept), .. }) => Begun::Replay(kept.clone()),
            Begin::Replay(Recorded { kept: None, .. }) => Begun::Refused(OwnAnswer::new(409, Own::NotKept)),
            Begin::Refused(rejected) if rejected.reason == Reason::LimitReached => {
                Begun::Refused(OwnAnswer::busy(Own::KeysFull))
            }
            Begin::Refused(rejected) => Begun::Refused(OwnAnswer::refused(rejected, now)),
        }
    }

    /// What was decided so far, and how many keys are remembered.
    pub fn counts(&self) -> (Counts, usize) {
        let policy = self.lock();
        (policy.counts(), policy.len())
    }

    fn lock(&self) -> MutexGuard<'_, Idempotency<Recorded>> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// It has ended with this answer; none if that is too large to be kept. Whoever repeats it is told so by a field
    /// of the answer (the name is Stripe's).
    pub fn complete(self, now: Time, kept: Option<Kept>) {
        let room = |kept: &Kept| {
            let more = |all: usize| all.checked_add(kept.body.len()).filter(|all| *all <= BYTES_MAX);
            self.records.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        let kept = kept.filter(room).map(|mut kept| {
            kept.head.extend_from_slice(b"idempotent-replayed: true\r\n");
            Arc::new(kept)
        });
        let recorded = Recorded { kept, bytes: self.records.bytes.clone() };
        self.records.lock().complete(now, self.ticket, recorded);
    }

    /// It had no effect: the next one is made.
    pub fn abandon(self) {
        self.records.lock().abandon(self.ticket);
    }
}

/// A key without the quotes that the draft has around it and many clients leave out; none if it is no key.
pub fn key(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let key = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (1..=KEY_MAX).contains(&key.len()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize) -> Kept {
        Kept { id: "".into(), head: b"HTTP/1.1 200 OK\r\n".to_vec(), body: vec![0; bytes], status: 200, at: Time::ZERO }
    }

    fn run(records: &Arc<Records>, key: u64) -> Record {
        match records.begin(Time::ZERO, key, key) {
            Begun::Run(record) => record,
            other => panic!("{key}: {other:?}"),
        }
    }

    #[test]
    fn a_repeated_request_gets_the_first_ones_answer() {
        let records = Arc::new(Records::new(Config::default()).unwrap());
        let first = run(&records, 1);
        assert!(matches!(records.begin(Time::ZERO, 1, 1), Begun::Refused(OwnAnswer { status: 409, .. })));
        first.complete(Time::ZERO, Some(kept(3)));
        let Begun::Replay(again) = records.begin(Time::ZERO, 1, 1) else { panic!("no replay") };
        assert_eq!(again.body.len(), 3);
        assert!(again.head.ends_with(b"idempotent-replayed: true\r\n"));
        assert!(matches!(records.begin(Time::ZERO, 1, 2), Begun::Refused(OwnAnswer { status: 422, .. })));
    }

    #[test]
    fn what_is_kept_is_bounded_and_given_back() {
        let records = Arc::new(Records::new(Config::default()).unwrap());
        run(&records, 1).complete(Time::ZERO, Some(kept(BYTES_MAX - 1)));
        run(&records, 2).complete(Time::ZERO, Some(kept(2)));
        let no_room = OwnAnswer::new(409, Own::NotKept);
        assert!(matches!(records.begin(Time::ZERO, 2, 2), Begun::Refused(own) if own == no_room));
        let tomorrow = Time::ZERO + Config::default().keep + std::time::Duration::from_secs(1);
        let Begun::Run(record) = records.begin(tomorrow, 2, 2) else { panic!("it is forgotten") };
        record.complete(tomorrow, Some(kept(2)));
        assert!(matches!(records.begin(tomorrow, 2, 2), Begun::Replay(_)));
    }

    #[test]
    fn keys_come_with_and_without_quotes() {
        assert_eq!(key(b" \"a b\" "), Some(&b"a b"[..]));
        assert_eq!(key(b"a"), Some(&b"a"[..]));
        assert_eq!(key(b"\"\""), None);
        assert_eq!(key(&[b'a'; KEY_MAX + 1]), None);
    }
}
