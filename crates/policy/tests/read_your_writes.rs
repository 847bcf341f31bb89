//! Read-your-writes: lagging replicas, bounded waits, failovers and bounded memory.

use std::time::Duration;

use plimsoll_policy::read_your_writes::{Config, Position, Read, ReadYourWrites, Waiting};
use plimsoll_policy::{Mode, Time};
use proptest::prelude::*;

fn ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn on(timeline: u32, lsn: u64) -> Position {
    Position { timeline, lsn }
}

fn sessions(config: Config) -> ReadYourWrites {
    ReadYourWrites::new(config, 1).unwrap()
}

#[test]
fn a_lagging_replica_is_waited_for_and_then_passed_over() {
    let mut sessions = sessions(Config::default());
    assert_eq!(sessions.read(ms(0), 1, on(1, 0), None), Read::Replica, "no writes, no floor");
    sessions.wrote(1, on(1, 500));
    let waiting = Waiting { since: ms(10), floor: on(1, 500) };
    let wait = Read::Wait { until: ms(60), waiting };
    assert_eq!(sessions.read(ms(10), 1, on(1, 499), None), wait);
    assert_eq!(sessions.read(ms(30), 1, on(1, 499), Some(waiting)), wait, "one wait in all");
    assert_eq!(sessions.read(ms(40), 1, on(1, 500), Some(waiting)), Read::Replica);
    assert_eq!(sessions.read(ms(60), 1, on(1, 499), Some(waiting)), Read::Primary);
    assert_eq!(sessions.read(ms(60), 2, on(1, 1), None), Read::Replica, "another session");
    sessions.wrote(1, on(1, 400));
    assert_eq!(sessions.floor(1), 500, "a floor never sinks");
    let counts = sessions.counts();
    assert_eq!((counts.replica, counts.waits, counts.primary), (3, 2, 1));
}

#[test]
fn a_read_does_not_wait_for_what_its_session_writes_meanwhile() {
    let mut sessions = sessions(Config::default());
    sessions.wrote(1, on(1, 500));
    let Read::Wait { waiting, .. } = sessions.read(ms(10), 1, on(1, 499), None) else { panic!("it is behind") };
    sessions.wrote(1, on(1, 600));
    assert_eq!(sessions.read(ms(20), 1, on(1, 500), Some(waiting)), Read::Replica);
    assert!(matches!(sessions.read(ms(20), 1, on(1, 500), None), Read::Wait { .. }), "one that comes now does");
    // A write that a failover has lost is not waited for.
    sessions.failover(450, 2);
    assert_eq!(sessions.read(ms(30), 1, on(2, 450), Some(waiting)), Read::Replica);
}

#[test]
fn no_wait_goes_straight_to_the_primary() {
    let mut sessions = sessions(Config { wait_max: Duration::ZERO, ..Config::default() });
    sessions.wrote(1, on(1, 500));
    assert_eq!(sessions.read(ms(0), 1, on(1, 499), None), Read::Primary);
}

#[test]
fn a_failover_keeps_what_survived_and_tells_what_was_lost() {
    let mut sessions = sessions(Config::default());
    sessions.wrote(1, on(1, 900));
    sessions.wrote(2, on(1, 1_100));
    assert_eq!(sessions.failover(1_000, 2), 1);
    assert_eq!(sessions.failover(1_000, 2), 0, "told twice");
    assert_eq!((sessions.floor(1), sessions.floor(2)), (900, 1_000));
    assert!(!sessions.take_lost(1));
    assert!(sessions.take_lost(2) && !sessions.take_lost(2), "once");

    // A replica that still follows the old primary: fine up to the branch, useless after it.
    assert_eq!(sessions.read(ms(0), 1, on(1, 950), None), Read::Replica);
    assert_eq!(sessions.read(ms(0), 1, on(1, 1_050), None), Read::Primary, "waiting would not help");
    assert_eq!(sessions.read(ms(0), 3, on(1, 1_050), None), Read::Primary, "not even without a floor");
    assert_eq!(sessions.read(ms(0), 2, on(2, 1_000), None), Read::Replica);
    // A commit that the old primary acknowledges late is lost as well.
    sessions.wrote(1, on(1, 1_200));
    assert_eq!((sessions.floor(1), sessions.take_lost(1)), (1_000, true));
    sessions.wrote(1, on(2, 1_001));
    assert!(matches!(sessions.read(ms(0), 1, on(2, 1_000), None), Read::Wait { .. }));
}

