//! A real PostgreSQL: started, broken, repaired. ./scripts/packages installs it.
#![allow(clippy::disallowed_methods, reason = "tests wait for what other processes do")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_lab::postgres::{Cluster, Heartbeat, Ledger, Options, PATIENCE};
use plimsoll_lab::process::{Launch, Port, Supervisor};
use plimsoll_lab::proxy::toxic::{Kind, Stream, Toxic};
use plimsoll_lab::proxy::{NewProxy, Proxies};

/// A run's base: one for all tests, so that the template is made once. Runs in it remove what is theirs.
fn supervisor() -> Arc<Supervisor> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
    std::fs::create_dir_all(&base).expect("a folder");
    let launch = Launch { program: env!("CARGO_BIN_EXE_plimsoll-keeper").into(), arguments: Vec::new() };
    Arc::new(Supervisor::start(&launch, &base).expect("a keeper"))
}

fn cluster(supervisor: &Arc<Supervisor>, replicas: usize) -> Cluster {
    let options = Options { replicas, ..Options::default() };
    Cluster::start(supervisor, options).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tests that start servers do so one after another: two cores are few.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn what_the_primary_writes_the_replicas_show() {
    let _turn = turn();
    let supervisor = supervisor();
    let cluster = cluster(&supervisor, 2);
    let session = cluster.connect(0).expect("a connection");
    session.run("CREATE TABLE notes (id int); INSERT INTO notes VALUES (7)", PATIENCE).expect("written");
    assert_eq!(
        session.value("SELECT current_user || current_setting('is_superuser')", PATIENCE).expect("a value"),
        "plimsolloff"
    );
    for replica in [1, 2] {
        cluster.catch_up(replica).expect("caught up");
        assert_eq!(cluster.value(replica, "SELECT id FROM notes").expect("a row"), "7");
        let error = cluster.ask(replica, "INSERT INTO notes VALUES (8)").expect_err("read only").to_string();
        assert!(error.contains("read-only") && error.contains("25006"), "{error}");
    }
    let directory = supervisor.directory().to_owned();
    let pids: Vec<String> = (0..3)
        .map(|node| cluster.value(node, "SELECT pg_backend_pid()").expect("a process"))
        .map(|pid| format!("/proc/{pid}"))
        .collect();
    assert!(pids.iter().all(|pid| Path::new(pid).exists()));
    drop(cluster);
    drop(supervisor);
    assert!(!directory.exists() && !pids.iter().any(|pid| Path::new(pid).exists()));
}

#[test]
fn a_dead_primary_is_followed_by_a_replica_and_comes_back_as_one() {
    let _turn = turn();
    let supervisor = supervisor();
    let mut cluster = cluster(&supervisor, 2);
    let ledger = Ledger::create(&cluster).expect("a ledger");
    let session = cluster.connect(0).expect("a connection");
    for number in 0..100 {
        assert!(ledger.record(number, &session.run(&ledger.insert(number), PATIENCE)));
    }
    (1..3).for_each(|replica| cluster.catch_up(replica).expect("caught up"));
    // What is acknowledged from now on reaches nobody.
    for replica in [1, 2] {
        cluster.freeze(replica).expect("frozen");
    }
    for number in 100..110 {
        assert!(ledger.record(number, &session.run(&ledger.insert(number), PATIENCE)));
    }
    cluster.kill(0).expect("killed");
    for replica in [1, 2] {
        cluster.thaw(replica).expect("thawed");
    }
    assert!(session.run(&ledger.insert(110), PATIENCE).is_err());
    let next = cluster.most_advanced().expect("a replica");
    let promotion = cluster.promote(next).expect("promoted");
    assert_eq!((promotion.from, promotion.to, cluster.primary()), (0, next, next));
    // Bytes that the killed kernel had sent already may have arrived; what had not is lost, and known.
    let lost = ledger.lost(&cluster).expect("counted");
    assert!(lost.iter().all(|number| (100..110).contains(number)), "{lost:?}");
    assert_eq!(ledger.acknowledged(), 110);
    let session = cluster.connect(next).expect("a connection");
    session.run(&ledger.insert(200), PATIENCE).expect("the new primary takes writes");
    let error = cluster.restart(0).expect_err("it has what others do not").to_string();
    assert_eq!(error, "postgres-0 was primary: it has to rejoin");
    cluster.rejoin(0).expect("rejoined");
    for replica in (0..3).filter(|node| *node != next) {
        cluster.catch_up(replica).expect("caught up");
        let count = cluster.value(replica, "SELECT count(*) FROM plimsoll_ledger WHERE number IN (99, 200)");
        assert_eq!(count.expect("a count"), "2");
        let only_there =
            cluster.value(replica, "SELECT count(*) FROM plimsoll_ledger WHERE number BETWEEN 100 AND 109");
        assert_eq!(only_there.expect("a count"), (10 - lost.len()).to_string());
    }
    // And back again: in order this time, so that nothing is lost.
    for number in 300..400 {
        assert!(ledger.record(number, &session.run(&ledger.insert(number), PATIENCE)));
    }
    let before = ledger.lost(&cluster).expect("counted");
    cluster.promote(0).expect("promoted");
    cluster.rejoin(next).expect("rejoined");
    assert_eq!(ledger.lost(&cluster).expect("counted"), before);
    cluster.catch_up(next).expect("caught up");
}

#[test]
fn a_replica_that_is_ahead_of_the_new_primary_is_set_back() {
    let _turn = turn();
    let supervisor = supervisor();
    let proxies = Proxies::start(1, None).expect("proxies");
    let primary = Port::free().expect("a port").number();
    let edge = NewProxy::to("replication", &format!("127.0.0.1:{primary}"));
    let edge = proxies.set().create(edge).expect("a proxy").listen.parse().expect("an address");
    let options =
        Options { replicas: 2, routes: BTreeMap::from([((2, 0), edge)]), ports: vec![primary], ..Options::default() };
    let mut cluster = Cluster::start(&supervisor, options).unwrap_or_else(|error| panic!("{error}"));
    let ledger = Ledger::create(&cluster).expect("a ledger");
    let session = cluster.connect(0).expect("a connection");
    assert!(ledger.record(1, &session.run(&ledger.insert(1), PATIENCE)));
    cluster.catch_up(2).expect("caught up");
    proxies.set().update("replication", plimsoll_lab::proxy::Change::enable(false)).expect("down");
    assert!(ledger.record(2, &session.run(&ledger.insert(2), PATIENCE)));
    cluster.catch_up(1).expect("caught up");
    cluster.kill(0).expect("killed");
    assert_eq!(cluster.most_advanced().expect("a replica"), 1);
    cluster.promote(2).expect("promoted all the same");
    assert_eq!(ledger.lost(&cluster).expect("counted"), [2]);
    cluster.catch_up(1).expect("it follows");
    assert_eq!(cluster.value(1, "SELECT count(*) FROM plimsoll_ledger").expect("a count"), "1");
}

#[test]
fn a_failover_under_load_loses_what_no_replica_had_unless_commits_wait_for_one() {
    let _turn = turn();
    for synchronous in [0, 1] {
        let supervisor = supervisor();
        let options = Options { replicas: 2, synchronous, ..Options::default() };
        let mut cluster = Cluster::start(&supervisor, options).unwrap_or_else(|error| panic!("{error}"));
        let ledger = Ledger::create(&cluster).expect("a ledger");
        let (next, over) = (AtomicI64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let session = cluster.connect(0).expect("a connection");
                let (ledger, next, over) = (&ledger, &next, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        ledger.record(number, &session.run(&ledger.insert(number), Duration::from_secs(5)));
                    }
                });
            }
            until("there is load", || ledger.acknowledged() > 500);
            cluster.kill(0).expect("killed");
            over.store(true, Ordering::Relaxed);
        });
        let to = cluster.most_advanced().expect("a replica");
        cluster.promote(to).expect("promoted");
        let lost = ledger.lost(&cluster).expect("counted");
        println!("synchronous {synchronous}: {} of {} acknowledged rows lost", lost.len(), ledger.acknowledged());
        if synchronous > 0 {
            assert_eq!(lost, [0; 0]);
        }
        // Of what was acknowledged a moment before, hardly anything can be missing.
        assert!(lost.len() < ledger.acknowledged() / 2, "{} of {}", lost.len(), ledger.acknowledged());
    }
}

