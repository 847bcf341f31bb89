use std::sync::Arc;

use plimsoll_model::run::{EventKind, Totals};
use plimsoll_model::system::{Dist, Lease, ServiceId};
use plimsoll_policy::Time;

use super::kept::{Kept, Turn};
use crate::clock::Clock;
use crate::tally::{Of, Tally};

const OF: Of = Of::Lease(0);

/// A lease of 3 s, and what it has counted.
struct Tried {
    kept: Kept,
    tally: Arc<Tally>,
}

fn tried(fencing: bool, lock: bool) -> Tried {
    let spec = Lease {
        name: "leader".to_owned(),
        service: ServiceId(0),
        ttl: 3_000_000_000,
        renew: 1_000_000_000,
        write_every: 0,
        write: Dist::Constant(0),
        fencing,
        line: 1,
    };
    let tally = Arc::new(Tally::new(Clock::start()));
    Tried { kept: Kept::new(&spec, lock, 0, OF, tally.clone()).unwrap(), tally }
}

fn at(seconds: u64) -> Time {
    Time::from_nanos(seconds * 1_000_000_000)
}

impl Tried {
    fn counted(&self) -> (Totals, Vec<EventKind>) {
        let report = self.tally.report();
        let totals = report.deltas.iter().find(|(of, _)| *of == OF).map(|(_, delta)| delta.totals).unwrap_or_default();
        (totals, report.events.iter().map(|event| event.kind).collect())
    }

    fn queue(&self) -> f64 {
        let report = self.tally.report();
        report.deltas.iter().find(|(of, _)| *of == OF).map_or(f64::NAN, |(_, delta)| delta.levels["queue"].1)
    }
}

#[test]
fn a_late_write_is_fenced_off_or_splits_the_brain() {
    for fencing in [true, false] {
        let mut of = tried(fencing, false);
        let old = of.kept.acquire(at(0), 0, "api/1").unwrap();
        assert!(of.kept.write(old.token, 0, "api/1"));
        let held = of.kept.acquire(at(2), 1, "api/2").unwrap_err();
        assert_eq!(held.retry_at, Some(at(3)));
        // The first has stopped: the second has it when its time is over.
        let new = of.kept.acquire(at(3), 1, "api/2").unwrap();
        assert!(new.token > old.token);
        assert_eq!(of.kept.write(old.token, 0, "api/1"), !fencing);
        let (totals, events) = of.counted();
        assert_eq!((totals.offered, totals.ok), (2, 2 - u64::from(fencing)));
        assert_eq!((totals.rejected, totals.duplicates), (u64::from(fencing), u64::from(!fencing)));
        let late: &[EventKind] =
            if fencing { &[EventKind::Fenced, EventKind::LeaseLost] } else { &[EventKind::SplitBrain] };
        assert_eq!(events, [&[EventKind::LeaseTaken, EventKind::LeaseTaken], late].concat());
    }
}

#[test]
fn what_is_lost_is_told_once() {
    let mut of = tried(true, false);
    let first = of.kept.acquire(at(0), 0, "api/1").unwrap().token;
    assert!(of.kept.renew(at(2), first, 0, "api/1").is_ok());
    assert!(of.kept.renew(at(5), first, 0, "api/1").is_err(), "its time was over at 5 s");
    of.kept.lost(0, first, "api/1", "it says so");
    of.kept.gone(0, "api/1");
    assert_eq!(of.counted().1, [EventKind::LeaseTaken, EventKind::LeaseLost]);
    // One that is gone without giving it back blocks it for as long as it has it, one that does not does not.
    let second = of.kept.acquire(at(6), 0, "api/1").unwrap().token;
    of.kept.gone(0, "api/1");
    assert!(of.kept.acquire(at(8), 1, "api/2").is_err());
    assert!(of.kept.acquire(at(8), 0, "api/1").unwrap().token > second, "a new process under the old name");
    let third = of.kept.acquire(at(8), 0, "api/1").unwrap().token;
    of.kept.give_back(third, 0, "api/1");
    assert!(of.kept.acquire(at(8), 1, "api/2").is_ok());
}

fn now(turn: Turn) -> plimsoll_policy::lease::Token {
    match turn {
        Turn::Now(token) => token,
        Turn::Later(_) => panic!("it should not have to wait"),
    }
}

fn later(turn: Turn) -> tokio::sync::oneshot::Receiver<plimsoll_policy::lease::Token> {
    match turn {
        Turn::Now(token) => panic!("it has it, with {}", token.get()),
        Turn::Later(comes) => comes,
    }
}

#[test]
fn a_lock_is_taken_in_turn() {
    let mut of = tried(true, true);
    let first = now(of.kept.take(at(0), "api/1", 1));
    let mut second = later(of.kept.take(at(0), "api/2", 2));
    let gone = later(of.kept.take(at(0), "api/2", 3));
    let mut fourth = later(of.kept.take(at(0), "api/3", 4));
    assert_eq!(of.queue(), 3.0);
    assert!(second.try_recv().is_err());
    assert!(of.kept.unlock(at(1), first, true, "api/1"));
    let token = second.try_recv().unwrap();
    // One whose caller has gone is passed over, one that leaves the line too.
    drop(gone);
    let fifth = later(of.kept.take(at(1), "api/3", 5));
    of.kept.leave(5);
    drop(fifth);
    assert!(of.kept.unlock(at(2), token, false, "api/2"), "steps that fail give it back too");
    let last = fourth.try_recv().unwrap();
    assert!(of.kept.unlock(at(2), last, true, "api/3"));
    let (totals, events) = of.counted();
    assert_eq!((totals.ok, totals.failed), (3, 2));
    assert!(events.is_empty());
}

#[test]
fn a_lock_that_is_not_renewed_runs_out() {
    for fencing in [true, false] {
        let mut of = tried(fencing, true);
        let first = now(of.kept.take(at(0), "api/1", 1));
        assert_eq!(of.kept.due(), None, "nobody waits");
        let mut second = later(of.kept.take(at(0), "api/2", 2));
        assert_eq!(of.kept.due(), Some(at(3)));
        assert!(of.kept.renew(at(2), first, 0, "api/1").is_ok());
        of.kept.look(at(4));
        assert!(second.try_recv().is_err() && of.kept.due() == Some(at(5)), "it was renewed");
        of.kept.look(at(5));
        let newer = second.try_recv().unwrap();
        // The first has done its steps since.
        assert_eq!(of.kept.unlock(at(6), first, true, "api/1"), !fencing);
        assert!(of.kept.unlock(at(6), newer, true, "api/2"));
        let (totals, events) = of.counted();
        assert_eq!((totals.rejected, totals.duplicates), (u64::from(fencing), u64::from(!fencing)));
        assert_eq!(events, [EventKind::LeaseLost, if fencing { EventKind::Fenced } else { EventKind::SplitBrain }]);
    }
}

#[test]
fn a_dead_holder_s_lock_is_taken_when_its_time_is_over() {
    let mut of = tried(true, true);
    now(of.kept.take(at(0), "api/1", 1));
    let mut next = later(of.kept.take(at(0), "api/2", 2));
    of.kept.gone(0, "api/1");
    of.kept.look(at(2));
    assert!(next.try_recv().is_err());
    of.kept.look(at(3));
    assert!(next.try_recv().is_ok());
    assert_eq!(of.counted().0.failed, 1);
}