#[test]
fn two_failovers_count_the_lower_branch() {
    let mut sessions = sessions(Config::default());
    sessions.failover(1_000, 2);
    sessions.failover(800, 3);
    assert!(!sessions.satisfies(1, on(1, 900)), "900 survived the first and not the second");
    assert!(sessions.satisfies(1, on(1, 800)) && sessions.satisfies(1, on(3, 5_000)));
}

#[test]
fn forgotten_sessions_read_nothing_too_old() {
    let mut sessions = sessions(Config { sessions_max: 4, ..Config::default() });
    for session in 0..20 {
        sessions.wrote(session, on(1, 100 + session));
    }
    assert_eq!((sessions.sessions(), sessions.counts().forgotten), (4, 16));
    for session in 0..20 {
        assert!(sessions.floor(session) >= 100 + session, "{session}");
    }
    assert_eq!(sessions.floor(999), 115, "strangers may have been forgotten: the lowest left first");
    sessions.wrote(0, on(1, 90));
    assert!(sessions.floor(0) >= 100, "a report out of order does not undo what was forgotten");
    sessions.prune(118);
    assert_eq!(sessions.sessions(), 1);
    assert!(sessions.satisfies(17, on(1, 118)) && !sessions.satisfies(19, on(1, 118)));
}

#[test]
fn shadow_counts_and_reads_the_replica() {
    let mut sessions = sessions(Config { mode: Mode::Shadow, ..Config::default() });
    sessions.wrote(1, on(1, 500));
    assert_eq!(sessions.read(ms(0), 1, on(1, 1), None), Read::Replica);
    assert_eq!((sessions.counts().shadowed, sessions.counts().replica), (1, 0));
}

#[test]
fn settings_change_and_floors_stay() {
    let mut sessions = sessions(Config::default());
    for session in 0..100 {
        sessions.wrote(session, on(1, session));
    }
    sessions.set_config(Config { sessions_max: 10, ..Config::default() }).unwrap();
    assert_eq!(sessions.sessions(), 10);
    assert!((0..100).all(|session| sessions.floor(session) >= session));
    let none = Config { sessions_max: 0, ..Config::default() };
    assert_eq!(sessions.set_config(none).unwrap_err().field, "sessions_max");
}

proptest! {
    #[test]
    fn no_session_reads_before_its_own_writes(
        sessions_max in 1u32..6,
        steps in prop::collection::vec((0u8..8, 0u64..10, 0u64..30), 1..300),
    ) {
        let mut sessions = sessions(Config { sessions_max, ..Config::default() });
        let (mut lsn, mut timeline) = (0, 1);
        // The truth: each session's last surviving write.
        let mut wrote = [0u64; 10];
        for (what, session, distance) in steps {
            match what {
                0 => {
                    lsn -= distance.min(lsn);
                    timeline += 1;
                    sessions.failover(lsn, timeline);
                    wrote.iter_mut().for_each(|w| *w = lsn.min(*w));
                }
                1 => sessions.prune(lsn.saturating_sub(distance)),
                2..=4 => {
                    lsn += 1;
                    wrote[session as usize] = lsn;
                    sessions.wrote(session, on(timeline, lsn));
                }
                _ => {
                    let replica = on(timeline, lsn.saturating_sub(distance));
                    if sessions.read(Time::ZERO, session, replica, None) == Read::Replica {
                        prop_assert!(replica.lsn >= wrote[session as usize]);
                    }
                    let primary = sessions.read(Time::ZERO, session, on(timeline, lsn), None);
                    prop_assert_eq!(primary, Read::Replica, "a replica without lag always serves");
                }
            }
        }
    }
}