#[test]
fn a_frozen_primary_answers_nobody_and_is_fenced_when_another_takes_over() {
    let _turn = turn();
    let supervisor = supervisor();
    let mut cluster = cluster(&supervisor, 1);
    // Every process of it: a backend that went on would go on serving.
    assert!(cluster.freeze(0).expect("frozen") > 5);
    let session = cluster.sql().connect(cluster.address(0), "postgres", "postgres", Duration::from_millis(200));
    let error = session.expect_err("no answer");
    assert_eq!(error.code, None);
    cluster.thaw(0).expect("thawed");
    assert_eq!(cluster.value(0, "SELECT 1").expect("an answer"), "1");
    cluster.freeze(0).expect("frozen");
    cluster.promote(1).expect("promoted");
    assert!(!cluster.lives(0));
    assert_eq!(cluster.value(1, "SELECT pg_is_in_recovery()").expect("a value"), "f");
    cluster.rejoin(0).expect("rejoined");
    assert_eq!(cluster.value(0, "SELECT pg_is_in_recovery()").expect("a value"), "t");
}

#[test]
fn a_replica_that_lags_is_seen_by_its_heartbeat() {
    let _turn = turn();
    let supervisor = supervisor();
    let proxies = Proxies::start(1, None).expect("proxies");
    let primary = Port::free().expect("a port").number();
    let edge = NewProxy::to("replication", &format!("127.0.0.1:{primary}"));
    let edge = proxies.set().create(edge).expect("a proxy").listen.parse().expect("an address");
    let routes = BTreeMap::from([((1, 0), edge)]);
    let options = Options { replicas: 1, routes, ports: vec![primary], ..Options::default() };
    let cluster = Cluster::start(&supervisor, options).unwrap_or_else(|error| panic!("{error}"));
    let heartbeat = Heartbeat::start(&cluster, |_| {}).expect("a heartbeat");
    let staleness = || heartbeat.staleness(&cluster, 1, PATIENCE).expect("a staleness");
    let fresh = Duration::from_millis(400);
    let stale = Duration::from_millis(1000);
    until("it is fresh", || staleness().age < fresh);

    cluster.delay_apply(1, Duration::from_secs(600)).expect("delayed");
    until("it is late", || staleness().age > stale);
    cluster.delay_apply(1, Duration::ZERO).expect("not any more");
    until("it is fresh again", || staleness().age < fresh);

    cluster.pause_replay(1).expect("paused");
    until("it is late", || staleness().age > stale && staleness().bytes.is_some_and(|bytes| bytes > 0));
    cluster.resume_replay(1).expect("resumed");
    until("it is fresh again", || staleness().age < fresh);

    // Nobody hears of a partition: the server's own lag stays as it was.
    let partition = Kind::new("partition").expect("a type");
    let toxic = Toxic { name: "cut".to_owned(), stream: Stream::Downstream, toxicity: 1.0, kind: partition };
    proxies.set().add("replication", toxic.into()).expect("a toxic");
    until("it is late", || staleness().age > stale);
    let state = cluster.value(0, "SELECT state FROM pg_stat_replication").expect("a state");
    assert_eq!(state, "streaming");
    proxies.set().remove("replication", "cut").expect("removed");
    until("it is fresh again", || staleness().age < fresh);
    assert_eq!(heartbeat.staleness(&cluster, 0, PATIENCE).expect("the primary's own").bytes, Some(0));
}

#[test]
fn a_migration_locks_a_table_and_nothing_else() {
    let _turn = turn();
    let supervisor = supervisor();
    let cluster = cluster(&supervisor, 0);
    let session = cluster.connect(0).expect("a connection");
    session.run("CREATE TABLE notes (id int); CREATE TABLE others (id int)", PATIENCE).expect("tables");
    let lock = cluster.lock_table("notes").expect("locked");
    let brief = "SET lock_timeout = '100ms'; ";
    let error = session.run(&format!("{brief}SELECT * FROM notes"), PATIENCE).expect_err("locked");
    assert_eq!(error.code.as_deref(), Some("55P03"));
    session.run(&format!("{brief}SELECT * FROM others"), PATIENCE).expect("not locked");
    drop(lock);
    session.run("SET lock_timeout = 0; SELECT * FROM notes", PATIENCE).expect("not locked any more");
    let error = cluster.lock_table("nothing").expect_err("no such table").to_string();
    assert!(error.contains("does not exist"), "{error}");
}

#[test]
fn connections_run_out_and_come_back() {
    let _turn = turn();
    let supervisor = supervisor();
    let options = Options { max_connections: 20, ..Options::default() };
    let cluster = Cluster::start(&supervisor, options).unwrap_or_else(|error| panic!("{error}"));
    let held = cluster.connect(0).expect("there is room");
    let exhaustion = cluster.exhaust(0).expect("exhausted");
    assert!((10..=20).contains(&exhaustion.taken()), "{}", exhaustion.taken());
    let error = cluster.connect(0).expect_err("none is left").to_string();
    assert!(error.contains("53300"), "{error}");
    let before = exhaustion.taken();
    held.run("SELECT 1", PATIENCE).expect("who has one keeps it");
    drop(held);
    until("what becomes free is taken", || exhaustion.taken() > before);
    assert_eq!(cluster.value(0, "SELECT 1").expect("the superuser's are kept"), "1");
    drop(exhaustion);
    until("they are back", || cluster.connect(0).is_ok());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let _turn = turn();
    let supervisor = supervisor();
    let settings = vec![("shared_buffers".to_owned(), "much".to_owned())];
    let error =
        Cluster::start(&supervisor, Options { settings, ..Options::default() }).expect_err("no server").to_string();
    assert!(error.contains("postgres-0") && error.contains("shared_buffers"), "{error}");
}
